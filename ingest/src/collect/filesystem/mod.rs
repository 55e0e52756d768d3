//! How full file systems are, and whether they became read-only.
//!
//! ```text
//! /proc/self/mountinfo ─▶ the last mount of each place ─▶ real types, include, exclude ─▶ one place for each device ─▶ statvfs
//! ```
//!
//! Shares are those of `df`: what is taken, of what is taken and what is left to users. Whether a file system is read-only is
//! asked of the file system and not of the mount: a mount that is read-only while the file system below is not, is a view that
//! somebody wanted.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use klaxon_schemas::severity::Severity;
use procfs::process::{MountInfo, Process};
use rustix::fs::{StatVfs, statvfs};
use rustix::io::Errno;

use super::gate::Gates;
use super::pattern::{Pattern, chosen};
use super::{Collector, Finding, Host, Level, Look, LookError, Reading, Subject, Thresholds, Told};

/// The types of file systems on disks of this machine. Those that are always read-only (squashfs, iso9660, erofs) are full by
/// nature, those in memory (tmpfs) and those over others (overlay) have no disk of their own.
const LOCAL_TYPES: [&str; 26] = [
    "bcachefs", "btrfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "fuseblk", "gfs2", "hfs", "hfsplus", "jffs2", "jfs", "minix",
    "msdos", "nilfs2", "ntfs", "ntfs3", "ocfs2", "reiser4", "reiserfs", "ubifs", "ufs", "vfat", "xfs", "zfs",
];
/// The types of file systems on other machines.
const NETWORK_TYPES: [&str; 14] = [
    "9p",
    "afs",
    "beegfs",
    "ceph",
    "cifs",
    "fuse.ceph",
    "fuse.glusterfs",
    "fuse.s3fs",
    "fuse.sshfs",
    "lustre",
    "nfs",
    "nfs4",
    "smb3",
    "virtiofs",
];

/// What the collector `filesystem` is told.
#[derive(Debug, Clone, PartialEq)]
pub struct FilesystemConfig {
    /// How often it looks.
    pub interval: Duration,
    /// Levels of used space, in per cent.
    pub space: Thresholds,
    /// Levels of used inodes, in per cent.
    pub inodes: Thresholds,
    /// Whether file systems of other machines are looked at too. When such a machine is away, the question may hang until it
    /// is back, and the whole collector with it.
    pub network: bool,
    /// Mount points that are looked at whatever the type of their file system.
    pub include: Vec<Pattern>,
    /// Mount points that are not looked at.
    pub exclude: Vec<Pattern>,
    /// Where it says which file systems are meant to be writable.
    pub fstab: PathBuf,
}

impl Default for FilesystemConfig {
    fn default() -> Self {
        let level = |severity, above| Level { severity, above, after: Duration::from_secs(180) };
        let levels = |major, critical| {
            let levels = vec![level(Severity::Major, major), level(Severity::Critical, critical)];
            Thresholds::new(levels, 2.0, Duration::from_secs(60)).expect("in order")
        };
        Self {
            interval: Duration::from_secs(30),
            space: levels(80.0, 90.0),
            inodes: levels(80.0, 95.0),
            network: false,
            include: Vec::new(),
            exclude: Vec::new(),
            fstab: PathBuf::from("/etc/fstab"),
        }
    }
}

pub(super) struct Filesystem {
    config: FilesystemConfig,
    host: Host,
    gates: Gates,
    /// The file systems that were writable at the last look, by place.
    was_writable: HashMap<String, String>,
}

/// A file system at its place.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mount {
    place: String,
    device: String,
    kind: String,
    is_whole: bool,
    is_network: bool,
    /// The mount allows writing.
    mount_writes: bool,
    /// The file system allows writing.
    writes: bool,
    /// The kernel stopped all writing.
    is_emergency: bool,
}

impl Filesystem {
    pub(super) fn new(config: &FilesystemConfig, host: &Host) -> Self {
        Self { config: config.clone(), host: host.clone(), gates: Gates::default(), was_writable: HashMap::new() }
    }

