//! The engines behind the view: each does what the seam says, changing the setting builds the view anew, and what sled makes of
//! damage is never answered from.

use std::io::Write as _;

use super::*;
use crate::view::engine::{Batch, Engine, Row, Table};
use crate::{ViewConfig, offline};

fn open(dir: &Path, engine: ViewEngine) -> Engine {
    Engine::open(dir, &ViewConfig { engine, ..ViewConfig::default() }).expect("opens")
}

fn all(engine: &Engine, table: Table) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    loop {
        let after = rows.last().map(|(key, _)| key.clone());
        match engine.range(table, after.as_deref(), 700).expect("reads") {
            more if more.is_empty() => return rows,
            more => rows.extend(more),
        }
    }
}

#[test]
fn an_engine_keeps_tables_apart_and_rows_in_order() {
    for engine in engines() {
        let dir = tempfile::tempdir().expect("makes");
        let opened = open(dir.path(), engine);
        let mut batch = Batch::default();
        let mut expected = BTreeMap::new();
        for number in 0..20_000u32 {
            let key = number.wrapping_mul(0x9e37_79b9).to_be_bytes().to_vec();
            batch.put(Table::Alarms, &key, vec![number as u8; 200]);
            expected.insert(key, vec![number as u8; 200]);
        }
        batch.put(Table::Records, b"a", b"a key".to_vec());
        batch.put(Table::Records, &[0xff; 100], b"last key".to_vec());
        batch.put(Table::Meta, b"meta", b"1".to_vec());
        opened.apply(batch).expect("writes more than a page, a segment or a memtable holds");
        let mut batch = Batch::default();
        for (number, (key, value)) in expected.iter_mut().enumerate() {
            if number % 3 == 0 {
                *value = vec![7; number % 900];
                batch.put(Table::Alarms, key, value.clone());
            }
        }
        let gone: Vec<_> = expected.keys().step_by(5).cloned().collect();
        for key in gone {
            batch.delete(Table::Alarms, &key);
            expected.remove(&key);
        }
        batch.put(Table::Meta, b"meta", b"2".to_vec());
        opened.apply(batch).expect("writes");
        opened.sync().expect("syncs");
        assert!(opened.bytes() > 0);
        drop(opened);
        let opened = open(dir.path(), engine);
        assert!(all(&opened, Table::Alarms).into_iter().eq(expected), "{engine:?}");
        let records = all(&opened, Table::Records);
        assert_eq!(records, [(b"a".to_vec(), b"a key".to_vec()), (vec![0xff; 100], b"last key".to_vec())]);
        assert_eq!(opened.get(Table::Meta, b"meta").expect("reads").as_deref(), Some(&b"2"[..]));
        assert_eq!(opened.get(Table::Alarms, b"meta").expect("reads"), None);
    }
}

/// The catalogue is one record of up to 4 MiB.
#[test]
fn a_large_row_may_change_often_without_filling_the_disk() {
    for engine in engines() {
        let dir = tempfile::tempdir().expect("makes");
        let opened = open(dir.path(), engine);
        for round in 0..40u8 {
            let mut batch = Batch::default();
            batch.put(Table::Records, b"large", vec![round; 4 << 20]);
            for beside in 0..40u8 {
                batch.put(Table::Records, &[beside], vec![round; 300]);
            }
            opened.apply(batch).expect("writes");
            opened.sync().expect("syncs");
        }
        let mut files = Vec::new();
        damage::list(dir.path(), &mut files);
        let bytes: u64 = files.iter().map(|file| std::fs::metadata(file).map_or(0, |metadata| metadata.len())).sum();
        println!("{engine:?}: {bytes} bytes in {} files", files.len());
        drop(opened);
        let opened = open(dir.path(), engine);
        assert!(opened.get(Table::Records, b"large").expect("reads").is_some_and(|row| row == vec![39; 4 << 20]));
        for length in [4 << 10, 20 << 10, 0, 40 << 10] {
            let mut batch = Batch::default();
            batch.put(Table::Records, b"large", vec![1; length]);
            opened.apply(batch).expect("writes");
            assert_eq!(opened.get(Table::Records, b"large").expect("reads"), Some(vec![1; length]));
            assert_eq!(all(&opened, Table::Records).len(), 41, "parts are no rows");
        }
        let mut batch = Batch::default();
        batch.delete(Table::Records, b"large");
        opened.apply(batch).expect("writes");
        assert_eq!(all(&opened, Table::Records).len(), 40);
        drop(opened);
        let opened = open(dir.path(), engine);
        assert_eq!(opened.get(Table::Records, b"large").expect("reads"), None);
        assert!(bytes < 100 << 20, "{engine:?} takes {bytes} bytes for 4 MiB");
    }
}

