//! Following changes: whoever comes back with the id of the last event that it saw misses nothing and sees nothing twice, or is
//! told to list anew.

mod harness;

use std::collections::BTreeMap;
use std::time::Duration;

use harness::http::{Event, Stream, Wire};
use harness::{Node, Setup, scratch, wait_until};
use serde_json::{Value, json};

fn event(resource: &str, severity: &str) -> Value {
    json!({"resource": resource, "alarm_type": "t", "severity": severity})
}

/// Reads until `position`, and returns what came.
fn until(stream: &mut Stream, position: u64) -> Vec<Event> {
    let mut events = Vec::new();
    while events.last().is_none_or(|last: &Event| last.position() < position) {
        events.push(stream.next().unwrap_or_else(|| panic!("the stream ended after {:?}", events.last())));
    }
    events
}

/// The changes of the history behind `position`, by their position.
fn changes(node: &Node, position: u64) -> BTreeMap<u64, Value> {
    let placed = node.history().into_iter().map(|mut change| {
        let position = change["position"].as_u64().expect("a number");
        change.as_object_mut().expect("an object").remove("position");
        (position, change)
    });
    placed.filter(|(at, _)| *at > position).collect()
}

fn last_change(node: &Node) -> u64 {
    *changes(node, 0).last_key_value().expect("there is one").0
}

#[test]
fn a_follower_sees_what_the_history_has() {
    let scratch = scratch("stream-");
    let node = Setup::new(&scratch.path().join("data")).start();
    let mut stream = node.stream("", None);
    let hello = stream.expect("hello");
    assert_eq!(hello.data["position"], hello.position());
    node.send(&json!([event("a=1", "major"), event("a=2", "minor")]));
    node.send(&event("a=1", "cleared"));
    let seen = until(&mut stream, last_change(&node));
    assert!(seen.iter().all(|event| event.name == "change"), "{seen:?}");
    let seen: BTreeMap<u64, Value> = seen.into_iter().map(|event| (event.position(), event.data)).collect();
    assert_eq!(seen, changes(&node, hello.position()));
    node.send(&event("a=2", "minor"));
    let touched = stream.expect("touched");
    assert_eq!(touched.data["count"], 2, "{touched:?}");
    // From the beginning, and only a part.
    let mut part = node.stream("?from=0&resource=a%3D1", None);
    part.expect("hello");
    assert_eq!(part.expect("change").data["kind"], "raised");
    assert_eq!(part.expect("change").data["kind"], "cleared");
    let ahead = node.get("/stream?from=999999999").expect("answers");
    assert_eq!(ahead.status, 400, "{}", ahead.body);
}

#[test]
fn a_stream_goes_on_behind_the_last_event_across_restarts() {
    let scratch = scratch("stream-");
    let setup = Setup::new(&scratch.path().join("data"));
    let mut node = setup.start();
    let mut last = node.stream("", None).expect("hello").id;
    let begun = last.split_once('-').and_then(|(_, position)| position.parse().ok()).expect("a position");
    let mut seen: BTreeMap<u64, Value> = BTreeMap::new();
    let mut sent = 0;
    for life in 0..4 {
        let mut stream = node.stream("", Some(&last));
        assert_eq!(stream.expect("hello").id, last, "it goes on where it was");
        for _ in 0..10 {
            node.send(&json!([event(&format!("n={sent}"), "major"), event(&format!("m={sent}"), "minor")]));
            sent += 1;
        }
        // It is read up to somewhere in the middle, and lost.
        for _ in 0..(5 + life * 3) {
            let event = stream.next().expect("goes on");
            last.clone_from(&event.id);
            if event.name == "change" {
                assert!(seen.insert(event.position(), event.data).is_none(), "{last} came twice");
            }
        }
        if life % 2 == 0 {
            node.kill();
        } else {
            assert!(node.stop().success());
            while let Some(event) = stream.next() {
                last.clone_from(&event.id);
                assert!(seen.insert(event.position(), event.data).is_none(), "{last} came twice");
            }
        }
        node = setup.start();
    }
    let mut stream = node.stream("", Some(&last));
    stream.expect("hello");
    node.send(&event("last=1", "minor"));
    for event in until(&mut stream, last_change(&node)) {
        if event.name == "change" {
            assert!(seen.insert(event.position(), event.data).is_none(), "came twice");
        }
    }
    assert_eq!(seen, changes(&node, begun), "nothing is missing");
    assert!(seen.len() == 81);
}

