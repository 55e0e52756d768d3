//! What is committed is there: at once, after a close, after a kill, from the journal alone, from a backup.

use super::*;
use crate::offline;
use crate::{HistoryQuery, OpenError, Order, backup};
use klaxon_schemas::entry::NewEpoch;

fn some_life(toy: &mut Toy) {
    toy.raise(1, 40, 7);
    toy.commit(&[Step::Again(3), Step::Again(4), Step::Clear(5)]);
    toy.commit(&[Step::Purge(5), Step::Forget(5), Step::Raise(41)]);
    toy.commit(&[Step::Again(3), Step::Clear(7)]);
}

fn held(toy: &Toy) -> Vec<Alarm> {
    let mut alarms: Vec<Alarm> = toy.alarms.values().map(|alarm| Alarm::clone(alarm)).collect();
    alarms.sort_by_key(|alarm| alarm.id);
    alarms
}

fn stored(store: &Store) -> Vec<Alarm> {
    store.read().alarms().map(|alarm| Alarm::clone(alarm)).collect()
}

#[test]
fn what_is_committed_is_there_now_and_after_a_close() {
    for engine in engines() {
        let dir = tempfile::tempdir().expect("makes");
        let (mut toy, report) = Toy::open_in(dir.path(), engine);
        assert_eq!(report.new_epoch, Some(NewEpoch::FirstStart));
        assert_eq!(report.view_rebuilt, None);
        some_life(&mut toy);
        let alarms = held(&toy);
        assert_eq!(stored(&toy.store), alarms);
        assert_eq!(toy.store.read().records().count(), 40);
        let items = toy.items();
        let position = toy.store.info().last_position;
        toy.close();

        let (toy, report) = Toy::open_in(dir.path(), engine);
        assert_eq!((report.replayed_records, report.view_rebuilt, report.torn_tail), (0, None, None));
        assert_eq!(stored(&toy.store), alarms);
        assert_eq!(toy.store.read().position(), position);
        assert_eq!(toy.writer.next_position(), position.plus(1));
        assert_eq!(toy.items(), items, "the ring and the files tell the same");
        assert_eq!(offline::read_state(dir.path()).expect("reads"), *toy.store.read().state());
        let entry = toy.store.entry(Position(1)).expect("reads").expect("is there");
        assert_eq!((entry.position, entry.wall), (Position(1), at(1)));
        assert_eq!(toy.store.entry(Position(8)).expect("reads"), None, "a change stands there");
        toy.close();
    }
}

#[test]
fn a_kill_loses_nothing_that_was_acknowledged() {
    for engine in engines() {
        let (dir, after) = (tempfile::tempdir().expect("makes"), tempfile::tempdir().expect("makes"));
        let (mut toy, _) = Toy::open_in(dir.path(), engine);
        some_life(&mut toy);
        let alarms = held(&toy);
        let last = toy.store.info().last_position;
        toy.kill(dir.path(), after.path());
        let (toy, report) = Toy::open_in(after.path(), engine);
        assert_eq!(report.tail_missing, None);
        assert_eq!(stored(&toy.store), alarms);
        assert_eq!(toy.store.info().last_position, last);
    }
}

#[test]
fn the_view_and_the_indexes_can_be_lost() {
    for engine in engines() {
        let dir = tempfile::tempdir().expect("makes");
        let (mut toy, _) = Toy::open_in(dir.path(), engine);
        toy.raise(1, 400, 20);
        some_life(&mut toy);
        let query = HistoryQuery { site: Some(Site::new("south").expect("valid")), limit: 1000, ..HistoryQuery::default() };
        let history = toy.store.history(&query).expect("reads");
        let alarms = stored(&toy.store);
        assert!(toy.store.info().segments > 3, "{:?}", toy.store.info());
        assert!(history.items.len() > 100);
        toy.close();

        std::fs::remove_dir_all(dir.path().join("view")).expect("removes");
        for entry in std::fs::read_dir(dir.path().join("journal")).expect("lists") {
            let path = entry.expect("lists").path();
            if path.extension().is_some_and(|extension| extension == "idx") {
                std::fs::remove_file(path).expect("removes");
            }
        }
        let (toy, report) = Toy::open_in(dir.path(), engine);
        assert!(report.view_rebuilt.is_some());
        assert_eq!(stored(&toy.store), alarms);
        assert_eq!(toy.store.history(&query).expect("reads"), history);
        toy.close();
        let report = backup::rebuild(dir.path()).expect("rebuilds");
        assert!(report.view_rebuilt.is_some());
        assert_eq!(offline::verify(dir.path()).expect("is sound").bad_indexes, Vec::<std::path::PathBuf>::new());
    }
}

