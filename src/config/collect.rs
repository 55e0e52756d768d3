//! `[collect]`: which collectors look at this machine, and what is too much for each.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::marker::PhantomData;
use std::path::PathBuf;

use klaxon_ingest::collect::{
    CHECK_TIMEOUT_MAX, CertificatesConfig, CheckConfig, CheckFormat, CollectConfig, CpuConfig, FLAPS_MAX, FilesystemConfig,
    HeartbeatConfig, Host, Level, LinkConfig, MemoryConfig, PathGlob, Pattern, Spec, Thresholds, TimeConfig, TimeDaemon,
    UnitsConfig,
};
use klaxon_schemas::names::AlarmType;
use klaxon_schemas::resource::Resource;
use klaxon_schemas::severity::Severity;
use serde::{Deserialize, Serialize};

use super::Span;

/// The shortest time between two looks.
const INTERVAL_MIN: Span = Span::seconds(1);
/// The longest.
const INTERVAL_MAX: Span = Span::days(1);

/// The most checks of one's own.
const CHECKS_MAX: usize = 100;

/// A key with its section, and what is wrong with it.
pub(super) type Mistake = (String, String);

/// The collectors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CollectSection {
    /// Whether any collector looks.
    pub enabled: bool,
    /// The name that this machine has in resources; empty: what it calls itself.
    pub host: String,
    /// How busy the processors are.
    pub cpu: Gauge<OfCpu>,
    /// How much memory is taken.
    pub memory: Gauge<OfMemory>,
    /// How full file systems are, and whether they can be written.
    pub filesystem: FilesystemSection,
    /// Whether network links have a carrier.
    pub link: LinkSection,
    /// Which units of systemd have failed.
    pub units: UnitsSection,
    /// Whether the clock is synchronised.
    pub time: TimeSection,
    /// When certificates expire.
    pub certificates: CertificatesSection,
    /// The node's own heartbeat.
    pub heartbeat: HeartbeatSection,
    /// Checks of one's own.
    pub check: Vec<CheckForm>,
}

impl Default for CollectSection {
    fn default() -> Self {
        Self {
            enabled: true,
            host: String::new(),
            cpu: Gauge::default(),
            memory: Gauge::default(),
            filesystem: FilesystemSection::default(),
            link: LinkSection::default(),
            units: UnitsSection::default(),
            time: TimeSection::default(),
            certificates: CertificatesSection::default(),
            heartbeat: HeartbeatSection::default(),
            check: Vec::new(),
        }
    }
}

/// A value in per cent, held against levels.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, bound = "")]
pub struct Gauge<D: GaugeDefaults> {
    /// Whether it is looked at.
    pub enabled: bool,
    /// How often.
    pub interval: Span,
    /// From which value on a severity holds, and after how long.
    pub levels: Vec<LevelForm>,
    /// By how much below a level the value must fall to leave it.
    pub hysteresis: u32,
    /// How long it must be there.
    pub clear_after: Span,
    #[serde(skip)]
    defaults: PhantomData<fn() -> D>,
}

/// One level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LevelForm {
    /// The severity.
    pub severity: Severity,
    /// From how many per cent on.
    pub above: u32,
    /// After how long.
    pub after: Span,
}

/// What a gauge has for defaults.
pub trait GaugeDefaults {
    /// From how many per cent on it is major, and critical.
    const LEVELS: (u32, u32);
}

/// The defaults of `[collect.cpu]`.
pub struct OfCpu;
impl GaugeDefaults for OfCpu {
    const LEVELS: (u32, u32) = (90, 95);
}

/// The defaults of `[collect.memory]`.
pub struct OfMemory;
impl GaugeDefaults for OfMemory {
    const LEVELS: (u32, u32) = (80, 90);
}

/// A major and a critical level, each after three minutes.
fn levels((major, critical): (u32, u32)) -> Vec<LevelForm> {
    let level = |severity, above| LevelForm { severity, above, after: Span::seconds(180) };
    vec![level(Severity::Major, major), level(Severity::Critical, critical)]
}

impl<D: GaugeDefaults> Default for Gauge<D> {
    fn default() -> Self {
        Self {
            enabled: true,
            interval: Span::seconds(30),
            levels: levels(D::LEVELS),
            hysteresis: 2,
            clear_after: Span::seconds(60),
            defaults: PhantomData,
        }
    }
}