#[test]
fn a_reader_that_was_overtaken_or_is_of_another_epoch_lists_anew() {
    let scratch = scratch("stream-");
    let setup =
        Setup::new(&scratch.path().join("data")).config("[store]\nsegment_bytes = \"1MiB\"\nhistory_max_bytes = \"4MiB\"");
    let node = setup.start();
    let hello = node.stream("", None).expect("hello");
    let batch: Vec<_> = (0..500).map(|n| event(&format!("n={n}"), "major")).collect();
    let over: Vec<_> = (0..500).map(|n| event(&format!("n={n}"), "cleared")).collect();
    let mut changes = 0;
    wait_until("retention has removed the beginning", || {
        node.send(&json!(batch));
        node.send(&json!(over));
        changes += batch.len() + over.len();
        let first = node.get("//metrics").expect("answers").body;
        let first = first.lines().find_map(|line| line.strip_prefix("klaxon_journal_first_position "));
        let first = first.and_then(|first| first.parse::<u64>().ok()).expect("is told");
        // The last 8192 changes are in memory, whatever the disk has.
        first > hello.position() + 1 && changes > 10_000
    });
    let mut stream = node.stream("", Some(&hello.id));
    let mut event = stream.next().expect("it says something");
    if event.name == "hello" {
        event = stream.next().expect("it says more");
    }
    assert_eq!((event.name.as_str(), &event.data["reason"]), ("reset", &json!("overtaken by retention")), "{event:?}");
    let position = event.data["position"].as_u64().expect("a number");
    assert_eq!(stream.next(), None, "then it ends");
    // With the position of the reset it goes on.
    let mut stream = node.stream("", Some(&event.id));
    assert_eq!(stream.expect("hello").position(), position);

    for other in ["1-1", &format!("{}-999999999", hello.data["epoch"])] {
        let mut stream = node.stream("", Some(other));
        assert_eq!(stream.expect("reset").data["reason"], "other epoch", "{other}");
        assert_eq!(stream.next(), None);
    }
    let bad = node.wire(&Wire { method: "GET", path: "/api/v1/stream", headers: &[("last-event-id", "x")], body: b"" });
    assert_eq!(bad.status, 400, "{}", bad.body);
}

#[test]
fn a_slow_reader_holds_nobody_up_and_misses_nothing() {
    let scratch = scratch("stream-");
    let node = Setup::new(&scratch.path().join("data")).start();
    let mut slow = node.stream("", None);
    let hello = slow.expect("hello");
    // Far more than the sockets between hold; nobody reads.
    let mut bytes = 0;
    let text = "x".repeat(2000);
    for round in 0..40 {
        let batch: Vec<_> = (0..200)
            .map(|n| json!({"resource": format!("r={round}.n={n}"), "alarm_type": "t", "severity": "major", "text": text}))
            .collect();
        bytes += json!(batch).to_string().len();
        node.send(&json!(batch));
    }
    assert!(bytes > 16_000_000, "{bytes}");
    let mut quick = node.stream("", None);
    quick.expect("hello");
    node.send(&event("last=1", "minor"));
    assert_eq!(quick.expect("change").data["alarm"]["resource"], "last=1", "another reader is not held up");
    let seen = until(&mut slow, last_change(&node));
    assert!(seen.is_sorted_by_key(Event::position));
    let raised = seen.iter().filter(|event| event.data["kind"] == "raised").count();
    assert_eq!(raised, 8001, "after {}", hello.id);
}

#[test]
fn streams_have_a_limit_and_give_their_place_back() {
    let scratch = scratch("stream-");
    let node =
        Setup::new(&scratch.path().join("data")).config("[http]\nlisten = \"127.0.0.1:0\"\nstream_subscribers_max = 2").start();
    let mut streams = [node.stream("", None), node.stream("", None)];
    for stream in &mut streams {
        stream.expect("hello");
    }
    let more = node.get("/stream").expect("answers");
    assert_eq!(more.status, 503, "{}", more.body);
    assert!(node.get("//metrics").expect("answers").body.contains("klaxon_stream_subscribers 2\n"));
    drop(streams);
    wait_until("their places are free", || {
        // A connection that is gone is noticed when something is written to it.
        node.send(&event("a=1", "major"));
        node.get("//metrics").is_ok_and(|reply| reply.body.contains("klaxon_stream_subscribers 0\n"))
    });
    let mut stream = node.stream("", None);
    stream.expect("hello");
    let since = std::time::Instant::now();
    assert!(node.stop().success(), "open streams do not hold up the end");
    assert!(since.elapsed() < Duration::from_secs(20));
    while stream.next().is_some() {}
}