#[test]
fn a_held_folder_and_a_newer_format_are_refused() {
    let dir = tempfile::tempdir().expect("makes");
    let (toy, _) = Toy::open(dir.path());
    let error = Store::open(small(dir.path())).err().expect("is refused");
    assert!(matches!(&error, OpenError::Locked { pid, .. } if *pid == std::process::id().to_string()), "{error}");
    toy.close();

    let segment = dir.path().join("journal/00000000000000000001.seg");
    let whole = std::fs::read(&segment).expect("reads");
    let mut newer = whole.clone();
    newer[8] = 2;
    std::fs::write(&segment, &newer).expect("writes");
    // With a head alone it could also be one that was never finished; a newer one says so all the same.
    let error = Store::open(small(dir.path())).err().expect("is refused");
    assert!(error.to_string().contains("has format 2, which is newer than this program, which knows 1"), "{error}");
    std::fs::write(&segment, &whole).expect("writes");

    let node = dir.path().join("node.json");
    let json = std::fs::read_to_string(&node).expect("reads").replace("\"format\": 1", "\"format\": 2");
    std::fs::write(&node, json).expect("writes");
    let error = Store::open(small(dir.path())).err().expect("is refused");
    assert!(error.to_string().contains("has format 2"), "{error}");
}

#[test]
fn where_the_numberings_of_a_journal_began_is_known_over_restores_and_between_releases() {
    use crate::node::{EARLIER_MAX, NodeIdentity};
    let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().expect("makes")).collect();
    let (mut toy, first) = Toy::open(dirs[0].path());
    toy.raise(1, 10, 10);
    let mut numberings = vec![(first.epoch, Position(0), NewEpoch::FirstStart)];
    for n in 1..3 {
        toy.close();
        let to = dirs[n].path();
        let report = backup::restore(dirs[n - 1].path(), to, &[]).expect("is restored");
        numberings.push((report.epoch, report.last_position, NewEpoch::Restored));
        (toy, _) = Toy::open(to);
        toy.raise(n as u64 * 10, n as u64 * 10 + 5, 5);
    }
    let known: Vec<_> = toy.store.node().numberings().map(|one| (one.epoch, one.after, one.reason)).collect();
    assert_eq!(known, numberings);
    toy.close();
    // As an older release writes it, and how far such a release understands this one's.
    let path = dirs[2].path().join("node.json");
    let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).expect("is there")).expect("is JSON");
    json.as_object_mut().expect("is one").remove("earlier").expect("is beside what the others know");
    std::fs::write(&path, json.to_string()).expect("is written");
    let mut node = NodeIdentity::read(dirs[2].path()).expect("is read").expect("is there");
    assert_eq!(node.numberings().map(|one| one.epoch).collect::<Vec<_>>(), [numberings[2].0]);
    for n in 0..100 {
        node = node.in_new_epoch(node.epoch, NewEpoch::Restored, Position(n));
    }
    assert_eq!((node.earlier.len(), node.earlier[0].after), (EARLIER_MAX, Position(99 - EARLIER_MAX as u64)));
}

fn others() -> [backup::OtherFile; 2] {
    let restored = |content: Vec<u8>| [&content[..], b" restored"].concat();
    ["beside.json", "missing.json"].map(|name| backup::OtherFile { name, restored })
}

