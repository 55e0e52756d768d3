//! Receivers over a real store and the loop that fills it: what they are told, in which order, and what survives.

#[path = "notify/node.rs"]
mod node;
#[path = "notify/schedules.rs"]
mod schedules;

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use klaxon_api::notify::{Backoff, Filter, How, ReceiverConfig, ReceiverState, ResendError, SinkLimits, Start, What};
use klaxon_schemas::action::{AlarmVerb, Verb};
use klaxon_schemas::event::Report;
use klaxon_schemas::names::{AlarmType, Follower, Text};
use klaxon_schemas::severity::Severity::{self, Critical, Major, Minor, Warning};
use klaxon_store::Retention;

use node::{Mode, Node, World, in_an_hour, picture, receiver, report};

fn at_least(severity: Severity) -> Filter {
    Filter { severity_min: Some(severity), ..Filter::default() }
}

fn name(text: &str) -> Follower {
    Follower::new(text).expect("valid")
}

struct Scene {
    dir: tempfile::TempDir,
    world: World,
}

impl Scene {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("makes"), world: World::default() }
    }

    fn open(&self) -> Node {
        Node::open(self.dir.path(), &self.world)
    }

    /// The store backed up and restored, in a scene with the same receivers; and where it is.
    fn restored(&self) -> (Self, PathBuf) {
        let copy = Self { dir: tempfile::tempdir().expect("makes"), world: self.world.clone() };
        let (backup, data) = (copy.dir.path().join("backup"), copy.dir.path().join("data"));
        klaxon_store::backup::backup(self.dir.path(), &backup, &[]).expect("is backed up");
        klaxon_store::backup::restore(&backup, &data, &[]).expect("is restored");
        (copy, data)
    }
}

#[test]
fn a_level_is_told_as_in_rfc_8632() {
    let scene = Scene::new();
    let node = scene.open();
    node.apply([ReceiverConfig { filter: at_least(Major), ..receiver("noc") }]);
    for severity in [Major, Minor, Warning, Minor, Major, Critical, Major] {
        node.raise("host=a", severity);
    }
    node.clear("host=a");
    node.quiet("noc");
    let expected = ["raised major", "left minor", "raised major", "changed critical", "changed major", "cleared major"];
    assert_eq!(scene.world.told("noc"), expected.map(|words| format!("{words} host=a")));
    node.raise("host=b", Minor);
    node.clear("host=b");
    node.raise("host=c", Critical);
    node.on("host=c", AlarmVerb::Retire { note: None });
    node.quiet("noc");
    assert_eq!(scene.world.told("noc")[6..], ["raised critical host=c", "retired critical host=c"]);
    assert_eq!(node.shown("noc").told, 0);
    node.close();
}

#[test]
fn shelving_and_suppression_let_alarms_leave_and_come_back() {
    let scene = Scene::new();
    let node = scene.open();
    let all = Filter { shelved: true, suppressed: true, ..Filter::default() };
    node.apply([receiver("noc"), ReceiverConfig { filter: all, updates: false, ..receiver("all") }]);
    for resource in ["host=a", "host=b"] {
        node.raise(resource, Major);
    }
    let shelve = AlarmVerb::Shelve { until: in_an_hour(), reason: Text::new("work").expect("valid") };
    node.on("host=a", shelve);
    node.on("host=a", AlarmVerb::Unshelve);
    let of_b = AlarmType::new("test.b").expect("valid");
    node.act(Verb::Suppress { alarm_type: of_b.clone(), reason: None });
    node.raise("host=b", Critical);
    node.raise("host=bb", Critical);
    node.act(Verb::Unsuppress { alarm_type: of_b.clone() });
    node.quiet("noc");
    let mut told = scene.world.told("noc");
    assert_eq!(told[..4], ["raised major host=a", "raised major host=b", "left major host=a", "raised major host=a"]);
    assert!(told[4].starts_with("left ") && told[4].ends_with(" host=b"), "{told:?}");
    told[5..].sort();
    assert_eq!(told[5..], ["raised critical host=b", "raised critical host=bb"]);
    // Its end is told although it is suppressed.
    node.act(Verb::Suppress { alarm_type: of_b, reason: None });
    node.clear("host=b");
    node.quiet("noc");
    assert_eq!(scene.world.told("noc").last().expect("was told"), "cleared critical host=b");
    node.quiet("all");
    let told = scene.world.told("all");
    assert!(told.iter().all(|words| !words.starts_with("left")), "{told:?}");
    assert_eq!(picture(&scene.world.arrived("all")).len(), 2);
    node.close();
}

