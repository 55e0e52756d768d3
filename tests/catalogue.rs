//! A catalogue of one's own: StarlingX's becomes a file, the file is taken up with the node and while it runs, and what it says is shown.

mod harness;

use std::path::Path;

use harness::{Setup, klaxon, scratch, wait_until};
use serde_json::json;

const EVENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/starlingx/events.yaml");

fn import(to: &Path) {
    let made = klaxon().args(["catalogue", "import-starlingx", EVENTS, "--output"]).arg(to).output().expect("runs");
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success() && said.contains("6 alarms and 2 log events"), "{said}");
}

#[test]
fn what_starlingx_knows_is_known_here() {
    let scratch = scratch("catalogue-");
    let file = scratch.path().join("starlingx.toml");
    import(&file);
    let config = format!("[catalogue]\nfiles = [{:?}]\n", file.display().to_string());
    let node = Setup::new(&scratch.path().join("data")).config(&config).start();
    let raise = |id: &str, severity: &str| json!({ "resource": "host=a", "alarm_type": id, "severity": severity, "text": "t" });
    node.send(&json!([
        raise("900.110", "critical"),
        raise("900.120", "warning"),
        raise("100.104", "minor"),
        raise("900.400", "warning")
    ]));
    wait_until("three stand", || node.alarms().len() == 3);
    let shown = |id: &str| {
        let alarms = node.json("//v1/alarms?expand=True");
        let found = alarms["alarms"].as_array().and_then(|all| all.iter().find(|alarm| alarm["alarm_id"] == id)).cloned();
        found.unwrap_or_else(|| panic!("{id} is shown: {alarms:#}"))
    };
    let affecting = |id: &str| (shown(id)["mgmt_affecting"].clone(), shown(id)["degrade_affecting"].clone());
    assert_eq!(affecting("900.110"), (json!("True"), json!("False")));
    assert_eq!(affecting("900.120"), (json!("False"), json!("False")));
    assert_eq!(affecting("100.104"), (json!("True"), json!("False")), "a minor one is no critical one");
    assert_eq!(
        (&shown("900.110")["service_affecting"], &shown("900.110")["proposed_repair_action"]),
        (&json!(true), &json!("Look at the line."))
    );
    assert!(
        node.alarms().iter().all(|alarm| alarm["catalogued"] == true && alarm["alarm_type"] != "100.104"),
        "{:#?}",
        node.alarms()
    );
    let types = node.json("//v1/event_suppression");
    let ids: Vec<_> =
        types["event_suppression"].as_array().expect("is a list").iter().map(|one| one["alarm_id"].clone()).collect();
    assert!(
        ids.contains(&json!("900.300")) && !ids.contains(&json!("900.400")),
        "log events are not suppressed there: {ids:?}"
    );
    let told = node.cli_ok(&["catalogue", "show", "900.110"]);
    assert!(told.starts_with("900.110: No tunnel to <peer> is left") && told.contains("hinders management  major"), "{told}");
    assert!(node.cli_ok(&["catalogue"]).contains("900.401"));
}

#[test]
fn a_file_that_changes_is_taken_up_and_one_that_is_wrong_is_not() {
    let scratch = scratch("catalogue-");
    let file = scratch.path().join("own.toml");
    let entry = |title: &str| {
        format!(
            "[[alarm_type]]\nid = \"pump.dry\"\ntitle = {title:?}\nevent_type = \"equipment\"\nprobable_cause = \"pump-failure\"\n\
             severities = [\"major\"]\ntext = \"t\"\nrepair_action = \"r\"\n"
        )
    };
    std::fs::write(&file, entry("dry")).expect("there is room");
    let config = format!("[catalogue]\nfiles = [{:?}]\n", file.display().to_string());
    let node = Setup::new(&scratch.path().join("data")).config(&config).start();
    assert_eq!(node.json("/catalogue/pump.dry")["title"], "dry");
    std::fs::write(&file, entry("runs dry")).expect("there is room");
    node.signal(rustix::process::Signal::HUP);
    wait_until("it is taken up", || node.json("/catalogue/pump.dry")["title"] == "runs dry");
    assert!(node.log_text().contains("the files of catalogue.files"), "{}", node.log_text());

    std::fs::write(&file, entry("a") + &entry("b")).expect("there is room");
    node.signal(rustix::process::Signal::HUP);
    wait_until("it is refused", || node.log_text().contains("own.toml: the catalogue has pump.dry twice"));
    assert_eq!(node.json("/catalogue/pump.dry")["title"], "runs dry");
    let check = |text: &str| {
        std::fs::write(&file, text).expect("there is room");
        let checked = klaxon().args(["catalogue", "check"]).arg(&file).output().expect("runs");
        (
            checked.status.success(),
            String::from_utf8_lossy(&checked.stderr).into_owned() + &String::from_utf8_lossy(&checked.stdout),
        )
    };
    let (is_right, said) = check(&entry("a").replace("major", "bad"));
    assert!(!is_right && said.contains("own.toml:6: ") && said.contains("bad"), "{said}");
    let (is_right, said) = check(&entry("a"));
    assert!(is_right && said.starts_with("1 types; "), "{said}");
}
