//! What a node makes of what sites below it send, told as timelines; and what holds for any way in which it comes.

mod harness;

use std::collections::BTreeSet;
use std::sync::Arc;

use harness::fleet::{Fleet, at_site, check_fleet};
use klaxon_correlate::Disposition;
use klaxon_schemas::change::{ChangeKind, Subject};
use klaxon_schemas::child::{ChildKind, ChildStep};
use klaxon_schemas::entry::EntryKind;
use proptest::prelude::*;

#[test]
fn what_happens_at_a_site_is_mirrored_as_it_happens_with_the_sites_numbers() {
    check_fleet(
        "0s child s site
         => child s enrolled here by ann
         0s child s connected
         0s in s raise host=a disk.full major
         1s up s align
         => realigned host=a disk.full major here
         1s up s history
         => raised host=a disk.full major s past
         => child s caught-up 1 changes 1 raised 0 cleared 0 lost here
         2s in s raise host=b x minor
         2s in s ack host=a disk.full by:bob
         3s up s live
         => raised host=b x minor s
         => acknowledged host=a disk.full major s by bob
         # Twice is once.
         3s up s again
         ! Duplicate
         alarms
         - host=a disk.full major episode 1 via s acknowledged
         - host=b x minor episode 1 via s
         4s in s clear host=a disk.full
         4s in s log host=c boot
         4s in s raise host=b x critical
         5s up s live
         => cleared host=a disk.full major cleared s
         => logged host=c boot None s
         => severity-changed host=b x critical s
         5s up s beyond
         ! NotTaken(OutOfPlace { after: Position(11), reached: Position(6) })
         6s in s purge host=a disk.full by:bob
         6s in s retire host=b x by:bob
         7s up s live
         => purged host=a disk.full major cleared s by bob
         => retired host=b x critical cleared s by bob
         alarms",
    );
}

#[test]
fn what_came_and_went_meanwhile_is_history_and_what_stands_is_told_as_it_stands() {
    check_fleet(
        "0s child s site
         => child s enrolled here by ann
         0s child s connected
         0s in s raise host=a x major
         0s in s raise host=b x major
         0s in s raise host=c x major
         1s up s align
         => realigned host=b x major here
         => realigned host=c x major here
         => realigned host=a x major here
         1s up s history
         => raised host=a x major s past
         => raised host=b x major s past
         => raised host=c x major s past
         => child s caught-up 3 changes 3 raised 0 cleared 0 lost here
         # The WAN is gone.
         2s in s raise host=a x critical
         3s in s clear host=b x
         3s in s raise host=d x minor
         4s in s clear host=d x
         5s in s clear host=c x
         5s in s purge host=c x by:bob
         6s in s raise host=e x major
         7s up s align
         => realigned host=b x major cleared here
         => realigned host=e x major here
         => realigned host=c x major cleared here
         => purged host=c x major cleared here
         => realigned host=a x critical here
         # Live goes first.
         8s in s ack host=e x by:bob
         8s up s live
         => acknowledged host=e x major s by bob
         9s up s history 3
         => severity-changed host=a x critical s past
         => cleared host=b x major cleared s past
         => raised host=d x minor s past
         9s up s again
         ! Duplicate
         9s up s history
         => cleared host=d x minor cleared s past
         => cleared host=c x major cleared s past
         => purged host=c x major cleared s past by bob
         => raised host=e x major s past
         => child s caught-up 7 changes 2 raised 3 cleared 0 lost here
         alarms
         - host=a x critical episode 1 via s
         - host=b x major episode 1 via s cleared
         - host=e x major episode 1 via s acknowledged",
    );
}

#[test]
fn what_the_site_keeps_no_longer_is_counted_as_lost() {
    check_fleet(
        "0s child s site
         => child s enrolled here by ann
         0s child s connected
         0s in s raise host=a x major
         1s up s align
         => realigned host=a x major here
         1s up s gap
         => child s caught-up 0 changes 0 raised 0 cleared 1 lost here
         1s up s again
         ! Duplicate",
    );
}

#[test]
fn a_mirrored_alarm_that_is_cleared_is_forgotten_here_as_well_and_comes_again() {
    check_fleet(
        "0s settings purge:60s
         0s child s site
         => child s enrolled here by ann
         0s child s connected
         0s in s raise host=a x major
         1s up s align
         => realigned host=a x major here
         1s up s history
         => raised host=a x major s past
         => child s caught-up 1 changes 1 raised 0 cleared 0 lost here
         2s in s clear host=a x
         3s up s live
         => cleared host=a x major cleared s
         63s deadline
         => purged host=a x major cleared here [Purge]
         70s in s raise host=a x minor
         70s up s live
         => raised host=a x minor s
         alarms
         - host=a x minor episode 2 via s",
    );
}