#[test]
fn a_suppression_is_told_of_all_its_alarms_whatever_happens_meanwhile() {
    let scene = Scene::new();
    let node = scene.open();
    scene.world.on("noc", |wire| wire.limits.window = 8);
    node.apply([receiver("noc")]);
    node.publish((0..600).map(|number| report(&format!("host=a{number}"), Report::Raise(Major))).collect());
    node.quiet("noc");
    scene.world.set("noc", Mode::Hang);
    node.act(Verb::Suppress { alarm_type: AlarmType::new("test.a").expect("valid"), reason: None });
    node.wait("some of them are on their way", || scene.world.arrived("noc").len() == 608);
    node.crash();
    scene.world.set("noc", Mode::Up);
    let node = scene.open();
    node.apply([receiver("noc")]);
    node.quiet("noc");
    assert!(picture(&scene.world.arrived("noc")).is_empty());
    let lefts = scene.world.told("noc").iter().filter(|words| words.starts_with("left ")).count();
    assert_eq!(lefts, 600);
    node.close();
}

#[test]
fn people_s_updates_and_log_events_are_told_to_whom_they_are_for() {
    let scene = Scene::new();
    let node = scene.open();
    let quiet = ReceiverConfig { updates: false, ..receiver("quiet") };
    node.apply([ReceiverConfig { log_events: true, ..receiver("noc") }, quiet]);
    node.raise("host=a", Major);
    node.on("host=a", AlarmVerb::Acknowledge { note: None });
    node.publish(vec![report("host=z", Report::Log(Warning))]);
    node.quiet("noc");
    node.quiet("quiet");
    assert_eq!(scene.world.told("noc"), ["raised major host=a", "changed major host=a", "log"]);
    assert_eq!(scene.world.told("quiet"), ["raised major host=a"]);
    node.close();
}

#[test]
fn a_filter_that_changes_tells_what_is_new_in_it_and_the_end_of_what_was_told() {
    let scene = Scene::new();
    let node = scene.open();
    let config = |severity| [ReceiverConfig { filter: at_least(severity), ..receiver("noc") }];
    node.raise("host=old", Minor);
    node.apply([ReceiverConfig { start: Start::Now, ..config(Major)[0].clone() }]);
    node.raise("host=a", Major);
    node.raise("host=b", Minor);
    node.quiet("noc");
    node.apply(config(Minor));
    node.quiet("noc");
    let mut told = scene.world.told("noc");
    told[1..].sort();
    assert_eq!(told, ["raised major host=a", "raised minor host=b", "raised minor host=old"]);
    node.apply(config(Critical));
    node.quiet("noc");
    let mut told = scene.world.told("noc").split_off(3);
    told.sort();
    assert_eq!(told, ["left major host=a", "left minor host=b", "left minor host=old"]);
    node.clear("host=a");
    node.quiet("noc");
    assert_eq!(scene.world.told("noc")[6..], ["cleared major host=a"]);
    // The same over a restart.
    node.close();
    let node = scene.open();
    node.apply(config(Minor));
    node.quiet("noc");
    let mut told = scene.world.told("noc").split_off(7);
    told.sort();
    assert_eq!(told, ["raised minor host=b", "raised minor host=old"]);
    node.close();
}

