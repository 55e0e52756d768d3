//! The API of a node as programs meet it: what is sent, what is shown, what is refused. `stream.rs` follows changes, `life.rs`
//! starts and stops nodes.

mod harness;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::{Command, Stdio};

use harness::http::Wire;
use harness::{Node, Reply, Setup, Site, scratch, wait_until};
use serde_json::{Value, json};

fn event(resource: &str, alarm_type: &str, severity: &str) -> Value {
    json!({"resource": resource, "alarm_type": alarm_type, "severity": severity})
}

fn list<'a>(answer: &'a Value, items: &str) -> &'a Vec<Value> {
    answer[items].as_array().unwrap_or_else(|| panic!("{items} is no list in {answer}"))
}

/// The members `name` of the items, as texts.
fn column(answer: &Value, items: &str, name: &str) -> Vec<String> {
    list(answer, items).iter().map(|item| item[name].as_str().map_or(item[name].to_string(), ToOwned::to_owned)).collect()
}

fn resources(answer: &Value) -> BTreeSet<String> {
    column(answer, "alarms", "resource").into_iter().collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn post(node: &Node, content_type: &str, coding: Option<&str>, body: &[u8]) -> Reply {
    let mut headers = vec![("content-type", content_type)];
    headers.extend(coding.map(|coding| ("content-encoding", coding)));
    node.wire(&Wire { method: "POST", path: "/api/v1/events", headers: &headers, body })
}

/// The magic number, and that one segment with a size of four bytes follows.
const ZSTD_HEAD: [u8; 5] = [0x28, 0xb5, 0x2f, 0xfd, 0xa0];

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut child =
        Command::new("gzip").arg("-c").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("gzip is installed");
    let mut input = child.stdin.take().expect("is piped");
    let bytes = bytes.to_owned();
    let writer = std::thread::spawn(move || input.write_all(&bytes));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("it wrote").expect("it reads");
    output.stdout
}

/// A zstd frame (RFC 8878, 3.1.1) of one block that holds the bytes as they are.
fn zstd(bytes: &[u8]) -> Vec<u8> {
    let size = u32::try_from(bytes.len()).expect("is small");
    let block = size << 3 | 1;
    [&ZSTD_HEAD[..], &size.to_le_bytes(), &block.to_le_bytes()[..3], bytes].concat()
}

/// A zstd frame of `blocks` blocks, each 128 KiB of spaces told in four bytes.
fn zstd_bomb(blocks: u32) -> Vec<u8> {
    let block_bytes = 128 * 1024;
    // Not one segment, but a window of 128 KiB: what announces a large one is refused for its memory.
    let mut frame = [&ZSTD_HEAD[..4], &[0x80, 7 << 3], &(blocks * block_bytes).to_le_bytes()].concat();
    for n in 1..=blocks {
        let block = block_bytes << 3 | 1 << 1 | u32::from(n == blocks);
        frame.extend(&block.to_le_bytes()[..3]);
        frame.push(b' ');
    }
    frame
}

#[test]
fn the_smallest_event_raises_and_clears() {
    let site = Site::start("");
    let raised = site.send(&event("host=web-1.filesystem=/var", "disk.full", "major"));
    assert_eq!((&raised["accepted"], &raised["results"][0]["change"]), (&json!(1), &json!("raised")), "{raised}");
    let id = raised["results"][0]["alarm"].clone();
    let alarm = site.json("/alarms")["alarms"][0].clone();
    assert_eq!((&alarm["id"], &alarm["severity"], &alarm["cleared"]), (&id, &json!("major"), &json!(false)));
    assert_eq!((&alarm["site"], &alarm["count"], &alarm["raise_seq"]), (&json!("local"), &json!(1), &json!(1)));

    let again = site.send(&event("host=web-1.filesystem=/var", "disk.full", "major"));
    assert_eq!(again["results"][0]["change"], Value::Null, "nothing changed: {again}");
    assert_eq!(site.json("/alarms")["alarms"][0]["count"], 2);
    let worse = site.send(&event("host=web-1.filesystem=/var", "disk.full", "critical"));
    assert_eq!(worse["results"][0]["change"], "severity-changed");

    let cleared = site.send(&event("host=web-1.filesystem=/var", "disk.full", "cleared"));
    assert_eq!(cleared["results"][0]["change"], "cleared");
    assert_eq!(site.json("/alarms")["alarms"], json!([]));
    let over = site.json("/alarms?cleared=true")["alarms"][0].clone();
    assert_eq!((&over["id"], &over["cleared"], &over["cleared_by"]), (&id, &json!(true), &json!("report")), "{over}");
    let next = site.send(&event("host=web-1.filesystem=/var", "disk.full", "minor"));
    assert_eq!(next["results"][0]["alarm"], id, "it is the same alarm");
    assert_eq!(site.json("/alarms")["alarms"][0]["raise_seq"], 2);
}