#[test]
fn what_is_raised_and_cleared_again_in_one_step_is_kept_from_then_on() {
    check_fleet(
        "0s settings purge:60s
         0s child s site
         => child s enrolled here by ann
         0s child s connected
         0s in s raise host=a x major
         1s up s align
         => realigned host=a x major here
         2s in s clear host=a x
         2s up s live
         => cleared host=a x major cleared s
         50s in s raise host=a x minor
         51s in s clear host=a x
         51s up s live
         => raised host=a x minor s
         => cleared host=a x minor cleared s
         111s deadline
         => purged host=a x minor cleared here [Purge]",
    );
}

#[test]
fn a_silent_site_is_one_alarm_until_it_is_heard_from() {
    check_fleet(
        "0s child s silent
         ! NotTaken(UnknownChild { child: \"s\" })
         0s child s site
         => child s enrolled here by ann
         # One that was never there is missed by nobody.
         1s child s silent
         ! Duplicate
         2s child s connected
         200s child s silent
         => raised site=s klaxon.site.silent critical here
         => child s silent here by ann
         201s child s silent
         ! Duplicate
         300s child s connected
         => cleared site=s klaxon.site.silent critical cleared here
         => child s heard here by ann
         301s child s connected
         301s child s region
         => child s enrolled here by ann
         301s child s site
         ! NotTaken(OtherKind { child: \"s\" })
         302s child s doubled
         => raised site=s klaxon.site.doubled major here
         303s child s doubled
         304s child s single
         => cleared site=s klaxon.site.doubled major cleared here
         305s child s silent
         => raised site=s klaxon.site.silent critical here
         => child s silent here by ann
         306s child s moved
         => cleared site=s klaxon.site.silent critical cleared here
         => child s moved here by ann
         307s child s silent
         ! Duplicate
         308s child h agent
         => child h enrolled here by ann
         308s child h connected
         309s child h silent
         => raised host=h klaxon.agent.silent major here
         => child h silent here by ann",
    );
}

#[test]
fn a_shelf_for_a_site_takes_what_is_said_here_of_the_site_too_and_ends_at_both_places() {
    check_fleet(
        "0s child s site
         => child s enrolled here by ann
         0s child s connected
         1s shelf by:ann site:s until:3600s id:one
         => shelf-added here by ann
         => pending here by ann
         200s child s silent
         => raised site=s klaxon.site.silent critical here
         => child s silent here by ann
         alarms
         - site=s klaxon.site.silent critical episode 1 shelved
         201s unshelf one by:ann id:two
         => shelf-removed here by ann
         => pending here by ann
         201s deadline
         => unshelved site=s klaxon.site.silent critical here",
    );
}

#[test]
fn actions_on_alarms_of_a_site_go_down_and_what_comes_of_them_comes_up() {
    check_fleet(
        "0s child s site
         => child s enrolled here by ann
         0s child s connected
         0s in s raise host=a x major
         1s up s align
         => realigned host=a x major here
         1s up s history
         => raised host=a x major s past
         => child s caught-up 1 changes 1 raised 0 cleared 0 lost here
         2s ack host=a x by:ann id:one
         => pending host=a x major here by ann
         2s ack host=a x by:ann id:one
         ! Duplicate
         3s down s one
         4s up s live
         => acknowledged host=a x major s by ann
         4s up s acted one
         4s up s acted one
         ! Duplicate
         5s ack host=a x by:ann id:two
         => pending host=a x major here by ann
         6s down s two
         7s up s live
         => refused NoEffect s by ann
         7s up s acted two
         8s ack host=a x by:ann episode:2
         => refused RaisedAgain here by ann
         # Nobody answers: it is given up, and the site would refuse it.
         9s unack host=a x by:ann id:three expires:60s
         => pending host=a x major here by ann
         69s deadline
         => refused Unanswered here by ann
         # Two people at two places: the later order wins.
         70s unack host=a x by:ann id:four
         => pending host=a x major here by ann
         71s in s unack host=a x by:bob
         72s in s ack host=a x by:bob
         73s down s four
         74s up s live
         => unacknowledged host=a x major s by bob
         => acknowledged host=a x major s by bob
         => refused Superseded s by ann
         74s up s acted four
         75s shelf by:ann site:s type:x until:60s id:five
         => shelf-added here by ann
         => pending here by ann
         76s down s five
         77s up s live
         => shelf-added s by ann
         => shelved host=a x major s
         77s up s acted five
         78s unshelf five by:ann id:six
         => shelf-removed here by ann
         => pending here by ann
         79s assign host=a x by:ann to:ann id:seven
         => pending host=a x major here by ann
         80s child s retired
         => child s retired here by ann
         80s deadline
         => refused OwnerGone here by ann
         => refused OwnerGone here by ann
         => retired host=a x major cleared here
         alarms",
    );
}

#[test]
fn a_clock_that_was_wrong_neither_ends_an_order_nor_brings_an_old_one_back() {
    check_fleet(
        "0s child s site
         => child s enrolled here by ann
         0s child s connected
         0s in s raise host=a x major
         1s up s align
         => realigned host=a x major here
         1s up s history
         => raised host=a x major s past
         => child s caught-up 1 changes 1 raised 0 cleared 0 lost here
         # The site's clock is an hour ahead when somebody there acts.
         2s in s clock 1h
         3s in s ack host=a x by:bob
         4s in s clock -1h
         5s up s live
         => acknowledged host=a x major s by bob
         6s unack host=a x by:ann id:one
         => pending host=a x major here by ann
         7s down s one
         8s up s live
         => unacknowledged host=a x major s by ann
         8s up s acted one
         # It is an hour behind, and what was ordered before is no later for that.
         9s in s clock -1h
         10s assign host=a x by:ann to:ann id:two
         => pending host=a x major here by ann
         11s in s assign host=a x by:bob to:bob
         12s in s clock 1h
         13s down s two
         14s up s live
         => assigned host=a x major s by bob
         => refused Superseded s by ann
         14s up s acted two
         # What is not answered is given up before anybody could forget that it was done.
         15s ack host=a x by:ann id:three expires:20d
         => pending host=a x major here by ann
         86415s deadline
         => refused Unanswered here by ann
         # Nobody at the site remembers whether that was done.
         86420s in s ack host=a x by:ann id:three expires:20d ordered:15s
         86421s up s live
         => refused Expired s by ann",
    );
}

#[test]
fn what_is_ordered_first_goes_down_first_also_within_one_moment() {
    use klaxon_schemas::state::{StateKey, StateRecord};
    let mut fleet = Fleet::new(true);
    fleet.add("s", ChildKind::Site);
    let words =
        ["shelf by:ann site:s until:3600s id:one", "unshelf one by:ann id:two", "shelf by:ann site:s until:3600s id:three"];
    for command in words {
        let kind = harness::parse(&mut fleet.parent, command).expect("is an order");
        fleet.parent.apply(kind);
    }
    let by = |id: &str| {
        let key = StateKey::Pending(harness::fleet::child("s"), harness::action_id(id));
        let Some(StateRecord::Pending(pending)) = fleet.parent.records.get(&key) else { panic!("{id} is pending") };
        (pending.ordered_at, pending.ordered_by)
    };
    let [one, two, three] = ["one", "two", "three"].map(by);
    assert!(one.0 == two.0 && two.0 == three.0);
    assert!(one.1 < two.1 && two.1 < three.1);
}

#[test]
fn a_change_of_a_newer_release_is_counted_as_lost_and_the_mirror_goes_on() {
    use klaxon_schemas::child::RelayContent;
    use klaxon_schemas::ids::Position;

    let mut fleet = Fleet::new(true);
    fleet.add("s", ChildKind::Site);
    at_site(&mut fleet, 0, 0);
    fleet.align("s", usize::MAX);
    let (after, upto) = (Position(1), Position(3));
    let live = RelayContent::Live { after, upto, changes: Vec::new(), unread: 2 };
    let (changes, disposition) = fleet.send("s", live);
    assert_eq!((changes.len(), disposition), (0, Disposition::Applied), "it is told when nothing is missing any more");
    let history = RelayContent::History { after: Position(0), upto: Position(1), changes: Vec::new(), unread: 1 };
    let (changes, disposition) = fleet.send("s", history);
    assert_eq!(disposition, Disposition::Applied);
    let [change] = &changes[..] else { panic!("{changes:?}") };
    let Subject::Child(note) = &change.subject else { panic!("{change:?}") };
    assert!(matches!(note.what, ChildStep::CaughtUp(meanwhile) if (meanwhile.changes, meanwhile.lost) == (0, 3)), "{note:?}");
    assert_eq!(fleet.position("s"), Some(3));
}

#[test]
fn an_alarm_of_a_newer_release_stays_as_it_was_and_what_is_not_listed_ends() {
    use klaxon_schemas::child::{NotTaken, RelayContent};
    use klaxon_schemas::ids::AlarmId;

    let mut fleet = Fleet::new(true);
    fleet.add("s", ChildKind::Site);
    at_site(&mut fleet, 0, 0);
    at_site(&mut fleet, 1, 0);
    fleet.align("s", usize::MAX);
    let ids: Vec<_> = fleet.parent.alarms.keys().copied().collect();
    let at = fleet.record("s").and_then(|child| child.reached.as_ref()).expect("it stands").position;
    let part = |from: AlarmId, to: AlarmId, unread: &[AlarmId]| RelayContent::Alignment {
        at,
        from,
        to,
        alarms: Vec::new(),
        unread: unread.to_vec(),
    };
    let (from, to) = (AlarmId(uuid::Uuid::from_u128(0)), AlarmId(uuid::Uuid::from_u128(u128::MAX)));
    let unheard = AlarmId(uuid::Uuid::from_u128(7));
    let (changes, disposition) = fleet.send("s", part(from, to, &[unheard, ids[0], ids[1]]));
    assert_eq!((changes.len(), disposition), (0, Disposition::Applied));
    let (_, disposition) = fleet.send("s", part(from, ids[0], &[ids[1]]));
    assert!(matches!(disposition, Disposition::NotTaken(NotTaken::OutOfRange { .. })), "{disposition:?}");
    let (changes, _) = fleet.send("s", part(from, to, &[ids[1]]));
    assert_eq!(changes.iter().map(|change| change.kind).collect::<Vec<_>>(), [ChangeKind::Realigned, ChangeKind::Purged]);
    assert_eq!(fleet.parent.alarms.keys().copied().collect::<Vec<_>>(), [ids[1]]);
}

#[test]
fn a_new_numbering_is_noted_and_the_old_one_is_not_taken() {
    check_fleet(
        "0s child s site
         => child s enrolled here by ann
         0s child s connected
         0s in s raise host=a x major
         1s up s align
         => realigned host=a x major here
         2s epoch s
         3s in s raise host=b x major
         3s up s live
         3s up s align
         => realigned host=b x major here
         => child s new-epoch here
         3s up s history
         => raised host=a x major s past
         => raised host=b x major s past
         => child s caught-up 2 changes 2 raised 0 cleared 0 lost here
         4s up s first
         ! NotTaken(OtherEpoch { is: Epoch(1), known: Epoch(2) })",
    );
}

#[test]
fn what_a_new_numbering_leaves_out_is_counted_as_lost() {
    use klaxon_schemas::child::RelayContent;
    use klaxon_schemas::ids::Position;

    let mut fleet = Fleet::new(true);
    fleet.add("s", ChildKind::Site);
    at_site(&mut fleet, 1, 0);
    fleet.align("s", usize::MAX);
    fleet.history("s", u64::MAX);
    let backup = fleet.below["s"].backup();
    fleet.below.get_mut("s").expect("is there").restore(&backup);
    let aligned = RelayContent::Aligned { at: Position(9), after: Position(9), fingerprint: 0, below: Vec::new() };
    let (changes, _) = fleet.send("s", aligned);
    let Some(Subject::Child(note)) = changes.last().map(|change| &change.subject) else { panic!("{changes:?}") };
    assert!(matches!(note.what, ChildStep::CaughtUp(meanwhile) if meanwhile.lost == 8), "{note:?}");
}

#[test]
fn an_alarm_that_has_the_id_of_another_takes_its_place_when_that_has_ended() {
    use klaxon_schemas::child::RelayContent;

    let mut fleet = Fleet::new(true);
    fleet.add("s", ChildKind::Site);
    at_site(&mut fleet, 1, 0);
    fleet.align("s", usize::MAX);
    let Some(before) = fleet.below["s"].node.alarms.values().next().cloned() else { panic!("was raised") };
    let mut other = klaxon_schemas::alarm::Alarm::clone(&before);
    other.key.resource = "host=other".parse().expect("valid");
    let at = klaxon_schemas::ids::Position(9);
    let part = RelayContent::Alignment { at, from: other.id, to: other.id, alarms: vec![Arc::new(other)], unread: Vec::new() };
    let (changes, _) = fleet.send("s", part);
    let told = |change: &Arc<klaxon_schemas::change::Change>| match &change.subject {
        Subject::Alarm { alarm, .. } => (change.kind, alarm.key.resource.as_str().to_owned(), alarm.is_active()),
        other => panic!("{other:?}"),
    };
    let gone = |kind| (kind, before.key.resource.as_str().to_owned(), false);
    let came = (ChangeKind::Realigned, "host=other".to_owned(), true);
    assert_eq!(changes.iter().map(told).collect::<Vec<_>>(), [gone(ChangeKind::Realigned), gone(ChangeKind::Purged), came]);
    assert_eq!(fleet.parent.alarms.len(), 1);
}

#[test]
fn after_a_step_on_which_the_engine_breaks_a_site_is_compared_anew_and_history_that_breaks_it_is_lost() {
    use klaxon_schemas::child::{NotTaken, Relay, RelayContent};
    use klaxon_schemas::ids::{Epoch, Position};

    let mut fleet = Fleet::new(true);
    fleet.add("s", ChildKind::Site);
    for resource in 0..3 {
        at_site(&mut fleet, resource, 0);
    }
    fleet.align("s", usize::MAX);
    let breaks = |fleet: &mut Fleet, content| {
        let relay = Relay { child: harness::fleet::child("s"), epoch: Epoch(1), content };
        fleet.parent.quarantine(EntryKind::Relay(Arc::new(relay)))
    };
    assert_eq!(
        breaks(&mut fleet, RelayContent::History { after: Position(0), upto: Position(2), changes: Vec::new(), unread: 0 }),
        None
    );
    at_site(&mut fleet, 3, 0);
    let live = RelayContent::Live { after: Position(3), upto: Position(4), changes: Vec::new(), unread: 0 };
    let broke = breaks(&mut fleet, live);
    assert_eq!(broke, Some(NotTaken::Broke { child: harness::fleet::child("s") }));
    // It comes again, and says how its alarms stand; what was in that step is history.
    at_site(&mut fleet, 4, 0);
    let after = Position(4);
    let (_, disposition) = fleet.send("s", RelayContent::Live { after, upto: Position(5), changes: Vec::new(), unread: 0 });
    assert_eq!(disposition, Disposition::NotTaken(NotTaken::OutOfPlace { after, reached: Position(3) }));
    fleet.align("s", usize::MAX);
    let (here, there) = fleet.both("s");
    assert_eq!((here.len(), here), (5, there));
    assert_eq!(
        breaks(&mut fleet, RelayContent::History { after: Position(2), upto: Position(4), changes: Vec::new(), unread: 0 }),
        None
    );
    let (changes, _) = fleet.history("s", u64::MAX).expect("one is missing");
    let Some(Subject::Child(note)) = changes.last().map(|change| &change.subject) else { panic!("{changes:?}") };
    assert!(matches!(note.what, ChildStep::CaughtUp(meanwhile) if (meanwhile.changes, meanwhile.lost) == (1, 4)), "{note:?}");
    // What is left of one that is retired cannot be forgotten: that is not tried for ever.
    fleet.fact("s", klaxon_schemas::child::ChildEvent::Retired);
    fleet.parent.quarantine(EntryKind::Deadline);
    assert!(fleet.record("s").is_some_and(|child| child.retired.is_none() && child.silent_since.is_some()));
}

#[test]
fn when_too_many_stretches_are_missing_the_rest_is_lost_and_the_site_is_heard_all_the_same() {
    use klaxon_schemas::child::MISSING_SPANS_MAX;

    let mut fleet = Fleet::new(false);
    fleet.add("s", ChildKind::Site);
    // A live change between two that are missing keeps their stretches apart.
    for round in 0..MISSING_SPANS_MAX + 3 {
        at_site(&mut fleet, round % 5, u8::try_from(round / 5 % 2).expect("small") * 2);
        fleet.align("s", usize::MAX);
        at_site(&mut fleet, round % 5, 4);
        assert!(fleet.live("s").is_some_and(|(_, disposition)| disposition == Disposition::Applied));
    }
    let missing = fleet.record("s").and_then(|child| child.reached.as_ref()).map_or(0, |reached| reached.missing.len());
    assert_eq!(missing, MISSING_SPANS_MAX);
    let (here, there) = fleet.both("s");
    assert_eq!(here, there);
    let mut last = Vec::new();
    while let Some((changes, _)) = fleet.history("s", u64::MAX) {
        last = changes;
    }
    let Some(Subject::Child(note)) = last.last().map(|change| &change.subject) else { panic!("{last:?}") };
    assert!(matches!(note.what, ChildStep::CaughtUp(meanwhile) if meanwhile.lost == 3), "{note:?}");
}

#[derive(Debug, Clone)]
enum Op {
    /// A report at the site, or an operator's action there.
    At {
        resource: usize,
        what: u8,
    },
    Live,
    Align {
        gone: usize,
    },
    History {
        most: u64,
    },
    /// Something that was sent comes again.
    Again {
        which: usize,
    },
    Pass {
        seconds: i64,
    },
    Backup,
    Restore,
    Acted,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        8 => (0usize..5, 0u8..6).prop_map(|(resource, what)| Op::At { resource, what }),
        3 => Just(Op::Live),
        2 => prop_oneof![Just(usize::MAX), 0usize..4].prop_map(|gone| Op::Align { gone }),
        3 => (1u64..6).prop_map(|most| Op::History { most }),
        3 => (0usize..100).prop_map(|which| Op::Again { which }),
        1 => (1i64..40).prop_map(|seconds| Op::Pass { seconds }),
        1 => Just(Op::Backup),
        1 => Just(Op::Restore),
        1 => Just(Op::Acted),
    ];
    prop::collection::vec(op, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if std::env::var_os("KLAXON_LONG").is_some() { 20_000 } else { 200 }))]

    #[test]
    fn whatever_is_lost_repeated_or_begun_anew_the_mirror_ends_as_the_site_is_and_history_has_each_number_once(ops in ops()) {
        let mut fleet = Fleet::new(true);
        fleet.parent.apply(EntryKind::Settings(klaxon_schemas::state::Settings {
            purge_cleared_after_s: 30,
            ..Default::default()
        }));
        fleet.add("s", ChildKind::Site);
        let mut backup = fleet.below["s"].backup();
        let mut seconds = 0;
        for op in ops {
            match op {
                Op::At { resource, what } => at_site(&mut fleet, resource, what),
                Op::Live => drop(fleet.live("s").map(|(_, disposition)| assert_eq!(disposition, Disposition::Applied))),
                Op::Align { gone } => drop(fleet.align("s", gone)),
                Op::History { most } => drop(fleet.history("s", most).map(|(_, disposition)| assert_eq!(disposition, Disposition::Applied))),
                Op::Again { which } => {
                    let sent = &fleet.below["s"].sent;
                    if let Some(relay) = sent.get(which % sent.len().max(1)).cloned() {
                        let before = fleet.parent.changes.len();
                        let (changes, disposition) = fleet.bring(&relay);
                        // What brings a stretch anew never has an effect; what is as of now may, if it was cut off before.
                        if matches!(relay.content, klaxon_schemas::child::RelayContent::Live { .. } | klaxon_schemas::child::RelayContent::History { .. }) {
                            prop_assert!(disposition != Disposition::Applied, "{relay:?}");
                            prop_assert!(changes.is_empty() && fleet.parent.changes.len() == before);
                        }
                    }
                }
                Op::Pass { seconds: more } => {
                    seconds += more;
                    fleet.parent.pass(seconds * 1_000_000, |_, _| {});
                    fleet.below.get_mut("s").expect("is there").node.pass(seconds * 1_000_000, |_, _| {});
                }
                Op::Backup => backup = fleet.below["s"].backup(),
                Op::Restore => {
                    let below = fleet.below.get_mut("s").expect("is there");
                    below.restore(&backup);
                    backup = below.backup();
                }
                Op::Acted => drop(fleet.send("s", klaxon_schemas::child::RelayContent::Acted { actions: Vec::new() })),
            }
            if fleet.position("s") == Some(fleet.below["s"].last()) {
                let (here, there) = fleet.both("s");
                prop_assert_eq!(here, there, "all has come in");
            }
        }
        fleet.align("s", usize::MAX);
        while fleet.history("s", 7).is_some() {}
        let (here, there) = fleet.both("s");
        prop_assert_eq!(here, there);
        let of_site = fleet.parent.changes.iter().filter(|change| &*change.site == "s");
        let numbers: Vec<_> = of_site.clone().map(|change| change.number).collect();
        let once: BTreeSet<_> = numbers.iter().copied().collect();
        prop_assert_eq!(numbers.len(), once.len(), "a number came twice");
        for change in &fleet.below["s"].node.changes {
            prop_assert!(once.contains(&change.number), "{:?} never came", change.number);
        }
        prop_assert!(fleet.record("s").is_some_and(|child| child.meanwhile.is_none()));
        // What it numbers itself has no gap.
        let own: Vec<_> = fleet.parent.changes.iter().filter(|change| &*change.site == "here").collect();
        for (change, wanted) in own.iter().zip(1..) {
            prop_assert_eq!(change.number.seq.0, wanted);
        }
        let is_mirrored_only = own.iter().all(|change| matches!(
            change.kind,
            ChangeKind::Realigned | ChangeKind::Purged | ChangeKind::Child
        ));
        prop_assert!(is_mirrored_only);
    }
}

/// Which alarm is which is not for a child to say: what is not its own is not taken, and nothing of the step has an effect.
#[test]
fn a_site_speaks_only_for_itself() {
    let mut fleet = Fleet::new(true);
    fleet.add("s", ChildKind::Site);
    fleet.add("t", ChildKind::Site);
    at_site(&mut fleet, 1, 0);
    fleet.align("s", usize::MAX);
    // T says what is S's.
    let of_s = fleet.below["s"].sent.clone();
    for mut relay in of_s {
        relay.child = harness::fleet::child("t");
        let before = fleet.parent.alarms.clone();
        let (changes, disposition) = fleet.bring(&relay);
        if matches!(relay.content, klaxon_schemas::child::RelayContent::Alignment { .. }) {
            assert!(matches!(disposition, Disposition::NotTaken(_)), "{disposition:?}");
            assert!(changes.is_empty());
        }
        assert_eq!(before, fleet.parent.alarms);
    }
    let changes: Vec<Arc<_>> = fleet.below["s"].node.changes.clone();
    let upto = klaxon_schemas::ids::Position(9);
    let after = fleet.record("t").and_then(|child| child.reached.as_ref()).expect("it stands").position;
    let (_, disposition) = fleet.send("t", klaxon_schemas::child::RelayContent::Live { after, upto, changes, unread: 0 });
    assert!(matches!(disposition, Disposition::NotTaken(klaxon_schemas::child::NotTaken::Foreign { .. })), "{disposition:?}");
}

/// What is lost with one step is bounded: two changes for each alarm, each with the whole of it.
#[test]
fn an_alignment_that_would_lose_too_much_is_not_taken() {
    use klaxon_schemas::child::{ALIGNMENT_LOST_MAX, NotTaken, RelayContent};
    let mut fleet = Fleet::new(false);
    fleet.add("s", ChildKind::Site);
    for number in 0..=ALIGNMENT_LOST_MAX {
        at_site(&mut fleet, number, 0);
    }
    fleet.align("s", usize::MAX);
    let at = fleet.record("s").and_then(|child| child.reached.as_ref()).expect("it stands").position;
    let id = |number| klaxon_schemas::ids::AlarmId(uuid::Uuid::from_u128(number));
    let mut part = |from, to| {
        let alarms = Vec::new();
        fleet.send("s", RelayContent::Alignment { at, from: id(from), to: id(to), alarms, unread: Vec::new() })
    };
    let (changes, disposition) = part(0, u128::MAX);
    assert!(matches!(disposition, Disposition::NotTaken(NotTaken::TooManyLost { .. })), "{disposition:?}");
    assert!(changes.is_empty());
    let lost: usize =
        [part(0, u128::MAX / 2), part(u128::MAX / 2 + 1, u128::MAX)].iter().map(|(changes, _)| changes.len()).sum();
    assert_eq!(lost, 2 * (ALIGNMENT_LOST_MAX + 1));
}

/// A report that an agent relays has a place in the agent's journal: it comes in once, and its alarm says through whom.
#[test]
fn what_an_agent_relays_comes_in_once() {
    use klaxon_schemas::child::NotTaken;
    use klaxon_schemas::event::{AlarmKey, Event, RelayMark, Report};
    use klaxon_schemas::ids::{Epoch, Position};
    use klaxon_schemas::severity::Severity;

    let mut fleet = Fleet::new(true);
    let relayed = |fleet: &mut Fleet, epoch: u64, position: u64, severity: Severity, relay: bool| {
        let key = AlarmKey {
            site: harness::site(),
            resource: "host=h".parse().expect("valid"),
            alarm_type: "x".parse().expect("valid"),
            qualifier: "".parse().expect("valid"),
        };
        let mut event = Event::new(key, Report::Raise(severity), "".parse().expect("valid"));
        let child = harness::fleet::child("h");
        event.origin.relay =
            relay.then_some(RelayMark { child, epoch: Epoch(epoch), position: Position(position), after: None });
        let (changes, _, disposition) = fleet.parent.apply(EntryKind::Event(Arc::new(event)));
        (changes.iter().map(|change| change.kind).collect::<Vec<_>>(), disposition)
    };
    let (changes, disposition) = relayed(&mut fleet, 1, 3, Severity::Major, true);
    assert!(changes.is_empty() && matches!(disposition, Disposition::NotTaken(NotTaken::UnknownChild { .. })));
    fleet.add("h", ChildKind::Agent);
    let raised = (vec![ChangeKind::Raised], Disposition::Applied);
    assert_eq!(relayed(&mut fleet, 1, 3, Severity::Major, true), raised);
    assert_eq!(relayed(&mut fleet, 1, 3, Severity::Minor, true), (Vec::new(), Disposition::Duplicate));
    assert_eq!(relayed(&mut fleet, 1, 2, Severity::Minor, true), (Vec::new(), Disposition::Duplicate));
    let via = |fleet: &Fleet| fleet.parent.alarms.values().next().and_then(|alarm| alarm.via.clone());
    assert_eq!(via(&fleet).as_deref(), Some("h"));
    // Somebody else reports it, who is not relayed: that alone is no change.
    let nothing = (Vec::new(), Disposition::Applied);
    assert_eq!(relayed(&mut fleet, 0, 0, Severity::Major, false), nothing);
    assert_eq!(via(&fleet).as_deref(), Some("h"));
    assert_eq!(relayed(&mut fleet, 1, 9, Severity::Major, true), nothing);
    // If the agent is silent, it is: the alarm is not stale any more.
    let since = fleet.parent.wall();
    fleet.fact("h", klaxon_schemas::child::ChildEvent::Silent { since });
    assert_eq!(relayed(&mut fleet, 0, 0, Severity::Major, false), (vec![ChangeKind::Updated], Disposition::Applied));
    let via_of_x = |fleet: &Fleet| {
        let mut alarms = fleet.parent.alarms.values().filter(|alarm| alarm.key.alarm_type.as_str() == "x");
        alarms.next().and_then(|alarm| alarm.via.clone())
    };
    assert_eq!(via_of_x(&fleet), None);
    fleet.fact(
        "h",
        klaxon_schemas::child::ChildEvent::Connected { node: uuid::Uuid::from_u128(7), version: "1".into(), connection: None },
    );
    relayed(&mut fleet, 1, 10, Severity::Critical, true);
    assert_eq!(via_of_x(&fleet), None, "it stays with whom it is heard from");
    let clear = harness::parse(&mut fleet.parent, "clear host=h x").expect("is a step");
    fleet.parent.apply(clear);
    relayed(&mut fleet, 1, 11, Severity::Major, true);
    assert_eq!(via_of_x(&fleet).as_deref(), Some("h"));
    // Its store was restored: it numbers anew, and what is of before is not taken.
    assert_eq!(relayed(&mut fleet, 2, 5, Severity::Minor, true).0, vec![ChangeKind::SeverityChanged]);
    let (_, disposition) = relayed(&mut fleet, 1, 12, Severity::Major, true);
    assert!(matches!(disposition, Disposition::NotTaken(NotTaken::OtherEpoch { .. })));
    // Where what it sent before may be missing, it says so.
    let behind = |fleet: &mut Fleet, position: u64, after: u64| {
        let key = AlarmKey {
            site: harness::site(),
            resource: "host=h".parse().expect("valid"),
            alarm_type: "x".parse().expect("valid"),
            qualifier: "".parse().expect("valid"),
        };
        let mut event = Event::new(key, Report::Raise(Severity::Minor), "".parse().expect("valid"));
        let (child, after) = (harness::fleet::child("h"), Some(Position(after)));
        event.origin.relay = Some(RelayMark { child, epoch: Epoch(2), position: Position(position), after });
        fleet.parent.apply(EntryKind::Event(Arc::new(event))).2
    };
    let missing = Disposition::NotTaken(NotTaken::OutOfPlace { after: Position(6), reached: Position(5) });
    assert_eq!(behind(&mut fleet, 7, 6), missing);
    assert_eq!(behind(&mut fleet, 6, 5), Disposition::Applied);
    assert_eq!(behind(&mut fleet, 7, 6), Disposition::Applied);
    assert_eq!(behind(&mut fleet, 9, 2), Disposition::Applied, "what is known to have come is enough");
    // With it go the alarms that it reported; that it is silent was told, and is over.
    fleet.fact("h", klaxon_schemas::child::ChildEvent::Retired);
    fleet.parent.pass(0, |_, _| {});
    assert!(fleet.parent.alarms.values().all(|alarm| alarm.key.alarm_type.as_str() == "klaxon.agent.silent"));
    assert!(fleet.record("h").is_none());
}
