//! File systems of a test's own. They need root; where it is not given a test says so and passes, except with `CI=true`.

#![allow(clippy::print_stdout, reason = "a test says why it is skipped")]

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// What a file system is filled with.
const FILLER: &str = "filler";

/// A file system in a file, mounted; unmounted when dropped.
pub(crate) struct LoopMount {
    pub(crate) image: PathBuf,
    pub(crate) dir: PathBuf,
}

impl LoopMount {
    pub(crate) fn new(scratch: &Path, name: &str, mebibytes: u64) -> Self {
        let image = scratch.join(format!("{name}.img"));
        std::fs::File::create(&image).and_then(|file| file.set_len(mebibytes << 20)).expect("an image can be made");
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image));
        Self::mount(image, scratch.join(name))
    }

    pub(crate) fn mount(image: PathBuf, dir: PathBuf) -> Self {
        std::fs::create_dir_all(&dir).expect("a folder can be made");
        // Without forced commits of its journal: what is not synced is not there.
        run(Command::new("mount").args(["-o", "loop,commit=600"]).arg(&image).arg(&dir));
        Self { image, dir }
    }

    /// Fills it with something, but for so many bytes.
    pub(crate) fn fill(&self, leave: u64) {
        let stat = rustix::fs::statvfs(&self.dir).expect("is mounted");
        let filler = self.dir.join(FILLER);
        let file = std::fs::File::options().create(true).append(true).open(filler).expect("can be made");
        let zeros = vec![0; 1 << 16];
        let (mut at, mut wanted) =
            (file.metadata().expect("is there").len(), (stat.f_bavail * stat.f_frsize).saturating_sub(leave));
        while wanted > 0 {
            let piece = usize::try_from(wanted.min(1 << 16)).expect("small");
            if file.write_all_at(&zeros[..piece], at).is_err() {
                break;
            }
            at += piece as u64;
            wanted -= piece as u64;
        }
        file.sync_all().expect("can be synced");
    }

    /// Takes away what it was filled with.
    pub(crate) fn make_room(&self) {
        std::fs::remove_file(self.dir.join(FILLER)).expect("can be removed");
    }

    /// The file system as it would be found after a power cut at this moment.
    pub(crate) fn after_power_cut(&self, name: &str) -> Self {
        let image = self.image.with_file_name(format!("{name}.img"));
        run(Command::new("cp").arg("--sparse=always").arg(&self.image).arg(&image));
        Self::mount(image, self.dir.with_file_name(name))
    }
}

impl Drop for LoopMount {
    fn drop(&mut self) {
        for _ in 0..100 {
            if Command::new("umount").arg(&self.dir).status().is_ok_and(|status| status.success()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

pub(crate) fn run(command: &mut Command) {
    let output = command.output().expect("the command is there");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

pub(crate) fn can_mount() -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    assert!(std::env::var_os("CI").is_none(), "CI needs root for file systems and links of its own");
    println!("skipped: file systems and links of its own need root");
    false
}
