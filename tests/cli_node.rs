//! The command line and a node: what an operator does on a site that is cut off, from the first event to the store of a node
//! that runs no more.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// How long a node may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(60);

struct Site {
    dir: TempDir,
    node: Child,
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.node.kill();
        let _ = self.node.wait();
    }
}

fn klaxon(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_klaxon"));
    command.args(arguments).current_dir(dir).env_remove("KLAXON_NODE").env_remove("KLAXON_CONFIG").stdin(Stdio::null());
    command
}

impl Site {
    /// A node in a folder of its own, found by its socket there.
    fn start() -> Self {
        let dir = TempDir::new().expect("there is room");
        std::fs::write(
            dir.path().join("k.toml"),
            "[http]\nlisten = \"127.0.0.1:0\"\n[traps]\nlisten = \"127.0.0.1:0\"\n[snmp.agent]\nlisten = \"127.0.0.1:0\"\n[collect]\nenabled = false\n",
        )
        .expect("there is room");
        let mut command = klaxon(dir.path(), &["run", "--config", "k.toml"]);
        let node = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        let site = Self { dir, node };
        let since = Instant::now();
        while site.run(&["--node", "klaxon-data/klaxon.sock", "alarms", "summary"]).status.code() != Some(0) {
            assert!(since.elapsed() < PATIENCE, "the node does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        site
    }

    fn run(&self, arguments: &[&str]) -> Output {
        klaxon(self.dir.path(), arguments).output().expect("it starts")
    }

    /// What it says, where nothing else than success will do.
    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("is UTF-8")
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.ok(&[&["--json"], arguments].concat())).expect("is JSON")
    }
}

#[test]
fn an_operator_at_a_site_that_is_cut_off() {
    let mut site = Site::start();
    let raise = ["event", "send", "--resource", "host=web-1.filesystem=/var", "--type", "disk.full", "--severity", "major"];
    assert!(site.ok(&raise).starts_with("raised  "));
    let list = site.json(&["alarms"]);
    let id = list["alarms"][0]["id"].as_str().expect("is listed").to_owned();
    let short = &id[..8];

    site.ok(&["alarms", "ack", short, "-m", "on it"]);
    let refused = site.run(&["alarms", "ack", short]);
    assert_eq!(refused.status.code(), Some(1), "it is so already");
    site.ok(&["alarms", "assign", short, "--to", "anna"]);
    site.ok(&["alarms", "note", short, "-m", "looked at it"]);
    site.ok(&["alarms", "shelve", short, "--for", "2h", "--reason", "being replaced"]);
    let shown = site.ok(&["alarms", "show", short]);
    for part in ["on it", "to anna", "looked at it", "being replaced", "File system nearly full", "100.104"] {
        assert!(shown.contains(part), "{part} is missing in\n{shown}");
    }
    let alarm = &site.json(&["alarms", "--shelved", "--acknowledged", "--min-severity", "major"])["alarms"][0];
    assert_eq!(alarm["id"], *id);
    assert_ne!(alarm["acknowledged"]["by"], Value::Null, "it is known by its login name");
    assert!(site.ok(&["why", short]).contains("because"));

    site.ok(&["alarms", "shelve", "--match", "type=cpu.high", "--for", "1h", "--reason", "noise"]);
    site.ok(&["event", "send", "--resource", "host=web-2", "--type", "cpu.high", "--severity", "critical"]);
    assert_eq!(site.json(&["alarms", "--shelved=false"])["alarms"], Value::Array(Vec::new()));
    let shelf = site.json(&["alarms", "shelves"])["shelves"][0]["id"].as_str().expect("stands").to_owned();
    site.ok(&["alarms", "unshelve", "--shelf", &shelf]);
    site.ok(&["alarms", "suppress", "cpu.high", "--reason", "known"]);
    assert!(site.ok(&["alarms", "suppressions"]).contains("known"));
    site.ok(&["alarms", "unsuppress", "cpu.high"]);
    site.ok(&["alarms", "clear", "--all", "--type", "cpu.high", "-m", "cool again"]);
    site.ok(&["alarms", "purge", "--all"]);
    assert_eq!(site.run(&["alarms", "show", "ffff"]).status.code(), Some(4));
    let kinds: Vec<Value> = site.json(&["history", "--type", "cpu.high", "--order", "asc"])["changes"]
        .as_array()
        .expect("is a list")
        .iter()
        .map(|change| change["kind"].clone())
        .collect();
    // It was raised onto the shelf that stood already, in one change.
    for kind in ["raised", "unshelved", "suppressed", "unsuppressed", "cleared", "purged"] {
        assert!(kinds.contains(&Value::from(kind)), "{kind} is missing in {kinds:?}");
    }

    assert!(site.ok(&["store", "verify"]).contains("is sound"));
    site.ok(&["store", "backup", "copy"]);
    let second = site.run(&["run", "--config", "k.toml"]);
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("in use by process"));

    rustix::process::kill_process(rustix::process::Pid::from_child(&site.node), rustix::process::Signal::TERM)
        .expect("it runs");
    assert!(site.node.wait().expect("ends").success());
    assert_eq!(site.json(&["alarms", "--offline", "klaxon-data"])["alarms"][0]["id"], *id);
    site.ok(&["store", "rebuild"]);
    assert_eq!(site.json(&["store", "info"])["view"], "fjall");
    assert!(site.ok(&["store", "info"]).contains("kept by fjall"));
    site.ok(&["store", "restore", "copy", "--data", "restored"]);
    assert_eq!(site.json(&["store", "info", "restored"])["view"], Value::Null);
    assert_eq!(site.run(&["store", "restore", "copy", "--data", "restored"]).status.code(), Some(1), "it is there already");
    assert_eq!(site.json(&["alarms", "--offline", "restored"])["alarms"][0]["id"], *id);
}