#[test]
fn nothing_confirmed_is_told_again_after_a_restart_and_nothing_unconfirmed_is_lost() {
    let scene = Scene::new();
    let node = scene.open();
    node.apply([receiver("noc")]);
    for number in 0..20 {
        node.raise(&format!("host=a{number}"), Major);
    }
    node.quiet("noc");
    node.close();
    let before = scene.world.arrived("noc");
    assert_eq!(before.len(), 20);
    let node = scene.open();
    node.apply([receiver("noc")]);
    node.raise("host=b", Major);
    node.quiet("noc");
    node.close();
    let after = scene.world.arrived("noc");
    assert_eq!(after[..20], before);
    assert_eq!(after.len(), 21, "{after:?}");
    picture(&after);
}

#[test]
fn after_a_crash_a_number_stands_for_what_it_stood_for() {
    let scene = Scene::new();
    scene.world.on("noc", |wire| wire.limits.window = 8);
    let node = scene.open();
    node.apply([receiver("noc")]);
    scene.world.set("noc", Mode::Hang);
    for number in 0..6 {
        node.raise(&format!("host=a{number}"), Major);
    }
    node.clear("host=a0");
    node.wait("all is on its way", || scene.world.arrived("noc").len() == 6);
    node.crash();
    let node = scene.open();
    // What happens now must not take their numbers, nor change what they say.
    node.raise("host=a1", Critical);
    scene.world.set("noc", Mode::Up);
    node.apply([receiver("noc")]);
    node.quiet("noc");
    assert_eq!(picture(&scene.world.arrived("noc")), node.standing(&receiver("noc")));
    assert!(scene.world.arrived("noc").len() >= 14, "the six came twice");
    node.close();
}

#[test]
fn a_receiver_that_is_away_holds_up_no_other_and_becomes_an_alarm() {
    let scene = Scene::new();
    let node = scene.open();
    for dead in ["dead-1", "dead-2"] {
        scene.world.set(dead, Mode::Down);
    }
    scene.world.set("stuck", Mode::Hang);
    let soon = |name| ReceiverConfig { unreachable_after: Duration::from_millis(200), ..receiver(name) };
    node.apply([receiver("noc"), soon("dead-1"), soon("dead-2"), receiver("stuck")]);
    for number in 0..200 {
        node.raise(&format!("host=a{number}"), Major);
    }
    node.wait("it is told", || scene.world.on("noc", |wire| wire.confirmed.len() >= 200));
    let alarm = |name: &str| node.alarm(&format!("klaxon=node.receiver={name}"));
    node.wait("the alarms stand", || alarm("dead-1").is_some() && alarm("dead-2").is_some());
    let one = alarm("dead-1").expect("stands");
    assert!(one.text.contains("nobody is there") && one.catalogued, "{one:?}");
    assert_eq!(node.shown("dead-1").state, ReceiverState::Unreachable);
    assert!(alarm("stuck").is_none());
    // It stands over a restart, and ends when the receiver is reached.
    node.crash();
    let node = scene.open();
    node.apply([receiver("noc"), soon("dead-1"), soon("dead-2")]);
    node.wait("it is known", || node.shown("dead-1").state == ReceiverState::Unreachable);
    scene.world.set("dead-1", Mode::Up);
    let active = |name: &str| node.alarm(&format!("klaxon=node.receiver={name}")).is_some_and(|alarm| alarm.is_active());
    node.wait("it is over", || !active("dead-1"));
    node.quiet("dead-1");
    assert_eq!(picture(&scene.world.arrived("dead-1")), node.standing(&receiver("dead-1")));
    // And when the receiver is taken out.
    assert!(active("dead-2"));
    node.apply([receiver("noc")]);
    assert!(!active("dead-2"));
    assert_eq!(node.store.read().state().keepers().into_keys().collect::<Vec<_>>(), [name("noc")]);
    node.close();
}

