//! Sites below a centre whose journal is in an Apache Kafka: their uplinks end at any of its nodes, and all of them know.
#![cfg(feature = "kafka")]

mod harness;

use std::collections::BTreeSet;
use std::path::Path;

use harness::kafka::Brokers;
use harness::{Node, Setup, klaxon, scratch, wait_until};
use klaxon_store::kafka::partition_of;
use klaxon_store::kafka::rdkafka::admin::{AdminClient, AdminOptions};
use klaxon_store::kafka::rdkafka::client::DefaultClientContext;
use klaxon_store::kafka::rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::{Value, json};

const UPLINK: &str = "[uplink]\nretry_min = \"20ms\"\nretry_max = \"200ms\"\n";

/// A node of the centre.
fn node(dir: &Path, name: &str, journal: &str) -> Node {
    let journal = journal.replace("[journal]\n", &format!("[journal]\nnode_name = \"{name}\"\n"));
    let sites = "[sites]\nheartbeat = \"1s\"\nsilent_after = \"5s\"\n";
    Setup::new(&dir.join(name)).config(&format!("{journal}\n[node]\nsite = \"noc\"\n{sites}")).start()
}

/// What a site has standing, as a node shows it.
fn stands(node: &Node, site: &str) -> BTreeSet<(String, String, bool, bool)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let row = |alarm: &Value| {
        let is_acknowledged = alarm["acknowledged"].is_object();
        (text(&alarm["resource"]), text(&alarm["severity"]), is_acknowledged, alarm["stale"].is_object())
    };
    let list = node.json(&format!("/alarms?cleared=false&limit=5000&alarm_type=t&site={site}"));
    list["alarms"].as_array().expect("is a list").iter().map(row).collect()
}

/// The hosts of the centre itself: their alarms are its own, whatever partition their names would be in.
#[test]
fn what_agents_report_below_a_centre_in_kafka_counts_once() {
    let Some(mut brokers) = Brokers::one() else { return };
    let scratch = scratch("kafka-agents-");
    let dir = scratch.path();
    let journal = brokers.journal("agents.", "partitions = 4\nspool = true");
    brokers.init(&journal);
    let (one, two) = (node(dir, "one", &journal), node(dir, "two", &journal));
    let is_elsewhere = |name: &String| partition_of(name.as_bytes(), 4) != partition_of(b"noc", 4);
    let name = (0..).map(|n| format!("web-{n}")).find(is_elsewhere).expect("there is one");
    let token = two.cli_ok(&["site", "add", &name, "--kind", "agent"]);
    let config = format!("[node]\nsite = \"noc\"\n{UPLINK}kind = \"agent\"\n");
    let agent = Setup::new(&dir.join(&name)).config(&config).start();
    agent.cli_ok(&["join", &one.base, "--token", token.trim()]);
    let mut said = 0;
    let mut report = |count: usize| {
        for _ in 0..count {
            said += 1;
            // Each is a new one or one more of another, so that nothing can be missing or twice and not be seen.
            let resource = format!("host={name}.disk={}", said % 37);
            agent.send(&json!({ "resource": resource, "alarm_type": "t", "severity": "major" }));
        }
        said
    };
    let counted = |node: &Node| -> u64 {
        let ours = node.alarms().into_iter().filter(|one| one["alarm_type"] == "t" && one["via"] == *name);
        ours.map(|one| one["count"].as_u64().expect("a number")).sum()
    };
    let all_have = |count: usize| [&one, &two].iter().all(|node| counted(node) == count as u64);
    let count = report(300);
    wait_until("both have them", || all_have(count));
    // While the brokers are away the agent keeps what it has; what was on its way comes again.
    for _ in 0..2 {
        report(200);
        brokers.kill(0);
        report(200);
        brokers.run(0);
        brokers.wait(0);
        let count = report(100);
        wait_until("both have them once", || all_have(count));
    }
    // What names another site is not the agent's to report here, and what is behind it comes.
    agent.send(&json!({ "site": "tower-1", "resource": "host=x", "alarm_type": "t", "severity": "major" }));
    let count = report(1);
    wait_until("it goes on", || all_have(count));
    let metrics = one.get("//metrics").expect("answers").body;
    assert!(metrics.lines().any(|line| line == "klaxon_sites_events_rejected_total 1"), "{metrics}");
    // An action finds its alarms.
    let id = two.json("/alarms?alarm_type=t&limit=1")["alarms"][0]["id"].as_str().expect("has an id").to_owned();
    two.cli_ok(&["alarms", "ack", &id]);
    wait_until("it is acknowledged", || {
        one.alarms().iter().any(|alarm| alarm["id"] == *id && alarm["acknowledged"].is_object())
    });
    // It falls silent, and is given up with all that it reported.
    agent.kill();
    let silent = |node: &Node| node.alarms().iter().any(|one| one["alarm_type"] == "klaxon.agent.silent");
    wait_until("it is missed", || silent(&one) && silent(&two));
    one.cli_ok(&["site", "retire", &name]);
    wait_until("nothing of it is left", || {
        [&one, &two].iter().all(|node| node.alarms().iter().all(|one| one["alarm_type"] != "t"))
    });
}

