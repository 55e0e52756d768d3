//! Receivers of notifications as they meet a node: told in order, whatever happens to either side, and told no secrets of others.

mod harness;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::{Command, Stdio};

use harness::hook::Hook;
use harness::http::Wire;
use harness::{Node, Setup, Site, scratch, wait_until, write_config};
use serde_json::{Value, json};

/// A receiver `name` at `hook`, with further keys, and keys of its webhook.
fn receiver(name: &str, hook: &Hook, keys: &str, webhook: &str) -> String {
    format!("[receivers.{name}]\n{keys}\n[receivers.{name}.webhook]\nurl = \"{}\"\n{webhook}\n", hook.url())
}

fn event(resource: &str, severity: &str) -> Value {
    json!({ "resource": resource, "alarm_type": "fan.failed", "severity": severity, "text": "said" })
}

fn shown(node: &Node, name: &str) -> Value {
    node.json(&format!("/receivers/{name}"))
}

/// Waits until the receiver has nothing more to be told.
fn wait_caught_up(node: &Node, name: &str) -> Value {
    wait_until("the receiver has caught up", || {
        let now = shown(node, name);
        // The numbering is known once it has been loaded.
        now["epoch"] != 0 && now["lag_changes"] == 0 && now["assigned"] == now["confirmed"] && now["realigning"] == false
    });
    shown(node, name)
}

fn numbers(told: &[Value]) -> Vec<u64> {
    told.iter().filter_map(|one| one["delivery_seq"].as_u64()).collect()
}

fn pick<'a>(told: &'a [Value], keys: &[&str]) -> Vec<Vec<&'a Value>> {
    told.iter().map(|one| keys.iter().map(|key| &one[*key]).collect()).collect()
}

/// What stands as far as a receiver was told: the last alarm of each that was raised and has not left or ended.
fn standing(told: &[Value]) -> BTreeMap<String, Value> {
    let mut stands = BTreeMap::new();
    for one in told.iter().filter(|one| one["what"] == "alarm") {
        let id = one["alarm"]["id"].as_str().expect("has an id").to_owned();
        match one["how"].as_str().expect("is a word") {
            "raised" | "changed" => drop(stands.insert(id, one["alarm"].clone())),
            "left" | "cleared" | "retired" => drop(stands.remove(&id)),
            other => panic!("{other}"),
        }
    }
    stands
}

/// What stands as the command line lists it.
fn listed(node: &Node) -> BTreeMap<String, Value> {
    let list: Value = serde_json::from_str(&node.cli_ok(&["alarms", "--all", "--json"])).expect("is JSON");
    let alarms = list["alarms"].as_array().expect("is a list").iter();
    alarms.map(|alarm| (alarm["id"].as_str().expect("has an id").to_owned(), alarm.clone())).collect()
}

