//! What is chosen of a list of mounts, and real file systems that are filled, made read-only and broken. Mounting needs root; where
//! it is not given the tests say so and pass, except with `CI=true`.

use std::collections::BTreeSet;
use std::process::Command;

use super::*;

fn host() -> Host {
    Host::new("a").expect("is a name")
}

fn chosen(config: &FilesystemConfig, mountinfo: &str) -> Vec<String> {
    let mounts = mountinfo.lines().map(|line| MountInfo::from_line(line).expect("is a line"));
    let chosen = Filesystem::new(config, &host()).choose(mounts);
    chosen.into_iter().map(|mount| mount.place).collect()
}

const MOUNTS: &str = "\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
28 27 254:0 /var/lib/kubelet/x /var/lib/kubelet/x rw - ext4 /dev/vda rw
31 27 0:31 / /net rw - nfs4 server:/export rw
32 27 0:32 / /boot rw - autofs systemd-1 rw
33 32 254:1 / /boot rw - vfat /dev/vda1 rw
34 27 7:1 / /snap/core/1 ro - squashfs /dev/loop1 ro
35 27 0:40 / /tmp rw - tmpfs tmpfs rw
36 27 0:41 / /var/lib/docker/overlay2/y/merged rw - overlay overlay rw
37 27 254:3 / /mnt/a\\040b rw - xfs /dev/vdc rw
38 27 254:4 /sub /srv/deep rw - btrfs /dev/vdd rw
39 27 254:4 /sub /srv rw - btrfs /dev/vdd rw
";

#[test]
fn each_real_file_system_is_looked_at_once() {
    let config = FilesystemConfig::default();
    assert_eq!(chosen(&config, MOUNTS), ["/", "/boot", "/mnt/a b", "/srv"]);
    let network = FilesystemConfig { network: true, ..config.clone() };
    assert_eq!(chosen(&network, MOUNTS), ["/", "/boot", "/mnt/a b", "/srv", "/net"], "what may hang comes last");
    let patterns = |texts: &[&str]| Pattern::all(texts).expect("are patterns");
    let picked =
        FilesystemConfig { include: patterns(&["/tmp", "/snap/*"]), exclude: patterns(&["/mnt/*", "/srv*"]), ..config };
    assert_eq!(chosen(&picked, MOUNTS), ["/", "/boot", "/snap/core/1", "/tmp"]);
}

#[test]
fn fstab_says_what_is_meant_to_be_writable() {
    let text = "# /dev/x /old ext4 defaults 0 0\n\nUUID=1 / ext4 errors=remount-ro 0 1\n/dev/b /a\\040b xfs defaults,ro\nc /c vfat\n\
                d /d ext4 ro,rw 0 0\n";
    let expected = [("/", true), ("/a b", false), ("/c", true), ("/d", true)];
    assert_eq!(fstab(text), expected.into_iter().map(|(place, writes)| (place.to_owned(), writes)).collect());
}

#[test]
fn an_fstab_that_is_no_text_or_cannot_be_read_stops_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("fstab");
    std::fs::write(&path, b"# \xe9t\xe9\n/dev/a /a xfs ro\n").expect("a file");
    assert_eq!(read_fstab(&path).expect("is read"), BTreeMap::from([("/a".to_owned(), false)]));
    assert_eq!(read_fstab(&dir.path().join("none")).expect("is none"), BTreeMap::new());
    // A folder is none that can be read as a file.
    let config = FilesystemConfig { fstab: dir.path().to_owned(), ..FilesystemConfig::default() };
    let look = Filesystem::new(&config, &host()).look(Duration::ZERO, &Told::default()).expect("looks");
    let is_said = |reading: &Reading| reading.value.starts_with("what is meant to be writable is not known: ");
    assert!(look.readings.iter().any(is_said) || look.not_applicable.is_some(), "{look:?}");
}

#[test]
fn shares_are_those_of_df() {
    let percent = |all, free, available| Share::new(all, free, available).map(|share| share.percent);
    assert_eq!(percent(1000, 500, 500), Some(50.0));
    assert_eq!(percent(1000, 200, 150), Some(800.0 * 100.0 / 950.0), "what is kept for root is not for users");
    assert_eq!(percent(1000, 50, 0), Some(100.0));
    assert_eq!(percent(0, 0, 0), None, "it has none to count");
}