#[test]
fn an_old_backlog_becomes_one_line_and_what_stands() {
    let scene = Scene::new();
    let node = scene.open();
    let fold_after = Some(Duration::from_millis(300));
    // While it is away, what fails often lets another be tried; that begins later than this backlog.
    let backoff = Backoff { min: Duration::from_secs(1), max: Duration::from_secs(4) };
    let config = ReceiverConfig { fold_after, backoff, log_events: true, updates: false, ..receiver("noc") };
    node.apply([config.clone()]);
    node.raise("host=before", Major);
    node.raise("host=seen", Major);
    node.raise("host=stays", Major);
    node.quiet("noc");
    scene.world.set("noc", Mode::Down);
    node.raise("host=first", Minor);
    node.wait("it is away", || node.shown("noc").counters.retried >= 2);
    let away = Instant::now();
    let came_and_went = |number| {
        let (resource, severity) = (format!("host=a{number}"), if number == 7 { Critical } else { Warning });
        [report(&resource, Report::Raise(severity)), report(&resource, Report::Clear)]
    };
    node.publish((0..50).flat_map(came_and_went).collect());
    node.publish(vec![report("host=z", Report::Log(Warning))]);
    node.clear("host=before");
    node.on("host=seen", AlarmVerb::Acknowledge { note: None });
    node.raise("host=new", Major);
    node.raise("host=stays", Critical);
    let oldest = || away.elapsed() > Duration::from_millis(400);
    node.wait("the backlog is old", oldest);
    scene.world.set("noc", Mode::Up);
    node.quiet("noc");
    let mut told = scene.world.told("noc").split_off(3);
    assert_eq!(told[..2], ["raised minor host=first", "digest 104 50"]);
    told[2..].sort();
    assert_eq!(told[2..], ["changed critical host=stays", "cleared major host=before", "raised major host=new"]);
    let arrived = scene.world.arrived("noc");
    let Some(What::Digest(digest)) = arrived.iter().map(|one| &one.what).find(|what| what.is_barrier()) else {
        panic!("is a digest")
    };
    assert_eq!((digest.logged, digest.named.len(), digest.named[0].severity), (1, 20, Critical));
    assert_eq!(digest.by_severity.iter().map(|count| count.count).collect::<Vec<_>>(), [1, 49]);
    let shown = node.shown("noc");
    assert_eq!((shown.counters.folded, shown.counters.folded_changes), (1, 104));
    assert_eq!(picture(&arrived), node.standing(&config));
    node.close();
}

#[test]
fn what_retention_has_overtaken_is_a_gap_and_then_what_stands() {
    let scene = Scene::new();
    let node = scene.open();
    node.apply([receiver("noc")]);
    node.raise("host=before", Major);
    node.raise("host=stays", Major);
    node.raise("host=forgotten", Major);
    node.quiet("noc");
    node.close();
    let node = scene.open();
    node.clear("host=before");
    node.on("host=forgotten", AlarmVerb::Retire { note: None });
    node.raise("host=new", Minor);
    let small = Retention { history_max_bytes: 600 * 1024, ..Retention::default() };
    node.control.send(klaxon::follow::Control::Retention(small)).expect("the loop runs");
    let begin = node.store.info().first_position;
    node.wait("the backlog is overtaken", || {
        let all = |what: Report| (0..100).map(move |number| report(&format!("host=x{number}"), what));
        node.publish(all(Report::Raise(Minor)).chain(all(Report::Clear)).collect());
        node.store.info().first_position > begin
    });
    node.apply([receiver("noc")]);
    node.quiet("noc");
    let mut told = scene.world.told("noc").split_off(3);
    assert_eq!(told[0], "gap retention");
    told[1..].sort();
    assert_eq!(told[1..], ["cleared major host=before", "raised minor host=new", "retired major host=forgotten"]);
    let arrived = scene.world.arrived("noc");
    let What::Gap(gap) = &arrived[3].what else { panic!("is a gap") };
    assert!(gap.changes.is_some_and(|changes| changes >= 200) && gap.from < gap.to, "{gap:?}");
    assert_eq!(picture(&arrived), node.standing(&receiver("noc")));
    node.close();
}