#[test]
fn bodies_come_in_many_forms() {
    let site = Site::start("");
    let one = |n: u32| event(&format!("n={n}"), "t", "minor").to_string();
    let array = format!("[{},{}]", one(1), one(2));
    let lines = format!("{}\n\n{}\r\n", one(3), one(4));
    let forms: [(&str, Option<&str>, Vec<u8>); 6] = [
        ("application/json; charset=utf-8", None, array.into_bytes()),
        ("application/x-ndjson", None, lines.into_bytes()),
        ("application/json", Some("gzip"), gzip(one(5).as_bytes())),
        ("application/x-ndjson", Some("gzip"), gzip(one(6).as_bytes())),
        ("application/json", Some("zstd"), zstd(one(7).as_bytes())),
        ("application/json", Some("zstd"), zstd(format!("[{}]", one(8)).as_bytes())),
    ];
    for (content_type, coding, body) in forms {
        let reply = post(&site, content_type, coding, &body);
        assert_eq!(reply.status, 200, "{content_type} {coding:?}: {}", reply.body);
        assert_eq!(reply.json()["rejected"], 0);
    }
    let shown = resources(&site.json("/alarms"));
    assert_eq!(shown, (1..=8).map(|n| format!("n={n}")).collect());
}

#[test]
fn the_good_events_of_a_bad_batch_are_kept() {
    let site = Site::start("");
    let batch = json!([
        event("a=1", "t", "major"),
        event("a=2", "t", "dreadful"),
        {"resource": "a=3", "alarm_type": "t"},
        7,
        {"resource": "a=4", "alarm_type": "t", "severity": "minor", "severty": "major"},
        event("", "t", "major"),
        event("a=1", "t", "critical"),
    ]);
    let told = site.send(&batch);
    assert_eq!((&told["accepted"], &told["rejected"], &told["duplicate"]), (&json!(3), &json!(4), &json!(0)), "{told}");
    let pretends = json!({"resource": "a=5", "alarm_type": "t", "severity": "minor", "producer": "collector/cpu"});
    let reply = site.post("/events", &pretends.to_string()).expect("answers");
    assert_eq!((reply.status, &reply.json()["results"][0]["field"]), (422, &json!("producer")), "{}", reply.body);
    let notable: BTreeMap<u64, (&str, &str)> = list(&told, "results")
        .iter()
        .map(|result| {
            let field = result["field"].as_str().or(result["ignored"][0].as_str()).expect("names a field");
            (result["index"].as_u64().expect("a number"), (result["status"].as_str().expect("a word"), field))
        })
        .collect();
    let rejected = |field| ("rejected", field);
    let expected = [
        (1, rejected("severity")),
        (2, rejected("severity")),
        (3, rejected(".")),
        (4, ("accepted", "severty")),
        (5, rejected("resource")),
    ];
    assert_eq!(notable, BTreeMap::from(expected), "{told}");
    assert_eq!(resources(&site.json("/alarms")), set(&["a=1", "a=4"]));
    let all = site.post("/events?results=all", &json!([event("b=1", "t", "major"), 7]).to_string()).expect("answers");
    assert_eq!(column(&all.json(), "results", "status"), ["accepted", "rejected"]);

    let none = site.post("/events", &json!([7, event("a=1", "t", "dreadful")]).to_string()).expect("answers");
    assert_eq!(none.status, 422, "{}", none.body);
    assert_eq!(column(&none.json(), "results", "field"), [".", "severity"]);
    for (body, why) in [("{", "no JSON"), ("", "no JSON"), ("[]", "no event"), ("[{},", "no JSON")] {
        let reply = site.post("/events", body).expect("answers");
        assert_eq!(reply.status, 400, "{body:?}: {}", reply.body);
        assert!(reply.json()["detail"].as_str().expect("a text").contains(why), "{}", reply.body);
    }
}

#[test]
fn what_comes_twice_counts_once_also_across_a_kill() {
    let scratch = scratch("http-");
    let setup = Setup::new(&scratch.path().join("data"));
    let node = setup.start();
    let numbered = |seq: u64, severity: &str| json!({"resource": "a=n", "alarm_type": "t", "severity": severity, "producer": "p", "epoch": 4, "seq": seq});
    let named = |id: &str| json!({"resource": format!("a={id}"), "alarm_type": "t", "severity": "major", "event_id": id});
    let batch = json!([numbered(1, "major"), numbered(2, "minor"), named("x"), named("x"), numbered(2, "critical")]);
    let told = node.send(&batch);
    assert_eq!((&told["accepted"], &told["duplicate"]), (&json!(3), &json!(2)), "{told}");
    assert_eq!(column(&told, "results", "index"), ["3", "4"]);
    let before = (node.json("/alarms?sort=resource"), node.history());
    node.kill();
    let node = setup.start();
    let told = node.send(&batch);
    assert_eq!((&told["accepted"], &told["duplicate"]), (&json!(0), &json!(5)), "a 200 although nothing is new: {told}");
    let after = (node.json("/alarms?sort=resource"), node.history());
    assert_eq!(after.0["alarms"], before.0["alarms"]);
    assert_eq!(after.1, before.1);
    // Another numbering of the same producer begins anew.
    let mut fresh = numbered(1, "critical");
    fresh["epoch"] = json!(5);
    assert_eq!(node.send(&fresh)["results"][0]["change"], "severity-changed");
}

