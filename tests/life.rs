//! The life of a node from outside: new settings while it runs, its end, what stays when it starts again, and what is made of a
//! copy of it.

mod harness;

use std::path::Path;

use harness::{Node, Setup, klaxon, scratch, wait_until, write_config};
use rustix::process::Signal;
use serde_json::{Value, json};

fn event(resource: &str, severity: &str) -> Value {
    json!({"resource": resource, "alarm_type": "t", "severity": severity})
}

/// Writes the configuration of a running node anew, and has it read.
fn reload(node: &Node, lines: &str, says: &str) {
    let before = node.log_text().len();
    write_config(&node.data.with_extension("toml"), lines);
    node.signal(Signal::HUP);
    wait_until("the reload is told of", || node.log_text()[before..].contains(says));
}

#[test]
fn settings_change_while_a_node_runs_and_bad_ones_do_not() {
    let scratch = scratch("life-");
    let setup = Setup::new(&scratch.path().join("data")).config("[engine]\nactive_alarms_max = 2");
    let node = setup.start();
    // Over the limit it is answered with 422.
    let raise = |n: u32| node.post("/events", &event(&format!("n={n}"), "major").to_string()).expect("answers");
    // The node's own alarm, which tells of the limit, is none of these.
    let count = |node: &Node| node.json("/alarms?alarm_type=t")["alarms"].as_array().expect("a list").len();
    raise(1);
    raise(2);
    raise(3);
    assert_eq!(count(&node), 2, "the limit holds");
    reload(&node, "[engine]\nactive_alarms_max = 20", "new settings are in force");
    // They are an entry of the journal, in order with the events: the next one is already under them.
    wait_until("there is room", || {
        raise(4);
        count(&node) == 3
    });
    reload(&node, "[engine]\nactive_alarms_max = 30\nshelves_mx = 3", "the new settings are refused");
    assert!(node.log_text().contains("shelves_mx"), "the log names what is wrong");
    reload(&node, "[engine]\nactive_alarms_max = 0", "the new settings are refused");
    reload(&node, "[engine\n", "the new settings are refused");
    reload(&node, "[node]\nsite = \"elsewhere\"\n[engine]\nactive_alarms_max = 30", "the new settings are refused");
    assert!(node.log_text().contains("node.site"), "the log names what cannot change");
    for n in 5..40 {
        raise(n);
    }
    // The node's own alarm takes a place, or is one too many, as it was there before or not.
    let raised = count(&node);
    assert!((19..=20).contains(&raised), "the old settings stay, and there are {raised}");
    reload(&node, "[engine]\nactive_alarms_max = 20", "the settings are as they were");
    // After a kill the settings of the file hold, here those of the beginning.
    node.kill();
    let node = setup.start();
    assert_eq!(count(&node), raised, "what was raised stays");
    let over = node.post("/events", &event("n=99", "major").to_string()).expect("answers");
    assert_eq!(over.status, 422, "{}", over.body);
}

#[test]
fn a_node_that_is_told_to_end_finishes_what_it_has() {
    let scratch = scratch("life-");
    let setup = Setup::new(&scratch.path().join("data"));
    let node = setup.start();
    let batch: Vec<_> = (0..4000).map(|n| event(&format!("n={n}"), "major")).collect();
    let body = json!(batch).to_string();
    let answers = std::thread::scope(|scope| {
        let (node, body) = (&node, &body);
        let sent: Vec<_> = (0..6).map(|_| scope.spawn(move || node.post("/events", body))).collect();
        wait_until("it is at work", || node.json("/alarms/summary")["active"] != 0);
        node.signal(Signal::TERM);
        sent.into_iter().map(|sent| sent.join().expect("ends")).collect::<Vec<_>>()
    });
    // Each was answered, or was never read: none was cut off after its events were taken.
    let taken = answers.iter().flatten().filter(|reply| reply.status == 200).count();
    assert!(answers.iter().flatten().all(|reply| [200, 503].contains(&reply.status)), "{answers:?}");
    assert!(taken > 0);
    let (data, log) = (node.data.clone(), node.log.clone());
    assert!(node.stop().success(), "the exit code is 0");
    assert!(!data.join("klaxon.sock").exists(), "the socket is gone");
    let log = std::fs::read_to_string(log).expect("there is a log");
    assert!(!log.contains("ERROR") && !log.contains("cut because"), "{log}");
    let node = setup.start();
    let counts: Vec<_> = node.alarms().iter().map(|alarm| alarm["count"].as_u64().expect("a number")).collect();
    assert_eq!(counts.len(), 4000);
    assert!(counts.iter().all(|count| *count == taken as u64), "each answer is a report of each alarm, and nothing else is");
    let log = node.log_text();
    assert!(!log.contains("torn") && !log.contains("built anew"), "a clean end leaves nothing to mend: {log}");
}

