//! `[collect]`: which collectors look at this machine, and what is too much for each.

use std::fmt;
use std::marker::PhantomData;

use klaxon_ingest::collect::{CollectConfig, CpuConfig, Host, Level, MemoryConfig, Spec, Thresholds};
use klaxon_schemas::severity::Severity;
use serde::{Deserialize, Serialize};

use super::Span;

/// The shortest time between two looks.
const INTERVAL_MIN: Span = Span::seconds(1);
/// The longest.
const INTERVAL_MAX: Span = Span::days(1);

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
}

impl Default for CollectSection {
    fn default() -> Self {
        Self { enabled: true, host: String::new(), cpu: Gauge::default(), memory: Gauge::default() }
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

impl<D: GaugeDefaults> Default for Gauge<D> {
    fn default() -> Self {
        let level = |severity, above| LevelForm { severity, above, after: Span::seconds(180) };
        Self {
            enabled: true,
            interval: Span::seconds(30),
            levels: vec![level(Severity::Major, D::LEVELS.0), level(Severity::Critical, D::LEVELS.1)],
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
        thresholds(section, "", &self.levels, self.hysteresis, self.clear_after)
    }
}

/// Levels as a collector takes them. `prefix` is what the keys begin with.
fn thresholds(
    section: &str,
    prefix: &str,
    levels: &[LevelForm],
    hysteresis: u32,
    clear_after: Span,
) -> Result<Thresholds, Mistake> {
    let key = |key: &str| format!("collect.{section}.{prefix}{key}");
    if let Some(level) = levels.iter().find(|level| !(1..=100).contains(&level.above)) {
        return Err((key("levels"), format!("{} begins at {} %, which is not between 1 and 100", level.severity, level.above)));
    }
    if levels.iter().any(|level| level.above <= hysteresis) {
        return Err((key("hysteresis"), format!("{hysteresis} % leaves nothing of the lowest level")));
    }
    let form = |level: &LevelForm| Level { severity: level.severity, above: level.above.into(), after: level.after.0 };
    Thresholds::new(levels.iter().map(form).collect(), hysteresis.into(), clear_after.0)
        .map_err(|error| (key("levels"), error.to_string()))
}

fn interval(section: &str, interval: Span) -> Result<std::time::Duration, Mistake> {
    if (INTERVAL_MIN..=INTERVAL_MAX).contains(&interval) {
        return Ok(interval.0);
    }
    Err((format!("collect.{section}.interval"), "must be between 1s and 1d".to_owned()))
}

impl CollectSection {
    /// The machine that is looked at.
    pub fn host(&self) -> Result<Host, Mistake> {
        let host = if self.host.is_empty() { Host::of_system() } else { Host::new(&self.host) };
        host.map_err(|error| ("collect.host".to_owned(), error.to_string()))
    }

    /// As the collectors take it.
    pub fn build(&self) -> Result<CollectConfig, Mistake> {
        let mut specs = Vec::new();
        if self.cpu.enabled {
            let config = CpuConfig { interval: interval("cpu", self.cpu.interval)?, thresholds: self.cpu.thresholds("cpu")? };
            specs.push(Spec::Cpu(config));
        }
        if self.memory.enabled {
            let (interval, thresholds) = (interval("memory", self.memory.interval)?, self.memory.thresholds("memory")?);
            specs.push(Spec::Memory(MemoryConfig { interval, thresholds }));
        }
        // What is turned off is checked all the same.
        Ok(if self.enabled { CollectConfig { specs } } else { CollectConfig::default() })
    }
}