#[test]
fn an_alias_is_the_type_itself() {
    let site = Site::start("");
    site.send(&event("host=a.filesystem=/", "100.104", "major"));
    let cleared = site.send(&event("host=a.filesystem=/", "disk.full", "cleared"));
    assert_eq!(cleared["results"][0]["change"], "cleared", "{cleared}");
    let alarm = &site.json("/alarms?cleared=any")["alarms"][0];
    assert_eq!((&alarm["alarm_type"], &alarm["catalogued"]), (&json!("disk.full"), &json!(true)));
    assert_eq!(site.json("/catalogue/100.104"), site.json("/catalogue/disk.full"));
    assert_eq!(site.get("/catalogue/no.such").expect("answers").status, 404);
    let catalogue = site.json("/catalogue");
    let types = column(&catalogue, "types", "id");
    assert!(types.len() > 50 && types.contains(&"disk.full".to_owned()) && types.is_sorted(), "{types:?}");
    // A type that nobody described is taken all the same, and said to be so.
    site.send(&event("host=a", "never.heard.of", "major"));
    assert_eq!(site.json("/alarms?alarm_type=never.heard.of")["alarms"][0]["catalogued"], false);
}

/// Alarms that differ in everything that can be asked for.
fn motley() -> Site {
    let site = Site::start("");
    let mut events = vec![
        event("host=web-1", "cpu.high", "critical"),
        event("host=web-1.port=eth0", "port.down", "major"),
        event("host=web-1.example.com", "cpu.high", "minor"),
        event("host=web-10", "cpu.high", "warning"),
        event("host=web-10.port=eth0", "port.down", "indeterminate"),
        event("host=over", "port.down", "major"),
        event("host=over", "port.down", "cleared"),
    ];
    events[1]["text"] = json!("Träger ist WEG");
    events[2]["site"] = json!("north");
    events[4]["lease_s"] = json!(1);
    for _ in 0..3 {
        events.push(events[3].clone());
    }
    for event in events {
        site.send(&event);
    }
    site.cli_ok(&["alarms", "ack", "--resource", "host=web-10", "--all"]);
    let id = site.json("/alarms?resource=host%3Dweb-1.port%3Deth0")["alarms"][0]["id"].as_str().expect("is there").to_owned();
    site.cli_ok(&["alarms", "shelve", &id, "--for", "1h", "--reason", "known"]);
    site.cli_ok(&["alarms", "suppress", "cpu.high", "--reason", "noise"]);
    wait_until("the lease is over", || !list(&site.json("/alarms?stale=true"), "alarms").is_empty());
    site
}

#[test]
fn lists_are_filtered_by_everything_and_agree_with_their_counts() {
    let site = motley();
    let web_1 = ["host=web-1", "host=web-1.port=eth0"];
    let web_10 = ["host=web-10", "host=web-10.port=eth0"];
    let cases: [(&str, &[&str]); 22] = [
        ("", &["host=web-1", "host=web-1.example.com", "host=web-1.port=eth0", "host=web-10", "host=web-10.port=eth0"]),
        ("resource=host%3Dweb-1", &web_1),
        ("resource=host%3Dweb-10", &web_10),
        ("resource=host%3Dweb-1.example.com", &["host=web-1.example.com"]),
        ("resource=host%3Dweb", &[]),
        ("site=north", &["host=web-1.example.com"]),
        ("alarm_type=port.down", &["host=web-1.port=eth0", "host=web-10.port=eth0"]),
        ("min_severity=major", &web_1),
        ("severity=critical&severity=warning", &["host=web-1", "host=web-10"]),
        ("cleared=true", &["host=over"]),
        ("cleared=any&alarm_type=port.down", &["host=over", "host=web-1.port=eth0", "host=web-10.port=eth0"]),
        ("acknowledged=true", &web_10),
        ("acknowledged=false", &["host=web-1", "host=web-1.example.com", "host=web-1.port=eth0"]),
        ("shelved=true", &["host=web-1.port=eth0"]),
        ("shelved=false&alarm_type=port.down", &["host=web-10.port=eth0"]),
        ("suppressed=true", &["host=web-1", "host=web-1.example.com", "host=web-10"]),
        ("suppressed=false&stale=false", &["host=web-1.port=eth0"]),
        ("stale=true", &["host=web-10.port=eth0"]),
        ("text=tr%C3%A4ger+ist", &["host=web-1.port=eth0"]),
        ("text=WEB-10", &web_10),
        ("raised_after=2100-01-01T00:00:00Z", &[]),
        ("raised_before=2100-01-01T00:00:00Z&acknowledged=true&stale=false", &["host=web-10"]),
    ];
    for (query, expected) in cases {
        let answer = site.json(&format!("/alarms?{query}"));
        assert_eq!(resources(&answer), set(expected), "{query}");
    }
    // Times: an alarm was raised at its time or later, and not before it.
    let all = site.json("/alarms?sort=raised_at&order=asc");
    let second = list(&all, "alarms")[1]["raised_at"].as_str().expect("a time").to_owned();
    assert_eq!(list(&site.json(&format!("/alarms?raised_after={second}")), "alarms").len(), 4);
    assert_eq!(resources(&site.json(&format!("/alarms?raised_before={second}"))), set(&["host=web-1"]));
    let stale = site.json("/alarms?stale=true")["alarms"][0].clone();
    let changed = stale["changed_at"].as_str().expect("a time");
    assert_eq!(resources(&site.json(&format!("/alarms?changed_after={changed}"))), set(&["host=web-10.port=eth0"]));
    assert_eq!(list(&site.json(&format!("/alarms?changed_before={changed}")), "alarms").len(), 4);
    assert!(stale["stale"].is_object());
    assert_eq!(site.json("/alarms?resource=host%3Dweb-1&suppressed=true")["alarms"][0]["suppressed"], true);

    let expected = json!({
        "active": 5, "by_severity": {"critical": 1, "major": 1, "minor": 1, "warning": 1, "indeterminate": 1},
        "acknowledged": 2, "shelved": 1, "suppressed": 3, "stale": 1, "cleared": 1,
    });
    assert_eq!(all["counts"], expected);
    let summary = site.json("/alarms/summary");
    for (name, value) in expected.as_object().expect("an object") {
        assert_eq!(&summary[name], value, "{name} in {summary}");
    }
    assert_eq!(column(&summary, "by_site", "site"), ["local", "north"]);
    assert_eq!(column(&summary, "by_site", "active"), ["4", "1"]);
    assert_eq!(summary["status"], "ok", "what is worse than a warning is shelved or suppressed: {summary}");
    assert_eq!(column(&site.json("/suppressions"), "suppressions", "alarm_type"), ["cpu.high"]);
}

