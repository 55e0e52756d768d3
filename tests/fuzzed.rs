//! The fuzz targets as an ordinary test: over the committed corpus, and over pieces of it that were put together wrongly.
//! `./dev fuzz` runs the same functions under libFuzzer.

mod harness;
#[path = "../fuzz/targets/mod.rs"]
mod targets;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use harness::{Chance, is_long, seeds};

/// The files of a target's corpus, by name, so that a seed means the same everywhere.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(&dir).expect("a target has a corpus").map(|entry| entry.expect("is listed").path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} is empty", dir.display());
    paths.iter().map(|path| std::fs::read(path).expect("can be read")).collect()
}

/// What breaks parsers, beside chance.
const WORDS: [&[u8]; 22] = [
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"=",
    b".",
    b"null",
    b"-1",
    b"18446744073709551616",
    b"1e999",
    b"\\ud800",
    b"\\u0000",
    "\u{1f}".as_bytes(),
    "\u{feff}".as_bytes(),
    b"\xff",
    b"\0",
    "ü".as_bytes(),
    b"9999-12-31T23:59:60Z",
];

/// One of the corpus, damaged a few times.
fn mutated(chance: &mut Chance, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut pick = |bound: usize| usize::try_from(chance.below(bound as u64)).expect("is small");
    let mut bytes = corpus[pick(corpus.len())].clone();
    for _ in 0..=pick(4) {
        let at = pick(bytes.len() + 1);
        let end = (at + pick(16)).min(bytes.len());
        match pick(6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << pick(8),
            1 => drop(bytes.drain(at..end)),
            2 => drop(bytes.splice(at..end, WORDS[pick(WORDS.len())].iter().copied())),
            3 => bytes.truncate(at),
            4 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => {
                let other = &corpus[pick(corpus.len())];
                bytes.truncate(at);
                bytes.extend(&other[pick(other.len() + 1)..]);
            }
        }
    }
    bytes
}

/// Runs a target, and says which input it was if it panics.
fn run((name, target): targets::Target, seed: u64, input: &[u8]) {
    let outcome = std::panic::catch_unwind(|| target(input));
    assert!(outcome.is_ok(), "{name} broke, seed {seed}: {}", input.escape_ascii());
}

#[test]
fn no_input_breaks_a_promise() {
    for target in targets::TARGETS {
        let corpus = corpus(target.0);
        for input in &corpus {
            run(target, 0, input);
        }
        for seed in seeds(2, 8) {
            let mut chance = Chance::new(seed);
            // As many as there is time for, but always the first ones.
            let (begun, time) = (Instant::now(), Duration::from_millis(if is_long() { 5000 } else { 400 }));
            let mut inputs = 0_u32;
            while inputs < 50 || begun.elapsed() < time {
                let input = mutated(&mut chance, &corpus);
                run(target, seed, &input);
                inputs += 1;
            }
            println!("{}: seed {seed}, {inputs} inputs", target.0);
        }
    }
}