#[test]
fn a_new_epoch_numbers_anew_and_tells_what_stands() {
    let scene = Scene::new();
    let node = scene.open();
    node.apply([receiver("noc")]);
    node.raise("host=a", Major);
    node.raise("host=b", Major);
    node.quiet("noc");
    scene.world.set("noc", Mode::Hang);
    node.clear("host=b");
    node.wait("it is on its way", || scene.world.arrived("noc").len() == 3);
    node.crash();
    let (copy, data) = scene.restored();
    scene.world.set("noc", Mode::Up);
    let node = Node::open(&data, &copy.world);
    node.raise("host=c", Major);
    node.apply([receiver("noc")]);
    node.quiet("noc");
    let told = scene.world.told("noc");
    assert_eq!(told[3..], ["gap newepoch", "cleared major host=b", "raised major host=c"]);
    let arrived = scene.world.arrived("noc");
    assert_eq!(arrived[3].delivery_seq, 1);
    assert!(arrived[3].epoch > arrived[0].epoch);
    assert_eq!(picture(&arrived), node.standing(&receiver("noc")));
    node.close();
}

#[test]
fn what_is_asked_for_is_sent_again_under_its_numbers() {
    let scene = Scene::new();
    let node = scene.open();
    let config = ReceiverConfig { replay_max: 40, ..receiver("noc") };
    node.apply([config.clone()]);
    for number in 0..100 {
        node.raise(&format!("host=a{number}"), Major);
    }
    node.clear("host=a99");
    node.quiet("noc");
    let resend = |from| node.block_on(node.receivers.resend(&name("noc"), from));
    let oldest = node.shown("noc").oldest_kept.expect("some are kept");
    assert!((20..=62).contains(&oldest), "{oldest}");
    assert_eq!(resend(oldest - 1), Err(ResendError::TooOld { from: oldest - 1, oldest }));
    assert_eq!(resend(102), Err(ResendError::Ahead { from: 102, last: 101 }));
    let nobody = node.block_on(node.receivers.resend(&name("nobody"), 1));
    assert_eq!(nobody, Err(ResendError::NoSuchReceiver));
    assert_eq!(resend(70), Ok(32));
    node.wait("they came", || scene.world.arrived("noc").len() == 133);
    let arrived = scene.world.arrived("noc");
    assert!(arrived[101..].iter().all(|one| one.resent));
    let numbers: Vec<u64> = arrived[101..].iter().map(|one| one.delivery_seq).collect();
    assert!((70..=101).all(|number| numbers.contains(&number)), "{numbers:?}");
    assert_eq!(picture(&arrived), node.standing(&config));
    // Over a restart as well.
    node.wait("they are counted", || node.shown("noc").counters.resent == 32);
    node.close();
    let node = scene.open();
    node.apply([config.clone()]);
    node.raise("host=b", Major);
    node.quiet("noc");
    assert_eq!(node.block_on(node.receivers.resend(&name("noc"), 101)), Ok(2));
    node.wait("they came", || scene.world.arrived("noc").len() == 136);
    assert_eq!(picture(&scene.world.arrived("noc")), node.standing(&config));
    node.close();
}