#[test]
fn every_sort_is_a_sort_in_both_directions_and_on_every_page() {
    let site = motley();
    let rank = ["indeterminate", "warning", "minor", "major", "critical"];
    let key = |sort: &str, alarm: &Value| -> (usize, String) {
        match sort {
            "severity" => (rank.iter().position(|word| alarm["severity"] == *word).expect("a severity"), String::new()),
            "count" => (usize::try_from(alarm["count"].as_u64().expect("a number")).expect("is small"), String::new()),
            name => (0, alarm[name].as_str().expect("a text").to_owned()),
        }
    };
    for sort in ["severity", "raised_at", "changed_at", "resource", "alarm_type", "site", "count"] {
        let mut directions = Vec::new();
        for order in ["asc", "desc"] {
            let whole = site.json(&format!("/alarms?cleared=any&sort={sort}&order={order}"));
            let keys: Vec<_> = list(&whole, "alarms").iter().map(|alarm| key(sort, alarm)).collect();
            let sorted = if order == "asc" { keys.is_sorted() } else { keys.iter().rev().is_sorted() };
            assert!(sorted && keys.len() == 6, "{sort} {order}: {keys:?}");
            let mut paged = Vec::new();
            let mut cursor = String::new();
            loop {
                let page = site.json(&format!("/alarms?cleared=any&sort={sort}&order={order}&limit=1{cursor}"));
                paged.extend(column(&page, "alarms", "id"));
                match page["next"].as_str() {
                    Some(next) => cursor = format!("&cursor={next}"),
                    None => break,
                }
            }
            assert_eq!(paged, column(&whole, "alarms", "id"), "{sort} {order}");
            directions.push(paged);
        }
        directions[1].reverse();
        assert_eq!(directions[0], directions[1], "{sort}: one direction is the other turned round");
    }
    let page = site.json("/alarms?sort=count&limit=1");
    let cursor = page["next"].as_str().expect("there is more");
    let other = site.get(&format!("/alarms?sort=site&cursor={cursor}")).expect("answers");
    assert_eq!(other.status, 400, "{}", other.body);
}

#[test]
fn pages_are_stable_while_alarms_change() {
    let site = Site::start("");
    let events: Vec<_> =
        (0..60).map(|n| event(&format!("n={n:02}"), "t", if n % 2 == 0 { "major" } else { "minor" })).collect();
    site.send(&json!(events));
    for sort in ["resource", "raised_at", "severity"] {
        let mut seen = Vec::new();
        let mut cursor = String::new();
        let mut round = 0;
        loop {
            let page = site.json(&format!("/alarms?sort={sort}&order=asc&limit=7{cursor}"));
            seen.extend(column(&page, "alarms", "resource"));
            let Some(next) = page["next"].as_str() else { break };
            cursor = format!("&cursor={next}");
            // New ones come, the one the cursor stands on is reported again, another goes and comes back.
            let last = seen.last().expect("a page is not empty").clone();
            let severity = if last[2..].parse::<u32>().is_ok_and(|n| n % 2 == 0) { "major" } else { "minor" };
            site.send(&json!([
                event(&format!("x={sort}{round}"), "t", "warning"),
                event(&last, "t", severity),
                event(&format!("y={sort}"), "t", if round % 2 == 0 { "warning" } else { "cleared" }),
            ]));
            round += 1;
        }
        let mut mine: Vec<_> = seen.iter().filter(|resource| resource.starts_with("n=")).cloned().collect();
        mine.sort();
        let expected: Vec<_> = (0..60).map(|n| format!("n={n:02}")).collect();
        assert_eq!(mine, expected, "{sort}: each that was there all the time is on one page");
    }
    // The one that the cursor stands on may be gone.
    let page = site.json("/alarms?sort=resource&order=asc&limit=5");
    let (last, next) = (page["alarms"][4]["resource"].as_str().expect("a text"), page["next"].as_str().expect("more"));
    site.send(&event(last, "t", "cleared"));
    assert_eq!(site.json(&format!("/alarms?sort=resource&order=asc&cursor={next}"))["alarms"][0]["resource"], "n=05");
}

