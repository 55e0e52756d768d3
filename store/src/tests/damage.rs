//! Bytes that are lost or changed: cut off and said, built anew and said, or refused; never silently wrong, never a panic.

use super::*;
use crate::{OpenError, offline};
use klaxon_schemas::entry::NewEpoch;
use proptest::prelude::*;

pub(super) fn alarms(store: &Store) -> Vec<Alarm> {
    store.read().alarms().map(|alarm| Alarm::clone(alarm)).collect()
}

/// A store of three frames in one segment: its folder, the length after two and after three, and the alarms then.
fn three_frames() -> (tempfile::TempDir, [u64; 2], [Vec<Alarm>; 2]) {
    let dir = tempfile::tempdir().expect("makes");
    let (mut toy, _) = Toy::open(dir.path());
    let segment = dir.path().join("journal/00000000000000000001.seg");
    let length = || std::fs::metadata(&segment).expect("is there").len();
    toy.commit(&[Step::Raise(1)]);
    toy.commit(&[Step::Raise(2)]);
    let (two, held) = (length(), alarms(&toy.store));
    toy.commit(&[Step::Raise(3)]);
    let lengths = [two, length()];
    let alarms = [held, alarms(&toy.store)];
    toy.close();
    // As after a kill: neither view nor mark have come so far.
    std::fs::remove_dir_all(dir.path().join("view")).expect("removes");
    std::fs::remove_file(dir.path().join("high-water")).expect("removes");
    (dir, lengths, alarms)
}

#[test]
fn a_torn_tail_is_cut_wherever_it_was_torn() {
    let (dir, [two, three], [before, _]) = three_frames();
    let segment = dir.path().join("journal/00000000000000000001.seg");
    let whole = std::fs::read(&segment).expect("reads");
    for length in two..three {
        let target = tempfile::tempdir().expect("makes");
        let found = crate::journal::scan::find(&dir.path().join("journal")).expect("lists");
        drop(found);
        std::fs::create_dir(target.path().join("journal")).expect("makes");
        std::fs::copy(dir.path().join("node.json"), target.path().join("node.json")).expect("copies");
        let copy = target.path().join("journal/00000000000000000001.seg");
        std::fs::write(&copy, &whole[..length as usize]).expect("writes");
        let folded = offline::read_state(target.path()).expect("reads");
        assert!(folded.alarms().map(|alarm| Alarm::clone(alarm)).eq(before.iter().cloned()), "torn at {length}");
        // Opening is slow; some lengths stand for all, and the ends are among them.
        if length == two || length % 97 == 0 || length + 1 == three {
            let (toy, report) = Toy::open(target.path());
            assert_eq!(
                report.torn_tail.as_ref().map(|torn| (torn.offset, torn.bytes)),
                (length > two).then_some((two, length - two))
            );
            assert_eq!(alarms(&toy.store), before);
            assert_eq!(std::fs::metadata(&copy).expect("is there").len(), two);
            drop(toy);
        }
    }
}

#[test]
fn a_flipped_bit_in_the_journal_is_never_silently_wrong() {
    let (dir, [two, three], [before, after]) = three_frames();
    let segment = dir.path().join("journal/00000000000000000001.seg");
    let whole = std::fs::read(&segment).expect("reads");
    for offset in 0..three as usize {
        let mut damaged = whole.clone();
        damaged[offset] ^= 1 << (offset % 8);
        std::fs::write(&segment, &damaged).expect("writes");
        match offline::verify(dir.path()) {
            Ok(report) => {
                let torn = report.torn_tail.expect("says that something is cut");
                assert!(offset as u64 >= two && torn.offset == two, "the flip at {offset} went unnoticed");
                let state = offline::read_state(dir.path()).expect("reads");
                assert!(state.alarms().map(|alarm| Alarm::clone(alarm)).eq(before.iter().cloned()));
            }
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains(".seg"), "{text}");
                assert!((offset as u64) < two, "the last frame is cut, not refused: {text}");
            }
        }
    }
    std::fs::write(&segment, &whole).expect("writes");
    let (toy, report) = Toy::open(dir.path());
    assert_eq!((report.torn_tail, alarms(&toy.store)), (None, after));
}