#[test]
fn what_there_are_no_words_for_is_settled_and_says_nothing_of_the_receiver() {
    let scene = Scene::new();
    let node = scene.open();
    scene.world.set("noc", Mode::Wordless);
    // All at once: to one that counts as away a single delivery is tried, and that is the alarm's.
    scene.world.on("noc", |wire| wire.limits.window = 8);
    node.apply([ReceiverConfig { log_events: true, ..receiver("noc") }]);
    // It has begun: of what was before, a new one is told what stands and no log events.
    node.quiet("noc");
    let alarm = report("host=a", Report::Raise(Major));
    let logs = (0..5).map(|_| report("host=z", Report::Log(Warning)));
    node.publish([alarm].into_iter().chain(logs).collect());
    node.wait("the log events are settled", || {
        let shown = node.shown("noc");
        scene.world.on("noc", |wire| wire.wordless) == 5 && (shown.assigned, shown.lag_changes) == (6, 1)
    });
    let shown = node.shown("noc");
    assert_eq!((shown.state, shown.last_reached_at, shown.counters.confirmed), (ReceiverState::Retrying, None, 0));
    scene.world.set("noc", Mode::Up);
    node.quiet("noc");
    assert_eq!((node.shown("noc").state, scene.world.told("noc")), (ReceiverState::Ok, vec!["raised major host=a".to_owned()]));
    node.close();
}

#[test]
fn what_the_receiver_refuses_is_given_up_and_the_rest_goes_on() {
    let scene = Scene::new();
    let node = scene.open();
    scene.world.on("noc", |wire| wire.limits = SinkLimits { window: 2, batch_max: 10 });
    let is_bad = |one: &klaxon_api::notify::Notification| match &one.what {
        What::Alarm { alarm, how, .. } => alarm.key.resource.as_str() == "host=a5" && *how == How::Raised,
        _ => false,
    };
    scene.world.set("noc", Mode::Refuse(is_bad));
    for number in 0..10 {
        node.raise(&format!("host=a{number}"), Major);
    }
    node.apply([receiver("noc")]);
    node.quiet("noc");
    node.clear("host=a5");
    node.quiet("noc");
    let told = scene.world.told("noc");
    assert_eq!((told.len(), told.last().map(String::as_str)), (10, Some("cleared major host=a5")));
    let shown = node.shown("noc");
    assert_eq!((shown.counters.refused, shown.state), (1, ReceiverState::Ok));
    assert_eq!(shown.last_error.as_deref(), Some("refused: not that"));
    // Of each number it is known whether it was.
    let given_up: Vec<u64> =
        (1..=shown.assigned).filter(|number| node.receivers.given_up(&name("noc"), *number).is_some()).collect();
    let confirmed = scene.world.on("noc", |wire| wire.confirmed.clone());
    let not_confirmed: Vec<u64> = (1..=shown.assigned).filter(|number| !confirmed.contains(&(shown.epoch, *number))).collect();
    assert_eq!((given_up.len(), &given_up), (1, &not_confirmed));
    assert_eq!(node.receivers.given_up(&name("noc"), given_up[0]).as_deref(), Some("not that"));
    node.close();
}

fn is_poison(one: &klaxon_api::notify::Notification) -> bool {
    matches!(&one.what, What::Alarm { alarm, .. } if alarm.key.resource.as_str() == "host=poison")
}

#[test]
fn one_alarm_that_a_receiver_chokes_on_holds_up_no_other() {
    for limits in [SinkLimits { window: 1, batch_max: 1 }, SinkLimits { window: 4, batch_max: 8 }] {
        let scene = Scene::new();
        let node = scene.open();
        scene.world.on("noc", |wire| wire.limits = limits);
        scene.world.set("noc", Mode::Choke(is_poison));
        for number in 0..3 {
            node.raise(&format!("host=old{number}"), Major);
        }
        node.raise("host=poison", Major);
        for number in 3..6 {
            node.raise(&format!("host=old{number}"), Major);
        }
        node.apply([receiver("noc")]);
        let told = |resource: &str| scene.world.told("noc").iter().any(|words| words.ends_with(resource));
        node.wait("its mates are told", || (0..6).all(|number| told(&format!("host=old{number}"))));
        node.wait("it is alone", || node.shown("noc").counters.retried >= 10);
        // With nothing else to tell, it was the only one that was tried.
        let mut number = 0;
        while node.shown("noc").counters.refused == 0 {
            let (resource, tries) = (format!("host=b{number}"), node.shown("noc").counters.retried);
            node.raise(&resource, Major);
            node.wait("another is told", || told(&resource));
            let is_tried = || node.shown("noc").counters.retried > tries || node.shown("noc").counters.refused > 0;
            node.wait("it is tried again", is_tried);
            number += 1;
            assert!(number < 60, "{:#?}", node.shown("noc"));
        }
        assert!(number >= 10, "it is tried often: {number}");
        node.quiet("noc");
        let shown = node.shown("noc");
        assert_eq!((shown.counters.refused, shown.confirmed), (1, 7 + number));
        assert!(shown.last_error.is_some_and(|error| error.contains("is given up after")));
        node.close();
    }
}