impl<D: GaugeDefaults> Clone for Gauge<D> {
    fn clone(&self) -> Self {
        Self { levels: self.levels.clone(), ..*self }
    }
}

impl<D: GaugeDefaults> PartialEq for Gauge<D> {
    fn eq(&self, other: &Self) -> bool {
        let parts = |gauge: &Self| (gauge.enabled, gauge.interval, gauge.hysteresis, gauge.clear_after);
        parts(self) == parts(other) && self.levels == other.levels
    }
}

impl<D: GaugeDefaults> Eq for Gauge<D> {}

impl<D: GaugeDefaults> fmt::Debug for Gauge<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut form = f.debug_struct("Gauge");
        form.field("enabled", &self.enabled).field("interval", &self.interval).field("levels", &self.levels);
        form.field("hysteresis", &self.hysteresis).field("clear_after", &self.clear_after).finish()
    }
}

impl<D: GaugeDefaults> Gauge<D> {
    fn thresholds(&self, section: &str) -> Result<Thresholds, Mistake> {
        thresholds(section, "levels", &self.levels, (self.hysteresis, self.clear_after))
    }
}

/// Levels as a collector takes them; `key` is that of the levels, behind them stand hysteresis and the time to clear.
fn thresholds(
    section: &str,
    key: &str,
    levels: &[LevelForm],
    (hysteresis, clear_after): (u32, Span),
) -> Result<Thresholds, Mistake> {
    let named = |key: &str| format!("collect.{section}.{key}");
    if let Some(level) = levels.iter().find(|level| !(1..=100).contains(&level.above)) {
        return Err((named(key), format!("{} begins at {} %, which is not between 1 and 100", level.severity, level.above)));
    }
    if levels.iter().any(|level| level.above <= hysteresis) {
        return Err((named("hysteresis"), format!("{hysteresis} % leaves nothing of the lowest level")));
    }
    let form = |level: &LevelForm| Level { severity: level.severity, above: level.above.into(), after: level.after.0 };
    Thresholds::new(levels.iter().map(form).collect(), hysteresis.into(), clear_after.0)
        .map_err(|error| (named(key), error.to_string()))
}

fn interval(section: &str, interval: Span) -> Result<std::time::Duration, Mistake> {
    if (INTERVAL_MIN..=INTERVAL_MAX).contains(&interval) {
        return Ok(interval.0);
    }
    Err((format!("collect.{section}.interval"), "must be between 1s and 1d".to_owned()))
}

/// How full file systems are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FilesystemSection {
    /// Whether they are looked at.
    pub enabled: bool,
    /// How often.
    pub interval: Span,
    /// From which use of their space on a severity holds, and after how long.
    pub levels: Vec<LevelForm>,
    /// The same of their inodes.
    pub inode_levels: Vec<LevelForm>,
    /// By how much below a level the use must fall to leave it.
    pub hysteresis: u32,
    /// How long it must be there.
    pub clear_after: Span,
    /// Whether those of other machines are looked at too.
    pub network: bool,
    /// Mount points that are looked at whatever is mounted there.
    pub include: Vec<String>,
    /// Mount points that are not.
    pub exclude: Vec<String>,
}

impl Default for FilesystemSection {
    fn default() -> Self {
        Self {
            enabled: true,
            interval: Span::seconds(30),
            levels: levels((80, 90)),
            inode_levels: levels((80, 95)),
            hysteresis: 2,
            clear_after: Span::seconds(60),
            network: false,
            include: Vec::new(),
            exclude: Vec::new(),
        }
    }
}

impl FilesystemSection {
    fn build(&self) -> Result<FilesystemConfig, Mistake> {
        let margins = (self.hysteresis, self.clear_after);
        Ok(FilesystemConfig {
            interval: interval("filesystem", self.interval)?,
            space: thresholds("filesystem", "levels", &self.levels, margins)?,
            inodes: thresholds("filesystem", "inode_levels", &self.inode_levels, margins)?,
            network: self.network,
            include: patterns("filesystem.include", &self.include)?,
            exclude: patterns("filesystem.exclude", &self.exclude)?,
            ..FilesystemConfig::default()
        })
    }
}