#[test]
fn damage_within_the_journal_is_refused_and_named() {
    let dir = tempfile::tempdir().expect("makes");
    let (mut toy, _) = Toy::open(dir.path());
    toy.raise(1, 400, 20);
    assert!(toy.store.info().segments > 2);
    toy.close();
    let mut segments: Vec<_> =
        std::fs::read_dir(dir.path().join("journal")).expect("lists").map(|entry| entry.expect("lists").path()).collect();
    segments.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
    segments.sort();
    let second = &segments[1];
    let whole = std::fs::read(second).expect("reads");
    let mut damaged = whole.clone();
    damaged[5000] ^= 4;
    std::fs::write(second, &damaged).expect("writes");
    assert!(matches!(offline::verify(dir.path()), Err(offline::OfflineError::Damaged(damage)) if damage.segment == *second));
    std::fs::remove_dir_all(dir.path().join("view")).expect("removes");
    let error = Store::open(small(dir.path())).err().expect("is refused");
    assert!(matches!(&error, OpenError::Damaged(damage) if damage.segment == *second), "{error}");
    std::fs::remove_file(second).expect("removes");
    let error = Store::open(small(dir.path())).err().expect("is refused");
    assert!(matches!(&error, OpenError::Damaged(damage) if damage.segment == segments[2]), "{error}");
    std::fs::write(second, &whole).expect("writes");
    // A segment that was only begun when the node went down.
    std::fs::write(dir.path().join("journal/00000000000000999999.seg"), b"klax").expect("writes");
    let (toy, report) = Toy::open(dir.path());
    assert_eq!((report.notes.len(), toy.store.read().alarms().count()), (1, 400));
}

