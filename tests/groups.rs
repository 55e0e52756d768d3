//! Receivers whose alarms are grouped: several in one request, none of them lost or told twice, whatever happens to either side.

mod harness;

use std::collections::BTreeSet;

use harness::hook::{Hook, Post};
use harness::{Node, Setup, Site, scratch, wait_until};
use serde_json::{Value, json};

/// Longer than any test takes.
const LONG: &str = "1h";

fn receiver(hook: &Hook, by: &str, wait: &str, interval: &str) -> String {
    format!(
        "[receivers.noc]\nfold_after = \"0s\"\ngroup = {{ by = [{by}], wait = \"{wait}\", interval = \"{interval}\" }}\n\
         webhook = {{ url = \"{}\" }}\n",
        hook.url()
    )
}

fn event(resource: &str, severity: &str) -> Value {
    json!({ "resource": resource, "alarm_type": "fan.failed", "severity": severity })
}

fn shown(node: &Node) -> Value {
    node.json("/receivers/noc")
}

fn wait_confirmed(node: &Node, count: u64) {
    wait_until("all is confirmed", || shown(node)["confirmed"] == count && shown(node)["assigned"] == count);
}

/// The numbers in one request.
fn numbers(post: &Post) -> Vec<u64> {
    let all = post.json()["notifications"].as_array().cloned().expect("is a list");
    all.iter().map(|one| one["delivery_seq"].as_u64().expect("is a number")).collect()
}

/// What is in one request: the resource, and what became of it.
fn said(post: &Post) -> Vec<(String, String)> {
    let all = post.json()["notifications"].as_array().cloned().expect("is a list");
    let word = |value: &Value| value.as_str().expect("is a text").to_owned();
    all.iter().map(|one| (word(&one["alarm"]["resource"]), word(&one["how"]))).collect()
}

#[test]
fn what_belongs_together_comes_together_in_its_order() {
    let hook = Hook::start();
    let site = Site::start(&receiver(&hook, "\"resource.host\"", "300ms", "1s"));
    site.send(&json!([event("host=a.fan=1", "major"), event("host=b.fan=1", "major"), event("host=a.fan=2", "minor")]));
    site.send(&json!([event("host=a.fan=1", "critical"), event("host=a.fan=1", "cleared")]));
    wait_confirmed(&site, 5);
    let posts = hook.posts();
    let of = |host: &str| {
        let is_of = |post: &&Post| said(post)[0].0.starts_with(host);
        posts.iter().filter(is_of).map(said).collect::<Vec<_>>()
    };
    let step = |resource: &str, how: &str| (resource.to_owned(), how.to_owned());
    let a = [("host=a.fan=1", "raised"), ("host=a.fan=2", "raised"), ("host=a.fan=1", "changed"), ("host=a.fan=1", "cleared")];
    assert_eq!(of("host=a"), [a.map(|(resource, how)| step(resource, how)).to_vec()]);
    assert_eq!(of("host=b"), [vec![step("host=b.fan=1", "raised")]]);
    // The group was sent just now, and waits; another begins at once.
    let before = posts.iter().find(|post| said(post)[0].0.starts_with("host=a")).expect("came").at;
    site.send(&json!([event("host=a.fan=2", "cleared"), event("host=c", "major")]));
    wait_confirmed(&site, 7);
    let posts = hook.posts();
    let [.., c, a] = &*posts else { panic!("{posts:?}") };
    assert_eq!((said(c), said(a)), (vec![step("host=c", "raised")], vec![step("host=a.fan=2", "cleared")]));
    assert!((a.at - before).as_millis() > 800, "{:?}", a.at - before);
}

#[test]
fn what_waited_when_the_node_was_killed_is_told_once_and_together() {
    let (hook, dir) = (Hook::start(), scratch("groups-"));
    let setup = Setup::new(&dir.path().join("data")).config(&receiver(&hook, "\"site\"", LONG, LONG));
    let node = setup.start();
    node.send(&(0..40).map(|number| event(&format!("host=h{number}"), "major")).collect());
    node.send(&(0..20).map(|number| event(&format!("host=h{number}"), "cleared")).collect());
    wait_until("all has its number", || shown(&node)["assigned"] == 60);
    assert_eq!((hook.count(), &shown(&node)["confirmed"]), (0, &json!(0)));
    node.kill();
    let node = setup.start();
    wait_confirmed(&node, 60);
    let posts = hook.posts();
    assert_eq!(posts.iter().map(numbers).collect::<Vec<_>>(), [(1..=60).collect::<Vec<_>>()]);
    // What comes then waits anew, and is in nobody's way when the node ends.
    node.send(&event("host=x", "major"));
    wait_until("it has its number", || shown(&node)["assigned"] == 61);
    assert!(node.stop().success());
    let node = setup.start();
    wait_confirmed(&node, 61);
    assert_eq!(hook.posts().iter().map(numbers).collect::<Vec<_>>(), [(1..=60).collect::<Vec<_>>(), vec![61]]);
}

