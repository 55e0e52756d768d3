//! What disks do: they fill up, they fail a sync, they lose power, their bytes flip. Needs root for the mounts; where it is not
//! given the tests say so and pass, except with `CI=true`.

#![expect(clippy::print_stdout, reason = "a run says its seed and what it hit")]

mod harness;

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use harness::load::Reporter;
use harness::mount::{LoopMount, can_mount, run};
use harness::{Chance, Setup, VIEWS, is_long, oracle, scratch, seeds, wait_until};
use serde_json::json;

#[test]
fn a_full_disk_refuses_intake_answers_queries_and_goes_on_by_itself() {
    if !can_mount() {
        return;
    }
    let scratch = scratch("full-");
    let mount = LoopMount::new(scratch.path(), "disk", 96);
    let setup = Setup::new(&mount.dir.join("data"))
        .config("[store]\nfree_space_watermark = \"12MiB\"\nsegment_bytes = \"1MiB\"\nhistory_max_bytes = \"1GiB\"");
    let node = setup.start();
    let mut reporter = Reporter::new("r", 50, 1);
    let agent = harness::agent();
    assert!(reporter.send(&agent, &node.base, 500));
    // Somebody else fills the disk, down to a few blocks: below the watermark, and below what a frame needs.
    assert_eq!(node.post("/heartbeats/job?every=2s", "").expect("answers").status, 200);
    mount.fill(4 << 20);
    let promised = std::time::Instant::now();
    let refused = || {
        let event = json!({"resource": "a=refused", "alarm_type": "t", "severity": "major"}).to_string();
        node.post("/events", &event).expect("the node answers")
    };
    wait_until("intake is refused", || refused().status == 507);
    let problem = refused();
    assert!(problem.body.contains("bytes are free"), "{}", problem.body);
    assert!(!reporter.send(&agent, &node.base, 500));
    // Queries are answered, and the list is that of the acknowledged.
    assert!(node.json("/alarms?cleared=any")["alarms"].as_array().is_some_and(|alarms| !alarms.is_empty()));
    assert_eq!(node.get("//readyz").expect("answers").status, 503);
    // Whoever is refused is not silent.
    wait_until("the promise would be broken", || promised.elapsed() > Duration::from_secs(4));
    let lost = || !node.json("/alarms?alarm_type=heartbeat.lost")["alarms"][0].is_null();
    assert!(!lost());
    // No room at all: not even the reserve.
    mount.fill(0);
    assert_eq!(refused().status, 507);
    mount.make_room();
    wait_until("it goes on by itself", || reporter.send(&agent, &node.base, 500));
    wait_until("now it is silence", lost);
    reporter.settle(&node.base);
    wait_until("the node is ready", || node.get("//readyz").is_ok_and(|reply| reply.status == 200));
    oracle::compare(&node, std::slice::from_ref(&reporter));
    node.kill();
    let node = setup.start();
    oracle::compare(&node, std::slice::from_ref(&reporter));
    assert!(node.stop().success());
}

#[test]
fn a_disk_that_is_full_in_the_middle_of_a_frame_loses_nothing() {
    if !can_mount() {
        return;
    }
    for view in VIEWS {
        let scratch = scratch("enospc-");
        let mount = LoopMount::new(scratch.path(), "disk", 48);
        // The watermark is as good as off: appends themselves meet the end of the disk.
        let setup = Setup::new(&mount.dir.join("data"))
            .config("[store]\nfree_space_watermark = \"1B\"\nsegment_bytes = \"4MiB\"\nhistory_max_bytes = \"1GiB\"")
            .config(&format!("view = \"{view}\""));
        let node = setup.start();
        let mut reporters: Vec<_> = (0..2).map(|n| Reporter::new(&format!("r{n}"), 200, n)).collect();
        let agent = harness::agent();
        let ballast = mount.dir.join("ballast");
        std::fs::write(&ballast, vec![1; 12 << 20]).expect("fits");
        for reporter in &mut reporters {
            let mut sent = 0;
            while reporter.send(&agent, &node.base, 700) {
                sent += 1;
                assert!(sent < 2000, "the disk never filled");
            }
        }
        assert!(node.json("/alarms?cleared=any")["alarms"].as_array().is_some_and(|alarms| !alarms.is_empty()));
        std::fs::remove_file(&ballast).expect("can be removed");
        for reporter in &mut reporters {
            reporter.settle(&node.base);
        }
        oracle::compare(&node, &reporters);
        node.kill();
        let node = setup.start();
        oracle::compare(&node, &reporters);
    }
}

