//! Network namespaces for tests: a test runs itself once more inside one that it makes, and takes it away at the end.

use std::path::Path;
use std::process::Command;

/// Which namespace the test runs in.
const INSIDE: &str = "KLAXON_TEST_NETNS";

/// A namespace by name; it goes with this.
struct Namespace(String);

impl Namespace {
    fn new(name: String) -> Self {
        let made = Command::new("ip").args(["netns", "add", &name]).status();
        assert!(made.expect("ip of iproute2 is there").success(), "namespace {name} is made");
        Self(name)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.0]).status();
    }
}

/// Whether `test` runs inside a namespace of its own and is to go on. If not, it is run there, and fails here as it does there.
/// Needs root; without it the test is passed over, except in CI.
pub(crate) fn is_inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let is_possible =
        rustix::process::geteuid().is_root() && ["/sbin/ip", "/usr/sbin/ip", "/bin/ip"].iter().any(|ip| Path::new(ip).exists());
    if !is_possible {
        assert!(std::env::var_os("CI").is_none(), "CI needs root and ip of iproute2 to make network namespaces");
        return false;
    }
    let namespace = Namespace::new(format!("klaxon-{}-{test}", std::process::id()));
    let program = std::env::current_exe().expect("is known");
    let mut inside = Command::new("ip");
    inside.args(["netns", "exec", &namespace.0]).arg(program).args(["--exact", test, "--nocapture"]).env(INSIDE, &namespace.0);
    assert!(inside.status().expect("runs").success(), "{test} fails inside a network namespace");
    false
}

/// `ip` with `words`, in the namespace that the test runs in.
pub(crate) fn ip(words: &str) {
    assert!(try_ip(words), "ip {words}");
}

/// The same; says whether it was done.
pub(crate) fn try_ip(words: &str) -> bool {
    Command::new("ip").args(words.split_whitespace()).status().expect("runs").success()
}

/// Many commands of `ip` by one process.
pub(crate) fn ip_batch<S: std::borrow::Borrow<str>>(lines: &[S]) {
    use std::io::Write as _;
    let mut file = tempfile::NamedTempFile::new().expect("made");
    file.write_all(lines.join("\n").as_bytes()).expect("written");
    let done = Command::new("ip").arg("-batch").arg(file.path()).status().expect("runs");
    assert!(done.success(), "ip -batch");
}

/// What `ip -j link` says.
pub(crate) fn links() -> Vec<serde_json::Value> {
    let output = Command::new("ip").args(["-j", "-d", "link"]).output().expect("runs");
    serde_json::from_slice(&output.stdout).expect("is JSON")
}
