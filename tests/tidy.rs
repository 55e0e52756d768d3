//! Rules about the source that no compiler knows: what may depend on what, which crates stay pure, where versions stand.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The longest a source file may grow before it is cut by responsibility.
const LINES_MAX: usize = 800;

/// Which of our crates each of them may use: arrows point down.
const LAYERS: [(&str, &[&str]); 7] = [
    ("schemas", &[]),
    ("correlate", &["schemas"]),
    ("store", &["schemas"]),
    ("api/snmp", &[]),
    ("ingest", &["schemas", "store", "snmp"]),
    ("api", &["schemas", "store", "snmp"]),
    (".", &["schemas", "correlate", "store", "ingest", "api", "snmp"]),
];

/// The crates that do no I/O, are not `async` and know no clock.
const PURE: [&str; 2] = ["schemas", "correlate"];
/// What none of the pure crates may name.
const IMPURE_WORDS: [&str; 12] = [
    "std::fs",
    "std::net",
    "std::io",
    "std::env",
    "std::process",
    "std::thread",
    "SystemTime",
    "Instant",
    "tokio",
    "async fn",
    "async move",
    "Timestamp::now",
];
/// What nobody may build on in a pure crate.
const IMPURE_CRATES: [&str; 6] = ["tokio", "hyper", "axum", "rustix", "fjall", "tracing"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn manifest(crate_dir: &str) -> Option<toml::Table> {
    let text = fs::read_to_string(root().join(crate_dir).join("Cargo.toml")).ok()?;
    Some(text.parse().expect("cargo reads it too"))
}

/// All dependencies of a manifest, with the section they stand in.
fn dependencies(manifest: &toml::Table) -> Vec<(String, toml::Value)> {
    let sections = ["dependencies", "dev-dependencies", "build-dependencies"];
    let tables = sections.iter().filter_map(|section| manifest.get(*section)?.as_table());
    tables.flatten().map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// The files that are part of the project: what git knows or would take.
fn files() -> Vec<PathBuf> {
    let arguments = ["ls-files", "--cached", "--others", "--exclude-standard", "-z"];
    let output = std::process::Command::new("git").args(arguments).current_dir(root()).output();
    let listed = match output {
        Ok(output) if output.status.success() => String::from_utf8(output.stdout).expect("our names are UTF-8"),
        // A tarball has no git; there everything is part of the project.
        _ => return walk(root()),
    };
    listed.split('\0').filter(|name| !name.is_empty()).map(|name| root().join(name)).filter(|path| path.is_file()).collect()
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("is a folder").map(|entry| entry.expect("is listed").path());
    let kept = entries.filter(|path| !matches!(path.file_name().and_then(|name| name.to_str()), Some("target" | ".git")));
    kept.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

fn rust_files(crate_dir: &str) -> Vec<(PathBuf, String)> {
    let source = root().join(crate_dir).join("src");
    let files = files().into_iter().filter(|path| path.starts_with(&source) && path.extension().is_some_and(|end| end == "rs"));
    files.filter_map(|path| Some((path.clone(), fs::read_to_string(&path).ok()?))).collect()
}

/// The lines that are code, as far as a line tells.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line)).filter(|(_, line)| !line.trim_start().starts_with("//"))
}

#[test]
fn arrows_between_crates_point_down() {
    for (dir, allowed) in LAYERS {
        let Some(manifest) = manifest(dir) else { continue };
        for (name, _) in dependencies(&manifest) {
            let Some(ours) = name.strip_prefix("klaxon-") else { continue };
            assert!(allowed.contains(&ours), "{dir} may not depend on {name}; it may use {allowed:?}");
        }
    }
    let workspace = manifest(".").expect("is there");
    let members = workspace["workspace"]["members"].as_array().expect("has members");
    for member in members.iter().filter_map(toml::Value::as_str) {
        assert!(LAYERS.iter().any(|(dir, _)| *dir == member), "say in LAYERS what {member} may use");
    }
}

#[test]
fn versions_stand_in_the_root_manifest_and_nowhere_else() {
    for (dir, _) in LAYERS {
        let Some(manifest) = manifest(dir) else { continue };
        for (name, value) in dependencies(&manifest) {
            let inherited = value.get("workspace").and_then(toml::Value::as_bool) == Some(true);
            assert!(inherited, "{dir}/Cargo.toml: write `{name}.workspace = true`, and the version in the root manifest");
        }
        for key in ["version", "edition", "rust-version", "license"] {
            let value = &manifest["package"][key];
            assert!(value.get("workspace").is_some(), "{dir}/Cargo.toml: write `{key}.workspace = true`");
        }
        let lints = manifest.get("lints").and_then(|lints| lints.get("workspace")).and_then(toml::Value::as_bool);
        assert_eq!(lints, Some(true), "{dir}/Cargo.toml: takes the lints of the workspace");
    }
}

#[test]
fn what_is_pure_stays_pure() {
    for dir in PURE {
        for (name, _) in dependencies(&manifest(dir).expect("is there")) {
            assert!(!IMPURE_CRATES.contains(&name.as_str()), "{dir} is pure and may not use {name}");
        }
        let files = rust_files(dir);
        assert!(!files.is_empty());
        for (path, text) in files {
            // A crate's own tests may do what it may not.
            let (text, _) = text.split_once("#[cfg(test)]").unwrap_or((&text, ""));
            for (line, code) in code_lines(text) {
                for word in IMPURE_WORDS {
                    assert!(!code.contains(word), "{}:{line}: {dir} is pure and may not use {word}", path.display());
                }
            }
        }
    }
}

#[test]
fn a_crate_and_a_file_say_what_they_are_for_and_stay_small() {
    for (dir, _) in LAYERS {
        for (path, text) in rust_files(dir) {
            assert!(text.starts_with("//!"), "{}: open with a `//!` line that says what it is for", path.display());
            let lines = text.lines().count();
            assert!(lines <= LINES_MAX, "{}: {lines} lines; cut it by responsibility", path.display());
        }
    }
}

#[test]
fn nothing_points_out_of_the_project() {
    // Put together here, so that this file does not have them either.
    let registries = ["crates", "io"].join(".");
    let words = [
        format!("index.{registries}"),
        format!("static.{registries}"),
        ["pypi", "org"].join("."),
        ["pythonhosted", "org"].join("."),
        ["deb", "debian", "org"].join("."),
        ["archive", "ubuntu", "com"].join("."),
        ["proxy", "golang", "org"].join("."),
        ["registry", "npmjs", "org"].join("."),
        ["static", "rust-lang", "org"].join("."),
        ["", "work", "shared"].join("/"),
        ["", "work", "main"].join("/"),
        ["", "work", "plan"].join("/"),
        ["..", "shared", ""].join("/"),
    ];
    for path in files() {
        // The lock file names the registry as cargo writes it.
        if path.file_name().is_some_and(|name| name == "Cargo.lock") {
            continue;
        }
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for word in &words {
            assert!(!text.contains(word.as_str()), "{} names {word}", path.display());
        }
    }
}

#[test]
fn rust_is_named_alike_everywhere() {
    let manifest = manifest(".").expect("is there");
    let rust = manifest["workspace"]["package"]["rust-version"].as_str().expect("is a text").to_owned();
    let dev = fs::read_to_string(root().join("dev")).expect("is there");
    assert!(dev.contains(&format!("RUST_MIN={rust}\n")), "./dev asks for another Rust than Cargo.toml");
}

#[test]
fn every_version_is_used() {
    let manifests: Vec<toml::Table> = LAYERS.iter().filter_map(|(dir, _)| manifest(dir)).collect();
    let used: BTreeSet<String> = manifests.iter().flat_map(dependencies).map(|(name, _)| name).collect();
    let declared = manifests.last().expect("the root is the last")["workspace"]["dependencies"].as_table().expect("is a table");
    let idle: Vec<&String> = declared.keys().filter(|name| !used.contains(*name)).collect();
    assert!(idle.is_empty(), "the root manifest has versions of what nobody uses: {idle:?}");
}
