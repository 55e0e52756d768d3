//! Old segments go, and what is left still makes the same state.

use std::time::{Duration, Instant};

use klaxon_schemas::names::Follower;
use klaxon_schemas::notify::{Outbox, OutboxEntry};
use klaxon_schemas::state::Followed;

use super::*;
use crate::{ReadError, Retention, offline};

#[test]
fn retention_by_age_waits_for_a_follower_and_retention_by_size_does_not() {
    for engine in engines() {
        let dir = tempfile::tempdir().expect("makes");
        let aged = Retention { history_max_age: Duration::ZERO, ..Retention::default() };
        let (mut toy, _) = Toy::open_with(StoreConfig { retention: aged, ..small_in(dir.path(), engine) });
        let follower = |position: u64| {
            let key = StateKey::Follower(Follower::new("noc").expect("valid"));
            vec![(key, Some(StateRecord::Followed(Followed { position: Position(position), delivery: None })))]
        };
        toy.put(follower(0));
        for round in 0..60 {
            toy.commit(&(0..20).map(|number| Step::Raise(round * 20 + number)).collect::<Vec<_>>());
        }
        let wait = |toy: &mut Toy, wanted: &dyn Fn(&Toy) -> bool| {
            let deadline = Instant::now() + Duration::from_secs(30);
            while !wanted(toy) {
                assert!(Instant::now() < deadline, "{:?}", toy.store.info());
                toy.writer.maintain();
                std::thread::sleep(Duration::from_millis(20));
            }
        };
        // The view has come to the end, so the keeper has looked more than once.
        wait(&mut toy, &|toy| toy.store.info().view_position == toy.store.info().last_position);
        assert_eq!(toy.store.info().first_position, Position(1), "nothing went that the follower has yet to read");
        let last = toy.store.info().last_position;
        toy.put(follower(last.0));
        wait(&mut toy, &|toy| toy.store.info().first_position > Position(1));
        // Size does not wait: the follower is told of a gap.
        toy.put(follower(toy.store.info().first_position.0));
        let behind = toy.store.info().first_position;
        toy.writer.set_retention(Retention { history_max_bytes: 1, ..Retention::default() });
        for round in 0..60 {
            toy.commit(&(0..20).map(|number| Step::Again(round * 20 + number)).collect::<Vec<_>>());
            toy.commit(&(0..20).map(|number| Step::Clear(round * 20 + number)).collect::<Vec<_>>());
            toy.commit(&(0..20).map(|number| Step::Purge(round * 20 + number)).collect::<Vec<_>>());
        }
        wait(&mut toy, &|toy| toy.store.info().first_position > behind);
        toy.close();
    }
}

#[test]
fn segments_go_and_the_journal_alone_still_makes_the_state() {
    for engine in engines() {
        let dir = tempfile::tempdir().expect("makes");
        let config = StoreConfig {
            retention: Retention { history_max_bytes: 1, ..Retention::default() },
            ..small_in(dir.path(), engine)
        };
        let (mut toy, _) = Toy::open_with(config.clone());
        // Alarms that stay as they are from the beginning, behind them much that comes and goes.
        toy.raise(1, 20, 20);
        let receiver = Follower::new("noc").expect("valid");
        let told = serde_json::json!({
            "key": {"site": "north", "resource": "host=a", "alarm_type": "t"}, "raise_seq": 1, "severity": "major",
            "number": {"epoch": 1, "seq": 1}, "raised_at": "2026-11-22T03:12:00Z"
        });
        let told = Arc::new(serde_json::from_value(told).expect("is sound"));
        let outbox = Arc::new(Outbox(vec![OutboxEntry::Log { position: Position(1), place: None }]));
        toy.put(vec![
            (StateKey::Told(receiver.clone(), alarm(1).id), Some(StateRecord::Told(Arc::clone(&told)))),
            (StateKey::Outbox(receiver.clone(), 7), Some(StateRecord::Outbox(Arc::clone(&outbox)))),
        ]);
        for round in 0..60 {
            let numbers: Vec<u64> = (1000 + round * 20..1020 + round * 20).collect();
            toy.commit(&numbers.iter().map(|number| Step::Raise(*number)).collect::<Vec<_>>());
            toy.commit(&numbers.iter().map(|number| Step::Clear(*number)).collect::<Vec<_>>());
            toy.commit(&numbers.iter().flat_map(|number| [Step::Purge(*number), Step::Forget(*number)]).collect::<Vec<_>>());
            toy.commit(&[Step::Again(1), Step::Again(2)]);
        }
        let before = toy.store.info();
        let deadline = Instant::now() + Duration::from_secs(30);
        while toy.store.info().segments > 4 {
            assert!(Instant::now() < deadline, "{:?}", toy.store.info());
            toy.writer.maintain();
            std::thread::sleep(Duration::from_millis(20));
        }
        let info = toy.store.info();
        assert!(info.first_position > Position(1) && info.journal_bytes < before.journal_bytes + 100_000);
        assert_eq!(toy.store.entry(Position(1)).expect("reads"), None, "it is gone");
        assert_eq!(toy.store.read().alarms().count(), 20);
        let folded = offline::read_state(dir.path()).expect("reads");
        assert_eq!(folded, *toy.store.read().state());
        let alarms: Vec<Arc<Alarm>> = toy.store.read().alarms().cloned().collect();
        toy.close();
        std::fs::remove_dir_all(dir.path().join("view")).expect("removes");
        let (toy, report) = Toy::open_with(config);
        assert!(report.view_rebuilt.is_some());
        assert_eq!(toy.store.read().alarms().cloned().collect::<Vec<_>>(), alarms);
        let state = toy.store.read();
        assert_eq!(state.state().told_behind(&receiver, None, 9), [(alarm(1).id, told)]);
        assert_eq!(state.state().outbox_from(&receiver, 0, 9), [(7, outbox)]);
        assert_eq!(state.state().keepers(), [(receiver, 2)].into());
        drop(state);
        let first = toy.store.info().first_position;
        let gap = toy.store.changes_after(Position(0), 10);
        assert!(matches!(gap, Err(ReadError::Gap { first_retained }) if first_retained == first), "{gap:?}");
        assert!(toy.store.changes_after(Position(first.0 - 1), 10).is_ok());
        toy.close();
    }
}