#[test]
fn a_view_that_cannot_be_sealed_is_used_and_not_held_against_an_older_seal() {
    for engine in engines() {
        let (dir, after) = (tempfile::tempdir().expect("makes"), tempfile::tempdir().expect("makes"));
        let (mut toy, _) = Toy::open_in(dir.path(), engine);
        toy.raise(1, 50, 10);
        toy.close();
        // The seal is due to be written anew, and in the way of that is what no file can replace.
        let seal = dir.path().join("view.seal");
        std::fs::OpenOptions::new().append(true).open(&seal).expect("opens").write_all(b"00000000 gone\n").expect("writes");
        std::fs::create_dir(dir.path().join("view.tmp")).expect("makes");
        let (mut toy, report) = Toy::open_in(dir.path(), engine);
        assert_eq!((report.view_rebuilt, seal.exists()), (None, false), "{engine:?}");
        toy.raise(51, 50, 10);
        let held = damage::alarms(&toy.store);
        toy.kill(dir.path(), after.path());
        let (toy, report) = Toy::open_in(after.path(), engine);
        assert_eq!(report.view_rebuilt, None, "{engine:?}");
        assert_eq!(damage::alarms(&toy.store), held);
    }
}

#[cfg(not(feature = "sled"))]
#[test]
fn a_build_without_sled_refuses_to_open_with_it() {
    let dir = tempfile::tempdir().expect("makes");
    let (mut toy, _) = Toy::open(dir.path());
    toy.raise(1, 20, 20);
    let held = damage::alarms(&toy.store);
    toy.close();
    let error = Store::open(small_in(dir.path(), ViewEngine::Sled)).err().expect("is refused");
    assert!(error.to_string().contains("this build has no sled; build with `--features sled`"), "{error}");
    // A view that another build has kept in sled: a rebuild for sled is refused before anything is removed.
    std::fs::rename(dir.path().join("view/fjall"), dir.path().join("view/sled")).expect("renames");
    let error = crate::backup::rebuild(dir.path()).expect_err("is refused");
    assert!(error.to_string().contains("this build has no sled"), "{error}");
    assert_eq!(offline::view_engine(dir.path()), Some(ViewEngine::Sled));
    let (toy, report) = Toy::open(dir.path());
    assert_eq!(report.view_rebuilt.as_deref(), Some("sled keeps it, and fjall is to"));
    assert_eq!(damage::alarms(&toy.store), held);
}

#[cfg(feature = "sled")]
mod with_sled {
    use super::*;
    use damage::{alarms, list};

