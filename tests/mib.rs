//! `klaxon snmp mib` in a real MIB compiler: mib-rs (MIT or Apache-2.0), which carries the base modules of RFC 2578 to 2580.
//! Debian ships none of them in its free part.

mod harness;

use harness::{klaxon, scratch};
use mib_rs::{Loader, Mib};

/// What the program prints, compiled.
fn printed(arguments: &[&str]) -> Mib {
    let output = klaxon().args(["snmp", "mib"]).args(arguments).env_remove("KLAXON_NODE").output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let source = mib_rs::source::memory("KLAXON-ALARM-MIB", output.stdout);
    let mib = Loader::new().source(source).modules(["KLAXON-ALARM-MIB"]).load().expect("compiles");
    let remarks: Vec<String> = mib.diagnostics().iter().map(|diagnostic| format!("{diagnostic:?}")).collect();
    assert!(remarks.is_empty(), "{}", remarks.join("\n"));
    mib
}

fn place(mib: &Mib, name: &str) -> String {
    mib.resolve_oid(name).unwrap_or_else(|error| panic!("{name}: {error:?}")).to_string()
}

#[test]
fn the_module_compiles_with_the_root_that_is_configured() {
    let mib = printed(&[]);
    assert_eq!(place(&mib, "klaxonAlarmRaised"), "1.3.6.1.4.1.8072.9999.9999.7780.0.1");
    assert_eq!(place(&mib, "klaxonAlarmText"), "1.3.6.1.4.1.8072.9999.9999.7780.1.4.1.11");
    assert_eq!(place(&printed(&["--root", "1.3.6.1.4.1.32473.5"]), "klaxonAlarmText"), "1.3.6.1.4.1.32473.5.1.4.1.11");
    let dir = scratch("mib-");
    let file = dir.path().join("klaxon.toml");
    std::fs::write(&file, "[snmp]\nroot_oid = \"1.3.6.1.4.1.32473.6\"\n").expect("is written");
    let configured = printed(&["--config", &file.to_string_lossy()]);
    assert_eq!(place(&configured, "klaxonHeartbeat"), "1.3.6.1.4.1.32473.6.0.9");
}

#[test]
fn a_root_that_cannot_be_is_refused() {
    let refused = klaxon().args(["snmp", "mib", "--root", "1.3.6.1.2.1.118"]).output().expect("it runs");
    assert_eq!(refused.status.code(), Some(2));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("does not stand under 1.3.6.1.4.1"), "{said}");
}