#[test]
fn a_disk_that_is_full_between_entries_and_their_results_loses_neither() {
    let scratch = scratch("between-");
    let order = scratch.path().join("full");
    let setup = Setup::new(&scratch.path().join("data")).shim().env("KLAXON_SHIM_FULL", &order.to_string_lossy());
    let node = setup.start();
    let mut sent = 0;
    for times in [1, 2, 5] {
        // The entries find room, so they are acknowledged; what follows from them does not, several times over.
        std::fs::write(order.with_extension("new"), format!("1 {times}")).expect("can be written");
        std::fs::rename(order.with_extension("new"), &order).expect("can be renamed");
        let events: Vec<_> = (sent..sent + 3000)
            .map(|key| json!({"resource": format!("a={key}"), "alarm_type": "t", "severity": "major"}))
            .collect();
        let told = node.send(&json!(events));
        assert_eq!(told["accepted"], 3000);
        sent += 3000;
        wait_until("all have their effect", || node.json("/alarms/summary")["active"] == sent);
        assert!(!order.exists(), "the disk was not full");
    }
    assert!(node.log_text().contains("nothing can be journalled now"), "{}", node.log_text());
    assert!(node.alarms().iter().all(|alarm| alarm["count"] == 1));
    oracle::check_numbers(&node.history());
    // And once more, with a kill before there is room again.
    std::fs::write(&order, "1 1000000").expect("can be written");
    let event = |key: u64| json!({"resource": format!("a={key}"), "alarm_type": "t", "severity": "major"});
    let told = node.send(&json!((sent..sent + 3000).map(event).collect::<Vec<_>>()));
    assert_eq!(told["accepted"], 3000);
    node.kill();
    let node = setup.start();
    assert_eq!(node.json("/alarms/summary")["active"], sent + 3000);
    oracle::check_numbers(&node.history());
}

#[test]
fn a_start_on_a_full_disk_does_not_throw_a_good_view_away() {
    if !can_mount() {
        return;
    }
    let scratch = scratch("seal-");
    let mount = LoopMount::new(scratch.path(), "disk", 128);
    // The node's log and its configuration are beside the folder, and not on the disk that is full.
    let data = scratch.path().join("data");
    std::fs::create_dir(mount.dir.join("data")).expect("can be made");
    std::os::unix::fs::symlink(mount.dir.join("data"), &data).expect("can be linked");
    let setup = Setup::new(&data).config("[store]\nfree_space_watermark = \"1B\"");
    let node = setup.start();
    let mut reporter = Reporter::new("r", 300, 13);
    assert!(reporter.send(&harness::agent(), &node.base, 2000));
    assert!(node.stop().success());
    // As it is for a view whose files have changed since.
    std::fs::remove_file(data.join("view.seal")).expect("can be removed");
    let filler = mount.dir.join("filler");
    let mut file = std::fs::File::create(&filler).expect("can be made");
    while std::io::Write::write_all(&mut file, &[0; 1024]).is_ok() {}
    file.sync_all().expect("can be synced");
    drop(file);
    // Whether there is room enough to serve is another matter.
    let log = setup.try_start().map_or_else(|failed| failed.log, |node| node.log_text());
    println!("{log}");
    assert!(log.contains("the view cannot be sealed"), "{log}");
    assert!(!log.contains("built anew"), "{log}");
    std::fs::remove_file(&filler).expect("can be removed");
    let node = setup.start();
    assert!(!node.log_text().contains("built anew"), "{}", node.log_text());
    oracle::compare(&node, std::slice::from_ref(&reporter));
}