#[test]
fn a_missing_segment_is_refused_also_when_the_view_and_the_indexes_are_there() {
    let dir = tempfile::tempdir().expect("makes");
    let (mut toy, _) = Toy::open(dir.path());
    toy.raise(1, 400, 20);
    let count = |extension: &str| {
        let entries = std::fs::read_dir(dir.path().join("journal")).expect("lists");
        let paths = entries.map(|entry| entry.expect("lists").path());
        paths.filter(|path| path.extension().is_some_and(|this| this == extension)).count()
    };
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while count("idx") + 1 < count("seg") {
        assert!(std::time::Instant::now() < deadline, "no index was written");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    toy.close();
    assert!(Store::open(small(dir.path())).is_ok());
    let mut segments: Vec<_> =
        std::fs::read_dir(dir.path().join("journal")).expect("lists").map(|entry| entry.expect("lists").path()).collect();
    segments.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
    segments.sort();
    std::fs::remove_file(&segments[1]).expect("removes");
    let error = Store::open(small(dir.path())).err().expect("is refused");
    assert!(matches!(&error, OpenError::Damaged(damage) if damage.segment == segments[2]), "{error}");
}

#[test]
fn a_tail_that_went_missing_begins_a_new_epoch_beyond_it() {
    for engine in engines() {
        let dir = tempfile::tempdir().expect("makes");
        let (mut toy, first) = Toy::open_in(dir.path(), engine);
        toy.commit(&[Step::Raise(1)]);
        let segment = dir.path().join("journal/00000000000000000001.seg");
        let (length, held) = (std::fs::metadata(&segment).expect("is there").len(), alarms(&toy.store));
        let kept = toy.store.info().last_position;
        toy.commit(&[Step::Raise(2)]);
        let lost = toy.store.info().last_position;
        toy.close();
        let cut = || std::fs::OpenOptions::new().write(true).open(&segment).expect("opens").set_len(length).expect("cuts");
        cut();
        let (mut toy, report) = Toy::open_in(dir.path(), engine);
        let missing = report.tail_missing.expect("is noticed");
        assert_eq!((missing.from, missing.to), (kept.plus(1), lost));
        assert_eq!(report.new_epoch, Some(NewEpoch::TailMissing));
        assert!(report.epoch > first.epoch);
        assert!(toy.writer.next_position() > lost);
        assert_eq!(alarms(&toy.store), held);
        toy.seq = 10;
        toy.commit(&[Step::Raise(3)]);
        let page = toy.store.changes_after(Position(0), 100).expect("reads over the gap");
        assert_eq!((page.items.len(), page.reached), (2, toy.store.info().last_position));
        let now = alarms(&toy.store);
        toy.close();
        let (toy, report) = Toy::open_in(dir.path(), engine);
        assert_eq!((report.tail_missing, report.view_rebuilt), (None, None));
        assert_eq!(alarms(&toy.store), now);
        assert_eq!(offline::read_state(dir.path()).expect("reads"), *toy.store.read().state());
    }
}

#[test]
fn a_last_frame_that_was_known_to_be_written_is_missed() {
    for engine in engines() {
        let dir = tempfile::tempdir().expect("makes");
        let (mut toy, _) = Toy::open_in(dir.path(), engine);
        toy.commit(&[Step::Raise(1)]);
        let held = alarms(&toy.store);
        toy.commit(&[Step::Raise(2)]);
        toy.close();
        std::fs::remove_dir_all(dir.path().join("view")).expect("removes");
        let segment = dir.path().join("journal/00000000000000000001.seg");
        let mut bytes = std::fs::read(&segment).expect("reads");
        let last = bytes.len() - 10;
        bytes[last] ^= 1;
        std::fs::write(&segment, bytes).expect("writes");
        // It looks like a torn tail and is cut as one, but the high-water mark knows that somebody was told of it.
        let (toy, report) = Toy::open_in(dir.path(), engine);
        assert!(report.torn_tail.is_some() && report.tail_missing.is_some(), "{report:?}");
        assert_eq!(report.new_epoch, Some(NewEpoch::TailMissing));
        assert_eq!(alarms(&toy.store), held);
    }
}

#[test]
fn a_damaged_index_is_built_anew() {
    let dir = tempfile::tempdir().expect("makes");
    let (mut toy, _) = Toy::open(dir.path());
    toy.raise(1, 300, 20);
    let query = crate::HistoryQuery { site: Some(Site::new("south").expect("valid")), limit: 1000, ..Default::default() };
    let history = toy.store.history(&query).expect("reads");
    toy.close();
    backup_rebuild(dir.path());
    let index = dir.path().join("journal/00000000000000000001.idx");
    let whole = std::fs::read(&index).expect("was written");
    let (toy, _) = Toy::open(dir.path());
    toy.close();
    for offset in (0..whole.len()).step_by(101) {
        let mut damaged = whole.clone();
        damaged[offset] ^= 1 << (offset % 8);
        std::fs::write(&index, &damaged).expect("writes");
        let segments = crate::journal::scan::find(&dir.path().join("journal")).expect("lists").segments;
        let segment = &segments[0];
        let segment = crate::journal::segment::Segment::sealed(
            segment.path.clone(),
            segment.header,
            segment.bytes,
            segments[1].header.follows,
        );
        let sound = crate::journal::index::SegmentIndex::open(&segment).is_ok_and(|index| index.verify().expect("reads"));
        assert!(!sound, "the flip at {offset} went unnoticed");
    }
    let (toy, _) = Toy::open(dir.path());
    assert_eq!(toy.store.history(&query).expect("reads"), history);
}

fn backup_rebuild(dir: &Path) {
    crate::backup::rebuild(dir).expect("rebuilds");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn a_view_with_a_flipped_bit_is_built_anew_or_right(file in 0usize..100, place in 0.0f64..1.0, bit in 0u8..8) {
        for engine in engines() {
            let dir = tempfile::tempdir().expect("makes");
            let (mut toy, _) = Toy::open_in(dir.path(), engine);
            toy.raise(1, 60, 20);
            let held = alarms(&toy.store);
            toy.close();
            let mut files = Vec::new();
            list(&dir.path().join("view"), &mut files);
            files.sort();
            let path = &files[file % files.len()];
            let mut bytes = std::fs::read(path).expect("reads");
            if !bytes.is_empty() {
                let at = ((bytes.len() - 1) as f64 * place) as usize;
                bytes[at] ^= 1 << bit;
                std::fs::write(path, bytes).expect("writes");
            }
            let (toy, _) = Toy::open_in(dir.path(), engine);
            prop_assert_eq!(alarms(&toy.store), held);
        }
    }
}

/// In these files the engine asserts what it reads, and what it asserts in vain ends the process.
#[test]
fn the_files_of_the_view_that_have_no_checksum_of_their_own_are_sealed() {
    let dir = tempfile::tempdir().expect("makes");
    let (mut toy, _) = Toy::open(dir.path());
    toy.raise(1, 60, 20);
    let held = alarms(&toy.store);
    toy.close();
    let mut files = Vec::new();
    list(&dir.path().join("view"), &mut files);
    let is_sealed = |name: &str| name == "version" || name.strip_prefix('v').is_some_and(|rest| rest.parse::<u64>().is_ok());
    files.retain(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(is_sealed));
    assert!(files.len() > 2, "{files:?}");
    for number in 0..120 {
        // A view that is built anew has other versions than the one before it.
        let mut files = Vec::new();
        list(&dir.path().join("view"), &mut files);
        files.retain(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(is_sealed));
        files.sort();
        let path = &files[number % files.len()];
        let mut bytes = std::fs::read(path).expect("reads");
        let at = number * 7 % bytes.len();
        bytes[at] ^= 1 << (number % 8);
        std::fs::write(path, bytes).expect("writes");
        let (toy, report) = Toy::open(dir.path());
        assert!(report.view_rebuilt.as_ref().is_some_and(|why| why.contains("is not what it was")), "{report:?}");
        assert_eq!(alarms(&toy.store), held);
        toy.close();
    }
}

#[test]
fn a_view_at_which_the_last_start_ended_is_not_tried_again() {
    for engine in engines() {
        let dir = tempfile::tempdir().expect("makes");
        let (mut toy, _) = Toy::open_in(dir.path(), engine);
        toy.raise(1, 20, 20);
        let held = alarms(&toy.store);
        toy.close();
        std::fs::write(dir.path().join("view.opening"), "").expect("writes");
        let (toy, report) = Toy::open_in(dir.path(), engine);
        assert!(report.view_rebuilt.is_some_and(|why| why.contains("did not come to an end")));
        assert_eq!(alarms(&toy.store), held);
        toy.close();
        let (_toy, report) = Toy::open_in(dir.path(), engine);
        assert_eq!(report.view_rebuilt, None);
    }
}

pub(super) fn list(dir: &Path, files: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("lists") {
        let path = entry.expect("lists").path();
        if path.is_dir() { list(&path, files) } else { files.push(path) }
    }
}