#[test]
fn history_is_found_by_what_when_and_where() {
    let site = Site::start("");
    for n in 0..5 {
        site.send(&json!([
            event(&format!("host=h{n}.port=1"), "port.down", "major"),
            event(&format!("host=h{n}"), "cpu.high", "minor")
        ]));
    }
    site.send(&event("host=h1.port=1", "port.down", "cleared"));
    site.send(&json!({"resource": "host=h1", "alarm_type": "note", "kind": "log", "severity": "warning", "text": "Reboot"}));
    let kinds = |query: &str| column(&site.json(&format!("/history?{query}")), "changes", "kind");
    assert_eq!(kinds("resource=host%3Dh1&order=asc"), ["raised", "raised", "cleared", "logged"]);
    assert_eq!(kinds("resource=host%3Dh1.port%3D1"), ["cleared", "raised"]);
    assert_eq!(kinds("alarm_type=port.down").len(), 6);
    assert_eq!(kinds("kind=cleared&kind=logged"), ["logged", "cleared"]);
    assert_eq!(kinds("text=reboot"), ["logged"]);
    assert_eq!(kinds("min_severity=major&order=asc").len(), 6);
    assert_eq!(kinds("site=nowhere"), [""; 0]);
    let whole = site.json("/history?order=asc");
    let changes = list(&whole, "changes");
    let positions: Vec<u64> = changes.iter().map(|change| change["position"].as_u64().expect("a number")).collect();
    assert!(positions.is_sorted() && positions.len() == 12, "{whole}");
    // Those of one batch have one time: the range from it on begins with all of them.
    let at = changes[4]["at"].as_str().expect("a time");
    let from = site.json(&format!("/history?order=asc&from={at}"));
    let until = site.json(&format!("/history?order=asc&until={at}"));
    assert!(list(&from, "changes").iter().all(|change| change["at"].as_str() >= Some(at)));
    assert!(list(&until, "changes").iter().all(|change| change["at"].as_str() < Some(at)));
    assert_eq!([list(&until, "changes").clone(), list(&from, "changes").clone()].concat(), *changes);
    for order in ["asc", "desc"] {
        let mut paged = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = site.json(&format!("/history?order={order}&limit=5{cursor}"));
            paged.extend(list(&page, "changes").clone());
            // What comes meanwhile is not of the pages that are before it.
            site.send(&json!({"resource": "host=h1", "alarm_type": "later", "kind": "log"}));
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
            assert!(paged.len() < 100, "a reader that asks as fast as one writes would never end");
            if order == "asc" && paged.len() >= changes.len() {
                break;
            }
        }
        if order == "desc" {
            paged.reverse();
        }
        let mine: Vec<_> = paged.into_iter().filter(|change| change["event"]["alarm_type"] != "later").collect();
        assert_eq!(mine, *changes, "{order}");
    }
    let id = changes[1]["alarm"]["id"].as_str().expect("an id");
    assert_eq!(kinds(&format!("alarm={id}")), ["raised"]);
    assert_eq!(site.json(&format!("/alarms/{}", &id[..13]))["alarm"]["id"], id);
}

#[test]
fn why_names_reasons_and_the_reports_themselves() {
    let site = Site::start("");
    let raise =
        json!({"resource": "host=a", "alarm_type": "cpu.high", "severity": "major", "producer": "probe-7", "text": "98 %"});
    let id = site.send(&raise)["results"][0]["alarm"].as_str().expect("an id").to_owned();
    site.send(
        &json!({"resource": "host=a", "alarm_type": "cpu.high", "severity": "critical", "producer": "probe-7", "lease_s": 1}),
    );
    site.cli_ok(&["alarms", "ack", &id, "-m", "mine"]);
    wait_until("the lease is over", || site.json(&format!("/alarms/{id}"))["alarm"]["stale"].is_object());
    let why = site.json(&format!("/alarms/{id}/why"));
    assert_eq!(column(&why, "changes", "kind"), ["staled", "acknowledged", "severity-changed", "raised"]);
    let because = |change: usize| why["changes"][change]["because"][0].clone();
    let raised = because(3);
    assert_eq!(raised["entry"]["event"]["text"], "98 %", "{raised}");
    assert_eq!(raised["entry"]["door"], "http");
    for words in ["probe-7", "major"] {
        assert!(raised["text"].as_str().expect("words").contains(words), "{raised}");
    }
    assert!(because(1)["text"].as_str().expect("words").contains("ordered it"), "{why}");
    assert!(because(0)["text"].as_str().expect("words").contains("promised"), "{why}");
    assert_eq!(site.get("/alarms/ffffffff/why").expect("answers").status, 404);
    assert_eq!(site.get("/alarms/xyz/why").expect("answers").status, 400);
}