/// An ext4 in a file, mounted; unmounted when dropped.
struct Disk {
    dir: tempfile::TempDir,
}

impl Disk {
    fn new(inodes: u32) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "CI needs root to mount file systems");
            println!("skipped: mounting needs root");
            return None;
        }
        let dir = tempfile::tempdir().expect("a folder");
        let disk = Self { dir };
        let image = disk.dir.path().join("image");
        std::fs::File::create(&image).and_then(|file| file.set_len(32 << 20)).expect("an image");
        std::fs::create_dir(disk.place()).expect("a folder");
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "5", "-N", &inodes.to_string()]).arg(&image));
        run(Command::new("mount").args(["-o", "loop,errors=remount-ro"]).arg(&image).arg(disk.place()));
        Some(disk)
    }

    fn place(&self) -> PathBuf {
        self.dir.path().join("disk")
    }

    fn remount(&self, how: &str) {
        run(Command::new("mount").args(["-o", how]).arg(self.place()));
    }

    fn config(&self) -> FilesystemConfig {
        FilesystemConfig { fstab: self.dir.path().join("fstab"), ..FilesystemConfig::default() }
    }

    /// Fills it until at least so much is used.
    fn fill(&self, percent: f64) {
        let path = self.place().join("filler");
        let mut bytes = 0;
        loop {
            let stat = statvfs(self.place()).expect("is mounted");
            if Share::new(stat.f_blocks, stat.f_bfree, stat.f_bavail).expect("has blocks").percent >= percent {
                return;
            }
            bytes += 1 << 18;
            std::fs::write(&path, vec![1; bytes]).and_then(|()| std::fs::File::open(&path)?.sync_all()).expect("there is room");
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        for _ in 0..100 {
            if Command::new("umount").arg(self.place()).status().is_ok_and(|status| status.success()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn run(command: &mut Command) {
    let output = command.output().expect("the command is there");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A collector, a clock, and what it told so far.
struct Watch {
    collector: Filesystem,
    place: String,
    told: Told,
}

impl Watch {
    fn new(disk: &Disk, config: &FilesystemConfig) -> Self {
        let place = disk.place().display().to_string();
        Self { collector: Filesystem::new(config, &host()), place, told: Told::default() }
    }

    /// What holds of the file system at `now_s`.
    fn at(&mut self, now_s: u64) -> Vec<(String, Severity)> {
        let look = self.collector.look(Duration::from_secs(now_s), &self.told).expect("looks");
        let resource = host().part("filesystem", &self.place);
        let ours = look.findings.into_iter().filter(|finding| finding.subject.resource == resource);
        self.told = Told(ours.map(|finding| (finding.subject, finding.severity)).collect());
        self.told.0.iter().map(|(subject, severity)| (subject.alarm_type.to_string(), *severity)).collect()
    }
}

fn only(alarm_type: &str, severity: Severity) -> Vec<(String, Severity)> {
    vec![(alarm_type.to_owned(), severity)]
}

#[test]
fn a_disk_that_fills_up_is_told_and_cleared_when_there_is_room() {
    let Some(disk) = Disk::new(4096) else { return };
    let mut watch = Watch::new(&disk, &disk.config());
    assert_eq!(watch.at(0), []);
    disk.fill(81.0);
    assert_eq!((watch.at(30), watch.at(209)), (Vec::new(), Vec::new()), "not yet for three minutes");
    assert_eq!(watch.at(210), only("disk.full", Severity::Major));
    disk.fill(91.0);
    assert_eq!(watch.at(240), only("disk.full", Severity::Major));
    assert_eq!(watch.at(420), only("disk.full", Severity::Critical));
    // Another process that begins now knows of it by what stands raised.
    let mut after = Watch::new(&disk, &disk.config());
    after.told = watch.told.clone();
    assert_eq!(after.at(421), only("disk.full", Severity::Critical));
    std::fs::remove_file(disk.place().join("filler")).expect("is there");
    rustix::fs::sync();
    assert_eq!(watch.at(430), only("disk.full", Severity::Critical));
    assert_eq!(watch.at(490), []);
}

#[test]
fn inodes_run_out_apart_from_space() {
    let Some(disk) = Disk::new(1024) else { return };
    for file in 0..980 {
        std::fs::write(disk.place().join(format!("{file}")), "").expect("there is an inode");
    }
    let mut watch = Watch::new(&disk, &disk.config());
    watch.at(0);
    assert_eq!(watch.at(180), only("disk.inodes", Severity::Critical));
}

#[test]
fn a_file_system_that_became_read_only_is_told() {
    let Some(disk) = Disk::new(64) else { return };
    let lost = only("disk.read-only", Severity::Major);
    let config = disk.config();
    disk.remount("remount,ro");
    let mut watch = Watch::new(&disk, &config);
    assert_eq!(watch.at(0), [], "nobody says that it was ever writable");
    disk.remount("remount,rw");
    assert_eq!(watch.at(1), []);
    disk.remount("remount,ro");
    assert_eq!(watch.at(2), lost);
    let mut after = Watch::new(&disk, &config);
    after.told = watch.told.clone();
    assert_eq!(after.at(3), lost, "it stood raised when the process began");
    let fstab = |options: &str| {
        std::fs::write(&config.fstab, format!("x {} ext4 {options}\n", disk.place().display())).expect("a file");
    };
    fstab("ro,noatime");
    assert_eq!(after.at(4), [], "it is meant to be");
    fstab("defaults");
    assert_eq!(Watch::new(&disk, &config).at(5), lost, "it is not meant to be");
    disk.remount("remount,rw");
    assert_eq!(watch.at(6), []);
    // A view of it that is read-only says nothing of the file system.
    disk.remount("remount,bind,ro");
    assert_eq!((watch.at(7), Watch::new(&disk, &config).at(7)), (Vec::new(), Vec::new()));
}

#[test]
fn the_kernel_stops_writing_after_an_error() {
    let Some(disk) = Disk::new(64) else { return };
    let place = disk.place().display().to_string();
    let mounts = Process::myself().and_then(|process| process.mountinfo()).expect("can be read");
    let sources: BTreeSet<String> = mounts
        .into_iter()
        .filter(|info| info.mount_point == disk.place())
        .filter_map(|info| Some(info.mount_source?.rsplit('/').next()?.to_owned()))
        .collect();
    let device = sources.first().unwrap_or_else(|| panic!("{place} is mounted"));
    let trigger = format!("/sys/fs/ext4/{device}/trigger_fs_error");
    if let Err(error) = std::fs::write(&trigger, "a test") {
        println!("skipped: {trigger}: {error}");
        return;
    }
    assert_eq!(Watch::new(&disk, &disk.config()).at(0), only("disk.read-only", Severity::Major));
}

#[test]
fn a_file_system_below_a_writable_mount_is_not_read_only_by_itself() {
    let config = FilesystemConfig::default();
    let is_lost = |line: &str| {
        let mount = mount(MountInfo::from_line(line).expect("is a line"));
        let told = Told::default();
        let pass = Pass { now: Duration::ZERO, told: &told, fstab: BTreeMap::new(), look: Look::default() };
        let subject = Subject::new(host().part("filesystem", &mount.place), "disk.read-only");
        Filesystem::new(&config, &host()).is_lost(&mount, &subject, &pass)
    };
    let by_kernel = Some("The file system /x is read-only. The kernel made it so, as it does after errors.".to_owned());
    assert_eq!(
        is_lost("37 27 254:3 / /x rw,noatime - ext4 /dev/vdc ro,errors=remount-ro"),
        by_kernel,
        "as older kernels say it"
    );
    assert_eq!(is_lost("37 27 254:3 / /x rw - ext4 /dev/vdc rw,emergency_ro"), by_kernel);
    assert_eq!(is_lost("37 27 254:3 / /x ro - ext4 /dev/vdc ro"), None, "somebody mounted it so");
    assert_eq!(is_lost("37 27 254:3 / /x ro - ext4 /dev/vdc rw"), None, "a view of it");
}
