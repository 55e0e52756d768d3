//! A node is killed, again and again, under load: every acknowledged report is there, nothing twice, and timers fire as if
//! nothing had happened. The oracle is this process, which knows only what was acknowledged.

#![expect(clippy::print_stdout, reason = "a run says its seed and what it hit")]

mod harness;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use harness::load::Reporter;
use harness::{Chance, Setup, is_long, oracle, scratch, seeds, view_of, wait_until};
use serde_json::json;

/// What the kills of a run hit: a run in which they hit nothing shows nothing.
#[derive(Debug, Default)]
struct Hits {
    acknowledged: u64,
    kills: u64,
    torn: u64,
    left_without_results: u64,
    duplicates: u64,
}

/// Kills a node `kills` times. In every second life the shim kills it in the middle of a frame or right behind one.
fn kill_again_and_again(seed: u64, kills: u64) -> Hits {
    let view = view_of(seed);
    println!("seed {seed}, view in {view}");
    let scratch = scratch("crash-");
    let data = scratch.path().join("data");
    let order = scratch.path().join("kill");
    let mut chance = Chance::new(seed);
    let setup = Setup::new(&data)
        // Small segments and little history beside them, so that kills hit rolling and carrying forward as well.
        .config(&format!("[store]\nsegment_bytes = \"1MiB\"\nhistory_max_bytes = \"1GiB\"\nview = \"{view}\""))
        .shim()
        .env("KLAXON_SHIM_KILL", &order.to_string_lossy());
    let mut reporters: Vec<_> = (0..3).map(|n| Reporter::new(&format!("r{n}"), 60, seed + n)).collect();
    let mut hits = Hits::default();
    for life in 0..kills {
        let node = setup.start();
        let base = node.base.clone();
        let stop = AtomicBool::new(false);
        let sent = AtomicU64::new(0);
        let size = 1 + chance.below(700);
        let by_shim = life % 2 == 1;
        std::thread::scope(|scope| {
            let running: Vec<_> = reporters
                .iter_mut()
                .map(|reporter| {
                    let (base, stop, sent) = (&base, &stop, &sent);
                    // Two of them together send more at once than a frame holds with its results.
                    let size = if reporter.name == "r0" { size } else { 1000 };
                    scope.spawn(move || reporter.run(base, size, stop, sent))
                })
                .collect();
            let some = chance.below(20_000);
            if by_shim {
                let percent = if chance.below(2) == 0 { 100 } else { chance.below(100) };
                std::fs::write(order.with_extension("new"), format!("{} {percent}", chance.below(12))).expect("can be written");
                std::fs::rename(order.with_extension("new"), &order).expect("can be renamed");
                wait_until("the shim has killed it", || running.iter().all(std::thread::ScopedJoinHandle::is_finished));
            } else {
                wait_until("some reports are acknowledged", || sent.load(Ordering::Relaxed) >= some);
                std::thread::sleep(Duration::from_micros(chance.below(20_000)));
            }
            node.kill();
            stop.store(true, Ordering::Relaxed);
        });
        hits.kills += 1;
        hits.acknowledged += sent.load(Ordering::Relaxed);
        // Now and then look closely; else the next life shows it.
        if chance.below(8) == 0 || life + 1 == kills {
            let node = setup.start();
            for reporter in &mut reporters {
                reporter.settle(&node.base);
            }
            oracle::compare(&node, &reporters);
            node.kill();
        }
    }
    let log = std::fs::read_to_string(data.with_extension("log")).expect("there is a log");
    hits.torn = log.matches("torn").count() as u64;
    hits.left_without_results = log.matches("applying what was journalled and").count() as u64;
    hits.duplicates = reporters.iter().map(|reporter| reporter.duplicates).sum();
    println!("{hits:?}");
    hits
}

#[test]
fn nothing_acknowledged_is_lost_by_kills_and_nothing_is_there_twice() {
    let mut all = Hits::default();
    let mut seeds = seeds(2, 8);
    // Where kills land is chance: a few more runs, if need be, until each kind was hit.
    let wanted = seeds.len();
    let last = seeds[wanted - 1];
    seeds.extend((1000..1003).map(|more| last + more));
    for (run, seed) in seeds.into_iter().enumerate() {
        if run >= wanted && all.torn > 0 && all.left_without_results > 0 && all.duplicates > 0 {
            break;
        }
        let hits = kill_again_and_again(seed, if is_long() { 40 } else { 16 });
        all.acknowledged += hits.acknowledged;
        all.kills += hits.kills;
        all.torn += hits.torn;
        all.left_without_results += hits.left_without_results;
        all.duplicates += hits.duplicates;
    }
    println!("all: {all:?}");
    assert!(all.acknowledged > 1000 * all.kills, "{all:?}");
    assert!(all.torn > 0, "no kill landed in the middle of a frame: {all:?}");
    assert!(all.left_without_results > 0, "no kill landed between entries and their results: {all:?}");
    assert!(all.duplicates > 0, "nothing had to be sent twice: {all:?}");
}