#[test]
fn actions_need_the_socket_and_reach_one_or_many() {
    let site = Site::start("");
    let events: Vec<_> = (0..20).map(|n| event(&format!("host=a.n={n}"), "t", "major")).collect();
    site.send(&json!(events));
    let id = site.json("/alarms?limit=1&sort=resource&order=asc")["alarms"][0]["id"].as_str().expect("an id").to_owned();
    for (path, body) in [
        ("/actions".to_owned(), json!({"action": "acknowledge", "alarms": [id]})),
        (format!("/alarms/{id}/acknowledge"), json!({})),
    ] {
        let refused = site.post(&path, &body.to_string()).expect("answers");
        assert_eq!(refused.status, 401, "{}", refused.body);
        assert!(refused.json()["detail"].as_str().expect("words").contains("Unix socket"));
    }
    assert_eq!(list(&site.json("/alarms?acknowledged=true"), "alarms").len(), 0);
    site.cli_ok(&["alarms", "ack", &id]);
    assert_eq!(column(&site.json("/alarms?acknowledged=true"), "alarms", "id"), [id.as_str()]);
    let rest = site.cli(&["alarms", "ack", "--resource", "host=a", "--all"]);
    assert_eq!(rest.status.code(), Some(1), "one was acknowledged already, and that is told");
    assert_eq!(list(&site.json("/alarms?acknowledged=true"), "alarms").len(), 20);

    let act = |body: &Value| {
        let body = body.to_string();
        let headers = [("content-type", "application/json")];
        site.wire_unix(&Wire { method: "POST", path: "/api/v1/actions", headers: &headers, body: body.as_bytes() })
    };
    let order = json!({"action": "clear", "filter": {"resource": "host=a"}, "id": "6a9c1c7e-0000-4000-8000-000000000001"});
    let done = act(&order);
    assert_eq!(done.status, 200, "{}", done.body);
    assert_eq!(list(&done.json(), "changes").len(), 20);
    // Whoever asks with that position sees what was done.
    let position = &done.json()["position"];
    assert_eq!(list(&site.json(&format!("/alarms?at_least={position}")), "alarms").len(), 0);
    let twice = act(&json!({"action": "clear", "alarms": [id], "id": "6a9c1c7e-0000-4000-8000-000000000001"}));
    assert_eq!((twice.status, &twice.json()["duplicate"]), (200, &json!(true)), "{}", twice.body);
    let refused = act(&json!({"action": "clear", "alarms": [id]}));
    assert_eq!(
        (refused.status, &refused.json()["refusals"][0]["reason"]),
        (409, &json!("already-cleared")),
        "{}",
        refused.body
    );
    site.send(&event("host=a.n=0", "t", "major"));
    let seen = act(&json!({"action": "retire", "alarms": [{"id": id, "raise_seq": 1}]}));
    assert_eq!((seen.status, &seen.json()["refusals"][0]["reason"]), (409, &json!("raised-again")), "{}", seen.body);
    for (body, status) in [
        (json!({"action": "fly"}), 422),
        (json!({"action": "acknowledge"}), 422),
        (json!({"action": "acknowledge", "alarms": []}), 422),
        (json!({"action": "acknowledge", "filter": {}}), 422),
        (json!({"action": "acknowledge", "filter": {"colour": "red"}}), 422),
        (json!({"action": "acknowledge", "filter": {"site": "nowhere"}}), 404),
        (json!({"action": "acknowledge", "alarms": ["ffffffff"]}), 404),
        (json!({"action": "note", "alarms": [id], "text": ""}), 422),
    ] {
        let reply = act(&body);
        assert_eq!(reply.status, status, "{body}: {}", reply.body);
    }
}

#[test]
fn a_list_waits_for_a_position_and_says_when_it_does_not_come() {
    let site = Site::start("");
    let position = site.send(&event("a=1", "t", "major"))["position"].as_u64().expect("a number");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| site.json(&format!("/alarms?at_least={}", position + 1)));
        site.send(&event("a=2", "t", "major"));
        let shown = waiting.join().expect("it is answered");
        assert_eq!(resources(&shown), set(&["a=1", "a=2"]));
    });
    let early = site.get("/alarms?at_least=999999999").expect("answers");
    assert_eq!(early.status, 503, "{}", early.body);
    assert_eq!(early.json()["type"], "urn:klaxon:problem:not-there-yet");
}