#[test]
fn what_is_durable_is_acknowledged_although_the_engine_breaks_and_the_disk_is_full() {
    let scratch = scratch("broken-");
    let order = scratch.path().join("full");
    let setup = Setup::new(&scratch.path().join("data"))
        .shim()
        .env("KLAXON_SHIM_FULL", &order.to_string_lossy())
        .env("KLAXON_FAULT_PANIC_TYPE", "poison");
    let node = setup.start();
    // The entries find room, the first results do not, and the engine breaks behind them: nothing can be put aside now.
    std::fs::write(order.with_extension("new"), "1 3").expect("can be written");
    std::fs::rename(order.with_extension("new"), &order).expect("can be renamed");
    let event = |key: u64| {
        let alarm_type = if key == 2000 { "poison" } else { "t" };
        json!({"resource": format!("a={key}"), "alarm_type": alarm_type, "severity": "major"})
    };
    let told = node.send(&json!((0..3000).map(event).collect::<Vec<_>>()));
    assert_eq!(told["accepted"], 3000);
    // One has none, and an alarm of the node's own tells of that.
    wait_until("all the others have their effect", || node.json("/alarms/summary")["active"] == 3000);
    assert!(!node.json("/alarms?alarm_type=klaxon.quarantine")["alarms"][0].is_null());
    oracle::check_numbers(&node.history());
}

#[test]
fn a_failed_sync_ends_the_process_and_what_was_acknowledged_is_there() {
    let scratch = scratch("sync-");
    let fails = scratch.path().join("fails");
    let setup = Setup::new(&scratch.path().join("data")).shim().env("KLAXON_SHIM_SYNC_FAIL", &fails.to_string_lossy());
    let mut node = setup.start();
    let mut reporter = Reporter::new("r", 50, 3);
    let agent = harness::agent();
    for _ in 0..5 {
        assert!(reporter.send(&agent, &node.base, 100));
    }
    std::fs::write(&fails, "").expect("can be written");
    assert!(!reporter.send(&agent, &node.base, 100), "a report was acknowledged that no sync covers");
    let status = node.wait_end();
    assert!(!status.success());
    assert!(node.log_text().contains("sync"), "{}", node.log_text());
    std::fs::remove_file(&fails).expect("can be removed");
    let node = setup.start();
    reporter.settle(&node.base);
    oracle::compare(&node, std::slice::from_ref(&reporter));
}

/// With `KLAXON_SHIM_SYNC_LIES=1` in the environment the node's syncs do nothing: then this must fail.
#[test]
fn a_power_cut_loses_nothing_that_was_acknowledged() {
    if !can_mount() {
        return;
    }
    let images = if is_long() { 12 } else { 5 };
    for (seed, view) in seeds(1, 4).into_iter().flat_map(|seed| VIEWS.iter().map(move |view| (seed, view))) {
        println!("seed {seed}, view in {view}");
        let scratch = scratch("power-");
        let mount = LoopMount::new(scratch.path(), "disk", 512);
        let config = format!(
            "[store]\nfree_space_watermark = \"8MiB\"\nsegment_bytes = \"2MiB\"\nhistory_max_bytes = \"1GiB\"\nview = \"{view}\""
        );
        let mut chance = Chance::new(seed);
        let reporters: Vec<_> = (0..2).map(|n| Mutex::new(Reporter::new(&format!("r{n}"), 80, seed + n))).collect();
        let setup = Setup::new(&mount.dir.join("data")).config(&config);
        let lies = std::env::var_os("KLAXON_SHIM_SYNC_LIES").is_some();
        let node = if lies { setup.shim().start() } else { setup.start() };
        for image in 0..images {
            let stop = AtomicBool::new(false);
            let sent = AtomicU64::new(0);
            let (cut, mut known) = std::thread::scope(|scope| {
                for reporter in &reporters {
                    let (base, stop, sent) = (&node.base, &stop, &sent);
                    let size = 1 + chance.below(400);
                    scope.spawn(move || Reporter::run_watched(reporter, base, size, stop, sent));
                }
                let some = 1 + chance.below(6000);
                wait_until("some reports are acknowledged", || sent.load(Ordering::Relaxed) >= some);
                std::thread::sleep(Duration::from_micros(chance.below(30_000)));
                // The process stands still while its disk is copied. What the reporters know now is what the disk must hold.
                node.stand_still();
                let known: Vec<_> =
                    reporters.iter().map(|reporter| reporter.lock().expect("nobody panicked").clone()).collect();
                let cut = mount.after_power_cut(&format!("cut{image}"));
                stop.store(true, Ordering::Relaxed);
                node.signal(rustix::process::Signal::CONT);
                (cut, known)
            });
            let revived = Setup::new(&cut.dir.join("data")).config(&config).start();
            for reporter in &mut known {
                reporter.settle(&revived.base);
            }
            oracle::compare(&revived, &known);
            if revived.log_text().contains("the view is built anew") {
                println!("image {image}: the view was built anew");
            }
            assert!(revived.stop().success());
            let image = cut.image.clone();
            drop(cut);
            std::fs::remove_file(image).expect("can be removed");
        }
    }
}