#[test]
fn a_node_is_the_same_after_it_was_started_again() {
    let scratch = scratch("life-");
    let setup = Setup::new(&scratch.path().join("data"));
    let node = setup.start();
    node.send(&json!([event("a=1", "major"), event("a=2", "minor"), event("a=2", "cleared")]));
    node.cli_ok(&["alarms", "shelve", "--match", "resource=a=3", "--for", "1h", "--reason", "work"]);
    node.cli_ok(&["alarms", "suppress", "cpu.high", "--reason", "noise"]);
    let shown = |node: &Node| {
        let list = node.json("/alarms?cleared=any&sort=resource");
        (
            list["epoch"].clone(),
            list["alarms"].clone(),
            node.json("/shelves")["shelves"].clone(),
            node.json("/suppressions")["suppressions"].clone(),
            node.history(),
        )
    };
    let before = shown(&node);
    let mut position = node.json("/alarms")["position"].as_u64().expect("a number");
    let mut node = node;
    for life in 0..3 {
        if life == 1 {
            node.kill();
        } else {
            assert!(node.stop().success());
        }
        node = setup.start();
        assert_eq!(shown(&node), before, "life {life}");
        let now = node.json("/alarms")["position"].as_u64().expect("a number");
        assert!(now >= position && now < position + 10, "from {position} to {now}: a start is a few entries");
        position = now;
    }
}

fn offline(dir: &Path) -> Value {
    let output = klaxon().args(["--json", "alarms", "--offline"]).arg(dir).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("prints JSON")
}

#[test]
fn alarms_are_listed_from_the_files_alone() {
    let scratch = scratch("life-");
    let setup = Setup::new(&scratch.path().join("data"));
    let node = setup.start();
    node.send(&json!([event("a=1", "major"), event("a=2", "minor"), event("a=3", "major"), event("a=3", "cleared")]));
    let ids = |list: &Value| {
        let mut ids: Vec<_> = list["alarms"].as_array().expect("a list").iter().map(|alarm| alarm["id"].to_string()).collect();
        ids.sort();
        ids
    };
    let data = node.data.clone();
    assert_eq!(ids(&offline(&data)), ids(&node.json("/alarms")), "beside a node that runs");
    let shown = ids(&node.json("/alarms"));
    node.kill();
    assert_eq!(ids(&offline(&data)), shown, "and when it is gone");
    let nothing = klaxon().args(["alarms", "--offline"]).arg(data.with_extension("none")).output().expect("it runs");
    assert_eq!(nothing.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&nothing.stderr).contains("holds no store"));
}

#[test]
fn a_restored_backup_begins_an_epoch_and_overwrites_nothing() {
    let scratch = scratch("life-");
    let setup = Setup::new(&scratch.path().join("data"));
    let node = setup.start();
    node.send(&event("a=1", "major"));
    let copy = scratch.path().join("copy");
    let [data, copy_text] = [&node.data, &copy].map(|path| path.to_string_lossy().into_owned());
    node.cli_ok(&["store", "backup", "--data", &data, &copy_text]);
    let again = node.cli(&["store", "backup", "--data", &data, &copy_text]);
    assert_eq!(again.status.code(), Some(1), "a backup does not overwrite one");
    let last = node.json("/alarms");
    // What comes after the backup is not in it.
    node.send(&event("a=2", "major"));
    let into_itself = node.cli(&["store", "restore", &copy_text, "--data", &data]);
    assert_eq!(into_itself.status.code(), Some(1), "a store is not overwritten");

    let restored = scratch.path().join("restored");
    let restored_text = restored.to_string_lossy().into_owned();
    node.cli_ok(&["store", "restore", &copy_text, "--data", &restored_text]);
    let engine = |dir: &Path| -> Value {
        let kept = std::fs::read(dir.join("snmp-engine.json")).expect("is kept");
        serde_json::from_slice(&kept).expect("is JSON")
    };
    let first = engine(&node.data);
    let twin = Setup::new(&restored).start();
    let second = engine(&twin.data);
    assert_eq!(second["engine_id"], first["engine_id"], "managers know this node by it");
    let boots = [&first, &second].map(|engine| engine["engine_boots"].as_u64().expect("a number"));
    assert!(boots[1] > boots[0] + 10_000, "the first may have started often since the backup: {boots:?}");
    let list = twin.json("/alarms");
    assert_eq!(list["alarms"], last["alarms"]);
    assert!(list["epoch"].as_u64() > last["epoch"].as_u64(), "{list}");
    // Who followed the first node is told that this is another numbering.
    let mut stream = twin.stream("", Some(&format!("{}-{}", last["epoch"], last["position"])));
    assert_eq!(stream.expect("reset").data["reason"], "other epoch");
    twin.send(&event("a=3", "major"));
    let change = twin.json("/history?limit=1")["changes"][0].clone();
    assert_eq!((&change["epoch"], &change["seq"]), (&list["epoch"], &json!(1)), "changes are numbered anew: {change}");
    assert_eq!(node.json("/alarms?sort=resource&order=asc")["alarms"][1]["resource"], "a=2", "the first node goes on");
}
