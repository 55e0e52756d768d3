//! The fuzz targets under libFuzzer. One program holds all of them: `KLAXON_FUZZ` names the one that runs.

// libFuzzer has the `main`, and calls what this macro makes.
#![no_main]

#[path = "targets/mod.rs"]
mod targets;

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();
    let run = TARGET.get_or_init(|| {
        let name = std::env::var("KLAXON_FUZZ").unwrap_or_default();
        let found = targets::TARGETS.iter().find(|(known, _)| *known == name);
        let Some((_, run)) = found else {
            let known: Vec<_> = targets::TARGETS.iter().map(|(known, _)| *known).collect();
            panic!("KLAXON_FUZZ must name one of {known:?}");
        };
        *run
    });
    run(data);
});