/// What brokers have acknowledged and lost before it was read: the agent still has it.
#[test]
fn what_brokers_lose_of_an_agent_it_sends_again() {
    let Some(brokers) = Brokers::one() else { return };
    let scratch = scratch("kafka-lost-of-agent-");
    let dir = scratch.path();
    let journal = brokers.journal("again.", "partitions = 1");
    brokers.init(&journal);
    let one = node(dir, "one", &journal.replace("[journal]\n", "[journal]\ncorrelate = false\n"));
    let two = node(dir, "two", &journal);
    let token = one.cli_ok(&["site", "add", "web", "--kind", "agent"]);
    let config = format!("[node]\nsite = \"noc\"\n{UPLINK}kind = \"agent\"\n");
    let agent = Setup::new(&dir.join("web")).config(&config).start();
    agent.cli_ok(&["join", &one.base, "--token", token.trim()]);
    let report = |unit: u32| {
        agent.send(&json!({ "resource": format!("host=web.unit={unit}"), "alarm_type": "t", "severity": "major" }));
    };
    let has = |units: u32| stands(&one, "noc").len() == units as usize;
    report(0);
    wait_until("it is there", || has(1));
    // Nobody reads what comes now.
    two.kill();
    let produced = || {
        let text = one.get("//metrics").expect("answers").body;
        let line = text.lines().find(|line| line.starts_with("klaxon_kafka_records_produced_total "));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).unwrap_or(0)
    };
    let before = produced();
    report(1);
    wait_until("the brokers have it", || produced() > before);
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers.addresses().join(",")).create().expect("is a client");
    let mut all = TopicPartitionList::new();
    all.add_partition_offset("again.events", 0, Offset::End).expect("is an offset");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("can be had");
    runtime.block_on(admin.delete_records(&all, &AdminOptions::new())).expect("the broker answers");
    let two = node(dir, "two", &journal);
    report(2);
    wait_until("nothing is missing", || has(3));
    assert!(two.log_text().contains("the brokers have dropped events that nobody had read"));
}