/// HMAC-SHA256 as OpenSSL makes it.
fn openssl_hmac(secret: &str, message: &[u8]) -> String {
    let mut openssl = Command::new("openssl")
        .args(["dgst", "-sha256", "-hmac", secret, "-r"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("there is openssl");
    openssl.stdin.take().expect("is piped").write_all(message).expect("it reads");
    let output = openssl.wait_with_output().expect("it ends");
    String::from_utf8_lossy(&output.stdout).split(' ').next().expect("a word").to_owned()
}

#[test]
fn what_is_raised_arrives_signed_and_as_the_list_shows_it() {
    let hook = Hook::start();
    let webhook = "secret = \"hush-hush\"\nbearer = \"tok-en\"\nheaders = { X-Scope = \"north-gate\" }";
    let config = receiver("noc", &hook, "log_events = true\nfilter = { severity_min = \"minor\" }", webhook);
    let site = Site::start(&format!("{config}\n[log]\nlevel = \"trace\"\n"));
    site.send(&json!([event("host=a", "major"), event("host=b", "warning")]));
    let told = hook.wait_told(1);
    assert_eq!(
        pick(&told, &["delivery_seq", "what", "how", "resent"]),
        [[&json!(1), &json!("alarm"), &json!("raised"), &json!(false)]]
    );
    let listed = site.json("/alarms?severity=major")["alarms"][0].clone();
    assert_eq!(told[0]["alarm"], listed);
    let change = site.json("/history?order=asc")["changes"][0].clone();
    assert_eq!((&told[0]["change"]["seq"], &told[0]["change"]["kind"]), (&change["seq"], &change["kind"]));
    assert_eq!(told[0]["epoch"], shown(&site, "noc")["epoch"]);

    let post = hook.posts()[0].clone();
    let signature = post.header("klaxon-signature").expect("is signed");
    let (at, signed) = signature.strip_prefix("t=").and_then(|rest| rest.split_once(",v1=")).expect("has both parts");
    let message = [at.as_bytes(), b".", &post.body].concat();
    assert_eq!(signed, openssl_hmac("hush-hush", &message));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    assert!(now.abs_diff(at.parse().expect("is a number")) < 60, "{at} {now}");
    assert_eq!((post.header("authorization"), post.header("x-scope")), (Some("Bearer tok-en"), Some("north-gate")));
    assert_eq!((post.path.as_str(), post.header("content-type")), ("/hook", Some("application/json")));

    // As RFC 8632 has it: below the level it has left, and then nothing more is told until it is over or back.
    site.send(&event("host=a", "warning"));
    site.send(&event("host=a", "critical"));
    site.send(&event("host=a", "cleared"));
    site.send(&json!({ "resource": "host=a", "alarm_type": "reboot", "kind": "log", "severity": "major", "text": "up again" }));
    let told = hook.wait_told(5);
    let how: Vec<&Value> = told.iter().map(|one| &one["how"]).collect();
    assert_eq!(how, [&json!("raised"), &json!("left"), &json!("raised"), &json!("cleared"), &Value::Null], "{told:#?}");
    assert_eq!((&told[4]["what"], &told[4]["event"]["text"]), (&json!("log"), &json!("up again")));
    assert_eq!(numbers(&told), [1, 2, 3, 4, 5]);

    let status = wait_caught_up(&site, "noc");
    assert_eq!((&status["state"], &status["kind"], &status["told"]), (&json!("ok"), &json!("webhook"), &json!(0)), "{status}");
    let metrics = site.get("//metrics").expect("it answers").body;
    assert!(metrics.contains("klaxon_receivers_notifications_confirmed_total{receiver=\"noc\"} 5"), "{metrics}");
    let everything = site.log_text() + &metrics + &status.to_string() + &site.cli_ok(&["receivers", "noc"]);
    for secret in ["hush-hush", "tok-en", "north-gate"] {
        assert!(!everything.contains(secret), "{secret} is told to everybody");
    }
}

/// Raises, changes and clears alarms at random, in batches.
fn churn(node: &Node, chance: &mut harness::Chance, batches: usize) {
    for _ in 0..batches {
        let reports: Vec<Value> = (0..100)
            .map(|_| {
                let severity = ["cleared", "warning", "minor", "major", "critical"][chance.below(5) as usize];
                event(&format!("host=h{}", chance.below(40)), severity)
            })
            .collect();
        node.send(&Value::from(reports));
    }
}

/// The changes that a receiver without filter is told of, by alarm and in order: their numbers.
fn to_be_told(node: &Node) -> BTreeMap<String, Vec<u64>> {
    let mut told: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for change in node.history() {
        if let (Some(id), Some(seq)) = (change["alarm"]["id"].as_str(), change["seq"].as_u64()) {
            told.entry(id.to_owned()).or_default().push(seq);
        }
    }
    told
}

#[test]
fn a_receiver_that_was_away_is_told_all_in_order_though_the_node_was_killed() {
    let seed = harness::seeds(1, 4)[0];
    println!("seed {seed}");
    let mut chance = harness::Chance::new(seed);
    let hook = Hook::start();
    let scratch = scratch("receivers-");
    let keys = "fold_after = \"0s\"\nunreachable_after = \"1h\"";
    let config = receiver("noc", &hook, keys, "window = 8\nbatch_max = 5");
    let setup = Setup::new(&scratch.path().join("data")).config(&config);
    let node = setup.start();
    churn(&node, &mut chance, 3);
    wait_caught_up(&node, "noc");
    let address = hook.address;
    let mut told = hook.told();
    drop(hook);

    // It is away: most of it comes now, and the node dies in between, once with things on their way.
    churn(&node, &mut chance, 15);
    node.kill();
    let node = setup.start();
    churn(&node, &mut chance, 15);
    assert!(node.stop().success());
    let node = setup.start();
    churn(&node, &mut chance, 5);
    wait_until("thousands are to be told", || shown(&node, "noc")["lag_changes"].as_u64() > Some(1000));
    let hook = Hook::start_at(address);
    wait_until("it is being told", || hook.count() > 20);
    node.kill();
    let node = setup.start();
    churn(&node, &mut chance, 2);
    wait_caught_up(&node, "noc");
    told.extend(hook.told());

    // A number never means two things, and none is missing.
    let mut by_number: BTreeMap<u64, &Value> = BTreeMap::new();
    let mut twice = 0;
    for one in &told {
        let number = one["delivery_seq"].as_u64().expect("is numbered");
        if let Some(before) = by_number.insert(number, one) {
            assert_eq!((&before["alarm"]["id"], &before["change"]["seq"]), (&one["alarm"]["id"], &one["change"]["seq"]));
            twice += 1;
        }
    }
    println!("{} notifications, {twice} twice", told.len());
    assert_eq!(by_number.keys().copied().collect::<Vec<_>>(), (1..=by_number.len() as u64).collect::<Vec<_>>());
    // At most what was on its way when the node died comes again.
    assert!(twice <= 2 * 8 * 5 + 64, "{twice}");
    let mut of_alarm: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for one in &told {
        let id = one["alarm"]["id"].as_str().expect("is about an alarm").to_owned();
        let seq = one["change"]["seq"].as_u64().expect("has its change");
        let seqs = of_alarm.entry(id).or_default();
        if !seqs.contains(&seq) {
            seqs.push(seq);
        }
    }
    assert_eq!(of_alarm, to_be_told(&node), "each alarm is told in its order, and all of it");
    assert_eq!(standing(&told).into_keys().collect::<BTreeSet<_>>(), listed(&node).into_keys().collect::<BTreeSet<_>>());
}

#[test]
fn away_for_longer_than_history_is_kept_it_gets_a_gap_and_then_what_stands() {
    let mut chance = harness::Chance::new(7);
    let hook = Hook::start();
    let store = "[store]\nsegment_bytes = \"1MiB\"\nhistory_max_bytes = \"2MiB\"\n";
    let keys = "fold_after = \"0s\"\nunreachable_after = \"1h\"";
    let site = Site::start(&(store.to_owned() + &receiver("noc", &hook, keys, "batch_max = 20\nwindow = 4")));
    churn(&site, &mut chance, 2);
    wait_caught_up(&site, "noc");
    let (address, mut told) = (hook.address, hook.told());
    drop(hook);
    let position = site.json("/history?limit=1")["changes"][0]["position"].as_u64().expect("has a place");
    let first_kept = || {
        let metrics = site.get("//metrics").expect("it answers").body;
        let line = metrics.lines().find_map(|line| line.strip_prefix("klaxon_journal_first_position "));
        line.and_then(|value| value.parse::<u64>().ok()).expect("a number")
    };
    wait_until("history is dropped that it was not told", || {
        churn(&site, &mut chance, 5);
        // The last 8192 changes are in memory, whatever the disk has.
        first_kept() > position + 5000 && shown(&site, "noc")["lag_changes"].as_u64() > Some(10_000)
    });
    let hook = Hook::start_at(address);
    wait_caught_up(&site, "noc");
    told.extend(hook.told());
    let gaps: Vec<&Value> = told.iter().filter(|one| one["what"] == "gap").collect();
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert_eq!(gaps[0]["gap"]["reason"], "retention", "{gaps:?}");
    let mut sorted = numbers(&told);
    sorted.sort_unstable();
    assert_eq!(sorted, (1..=told.len() as u64).collect::<Vec<_>>(), "without a hole, and each once");
    assert_eq!(standing(&told), listed(&site));
    assert_eq!(shown(&site, "noc")["counters"]["gaps"], 1);
}

#[test]
fn a_reload_adds_changes_and_removes_receivers_and_leaves_the_others_alone() {
    let (kept, changed, removed, added) = (Hook::start(), Hook::start(), Hook::start(), Hook::start());
    let scratch = scratch("receivers-");
    let data = scratch.path().join("data");
    let quick = "fold_after = \"0s\"";
    let before = receiver("kept", &kept, quick, "")
        + &receiver("changed", &changed, quick, "")
        + &receiver("removed", &removed, quick, "");
    let node = Setup::new(&data).config(&before).start();
    node.send(&json!([event("host=a", "major"), event("host=b", "minor")]));
    for hook in [&kept, &changed, &removed] {
        hook.wait_told(2);
    }
    let since = shown(&node, "kept")["since"].clone();
    let after = receiver("kept", &kept, quick, "")
        + &receiver("changed", &changed, "fold_after = \"0s\"\nfilter = { severity_min = \"major\" }", "")
        + &receiver("added", &added, "start = \"active\"", "form = \"alertmanager\"");
    write_config(&data.with_extension("toml"), &after);
    node.signal(rustix::process::Signal::HUP);
    wait_until("the new settings are in force", || {
        let list = node.json("/receivers");
        let names: Vec<&str> =
            list["receivers"].as_array().expect("is a list").iter().filter_map(|one| one["name"].as_str()).collect();
        names == ["added", "changed", "kept"]
    });
    // The new one is told what stands, the changed one that something is not its concern any more.
    wait_until("what stands is told", || added.count() == 2);
    assert!(added.posts().iter().all(|post| post.json()["version"] == "4"));
    let told = changed.wait_told(3);
    assert_eq!((&told[2]["how"], &told[2]["alarm"]["resource"]), (&json!("left"), &json!("host=b")));
    assert_eq!(shown(&node, "kept")["since"], since, "it was not touched");
    assert_eq!(node.get("/receivers/removed").expect("it answers").status, 404);

    node.send(&json!([event("host=a", "cleared"), event("host=b", "cleared")]));
    assert_eq!(numbers(&kept.wait_told(4)), [1, 2, 3, 4]);
    // The end of what it was told of is told, too.
    assert_eq!(numbers(&changed.wait_told(5)), [1, 2, 3, 4, 5]);
    wait_until("the ends are told", || added.count() == 4);
    assert_eq!(removed.told().len(), 2, "it is told nothing any more");

    // One that comes back under its old name begins anew.
    write_config(&data.with_extension("toml"), &receiver("removed", &removed, quick, ""));
    node.signal(rustix::process::Signal::HUP);
    wait_until("it is back", || node.get("/receivers/removed").expect("it answers").status == 200);
    node.send(&event("host=c", "major"));
    assert_eq!(numbers(&removed.wait_told(3))[2], 1);
}

#[test]
fn one_that_cannot_be_reached_is_an_alarm_and_holds_up_nobody() {
    let (away, there) = (Hook::start(), Hook::start());
    let keys = "fold_after = \"0s\"\nunreachable_after = \"1s\"";
    let site = Site::start(&(receiver("away", &away, keys, "") + &receiver("there", &there, keys, "")));
    away.answer(503);
    site.send(&event("host=a", "major"));
    there.wait_told(1);
    let find = || {
        let list = site.json("/alarms?alarm_type=klaxon.receiver-unreachable");
        list["alarms"][0].clone()
    };
    wait_until("it is an alarm", || !find().is_null());
    let alarm = find();
    assert_eq!((&alarm["resource"], &alarm["catalogued"]), (&json!("klaxon=node.receiver=away"), &json!(true)), "{alarm}");
    assert_eq!(shown(&site, "away")["state"], "unreachable");
    let told = there.wait_told(2);
    assert_eq!(told[1]["alarm"]["alarm_type"], "klaxon.receiver-unreachable", "others are told of it");
    assert!(away.told().is_empty());
    away.answer(200);
    wait_until("it is over", || find().is_null());
    wait_caught_up(&site, "away");
    assert_eq!(numbers(&away.told()), (1..=away.told().len() as u64).collect::<Vec<_>>());

    // What it refuses for good is given up, counted, and holds up nothing behind it.
    away.answer(422);
    site.send(&event("host=a", "cleared"));
    wait_until("it is given up", || shown(&site, "away")["counters"]["refused"] == 1);
    let error = shown(&site, "away")["last_error"].as_str().expect("is told").to_owned();
    assert!(error.contains("422"), "{error}");
    away.answer(200);
    site.send(&event("host=b", "major"));
    wait_until("the next one comes", || away.told().iter().any(|one| one["alarm"]["resource"] == "host=b"));
}

#[test]
fn what_was_lost_over_there_is_sent_again_under_its_numbers() {
    let hook = Hook::start();
    let site = Site::start(&receiver("noc", &hook, "fold_after = \"0s\"\nreplay_max = 10", ""));
    for _ in 0..10 {
        site.send(&event("host=a", "major"));
        site.send(&event("host=a", "cleared"));
    }
    let first = hook.wait_told(20);
    wait_caught_up(&site, "noc");
    assert_eq!(
        site.cli_ok(&["receivers", "resend", "noc", "--from", "18"]),
        "3 notifications from 18 on are sent to noc again\n"
    );
    let all = hook.wait_told(23);
    for (again, before) in all[20..].iter().zip(&first[17..]) {
        assert_eq!((&again["resent"], &before["resent"]), (&json!(true), &json!(false)));
        assert_eq!(
            pick(std::slice::from_ref(again), &["delivery_seq", "how", "change"]),
            pick(std::slice::from_ref(before), &["delivery_seq", "how", "change"])
        );
    }
    let fails = |args: &[&str], code: i32, words: &str| {
        let output = site.cli(args);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {told}");
        assert!(told.contains(words), "{args:?}: {told}");
    };
    fails(&["receivers", "resend", "noc", "--from", "1"], 1, "the oldest that is kept is ");
    fails(&["receivers", "resend", "noc", "--from", "99"], 1, "number 99 was not given out yet; the last one is 20");
    fails(&["receivers", "resend", "nobody", "--from", "1"], 4, "no receiver is called nobody");
    fails(&["receivers", "nobody"], 4, "no receiver is called nobody");
    fails(&["receivers", "resend", "noc", "--from", "0"], 2, "0");
    // Over TCP nobody is known.
    assert_eq!(site.post("/receivers/noc/resend", "{\"from\":1}").expect("it answers").status, 401);
    let wire = |body: &str| {
        let headers = [("content-type", "application/json")];
        site.wire_unix(&Wire { method: "POST", path: "/api/v1/receivers/noc/resend", headers: &headers, body: body.as_bytes() })
    };
    for (body, status, words) in [
        ("{}", 422, "from: is missing"),
        ("{\"from\":\"1\"}", 422, "from: is no number from 1 on"),
        ("{\"from\":18,\"to\":19}", 422, "to: is unknown"),
        ("[", 400, "the body is no JSON"),
        ("{\"from\":1}", 409, "the oldest that is kept is "),
    ] {
        let reply = wire(body);
        assert_eq!(reply.status, status, "{body}: {}", reply.body);
        assert!(reply.body.contains(words), "{body}: {}", reply.body);
    }
    let text = site.cli_ok(&["receivers"]);
    assert!(text.contains("noc") && text.contains("webhook") && text.contains("ok"), "{text}");
    let list: Value = serde_json::from_str(&site.cli_ok(&["receivers", "--json"])).expect("is JSON");
    assert_eq!(list["receivers"][0]["counters"]["resent"], 3, "{list}");
}

#[test]
fn a_drill_arrives_whatever_the_filter_asks_for_or_says_why_it_cannot() {
    let (noc, depot, narrow, gone) = (Hook::start(), Hook::start(), Hook::start(), Hook::start());
    let config = receiver("noc", &noc, "filter = { severity_min = \"critical\" }", "")
        + &receiver("depot", &depot, "filter = { sites = [\"depot-7\"], resources = [\"rack=3\"] }", "form = \"alertmanager\"")
        + &receiver("narrow", &narrow, "filter = { alarm_types = [\"link.*\"] }", "")
        + &receiver("gone", &gone, "", "");
    let site = Site::start(&config);
    drop(gone);
    let said = site.cli_ok(&["drill", "--receiver", "noc"]);
    assert!(
        said.starts_with("arrived  noc  raise ") && said.contains(" ms (number 1)  clear ") && said.contains("as critical"),
        "{said}"
    );
    let told = noc.told();
    assert_eq!(pick(&told, &["how"]), [[&json!("raised")], [&json!("cleared")]]);
    let alarm = &told[0]["alarm"];
    assert_eq!((&alarm["alarm_type"], &alarm["severity"]), (&json!("klaxon.drill"), &json!("critical")));
    assert_eq!((&alarm["resource"], &alarm["attributes"]["drill"]), (&json!("klaxon=node.drill=noc"), &json!("true")));
    assert_eq!(alarm["catalogued"], true);

    let shown: Value = serde_json::from_str(&site.cli_ok(&["drill", "--receiver", "depot", "--json"])).expect("is JSON");
    assert_eq!(
        (&shown["arrived"], &shown["resource"], &shown["severity"]),
        (&json!(true), &json!("rack=3.drill=depot"), &json!("warning"))
    );
    assert!(shown["raise"]["latency_us"].as_u64() > Some(0), "{shown}");
    let statuses: Vec<Value> = depot.posts().iter().map(|post| post.json()["status"].clone()).collect();
    assert_eq!(statuses, [json!("firing"), json!("resolved")]);

    let output = site.cli(&["drill", "--receiver", "narrow"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("its filter takes only other types: add klaxon.drill"), "{text}");
    assert_eq!(narrow.count(), 0);

    let output = site.cli(&["drill", "--all", "--wait", "2", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let all: Value = serde_json::from_slice(&output.stdout).expect("is JSON");
    let arrived: BTreeMap<&str, &Value> = all["drills"]
        .as_array()
        .expect("is a list")
        .iter()
        .map(|one| (one["receiver"].as_str().expect("is a word"), one))
        .collect();
    assert_eq!(arrived["noc"]["arrived"], true, "{all}");
    assert_eq!(arrived["depot"]["arrived"], true, "{all}");
    assert_eq!(arrived["narrow"]["arrived"], false, "{all}");
    let reason = arrived["gone"]["reason"].as_str().expect("says why");
    assert!(reason.starts_with("it was not reached within 2 s: ") && reason.contains("refused"), "{reason}");
    assert_eq!(arrived["noc"]["alarm"], arrived["gone"]["alarm"], "they share an alarm");

    // Nothing is left standing.
    assert_eq!(site.json("/alarms")["alarms"], json!([]));
    let output = site.cli(&["drill", "--receiver", "nobody"]);
    assert_eq!(output.status.code(), Some(4));
    assert_eq!(site.post("/drill", "").expect("it answers").status, 401);
    // Suppressed, it cannot arrive, and says so.
    let suppress = json!({ "action": "suppress", "alarm_type": "klaxon.drill", "reason": "quiet" }).to_string();
    let headers = [("content-type", "application/json")];
    let reply = site.wire_unix(&Wire { method: "POST", path: "/api/v1/actions", headers: &headers, body: suppress.as_bytes() });
    assert_eq!(reply.status, 200, "{}", reply.body);
    let output = site.cli(&["drill", "--receiver", "noc"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("the type klaxon.drill is suppressed"), "{output:?}");
}