#[test]
fn damage_is_refused_or_mended_and_said_and_never_silently_wrong() {
    for view in VIEWS {
        damage_with(view);
    }
}

fn damage_with(view: &str) {
    println!("view in {view}");
    let scratch = scratch("damage-");
    let data = scratch.path().join("data");
    let setup = Setup::new(&data).config(&format!("[store]\nsegment_bytes = \"1MiB\"\nview = \"{view}\""));
    let mut reporter = Reporter::new("r", 100, 5);
    let node = setup.start();
    let agent = harness::agent();
    for _ in 0..12 {
        assert!(reporter.send(&agent, &node.base, 400));
    }
    oracle::compare(&node, std::slice::from_ref(&reporter));
    // With their indexes full segments are not read as a whole at a start.
    let count = |extension: &str| {
        files_under(&data).iter().filter(|file| file.extension().is_some_and(|this| this == extension)).count()
    };
    wait_until("full segments have their indexes", || count("idx") + 1 == count("seg"));
    assert!(node.stop().success());
    let whole = scratch.path().join("whole");
    run(Command::new("cp").arg("-a").arg(&data).arg(&whole));
    let mut chance = Chance::new(7);
    let (mut refused, mut mended, mut told) = (0, 0, 0);
    for round in 0..if is_long() { 120 } else { 24 } {
        std::fs::remove_dir_all(&data).expect("can be removed");
        run(Command::new("cp").arg("-a").arg(&whole).arg(&data));
        std::fs::write(data.with_extension("log"), "").expect("can be emptied");
        // The journal has few files, and its damage matters most.
        let files = files_under(&if chance.below(2) == 0 { data.join("journal") } else { data.clone() });
        let is_first_segment = [1, 3].contains(&round);
        let victim =
            match files_under(&data.join("journal")).iter().find(|file| file.extension().is_some_and(|ext| ext == "seg")) {
                Some(first) if is_first_segment => first.clone(),
                _ => files[usize::try_from(chance.below(files.len() as u64)).expect("small")].clone(),
            };
        let file = std::fs::File::options().read(true).write(true).open(&victim).expect("can be opened");
        let length = file.metadata().expect("is there").len();
        if length == 0 {
            continue;
        }
        // The first full segment in its middle, flipped and cut, is among them in any run.
        let at = if is_first_segment { length / 2 } else { chance.below(length) };
        if round % 3 == 0 {
            file.set_len(at).expect("can be cut");
        } else {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).expect("can be read");
            file.write_all_at(&[byte[0] ^ (1 << chance.below(8))], at).expect("can be written");
        }
        drop(file);
        println!("round {round}: {} at {at} of {length}", victim.display());
        match setup.try_start() {
            Err(failed) => {
                println!("refused: {}", failed.log.lines().last().unwrap_or_default());
                refused += 1;
                assert!(!failed.log.contains("panicked"), "{}", failed.log);
                assert_eq!(failed.status.code(), Some(1), "{}", failed.log);
                assert!(failed.log.contains(&*data.to_string_lossy()), "it does not say what is damaged: {}", failed.log);
            }
            Ok(node) => {
                mended += 1;
                let said = node.log_text();
                assert!(!said.contains("panicked"), "{said}");
                // What was cut off or went missing is said; without that, all of it must be there, or what cannot be read is.
                let damaged = || !history_is_whole(&node);
                if !said.contains("torn") && !said.contains("missing") {
                    if victim.extension().is_none_or(|extension| extension != "seg") || !damaged() {
                        oracle::compare(&node, std::slice::from_ref(&reporter));
                    } else {
                        told += 1;
                        wait_until("an alarm says that the journal is damaged", || {
                            !node.json("/alarms?alarm_type=klaxon.journal-damaged")["alarms"][0].is_null()
                        });
                        assert!(node.log_text().contains(&*victim.to_string_lossy()), "{}", node.log_text());
                    }
                }
            }
        }
    }
    println!("{refused} refused, {mended} served, of them {told} with damage that they told of");
    assert!(refused > 0 && mended > 0 && told > 0);
}