    /// The file systems to look at, each device once, those that may hang last.
    fn choose(&self, mounts: impl Iterator<Item = MountInfo>) -> Vec<Mount> {
        // What is mounted over another hides it.
        let visible: BTreeMap<String, Mount> = mounts.map(mount).map(|mount| (mount.place.clone(), mount)).collect();
        let mut by_device: BTreeMap<String, Mount> = BTreeMap::new();
        for mount in visible.into_values().filter(|mount| self.wants(mount)) {
            let rank = |mount: &Mount| (!mount.is_whole, mount.place.len());
            match by_device.get_mut(&mount.device) {
                Some(known) if rank(known) <= rank(&mount) => {}
                Some(known) => *known = mount,
                None => _ = by_device.insert(mount.device.clone(), mount),
            }
        }
        let mut chosen: Vec<Mount> = by_device.into_values().collect();
        chosen.sort_by(|a, b| (a.is_network, &a.place).cmp(&(b.is_network, &b.place)));
        chosen
    }

    fn wants(&self, mount: &Mount) -> bool {
        let is_real = LOCAL_TYPES.contains(&mount.kind.as_str()) || (self.config.network && mount.is_network);
        // A file that is mounted, as containers do, stands for no file system.
        let is_file = || !mount.is_whole && !mount.is_network && Path::new(&mount.place).is_file();
        chosen(&self.config.include, &self.config.exclude, &mount.place).unwrap_or(is_real) && !is_file()
    }

    fn look_at(&mut self, mount: &Mount, pass: &mut Pass<'_>) {
        let resource = self.host.part("filesystem", &mount.place);
        let read_only = Subject::new(resource.clone(), "disk.read-only");
        match statvfs(mount.place.as_str()) {
            Ok(stat) => {
                self.judge_share(&stat, mount, pass);
                if let Some(text) = self.is_lost(mount, &read_only, pass) {
                    pass.look.findings.push(Finding::new(read_only, lost_severity(mount), &text));
                }
            }
            // It went away meanwhile, or is none of ours to see.
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(error @ (Errno::ACCESS | Errno::PERM)) => {
                pass.look.unseen.push(resource.clone());
                let value = format!("cannot be looked at: {error}");
                pass.look.readings.push(Reading { what: resource.to_string(), value, severity: None });
            }
            // A file system that the kernel has shut down answers like this.
            Err(error) => {
                pass.look.unseen.push(resource.clone());
                let text = format!("The file system {} does not work any more: {error}.", mount.place);
                let severity = Some(lost_severity(mount));
                pass.look.readings.push(Reading { what: resource.to_string(), value: error.to_string(), severity });
                pass.look.findings.push(Finding::new(read_only, lost_severity(mount), &text));
            }
        }
    }

    fn judge_share(&mut self, stat: &StatVfs, mount: &Mount, pass: &mut Pass<'_>) {
        let resource = self.host.part("filesystem", &mount.place);
        let space = Share::new(stat.f_blocks, stat.f_bfree, stat.f_bavail);
        let inodes = Share::new(stat.f_files, stat.f_ffree, stat.f_favail);
        let mut values = Vec::new();
        let mut worst = None;
        if let Some(share) = space {
            let gibibytes = |blocks: u64| {
                #[expect(clippy::cast_precision_loss, reason = "for people")]
                let bytes = blocks as f64 * stat.f_frsize as f64;
                bytes / f64::from(1 << 30)
            };
            let left = gibibytes(stat.f_bavail);
            values.push(format!("{:.1} % used, {left:.1} of {:.1} GiB left", share.percent, gibibytes(share.all)));
            let level = &self.config.space;
            worst = worst.max(level.level(share.percent));
            let subject = Subject::new(resource.clone(), "disk.full");
            if let Some(severity) = self.gates.judge(pass.now, level, &subject, share.percent, pass.told) {
                let text = format!(
                    "The file system {} is {:.0} % full, {left:.1} GiB are left; the threshold is {} %.",
                    mount.place,
                    share.percent,
                    level.begins(severity).unwrap_or_default()
                );
                pass.look.findings.push(Finding::new(subject, severity, &text));
            }
        }
        if let Some(share) = inodes {
            values.push(format!("{:.1} % of inodes used", share.percent));
            let level = &self.config.inodes;
            worst = worst.max(level.level(share.percent));
            let subject = Subject::new(resource.clone(), "disk.inodes");
            if let Some(severity) = self.gates.judge(pass.now, level, &subject, share.percent, pass.told) {
                let text = format!(
                    "Of the inodes of the file system {} {:.0} % are used, {} are left; the threshold is {} %.",
                    mount.place,
                    share.percent,
                    stat.f_favail,
                    level.begins(severity).unwrap_or_default()
                );
                pass.look.findings.push(Finding::new(subject, severity, &text));
            }
        }
        if !mount.writes {
            values.push("read-only".to_owned());
        }
        if !values.is_empty() {
            let what = resource.to_string();
            pass.look.readings.push(Reading { what, value: values.join(", "), severity: worst });
        }
    }