/// Whether network links have a carrier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LinkSection {
    /// Whether they are followed.
    pub enabled: bool,
    /// How often what the kernel told is held against what is.
    pub interval: Span,
    /// Links that are followed whatever their kind.
    pub include: Vec<String>,
    /// Links that are not.
    pub exclude: Vec<String>,
    /// How long a link must be down.
    pub raise_after: Span,
    /// How long it must be up again.
    pub clear_after: Span,
    /// A link that goes down more often than this flaps,
    pub flaps: u32,
    /// if it does so within this time.
    pub flap_window: Span,
}

impl Default for LinkSection {
    fn default() -> Self {
        Self {
            enabled: true,
            interval: Span::seconds(60),
            include: Vec::new(),
            exclude: Vec::new(),
            raise_after: Span::seconds(0),
            clear_after: Span::seconds(5),
            flaps: 6,
            flap_window: Span::seconds(300),
        }
    }
}

impl LinkSection {
    fn build(&self) -> Result<LinkConfig, Mistake> {
        if !(1..=FLAPS_MAX).contains(&self.flaps) {
            return Err(("collect.link.flaps".to_owned(), format!("must be between 1 and {FLAPS_MAX}")));
        }
        Ok(LinkConfig {
            interval: interval("link", self.interval)?,
            include: patterns("link.include", &self.include)?,
            exclude: patterns("link.exclude", &self.exclude)?,
            raise_after: self.raise_after.0,
            clear_after: self.clear_after.0,
            flaps: self.flaps,
            flap_window: self.flap_window.0,
            ..LinkConfig::default()
        })
    }
}

/// Which units of systemd have failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UnitsSection {
    /// Whether they are looked at.
    pub enabled: bool,
    /// How often.
    pub interval: Span,
    /// How bad a failed unit is.
    pub severity: Severity,
    /// How long it must have failed.
    pub raise_after: Span,
    /// Units that may fail.
    pub exclude: Vec<String>,
    /// The program that is asked.
    pub systemctl: PathBuf,
}

impl Default for UnitsSection {
    fn default() -> Self {
        Self {
            enabled: true,
            interval: Span::seconds(30),
            severity: Severity::Major,
            raise_after: Span::seconds(0),
            exclude: Vec::new(),
            systemctl: PathBuf::from("systemctl"),
        }
    }
}

impl UnitsSection {
    fn build(&self) -> Result<UnitsConfig, Mistake> {
        Ok(UnitsConfig {
            interval: interval("units", self.interval)?,
            severity: self.severity,
            after: self.raise_after.0,
            exclude: patterns("units.exclude", &self.exclude)?,
            systemctl: self.systemctl.clone(),
        })
    }
}

/// Whether the clock is synchronised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TimeSection {
    /// Whether it is looked at.
    pub enabled: bool,
    /// How often.
    pub interval: Span,
    /// Who is asked.
    pub daemon: DaemonForm,
    /// How long it must be lost.
    pub raise_after: Span,
    /// How long it must be well again.
    pub clear_after: Span,
    /// Whether each time server that does not answer is told.
    pub sources: bool,
    /// `chronyc`, with its first arguments.
    pub chronyc: Vec<String>,
    /// `ntpq`, with its first arguments.
    pub ntpq: Vec<String>,
}

/// A time daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DaemonForm {
    /// Whichever runs.
    Auto,
    /// chronyd.
    Chrony,
    /// ntpd, of NTP or NTPsec.
    Ntpd,
    /// systemd-timesyncd.
    Timesyncd,
}

impl Default for TimeSection {
    fn default() -> Self {
        Self {
            enabled: true,
            interval: Span::seconds(60),
            daemon: DaemonForm::Auto,
            raise_after: Span::seconds(180),
            clear_after: Span::seconds(0),
            sources: true,
            chronyc: vec!["chronyc".to_owned()],
            ntpq: vec!["ntpq".to_owned()],
        }
    }
}

impl TimeSection {
    fn build(&self) -> Result<TimeConfig, Mistake> {
        for (key, command) in [("chronyc", &self.chronyc), ("ntpq", &self.ntpq)] {
            if command.first().is_none_or(String::is_empty) {
                return Err((format!("collect.time.{key}"), "names no program".to_owned()));
            }
        }
        let daemon = match self.daemon {
            DaemonForm::Auto => TimeDaemon::Auto,
            DaemonForm::Chrony => TimeDaemon::Chrony,
            DaemonForm::Ntpd => TimeDaemon::Ntpd,
            DaemonForm::Timesyncd => TimeDaemon::Timesyncd,
        };
        Ok(TimeConfig {
            interval: interval("time", self.interval)?,
            daemon,
            after: self.raise_after.0,
            clear_after: self.clear_after.0,
            sources: self.sources,
            chronyc: self.chronyc.clone(),
            ntpq: self.ntpq.clone(),
            ..TimeConfig::default()
        })
    }
}