/// Whether every page of history can be read.
fn history_is_whole(node: &harness::Node) -> bool {
    let mut cursor = String::new();
    loop {
        let reply = node.get(&format!("/history?order=asc&limit=1000{cursor}")).expect("answers");
        if reply.status == 500 {
            return false;
        }
        match reply.json()["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return true,
        }
    }
}

fn files_under(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).expect("can be listed") {
            let entry = entry.expect("can be listed");
            if entry.file_type().expect("is known").is_dir() {
                dirs.push(entry.path());
            } else if entry.file_type().expect("is known").is_file() {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    files
}

#[test]
fn a_deleted_view_is_built_anew_and_is_the_same() {
    for view in VIEWS {
        let scratch = scratch("view-");
        let data = scratch.path().join("data");
        let setup = Setup::new(&data).config(&format!("[store]\nsegment_bytes = \"1MiB\"\nview = \"{view}\""));
        let node = setup.start();
        let mut reporter = Reporter::new("r", 300, 9);
        let agent = harness::agent();
        for _ in 0..6 {
            assert!(reporter.send(&agent, &node.base, 500));
        }
        assert!(node.stop().success());
        let node = setup.start();
        let before = node.alarms();
        assert!(node.stop().success());
        std::fs::remove_dir_all(data.join("view")).expect("can be removed");
        let node = setup.start();
        assert_eq!(node.alarms(), before);
        assert!(node.log_text().contains("view"), "{}", node.log_text());
        oracle::compare(&node, std::slice::from_ref(&reporter));
    }
}

#[cfg(feature = "sled")]
#[test]
fn another_engine_of_the_view_builds_it_anew_and_says_so() {
    let scratch = scratch("engines-");
    let data = scratch.path().join("data");
    let with = |view: &str| Setup::new(&data).config(&format!("[store]\nview = \"{view}\""));
    let node = with("fjall").start();
    let mut reporter = Reporter::new("r", 300, 11);
    assert!(reporter.send(&harness::agent(), &node.base, 2000));
    assert!(node.stop().success());
    let info = |view: &str| {
        let output = harness::klaxon().args(["--json", "store", "info"]).arg(&data).output().expect("it runs");
        let info: serde_json::Value = serde_json::from_slice(&output.stdout).expect("is JSON");
        assert_eq!(info["view"], view);
    };
    info("fjall");
    for (before, now) in [("fjall", "sled"), ("sled", "fjall")] {
        let node = with(now).start();
        let said = node.log_text();
        assert!(said.contains("the view is built anew"), "{said}");
        assert!(said.contains(&format!("{before} keeps it, and {now} is to")), "{said}");
        oracle::compare(&node, std::slice::from_ref(&reporter));
        // A kill, and the next start goes on with what is there.
        node.kill();
        std::fs::write(data.with_extension("log"), "").expect("can be emptied");
        let node = with(now).start();
        assert!(!node.log_text().contains("built anew"), "{}", node.log_text());
        oracle::compare(&node, std::slice::from_ref(&reporter));
        assert!(node.stop().success());
        info(now);
        for command in ["rebuild", "verify"] {
            let output = harness::klaxon().args(["store", command]).arg(&data).output().expect("it runs");
            assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        }
        info(now);
    }
}

#[test]
fn a_second_node_on_the_same_folder_is_refused() {
    let scratch = scratch("lock-");
    let setup = Setup::new(&scratch.path().join("data"));
    let node = setup.start();
    let failed = setup.try_start().err().expect("the folder is taken");
    assert_eq!(failed.status.code(), Some(1));
    assert!(failed.log.contains(&format!("in use by process {}", node.child.id())), "{}", failed.log);
}