#[test]
fn one_alarm_that_a_receiver_chokes_on_is_not_tried_more_often_because_others_get_through() {
    let scene = Scene::new();
    let node = scene.open();
    scene.world.set("noc", Mode::Choke(is_poison));
    let backoff = Backoff { min: Duration::from_secs(20), max: Duration::from_secs(20) };
    scene.world.on("noc", |wire| wire.limits.window = 2);
    for number in 0..300 {
        node.raise(&format!("host=a{number}"), Major);
        if number == 20 {
            node.raise("host=poison", Major);
        }
    }
    node.apply([ReceiverConfig { backoff, ..receiver("noc") }]);
    node.wait("the others are told", || scene.world.told("noc").len() == 300);
    assert!(node.shown("noc").counters.retried <= 1, "{:#?}", node.shown("noc"));
    node.close();
}

#[test]
fn a_gap_that_a_receiver_chokes_on_does_not_hold_up_what_stands_for_ever() {
    let scene = Scene::new();
    let node = scene.open();
    node.apply([receiver("noc")]);
    node.raise("host=a", Major);
    node.quiet("noc");
    node.close();
    let (copy, data) = scene.restored();
    scene.world.set("noc", Mode::Choke(|one| one.what.is_barrier()));
    let node = Node::open(&data, &copy.world);
    node.raise("host=b", Major);
    node.apply([receiver("noc")]);
    let told = |resource: &str| scene.world.told("noc").iter().any(|words| words.ends_with(resource));
    node.wait("what stands is told", || told("host=b"));
    let mut number = 0;
    while node.shown("noc").counters.refused == 0 {
        let (resource, tries) = (format!("host=c{number}"), node.shown("noc").counters.retried);
        node.raise(&resource, Major);
        node.wait("another is told", || told(&resource));
        let is_tried = || node.shown("noc").counters.retried > tries || node.shown("noc").counters.refused > 0;
        node.wait("it is tried again", is_tried);
        number += 1;
    }
    node.quiet("noc");
    node.close();
}

#[test]
fn a_receiver_whose_task_breaks_is_shown_so_and_started_again() {
    let scene = Scene::new();
    let node = scene.open();
    scene.world.on("noc", |wire| wire.panics = 2);
    node.apply([receiver("noc"), receiver("other")]);
    node.raise("host=a", Major);
    let is_shown = || {
        let shown = node.shown("noc");
        shown.state == ReceiverState::Retrying && shown.last_error.is_some_and(|error| error.contains("breaks"))
    };
    // The sink is asked what it takes when the task begins.
    node.wait("that it broke is shown", is_shown);
    node.quiet("other");
    node.wait("it broke once more", || scene.world.on("noc", |wire| wire.panics == 0));
    node.quiet("noc");
    assert_eq!(scene.world.told("noc"), ["raised major host=a"]);
    assert_eq!(node.block_on(node.receivers.resend(&name("noc"), 1)), Ok(1));
    node.close();
}