/// When certificates expire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CertificatesSection {
    /// Whether they are looked at.
    pub enabled: bool,
    /// How often.
    pub interval: Span,
    /// Where they are.
    pub files: Vec<String>,
    /// How long before its end a certificate is an alarm of severity major,
    pub expiring_before: Span,
    /// and of severity warning; not at all if 0.
    pub warning_before: Span,
}

impl Default for CertificatesSection {
    fn default() -> Self {
        Self {
            enabled: true,
            interval: Span::hours(1),
            files: Vec::new(),
            expiring_before: Span::days(30),
            warning_before: Span::seconds(0),
        }
    }
}

impl CertificatesSection {
    fn build(&self) -> Result<CertificatesConfig, Mistake> {
        let files = self.files.iter().map(|file| PathGlob::new(file)).collect::<Result<_, _>>();
        let warning_before = Some(self.warning_before.0).filter(|before| !before.is_zero());
        if warning_before.is_some_and(|before| before <= self.expiring_before.0) {
            let why = "is not before expiring_before".to_owned();
            return Err(("collect.certificates.warning_before".to_owned(), why));
        }
        Ok(CertificatesConfig {
            interval: interval("certificates", self.interval)?,
            files: files.map_err(|error| ("collect.certificates.files".to_owned(), error.to_string()))?,
            expiring_before: self.expiring_before.0,
            warning_before,
        })
    }
}

/// The node's own heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HeartbeatSection {
    /// Whether it is heard from.
    pub enabled: bool,
    /// How often.
    pub interval: Span,
    /// How bad it is if it is not.
    pub severity: Severity,
}

impl Default for HeartbeatSection {
    fn default() -> Self {
        Self { enabled: true, interval: Span::seconds(60), severity: Severity::Critical }
    }
}

impl HeartbeatSection {
    fn build(&self) -> Result<HeartbeatConfig, Mistake> {
        Ok(HeartbeatConfig { interval: interval("heartbeat", self.interval)?, severity: self.severity })
    }
}

/// A check of one's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckForm {
    /// Its name.
    pub name: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// How it says what it found.
    #[serde(default)]
    pub format: FormatForm,
    /// How often it is run.
    #[serde(default = "minute")]
    pub interval: Span,
    /// How long it may run.
    #[serde(default = "ten_seconds")]
    pub timeout: Span,
    /// How often in a row it must say that something is wrong.
    #[serde(default = "one")]
    pub raise_after_failures: u32,
    /// What it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<Resource>,
    /// Which kind of alarm it raises.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alarm_type: Option<AlarmType>,
    /// What its environment has beside `PATH`.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
}

/// How a check says what it found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FormatForm {
    /// As plugins of Nagios do.
    #[default]
    Nagios,
    /// As a list of findings.
    Json,
}

fn minute() -> Span {
    Span::seconds(60)
}

fn ten_seconds() -> Span {
    Span::seconds(10)
}

fn one() -> u32 {
    1
}

impl CheckForm {
    fn build(&self) -> Result<CheckConfig, Mistake> {
        let named = |reason: String| ("collect.check".to_owned(), format!("{:?}: {reason}", self.name));
        let mut config = CheckConfig::new(&self.name, self.command.clone()).map_err(|error| named(error.to_string()))?;
        config.format = match self.format {
            FormatForm::Nagios => CheckFormat::Nagios,
            FormatForm::Json => CheckFormat::Json,
        };
        config.interval = interval("check", self.interval).map_err(|(_, reason)| named(format!("interval: {reason}")))?;
        if !(Span::seconds(1)..=Span(CHECK_TIMEOUT_MAX)).contains(&self.timeout) {
            return Err(named(format!("timeout: must be between 1s and {}s", CHECK_TIMEOUT_MAX.as_secs())));
        }
        config.timeout = self.timeout.0;
        if self.raise_after_failures == 0 {
            return Err(named("raise_after_failures: must be at least 1".to_owned()));
        }
        if self.raise_after_failures > 1 && self.format == FormatForm::Json {
            return Err(named("raise_after_failures: is for the format nagios only".to_owned()));
        }
        config.raise_after_failures = self.raise_after_failures;
        config.resource.clone_from(&self.resource);
        if let Some(alarm_type) = &self.alarm_type {
            config.alarm_type = alarm_type.clone();
        }
        config.environment.clone_from(&self.environment);
        Ok(config)
    }
}