    fn wait_for_the_view(toy: &Toy) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while toy.store.info().view_position < toy.store.info().last_position {
            assert!(std::time::Instant::now() < deadline, "{:?}", toy.store.info());
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    #[test]
    fn another_engine_builds_the_view_anew_and_removes_that_of_the_one_before() {
        let dir = tempfile::tempdir().expect("makes");
        let (mut toy, _) = Toy::open_in(dir.path(), ViewEngine::Fjall);
        toy.raise(1, 50, 10);
        let held = alarms(&toy.store);
        toy.close();
        for (before, now) in [(ViewEngine::Fjall, ViewEngine::Sled), (ViewEngine::Sled, ViewEngine::Fjall)] {
            assert_eq!(offline::view_engine(dir.path()), Some(before));
            let (toy, report) = Toy::open_in(dir.path(), now);
            let said = format!("{} keeps it, and {} is to", before.as_str(), now.as_str());
            assert_eq!(report.view_rebuilt, Some(said));
            assert_eq!(alarms(&toy.store), held);
            assert!(!dir.path().join("view").join(before.as_str()).exists());
            toy.close();
            // Once: the next start finds what it looks for, and a rebuild stays with it.
            let (toy, report) = Toy::open_in(dir.path(), now);
            assert_eq!((report.view_rebuilt, report.replayed_records), (None, 0));
            assert_eq!(alarms(&toy.store), held);
            toy.close();
            crate::backup::rebuild(dir.path()).expect("rebuilds");
            assert_eq!(offline::view_engine(dir.path()), Some(now));
        }
    }

    /// A store whose view was written in several batches, as it is after a kill, and what it holds.
    fn killed_store() -> (tempfile::TempDir, Vec<Alarm>) {
        let (dir, after) = (tempfile::tempdir().expect("makes"), tempfile::tempdir().expect("makes"));
        let (mut toy, _) = Toy::open_in(dir.path(), ViewEngine::Sled);
        toy.raise(1, 1500, 100);
        for round in 0..4 {
            wait_for_the_view(&toy);
            toy.commit(&(1..1500).filter(|number| number % 7 == round).map(Step::Again).collect::<Vec<_>>());
        }
        wait_for_the_view(&toy);
        let held = alarms(&toy.store);
        toy.kill(dir.path(), after.path());
        (after, held)
    }

    /// Without a seal, as after a kill, sled itself meets the damage.
    #[test]
    fn a_flipped_bit_in_sleds_file_is_never_wrong_and_does_not_end_the_process() {
        let (whole, held) = killed_store();
        let bytes = std::fs::read(whole.path().join("view/sled/db")).expect("reads");
        let written: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
        let mut found = BTreeMap::<String, u32>::new();
        for round in 0..24 {
            let dir = tempfile::tempdir().expect("makes");
            copy_dir(whole.path(), dir.path());
            let mut damaged = bytes.clone();
            let at = written[written.len() / 24 * round + 11 * round];
            damaged[at] ^= 1 << (round % 8);
            std::fs::write(dir.path().join("view/sled/db"), damaged).expect("writes");
            let (toy, report) = Toy::open_in(dir.path(), ViewEngine::Sled);
            assert!(alarms(&toy.store) == held, "wrong after a flip at {at}: {report:?}");
            let why = report.view_rebuilt.unwrap_or_else(|| format!("{} records behind", report.replayed_records));
            *found.entry(why.split("Sum").next().unwrap_or_default().to_owned()).or_default() += 1;
            toy.close();
        }
        println!("{found:#?}");
    }

    #[test]
    fn an_older_row_whose_checksum_is_right_is_noticed() {
        let (dir, held) = killed_store();
        let path = dir.path().join("view/sled");
        let sled = || sled::Config::new().path(&path).segment_size(2 << 20).open().expect("opens");
        let (toy, report) = Toy::open_in(dir.path(), ViewEngine::Sled);
        assert_eq!(report.view_rebuilt, None);
        toy.close();
        let database = sled();
        let (key, old) = database.range([1u8]..).next().expect("has rows").expect("reads");
        drop(database);
        let (mut toy, _) = Toy::open_in(dir.path(), ViewEngine::Sled);
        toy.alarms = toy.store.read().alarms().map(|alarm| (number(alarm), Arc::clone(alarm))).collect();
        toy.commit(&(1..1500).map(Step::Again).collect::<Vec<_>>());
        let now = alarms(&toy.store);
        assert_ne!(now, held);
        toy.close();
        let database = sled();
        assert_ne!(database.insert(&key, &old).expect("writes").expect("was there"), old);
        drop(database);
        std::fs::remove_file(dir.path().join("view.seal")).expect("removes");
        let (toy, report) = Toy::open_in(dir.path(), ViewEngine::Sled);
        assert!(report.view_rebuilt.as_ref().is_some_and(|why| why.contains("not those that were written")), "{report:?}");
        assert_eq!(alarms(&toy.store), now);
    }

    fn number(alarm: &Alarm) -> u64 {
        alarm.text.as_str().rsplit(' ').next().and_then(|number| number.parse().ok()).expect("ends with its number")
    }

    #[test]
    fn what_happens_to_sleds_files_between_two_starts_is_noticed_before_sled_reads_them() {
        let dir = tempfile::tempdir().expect("makes");
        let (mut toy, _) = Toy::open_in(dir.path(), ViewEngine::Sled);
        toy.raise(1, 60, 20);
        let held = alarms(&toy.store);
        toy.close();
        for round in 0..8 {
            let mut files = Vec::new();
            list(&dir.path().join("view"), &mut files);
            files.sort();
            let path = &files[round % files.len()];
            let mut bytes = std::fs::read(path).expect("reads");
            let at = bytes.len() / 8 * round;
            bytes[at] ^= 1 << round;
            std::fs::write(path, bytes).expect("writes");
            let (toy, report) = Toy::open_in(dir.path(), ViewEngine::Sled);
            assert!(report.view_rebuilt.as_ref().is_some_and(|why| why.contains("is not what it was")), "{report:?}");
            assert_eq!(alarms(&toy.store), held);
            toy.close();
            let (toy, report) = Toy::open_in(dir.path(), ViewEngine::Sled);
            assert_eq!(report.view_rebuilt, None, "its own writes are no damage");
            toy.close();
        }
    }
}