#[test]
fn who_is_not_on_this_host_is_refused() {
    let site = Site::start("[http]\nlisten = \"127.0.0.1:0\"\norigins = [\"https://noc.example\"]");
    let port = site.base.rsplit(':').next().expect("has a port").to_owned();
    let status =
        |headers: &[(&str, &str)]| site.wire(&Wire { method: "GET", path: "/api/v1/alarms", headers, body: b"" }).status;
    let own = format!("http://127.0.0.1:{port}");
    for (headers, expected) in [
        (vec![], 200),
        (vec![("host", "localhost")], 200),
        (vec![("host", "[::1]")], 200),
        (vec![("host", "evil.example")], 421),
        (vec![("host", "localhost.evil.example")], 421),
        (vec![("host", "127.0.0.1:1")], 421),
        (vec![("host", "")], 421),
        (vec![("host", "localhost"), ("host", "localhost")], 421),
        (vec![("origin", own.as_str())], 200),
        (vec![("origin", "https://noc.example")], 200),
        (vec![("origin", "http://evil.example")], 403),
        (vec![("origin", "null")], 403),
        (vec![("origin", "http://127.0.0.1")], 403),
        (vec![("forwarded", "for=10.0.0.1")], 401),
        (vec![("x-forwarded-for", "10.0.0.1")], 401),
        (vec![("X-Forwarded-Proto", "https")], 401),
        (vec![("via", "1.1 proxy")], 401),
    ] {
        assert_eq!(status(&headers), expected, "{headers:?}");
    }
    // On the socket nobody needs a name of the node, but a proxy has no name of its own.
    let on_socket = |headers| site.wire_unix(&Wire { method: "GET", path: "/api/v1/alarms", headers, body: b"" }).status;
    assert_eq!(on_socket(&[("host", "evil.example")]), 200);
    assert_eq!(on_socket(&[("host", "localhost"), ("via", "1.1 proxy")]), 401);
    let id = site.wire(&Wire { method: "GET", path: "/nowhere", headers: &[("x-request-id", "abc-1")], body: b"" });
    assert_eq!(id.json()["request_id"], "abc-1");
}

#[test]
fn limits_are_told_by_their_status() {
    let site = Site::start("[http]\nlisten = \"127.0.0.1:0\"\nbody_bytes_max = \"128KiB\"\nbatch_events_max = 10");
    let many: Vec<_> = (0..11).map(|n| event(&format!("n={n}"), "t", "major")).collect();
    let many = json!(many).to_string();
    let large = vec![b' '; 200 * 1024];
    let json = "application/json";
    for (what, reply, status) in [
        ("too many events", post(&site, json, None, many.as_bytes()), 413),
        ("too large", post(&site, json, None, &large), 413),
        ("too large when decompressed", post(&site, json, Some("gzip"), &gzip(&large)), 413),
        ("a bomb", post(&site, json, Some("zstd"), &zstd_bomb(4096)), 413),
        ("no content type", post(&site, "", None, b"{}"), 415),
        ("a form", post(&site, "application/x-www-form-urlencoded", None, b"{}"), 415),
        ("another coding", post(&site, json, Some("br"), b"{}"), 415),
        ("no gzip", post(&site, json, Some("gzip"), b"{}"), 400),
        ("no UTF-8", post(&site, json, None, b"\xff"), 400),
    ] {
        assert_eq!(reply.status, status, "{what}: {}", reply.body);
        assert_eq!(reply.json()["status"], status, "{what}: a problem says its status");
    }
    let status = |method: &str, path: &str| {
        let reply = site.wire(&Wire { method, path, headers: &[], body: b"" });
        assert!(reply.json()["title"].is_string(), "{method} {path}: {}", reply.body);
        reply.status
    };
    assert_eq!(status("GET", "/api/v1/nowhere"), 404);
    assert_eq!(status("GET", "/api/v3/alarms"), 404);
    assert_eq!(status("DELETE", "/api/v1/alarms"), 405);
    assert_eq!(status("GET", "/api/v1/events"), 405);
    for query in [
        "colour=red",
        "limit=0",
        "limit=10001",
        "limit=x",
        "site=a&site=b",
        "cursor=x",
        "sort=colour",
        "raised_after=monday",
        "text=",
        "text=%ff",
        "resource=",
    ] {
        let reply = site.get(&format!("/alarms?{query}")).expect("answers");
        assert_eq!(reply.status, 400, "{query}: {}", reply.body);
        let name = query.split('=').next().expect("has a name");
        assert_eq!(reply.json()["errors"][0]["field"], name, "{query}");
    }
    for path in
        ["/alarms/summary", "/catalogue", "/suppressions", "/shelves", "//healthz", "//readyz", "//metrics", "//openapi.json"]
    {
        assert_eq!(site.get(&format!("{path}?colour=red")).expect("answers").status, 400, "{path}");
        assert_eq!(site.get(path).expect("answers").status, 200, "{path}");
    }
}

/// Reads the Prometheus text format (0.0.4) strictly: each sample belongs to a family that was declared right before.
fn metrics(text: &str) -> BTreeMap<String, f64> {
    let is_name = |name: &str| {
        !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':')
    };
    assert!(text.ends_with('\n'));
    let (mut family, mut families, mut samples) = (String::new(), BTreeSet::new(), BTreeMap::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            family = rest.split(' ').next().expect("a name").to_owned();
            assert!(is_name(&family) && families.insert(family.clone()), "{line}: twice, or no name");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("name and kind");
            assert!(name == family && ["counter", "gauge"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}: counters end in _total");
        } else {
            let (series, value) = line.rsplit_once(' ').expect("series and value");
            let name = series.split('{').next().expect("a name");
            assert_eq!(name, family, "{line}");
            if let Some((_, labels)) = series.split_once('{') {
                let mut rest = labels.strip_suffix('}').expect("labels end");
                while let Some((label, value)) = rest.split_once("=\"") {
                    assert!(is_name(label), "{line}");
                    let mut escaped = false;
                    let end = value.find(|c| {
                        let ends = c == '"' && !escaped;
                        escaped = c == '\\' && !escaped;
                        ends
                    });
                    rest = value[end.expect("a value ends") + 1..].trim_start_matches(',');
                }
                assert_eq!(rest, "", "{line}");
            }
            let value = value.parse().unwrap_or_else(|_| panic!("{line}: no number"));
            assert!(samples.insert(series.to_owned(), value).is_none(), "{line}: twice");
        }
    }
    samples
}