#[test]
fn a_group_stays_together_while_its_receiver_fails_and_takes_in_what_comes() {
    let hook = Hook::start();
    let site = Site::start(&receiver(&hook, "", "100ms", "100ms"));
    hook.answer(503);
    site.send(&json!([event("host=a", "major"), event("host=b", "major"), event("host=c", "major")]));
    wait_until("it was tried again", || hook.count() >= 2);
    site.send(&event("host=d", "major"));
    hook.answer(0);
    wait_confirmed(&site, 4);
    let posts = hook.posts();
    assert!(posts.iter().filter(|post| post.status == 503).all(|post| numbers(post).starts_with(&[1, 2, 3])), "{posts:?}");
    let told: Vec<u64> = posts.iter().filter(|post| post.status == 200).flat_map(numbers).collect();
    assert_eq!(told, [1, 2, 3, 4]);
    assert!(posts.iter().any(|post| post.status == 200 && numbers(post).len() >= 3), "{posts:?}");
}

#[test]
fn one_that_the_receiver_never_takes_does_not_hold_its_group() {
    let hook = Hook::start();
    let site = Site::start(&receiver(&hook, "", "100ms", "100ms"));
    hook.answer(422);
    site.send(&json!([event("host=a", "major"), event("host=b", "major")]));
    wait_until("they were refused, and then each alone", || hook.posts().iter().any(|post| numbers(post).len() == 1));
    hook.answer(0);
    wait_confirmed(&site, 2);
    let told: Vec<u64> = hook.posts().iter().filter(|post| post.status == 200).flat_map(numbers).collect();
    assert!(told.contains(&1) && told.contains(&2), "{told:?}");
}

#[test]
fn more_than_may_wait_does_not_wait() {
    let hook = Hook::start();
    let site = Site::start(&receiver(&hook, "\"site\"", LONG, LONG));
    for from in [0, 500] {
        site.send(&(from..from + 500).map(|number| event(&format!("host=h{number}"), "major")).collect());
    }
    let told = hook.wait_told(500);
    let all: Vec<u64> = told.iter().map(|one| one["delivery_seq"].as_u64().expect("is a number")).collect();
    assert_eq!(all, (1..=all.len() as u64).collect::<Vec<_>>());
    assert!(hook.posts().iter().all(|post| numbers(post).len() <= 100));
    assert!(hook.count() < 50, "they are still many in one: {}", hook.count());
}

#[test]
fn what_is_given_up_stands_no_longer_beside_others() {
    let hook = Hook::start();
    let settings = receiver(&hook, "", "100ms", "100ms").replace("webhook = {", "webhook = { form = \"alertmanager\",");
    let site = Site::start(&settings);
    site.send(&json!([event("host=a", "major"), event("host=b", "major")]));
    wait_confirmed(&site, 2);
    hook.answer(422);
    site.send(&event("host=a", "cleared"));
    wait_until("it is given up", || shown(&site)["counters"]["refused"] == 1);
    hook.answer(0);
    site.send(&event("host=c", "major"));
    wait_confirmed(&site, 4);
    let last = hook.posts().last().expect("came").json();
    let alerts = last["alerts"].as_array().expect("is a list").iter();
    let resources: BTreeSet<&str> = alerts.map(|alert| alert["labels"]["resource"].as_str().expect("has one")).collect();
    assert_eq!(resources, BTreeSet::from(["host=b", "host=c"]), "{last}");
}

#[test]
fn of_a_rate_a_group_takes_one() {
    let hook = Hook::start();
    let site = Site::start(&receiver(&hook, "", "300ms", "1s").replace("fold_after", "rate = 1\nfold_after"));
    site.send(&(0..60).map(|number| event(&format!("host=h{number}"), "major")).collect());
    wait_confirmed(&site, 60);
    assert_eq!(hook.posts().iter().map(numbers).collect::<Vec<_>>(), [(1..=60).collect::<Vec<_>>()]);
}