    /// Why the file system is read-only though it is not meant to be, if so.
    fn is_lost(&mut self, mount: &Mount, subject: &Subject, pass: &Pass<'_>) -> Option<String> {
        if mount.writes && !mount.is_emergency {
            self.was_writable.insert(mount.place.clone(), mount.device.clone());
            return None;
        }
        let why = if mount.is_emergency || mount.mount_writes {
            "The kernel made it so, as it does after errors"
        } else {
            let was_writable = self.was_writable.get(&mount.place) == Some(&mount.device);
            match pass.fstab.get(&mount.place) {
                Some(writes) if !writes => return None,
                Some(_) => "It is configured to be writable",
                None if was_writable || pass.told.severity(subject).is_some() => "It was writable before",
                None => return None,
            }
        };
        Some(format!("The file system {} is read-only. {why}.", mount.place))
    }
}

/// Everything hangs on the root.
fn lost_severity(mount: &Mount) -> Severity {
    if mount.place == "/" { Severity::Critical } else { Severity::Major }
}

/// One look under way.
struct Pass<'a> {
    now: Duration,
    told: &'a Told,
    /// Which places are meant to be writable.
    fstab: BTreeMap<String, bool>,
    look: Look,
}

/// How much is used of what users may use.
struct Share {
    percent: f64,
    all: u64,
}

impl Share {
    fn new(all: u64, free: u64, available: u64) -> Option<Self> {
        let used = all.saturating_sub(free);
        let usable = used.saturating_add(available);
        #[expect(clippy::cast_precision_loss, reason = "a share in per cent")]
        (all > 0 && usable > 0).then(|| Self { percent: used as f64 * 100.0 / usable as f64, all })
    }
}

fn mount(info: MountInfo) -> Mount {
    let place = unescape(&info.mount_point.to_string_lossy());
    Mount {
        is_network: NETWORK_TYPES.contains(&info.fs_type.as_str()),
        is_whole: info.root == "/",
        mount_writes: !info.mount_options.contains_key("ro"),
        writes: !info.super_options.contains_key("ro"),
        is_emergency: info.super_options.contains_key("emergency_ro") || info.super_options.contains_key("shutdown"),
        place,
        device: info.majmin,
        kind: info.fs_type,
    }
}

/// Undoes what the kernel and fstab(5) do to spaces and the like: `\040`.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let code = behind.get(..3).filter(|_| *first == b'\\').and_then(|octal| std::str::from_utf8(octal).ok());
        match code.and_then(|octal| u8::from_str_radix(octal, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &behind[3..];
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Which places of fstab(5) are meant to be writable.
fn fstab(text: &str) -> BTreeMap<String, bool> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let entries = lines.filter_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let place = unescape(fields.next()?);
        let options = fields.nth(1).unwrap_or("defaults");
        // The last word counts.
        let writes = options.split(',').rfind(|option| matches!(*option, "ro" | "rw")) != Some("ro");
        Some((place, writes))
    });
    entries.collect()
}

/// Without fstab(5) less is known, and all the rest can be looked at.
fn read_fstab(path: &Path) -> std::io::Result<BTreeMap<String, bool>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(fstab(&String::from_utf8_lossy(&bytes))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error),
    }
}

impl Collector for Filesystem {
    fn look(&mut self, now: Duration, told: &Told) -> Result<Look, LookError> {
        let mounts = Process::myself().and_then(|process| process.mountinfo());
        let mounts = mounts.map_err(|error| LookError::new("read /proc/self/mountinfo", error))?;
        let chosen = self.choose(mounts.into_iter());
        let mut pass = Pass { now, told, fstab: BTreeMap::new(), look: Look::default() };
        match read_fstab(&self.config.fstab) {
            Ok(fstab) => pass.fstab = fstab,
            Err(error) => {
                let value = format!("what is meant to be writable is not known: {}: {error}", self.config.fstab.display());
                pass.look.readings.push(Reading { what: self.host.resource().to_string(), value, severity: None });
            }
        }
        for mount in &chosen {
            self.look_at(mount, &mut pass);
        }
        self.was_writable.retain(|place, device| chosen.iter().any(|mount| mount.place == *place && mount.device == *device));
        let mut look = pass.look;
        look.again_in = self.gates.finish();
        if chosen.is_empty() {
            return Ok(Look::not_applicable("no file system is mounted that it would look at"));
        }
        Ok(look)
    }
}

#[cfg(test)]
mod tests;