#[test]
fn timers_survive_a_kill() {
    let scratch = scratch("timers-");
    let setup = Setup::new(&scratch.path().join("data")).config("[engine]\npurge_cleared_after = \"6s\"");
    let node = setup.start();
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(5);
    node.send(&json!([
        {"resource": "a=ends", "alarm_type": "t", "severity": "major", "ends_at": soon.to_string()},
        {"resource": "a=lease", "alarm_type": "t", "severity": "major", "lease_s": 3},
        {"resource": "a=purged", "alarm_type": "t", "severity": "major"},
        {"resource": "a=purged", "alarm_type": "t", "severity": "cleared"},
        {"resource": "a=shelved", "alarm_type": "t", "severity": "major"},
    ]));
    let id = node.json("/alarms?resource=a%3Dshelved")["alarms"][0]["id"].as_str().expect("has an id").to_owned();
    node.cli_ok(&["alarms", "shelve", &id, "--for", "4s", "--reason", "work"]);
    node.kill();
    let node = setup.start();
    let history = |node: &harness::Node, resource: &str| -> Vec<String> {
        let page = node.json(&format!("/history?order=asc&resource=a%3D{resource}"));
        let changes = page["changes"].as_array().expect("is a list");
        changes.iter().map(|change| change["kind"].as_str().expect("is a word").to_owned()).collect()
    };
    wait_until("the deadlines have passed", || history(&node, "purged").len() == 3 && history(&node, "ends").len() == 2);
    wait_until("the lease is over", || history(&node, "lease").len() == 2);
    wait_until("it is unshelved", || history(&node, "shelved").len() == 3);
    assert_eq!(history(&node, "ends"), ["raised", "cleared"]);
    assert_eq!(history(&node, "lease"), ["raised", "staled"]);
    assert_eq!(history(&node, "purged"), ["raised", "cleared", "purged"]);
    assert_eq!(history(&node, "shelved"), ["raised", "shelved", "unshelved"]);
    node.kill();
    let node = setup.start();
    assert_eq!(history(&node, "lease"), ["raised", "staled"], "nothing fires twice");
    oracle::check_numbers(&node.history());
}

#[test]
fn an_entry_that_breaks_the_engine_is_put_aside_and_the_node_lives() {
    let scratch = scratch("poison-");
    let setup = Setup::new(&scratch.path().join("data")).env("KLAXON_FAULT_PANIC_TYPE", "poison");
    let node = setup.start();
    let told = node.send(&json!([
        {"resource": "a=before", "alarm_type": "t", "severity": "major"},
        {"resource": "a=poison", "alarm_type": "poison", "severity": "major"},
        {"resource": "a=after", "alarm_type": "t", "severity": "major"},
    ]));
    assert_eq!(told["accepted"], 3);
    let check = |node: &harness::Node| {
        let resources: Vec<_> =
            node.alarms().iter().map(|alarm| alarm["resource"].as_str().expect("a text").to_owned()).collect();
        for resource in ["a=before", "a=after", "klaxon=node"] {
            assert!(resources.iter().any(|there| there == resource), "{resource} is not in {resources:?}");
        }
        assert!(!resources.iter().any(|there| there == "a=poison"), "{resources:?}");
        let quarantined = node.json("/history?kind=quarantined");
        assert_eq!(quarantined["changes"].as_array().expect("a list").len(), 1, "{quarantined}");
    };
    wait_until("the alarm about it is there", || !node.json("/alarms?alarm_type=klaxon.quarantine")["alarms"][0].is_null());
    check(&node);
    node.kill();
    // The poison is still in the journal, and is not touched again.
    let node = setup.start();
    check(&node);
    oracle::check_numbers(&node.history());
}

#[test]
fn a_clock_that_is_set_by_ten_years_purges_nothing_and_fires_nothing() {
    let scratch = scratch("clock-");
    let offset = scratch.path().join("offset");
    let set = |seconds: i64| {
        std::fs::write(offset.with_extension("new"), seconds.to_string()).expect("can be written");
        std::fs::rename(offset.with_extension("new"), &offset).expect("can be renamed");
    };
    set(0);
    let setup = Setup::new(&scratch.path().join("data")).shim().env("KLAXON_SHIM_CLOCK", &offset.to_string_lossy());
    let mut node = setup.start();
    let in_an_hour = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1);
    node.send(&json!([
        {"resource": "a=ends", "alarm_type": "t", "severity": "major", "ends_at": in_an_hour.to_string()},
        {"resource": "a=lease", "alarm_type": "t", "severity": "major", "lease_s": 3600},
        {"resource": "a=cleared", "alarm_type": "t", "severity": "major"},
        {"resource": "a=cleared", "alarm_type": "t", "severity": "cleared"},
    ]));
    let before = node.json("/alarms?cleared=any&sort=resource")["alarms"].clone();
    let ten_years = 10 * 366 * 24 * 3600;
    for (step, seconds) in [(1, ten_years), (2, -ten_years), (3, 0)] {
        set(seconds);
        node.send(
            &json!({"resource": "a=other", "alarm_type": "t", "severity": if step % 2 == 1 { "major" } else { "cleared" }}),
        );
        let now = node.json("/alarms?cleared=any&sort=resource")["alarms"].clone();
        let without_other: Vec<_> =
            now.as_array().expect("a list").iter().filter(|alarm| alarm["resource"] != "a=other").cloned().collect();
        assert_eq!(json!(without_other), before, "after step {step}");
        // Also while the clock stands wrong the node may be restarted: within a boot it knows the time that passed.
        node.kill();
        node = setup.start();
        assert_eq!(node.json("/alarms?cleared=any&resource=a%3Dlease")["alarms"][0]["stale"], serde_json::Value::Null);
    }
    assert!(node.log_text().contains("the wall clock was set"));
    let kinds = node.json("/history?order=asc");
    let kinds: Vec<_> = kinds["changes"].as_array().expect("a list").iter().map(|change| change["kind"].clone()).collect();
    assert!(!kinds.contains(&json!("purged")) && !kinds.contains(&json!("staled")), "{kinds:?}");
}