#[test]
fn a_site_below_a_centre_in_kafka_is_known_at_all_its_nodes() {
    let Some(brokers) = Brokers::one() else { return };
    let scratch = scratch("kafka-sites-");
    let dir = scratch.path();
    let journal = brokers.journal("sites.", "partitions = 4");
    brokers.init(&journal);
    let (one, two) = (node(dir, "one", &journal), node(dir, "two", &journal));
    let token = one.cli_ok(&["site", "add", "alpha"]);
    let site = Setup::new(&dir.join("alpha")).config(&format!("[node]\nsite = \"alpha\"\n{UPLINK}")).start();
    for (unit, severity) in [("a", "major"), ("b", "minor"), ("c", "critical")] {
        site.send(&json!({ "resource": format!("unit={unit}"), "alarm_type": "t", "severity": severity }));
    }
    site.cli_ok(&["join", &one.base, "--token", token.trim()]);
    let agree = |site: &Node, nodes: &[&Node]| {
        let at_site = stands(site, "alpha");
        nodes.iter().all(|node| stands(node, "alpha") == at_site)
    };
    wait_until("both have what stands", || stands(&site, "alpha").len() == 3 && agree(&site, &[&one, &two]));
    site.send(&json!({ "resource": "unit=a", "alarm_type": "t", "severity": "cleared" }));
    site.send(&json!({ "resource": "unit=d", "alarm_type": "t", "severity": "warning" }));
    wait_until("what is fresh comes up", || stands(&site, "alpha").len() == 3 && agree(&site, &[&one, &two]));
    // Ordered at the node where the uplink does not end.
    let id = two.json("/alarms?site=alpha&resource=unit%3Dc")["alarms"][0]["id"].as_str().expect("has an id").to_owned();
    two.cli_ok(&["alarms", "ack", &id]);
    wait_until("the order took effect at the site", || {
        stands(&site, "alpha").iter().any(|(unit, _, is_acknowledged, _)| unit == "unit=c" && *is_acknowledged)
    });
    wait_until("and all know", || agree(&site, &[&one, &two]));
    // Somebody copied its disk, with all that proves it, and comes in at the other node: while the first is here it is refused.
    let (backup, copy) = (dir.join("backup"), dir.join("copy"));
    for (what, other, data) in [("backup", &backup, &site.data), ("restore", &backup, &copy)] {
        let output = klaxon().args(["store", what]).arg(other).arg("--data").arg(data).output().expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let kept = std::fs::read_to_string(site.data.join("uplink.json")).expect("can be read");
    assert!(kept.contains(&one.base), "{kept}");
    std::fs::write(copy.join("uplink.json"), kept.replace(&one.base, &two.base)).expect("can be written");
    let double = Setup::new(&copy).config(&format!("[node]\nsite = \"alpha\"\n{UPLINK}")).start();
    double.send(&json!({ "resource": "unit=false", "alarm_type": "t", "severity": "critical" }));
    wait_until("it is refused", || {
        double.json("/uplink/state")["last_error"].as_str().is_some_and(|error| error.contains("another node of this site"))
    });
    let doubled = |node: &Node| node.alarms().into_iter().filter(|one| one["alarm_type"] == "klaxon.site.doubled").count();
    wait_until("it is an alarm", || [&one, &two].iter().all(|node| doubled(node) == 1));
    double.kill();
    site.send(&json!({ "resource": "unit=e", "alarm_type": "t", "severity": "warning" }));
    wait_until("the first goes on", || stands(&site, "alpha").len() == 4 && agree(&site, &[&one, &two]));
    // The node where the uplink ends is killed and comes again.
    one.kill();
    for number in 0..200 {
        let severity = ["major", "minor", "cleared"][number % 3];
        site.send(&json!({ "resource": format!("unit={}", number % 20), "alarm_type": "t", "severity": severity }));
    }
    let one = node(dir, "one", &journal);
    // What the killed one correlated goes on when the group has missed it.
    wait_until("the site is taken", || site.cli(&["site", "rehome", &one.base]).status.success());
    wait_until("what came meanwhile came up", || agree(&site, &[&one, &two]));
    // The site falls silent, for all.
    site.kill();
    for node in [&one, &two] {
        wait_until("all is stale", || stands(node, "alpha").iter().all(|(.., is_stale)| *is_stale));
        let silent =
            node.json("/alarms?cleared=false&alarm_type=klaxon.site.silent")["alarms"].as_array().expect("is a list").len();
        assert_eq!(silent, 1);
    }
}

/// Both are one by all that they say of themselves, so the second is let in; then it is heard that there are two.
#[test]
fn a_copied_disk_that_comes_in_at_another_node_is_found() {
    let Some(brokers) = Brokers::one() else { return };
    let scratch = scratch("kafka-copied-");
    let dir = scratch.path();
    let journal = brokers.journal("copied.", "partitions = 1");
    brokers.init(&journal);
    let (one, two) = (node(dir, "one", &journal), node(dir, "two", &journal));
    let token = one.cli_ok(&["site", "add", "alpha"]);
    let config = format!("[node]\nsite = \"alpha\"\n{UPLINK}");
    let setup = Setup::new(&dir.join("alpha")).config(&config);
    let site = setup.start();
    site.cli_ok(&["join", &one.base, "--token", token.trim()]);
    let report = |site: &Node, unit: &str| {
        site.send(&json!({ "resource": format!("unit={unit}"), "alarm_type": "t", "severity": "major" }));
    };
    let agree = |site: &Node| [&one, &two].iter().all(|node| stands(node, "alpha") == stands(site, "alpha"));
    report(&site, "a");
    wait_until("both have what stands", || stands(&site, "alpha").len() == 1 && agree(&site));
    let data = site.data.clone();
    site.stop();
    let copy = dir.join("copy");
    let done = std::process::Command::new("cp").arg("-a").arg(&data).arg(&copy).status().expect("it runs");
    assert!(done.success());
    let kept = std::fs::read_to_string(copy.join("uplink.json")).expect("can be read");
    std::fs::write(copy.join("uplink.json"), kept.replace(&one.base, &two.base)).expect("can be written");
    let site = setup.start();
    let shown = |node: &Node| node.json("/sites/alpha");
    for node in [&one, &two] {
        wait_until("it is connected to the first", || {
            shown(node)["state"] == "connected" && shown(node)["connected_to"] == "one"
        });
    }
    let double = Setup::new(&copy).config(&config).start();
    let mut units = 1;
    wait_until("the younger connection ends", || {
        // Both have something to say, under the same numbers.
        report(&site, &format!("true-{units}"));
        report(&double, &format!("false-{units}"));
        units += 1;
        std::thread::sleep(std::time::Duration::from_millis(100));
        double.json("/uplink/state")["last_error"].as_str().is_some_and(|error| error.contains("to one, another node of this"))
    });
    let doubled = |node: &Node| node.alarms().into_iter().filter(|one| one["alarm_type"] == "klaxon.site.doubled").count();
    wait_until("it is an alarm", || [&one, &two].iter().all(|node| doubled(node) == 1));
    double.kill();
    wait_until("the first goes on, and nothing of the other is left", || {
        stands(&site, "alpha").len() == units && agree(&site) && shown(&two)["connected_to"] == "one"
    });
}