#[test]
fn a_backup_is_taken_while_writing_and_restored_in_a_new_epoch() {
    let (dir, to, restored) =
        (tempfile::tempdir().expect("makes"), tempfile::tempdir().expect("makes"), tempfile::tempdir().expect("makes"));
    let (mut toy, first) = Toy::open(dir.path());
    toy.raise(1, 100, 10);
    let source = dir.path().to_owned();
    let target = to.path().join("b");
    std::fs::write(source.join("beside.json"), "who").expect("is written");
    let taken = std::thread::spawn({
        let target = target.clone();
        move || backup::backup(&source, &target, &others())
    });
    toy.raise(101, 400, 3);
    let report = taken.join().expect("ends").expect("is taken");
    assert!(report.last_position >= Position(100));
    let state = offline::read_state(&target).expect("reads");
    // The same prefix of the original makes the same state.
    let items = toy.items().into_iter().filter(|(position, _)| *position <= report.last_position).count();
    assert_eq!(state.alarms_len(), items);
    assert!(matches!(backup::restore(&target, dir.path(), &[]), Err(backup::BackupError::NotEmpty { .. })));
    toy.close();

    let again = backup::restore(&target, restored.path(), &others()).expect("is restored");
    assert!(again.epoch > first.epoch);
    let beside = |dir: &Path| std::fs::read_to_string(dir.join("beside.json")).expect("is there");
    assert_eq!([beside(&target), beside(restored.path())], ["who", "who restored"]);
    let (toy, report) = Toy::open(restored.path());
    assert_eq!((report.epoch, report.new_epoch), (again.epoch, Some(NewEpoch::Restored)));
    assert_eq!(*toy.store.read().state(), state);
}

#[test]
fn a_full_disk_takes_the_append_back_and_goes_on() {
    let dir = tempfile::tempdir().expect("makes");
    let (mut toy, _) = Toy::open(dir.path());
    toy.raise(1, 10, 10);
    let before = stored(&toy.store);
    let committed = toy.store.info().last_position;
    let end = std::fs::metadata(dir.path().join("journal/00000000000000000001.seg")).expect("is there").len();
    toy.writer.limit_segment_bytes(end + 100);
    let (sender, outcomes) = mpsc::channel();
    for number in [11, 12] {
        let frame = toy.frame(&[Step::Raise(number)]);
        let sender = sender.clone();
        toy.writer.submit(frame, move |outcome| sender.send(outcome).expect("is waited for"));
    }
    assert!(matches!(outcomes.recv().expect("is answered"), Err(AppendError::Full { .. })));
    assert!(matches!(outcomes.recv().expect("is answered"), Err(AppendError::Dropped)));
    let recovered = toy.writer.recover();
    assert_eq!((recovered.committed, recovered.next_position), (committed, committed.plus(1)));
    assert_eq!(stored(&toy.store), before);
    let length = std::fs::metadata(dir.path().join("journal/00000000000000000001.seg")).expect("is there").len();
    assert_eq!(length, end, "what was written of it is taken back");
    toy.writer.limit_segment_bytes(u64::MAX);
    toy.commit(&[Step::Raise(11)]);
    let now = stored(&toy.store);
    toy.close();
    let (toy, report) = Toy::open(dir.path());
    assert_eq!(report.torn_tail, None);
    assert_eq!(stored(&toy.store), now);
}

#[test]
fn a_frame_may_run_ahead_without_results() {
    let dir = tempfile::tempdir().expect("makes");
    let (mut toy, _) = Toy::open(dir.path());
    let frame = toy.frame(&[Step::Raise(1), Step::Raise(2)]);
    let (sender, outcome) = mpsc::channel();
    let ahead = Frame { entries: frame.entries, results: None };
    toy.writer.submit(ahead, move |outcome| sender.send(outcome).expect("is waited for"));
    assert_eq!(outcome.recv().expect("is answered").expect("is appended").position(), Position(2));
    assert_eq!(toy.store.read().cursor().applied, Position(0));
    assert_eq!(toy.store.read().position(), Position(2));
    toy.close();
    let (toy, _) = Toy::open(dir.path());
    assert!(toy.store.entry(Position(2)).expect("reads").is_some(), "what is not applied yet is read from here");
    assert_eq!(toy.store.read().cursor().applied, Position(0));
}