#[test]
fn metrics_balance_and_can_be_read() {
    let site = Site::start("[engine]\nactive_alarms_max = 3");
    site.send(&json!([event("a=1", "disk.full", "major"), event("a=2", "t", "minor"), event("a=3", "t", "x"), 7]));
    let twice = json!({"resource": "a=1", "alarm_type": "t", "severity": "major", "event_id": "e"});
    site.send(&json!([twice, twice]));
    let over = site.post("/events", &event("a=9", "t", "major").to_string()).expect("answers");
    assert_eq!(over.status, 422, "{}", over.body);
    let _ = post(&site, "application/json", None, b"{");
    let _ = post(&site, "text/plain", None, b"{}");
    let odd = json!({"site": "a\"b\\c", "resource": "a=1", "alarm_type": "t", "severity": "cleared"});
    let _ = site.post("/events", &odd.to_string()).expect("answers");
    site.cli_ok(&["alarms", "ack", "--resource", "a=1", "--all"]);
    let read = || metrics(&site.get("//metrics").expect("answers").body);
    let samples = read();
    let sum = |word: &str| -> f64 {
        let prefix = format!("klaxon_door_events_{word}_total{{");
        samples.iter().filter(|(series, _)| series.starts_with(&prefix)).map(|(_, value)| value).sum()
    };
    let parts = sum("journalled") + sum("rejected") + sum("dropped") + sum("duplicate");
    assert_eq!(sum("received"), parts, "{samples:?}");
    assert_eq!(
        sum("received"),
        4.0 + 2.0 + 1.0 + 2.0 + 1.0 + 1.0,
        "four, two, one over the limit, two unreadable, an odd site, an action"
    );
    assert_eq!(sum("duplicate"), 1.0);
    let active: f64 =
        samples.iter().filter(|(name, _)| name.starts_with("klaxon_alarms_active{")).map(|(_, value)| value).sum();
    assert_eq!(active, site.json("/alarms/summary")["active"].as_f64().expect("a number"));
    let position = site.json("/alarms")["position"].as_f64();
    assert_eq!(samples.get("klaxon_journal_position").copied(), position);
    for name in ["klaxon_journal_epoch", "klaxon_view_lag_records", "klaxon_queue_waiting", "klaxon_stream_subscribers"] {
        assert!(samples.contains_key(name), "{name} is missing");
    }
    assert!(!site.log_text().contains("ERROR"), "{}", site.log_text());
}

#[test]
fn an_answer_tells_what_a_report_led_to_and_not_what_was_due_before_it() {
    let site = Site::start("[engine]\ncleared_max = 1");
    let mut over = event("host=over", "x", "major");
    over["ends_at"] = json!("2001-01-01T00:00:00Z");
    let sent = json!([over, event("host=next", "x", "minor"), event("host=next", "x", "minor")]);
    let told = site.wire(&Wire {
        method: "POST",
        path: "/api/v1/events?results=all",
        headers: &[("content-type", "application/json")],
        body: sent.to_string().as_bytes(),
    });
    let told = told.json();
    assert_eq!(column(&told, "results", "change"), ["raised", "raised", "null"], "{told}");
    assert_ne!(told["results"][0]["alarm"], told["results"][1]["alarm"], "{told}");
    // One cleared alarm more than may be: it is purged as the next entry comes, and that one's answer is about its own.
    let sent = json!([
        event("host=a", "x", "major"),
        event("host=a", "x", "cleared"),
        event("host=next", "x", "minor"),
        event("host=b", "x", "major")
    ]);
    let told = site.wire(&Wire {
        method: "POST",
        path: "/api/v1/events?results=all",
        headers: &[("content-type", "application/json")],
        body: sent.to_string().as_bytes(),
    });
    let told = told.json();
    assert_eq!(column(&told, "results", "change"), ["raised", "cleared", "null", "raised"], "{told}");
}

#[test]
fn under_pressure_too_what_is_answered_has_taken_effect() {
    let site = Site::start("");
    let node: &Node = &site;
    std::thread::scope(|scope| {
        for reporter in 0..3 {
            scope.spawn(move || {
                for round in 0..4 {
                    let resource = |n: usize| format!("host=r{reporter}-{round}-{n}");
                    let sent: Vec<_> = (0..2000).map(|n| event(&resource(n), "x", "major")).collect();
                    let told = node.send(&json!(sent));
                    let last = resource(1999);
                    let shown =
                        node.json(&format!("/alarms?at_least={}&resource={}", told["position"], last.replace('=', "%3D")));
                    assert_eq!(resources(&shown), set(&[&last]), "{told}");
                }
            });
        }
    });
    let metrics = node.get("//metrics").expect("answers").body;
    assert!(!metrics.contains("\nklaxon_engine_batches_ahead_total 0\n"), "there was no pressure");
}