fn patterns(key: &str, texts: &[String]) -> Result<Vec<Pattern>, Mistake> {
    Pattern::all(texts).map_err(|error| (format!("collect.{key}"), error.to_string()))
}

impl CollectSection {
    /// The machine that is looked at.
    pub fn host(&self) -> Result<Host, Mistake> {
        let host = if self.host.is_empty() { Host::of_system() } else { Host::new(&self.host) };
        host.map_err(|error| ("collect.host".to_owned(), error.to_string()))
    }

    /// As the collectors take it.
    pub fn build(&self) -> Result<CollectConfig, Mistake> {
        let cpu = CpuConfig { interval: interval("cpu", self.cpu.interval)?, thresholds: self.cpu.thresholds("cpu")? };
        let memory =
            MemoryConfig { interval: interval("memory", self.memory.interval)?, thresholds: self.memory.thresholds("memory")? };
        let mut specs = vec![
            (self.cpu.enabled, Spec::Cpu(cpu)),
            (self.memory.enabled, Spec::Memory(memory)),
            (self.filesystem.enabled, Spec::Filesystem(self.filesystem.build()?)),
            (self.link.enabled, Spec::Link(self.link.build()?)),
            (self.units.enabled, Spec::Units(self.units.build()?)),
            (self.time.enabled, Spec::Time(self.time.build()?)),
            (self.certificates.enabled, Spec::Certificates(self.certificates.build()?)),
            (self.heartbeat.enabled, Spec::Heartbeat(self.heartbeat.build()?)),
        ];
        if self.check.len() > CHECKS_MAX {
            return Err((
                "collect.check".to_owned(),
                format!("there are {}, at most {CHECKS_MAX} are allowed", self.check.len()),
            ));
        }
        let host = self.host()?;
        let (mut names, mut alarms) = (BTreeSet::new(), BTreeMap::new());
        for check in &self.check {
            if !names.insert(&check.name) {
                return Err(("collect.check".to_owned(), format!("{:?} is there twice", check.name)));
            }
            let config = check.build()?;
            if let Some(other) = alarms.insert(config.subject(&host), &check.name) {
                let reason = format!("{:?}: resource and alarm_type are those of {other:?} too", check.name);
                return Err(("collect.check".to_owned(), reason));
            }
            specs.push((true, Spec::Check(config)));
        }
        // What is turned off is checked all the same.
        let specs = specs.into_iter().filter(|(enabled, _)| *enabled && self.enabled).map(|(_, spec)| spec).collect();
        Ok(CollectConfig { specs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistake(text: &str) -> String {
        let section: CollectSection = toml::from_str(text).expect("is understood");
        let (key, reason) = section.build().expect_err("is wrong");
        format!("{key}: {reason}")
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for flaps in [0, 1001] {
            assert_eq!(mistake(&format!("link.flaps = {flaps}")), "collect.link.flaps: must be between 1 and 1000");
        }
        let check = |name: &str, more: &str| format!("[[check]]\nname = \"{name}\"\ncommand = [\"true\"]\n{more}\n");
        let wrong = mistake(&check("a", "raise_after_failures = 0"));
        assert_eq!(wrong, "collect.check: \"a\": raise_after_failures: must be at least 1");
        let wrong = mistake(&check("a", "format = \"json\"\nraise_after_failures = 2"));
        assert_eq!(wrong, "collect.check: \"a\": raise_after_failures: is for the format nagios only");
        let same = "resource = \"host=h.check=a\"";
        let both = format!("host = \"h\"\n{}{}", check("a", ""), check("b", same));
        assert_eq!(mistake(&both), "collect.check: \"b\": resource and alarm_type are those of \"a\" too");
        let apart = both.replace(same, &format!("{same}\nalarm_type = \"other.failed\""));
        assert!(toml::from_str::<CollectSection>(&apart).expect("is understood").build().is_ok());
    }
}