#[test]
fn history_pages_agree_with_the_stream() {
    let dir = tempfile::tempdir().expect("makes");
    let (mut toy, _) = Toy::open(dir.path());
    toy.raise(1, 300, 13);
    some_life(&mut toy);
    let all: Vec<(Position, Change)> = toy
        .items()
        .into_iter()
        .filter_map(|(position, item)| match item {
            Item::Change(change) => Some((position, Change::clone(&change))),
            Item::Touched(_) => None,
        })
        .collect();
    let subject = |change: &Change| match &change.subject {
        Subject::Alarm { alarm, .. } => Arc::clone(alarm),
        _ => unreachable!("the toy makes no others"),
    };
    type Filter = Box<dyn Fn(&Change) -> bool>;
    let resource = Resource::new("host=web-3").expect("valid");
    let south = Site::new("south").expect("valid");
    let link = AlarmType::new("link.down").expect("valid");
    let one = alarm(7).id;
    let cases: Vec<(HistoryQuery, Filter)> = vec![
        (HistoryQuery::default(), Box::new(|_| true)),
        (HistoryQuery { alarm: Some(one), ..HistoryQuery::default() }, Box::new(move |c| subject(c).id == one)),
        (
            HistoryQuery { site: Some(south.clone()), ..HistoryQuery::default() },
            Box::new(move |c| subject(c).key.site == Site::new("south").expect("valid")),
        ),
        (
            HistoryQuery { resource: Some(resource.clone()), ..HistoryQuery::default() },
            Box::new(move |c| subject(c).key.resource.as_str().starts_with("host=web-3.")),
        ),
        (
            HistoryQuery { resource: Some(resource), site: Some(south), alarm_type: Some(link), ..HistoryQuery::default() },
            Box::new(move |c| {
                let key = subject(c).key.clone();
                key.resource.as_str().starts_with("host=web-3.")
                    && key.site.as_str() == "south"
                    && key.alarm_type.as_str() == "link.down"
            }),
        ),
        (
            HistoryQuery { severity_min: Some(Severity::Major), kinds: vec![ChangeKind::Raised], ..HistoryQuery::default() },
            Box::new(move |c| subject(c).severity >= Severity::Major && c.kind == ChangeKind::Raised),
        ),
        (
            HistoryQuery { from: Some(at(100)), until: Some(at(500)), ..HistoryQuery::default() },
            Box::new(move |c| c.at >= at(100) && c.at < at(500)),
        ),
        (
            HistoryQuery { text: Some("NUMBER 12".to_owned()), ..HistoryQuery::default() },
            Box::new(move |c| subject(c).text.contains("number 12")),
        ),
    ];
    for (query, filter) in cases {
        for order in [Order::Ascending, Order::Descending] {
            let mut expected: Vec<_> = all.iter().filter(|(_, change)| filter(change)).cloned().collect();
            if order == Order::Descending {
                expected.reverse();
            }
            let mut found = Vec::new();
            let mut cursor = None;
            loop {
                let page = toy.store.history(&HistoryQuery { order, cursor, limit: 9, ..query.clone() }).expect("reads");
                assert!(page.items.len() <= 9);
                found.extend(page.items);
                cursor = page.next;
                if cursor.is_none() {
                    break;
                }
            }
            assert_eq!(found, expected, "{query:?} {order:?}");
        }
    }
}

#[test]
fn an_export_has_every_record_as_a_line() {
    let dir = tempfile::tempdir().expect("makes");
    let (mut toy, _) = Toy::open(dir.path());
    some_life(&mut toy);
    let last = toy.store.info().last_position;
    toy.close();
    let mut lines = Vec::new();
    assert_eq!(offline::export(dir.path(), Position(2), &mut lines).expect("writes"), last.0 - 1);
    let text = String::from_utf8(lines).expect("is UTF-8");
    for (number, line) in text.lines().enumerate() {
        let value: serde_json::Value = serde_json::from_str(line).expect("is JSON");
        assert_eq!(value["position"], number as u64 + 2);
    }
    let report = offline::verify(dir.path()).expect("is sound");
    assert_eq!((report.last_position, report.records), (last, last.0));
}

#[test]
fn a_follower_misses_nothing_while_frames_are_committed() {
    let dir = tempfile::tempdir().expect("makes");
    let (mut toy, _) = Toy::open(dir.path());
    let follower = std::thread::spawn({
        let store = toy.store.clone();
        move || {
            let (mut after, mut items) = (Position(0), Vec::new());
            while items.len() < 600 {
                let page = store.changes_after(after, 50).expect("reads");
                assert!(page.reached >= after && page.items.iter().all(|(position, _)| *position > after));
                after = page.reached;
                items.extend(page.items);
                // Who was told of a change finds it in the state, or a later one.
                assert!(store.read().position() >= *store.committed().borrow());
            }
            items
        }
    });
    toy.raise(1, 600, 3);
    assert_eq!(follower.join().expect("ends"), toy.items());
}