#[test]
fn what_a_realignment_said_is_over_is_not_told_as_raised_by_the_walk_behind_it() {
    let scene = Scene::new();
    let node = scene.open();
    node.apply([receiver("noc")]);
    let all = |letter: char, count: usize, what: Report| {
        (0..count).map(move |number| report(&format!("host={letter}{number}"), what)).collect::<Vec<_>>()
    };
    node.publish(all('a', 1050, Report::Raise(Major)));
    node.publish(all('x', 50, Report::Raise(Major)));
    node.quiet("noc");
    node.close();
    let (copy, data) = scene.restored();
    scene.world.set("noc", Mode::Down);
    let node = Node::open(&data, &copy.world);
    node.publish(all('a', 1050, Report::Clear));
    node.apply([receiver("noc")]);
    // It is in the midst of comparing what it was told with what stands.
    node.wait("it is away", || node.shown("noc").counters.retried >= 2);
    node.publish(all('x', 50, Report::Raise(Critical)));
    for number in 0..50 {
        node.on(&format!("host=x{number}"), AlarmVerb::Retire { note: None });
    }
    scene.world.set("noc", Mode::Up);
    node.quiet("noc");
    let told = scene.world.told("noc");
    for number in 0..50 {
        let of_it: Vec<_> = told.iter().filter(|words| words.ends_with(&format!(" host=x{number}"))).collect();
        let ends = of_it.iter().filter(|words| words.starts_with("retired")).count();
        assert!(ends == 1 && of_it.last().is_some_and(|words| words.starts_with("retired")), "{of_it:?}");
    }
    node.close();
}

#[test]
fn a_gap_without_changes_is_not_told() {
    let scene = Scene::new();
    let node = scene.open();
    node.apply([receiver("noc")]);
    node.raise("host=a", Major);
    node.quiet("noc");
    node.close();
    let node = scene.open();
    let small = Retention { history_max_bytes: 600 * 1024, ..Retention::default() };
    node.control.send(klaxon::follow::Control::Retention(small)).expect("the loop runs");
    let begin = node.store.info().first_position;
    let seq = node.store.read().cursor().last_seq;
    node.wait("the repeats overtake it", || {
        node.publish((0..1000).map(|_| report("host=a", Report::Raise(Major))).collect());
        node.store.info().first_position > begin
    });
    assert_eq!(node.store.read().cursor().last_seq, seq, "repeats are no changes");
    node.apply([receiver("noc")]);
    // It is there again before something changes.
    node.quiet("noc");
    node.clear("host=a");
    node.quiet("noc");
    assert_eq!(scene.world.told("noc"), ["raised major host=a", "cleared major host=a"]);
    assert_eq!(node.shown("noc").counters.gaps, 0);
    node.close();
}

#[test]
fn a_heartbeat_waits_for_its_turn() {
    let scene = Scene::new();
    let node = scene.open();
    scene.world.set("noc", Mode::Hang);
    node.raise("host=a", Major);
    let beating = |name| ReceiverConfig { heartbeat: Some(Duration::from_millis(50)), ..receiver(name) };
    node.apply([beating("noc"), beating("other")]);
    node.wait("others hear it", || scene.world.on("other", |wire| wire.heartbeats) >= 8);
    assert_eq!((scene.world.told("noc").len(), scene.world.on("noc", |wire| wire.heartbeats)), (1, 0));
    node.close();
}

#[test]
fn a_rate_is_kept_and_a_heartbeat_tells_the_last_number() {
    let scene = Scene::new();
    let node = scene.open();
    for number in 0..60 {
        node.raise(&format!("host=a{number}"), Major);
    }
    let begin = Instant::now();
    let rate = NonZeroU32::new(20);
    node.apply([ReceiverConfig { rate, heartbeat: Some(Duration::from_millis(100)), ..receiver("noc") }]);
    node.quiet("noc");
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(1900), "20 at once, then 40 at 20 a second: {took:?}");
    let beats = scene.world.on("noc", |wire| wire.heartbeats);
    assert!(beats >= 5, "{beats}");
    assert_eq!(node.shown("noc").assigned, 60);
    node.close();
}
