//! Whether the clock of this machine is synchronised, as the daemon says that keeps it: chrony, ntpd or systemd-timesyncd.
//!
//! ```text
//! the daemon ─▶ its sources ──▶ none is used: host=HOST, major
//!                         └───▶ one does not answer: host=HOST.ntp=SOURCE, minor
//! ```
//!
//! A machine on which no such daemon was ever seen has its time from elsewhere (a virtual machine from its host): nothing to look
//! at. A daemon that was seen and is gone is a fault. One that runs and cannot be asked has told nothing: the collector failed.

mod daemons;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use klaxon_schemas::severity::Severity;
use tokio_util::sync::CancellationToken;

use super::gate::Gates;
use super::{Collector, Finding, Host, Look, LookError, Reading, Subject, Thresholds, Told};
use daemons::Asker;

/// The alarm type of everything here.
const UNSYNCHRONISED: &str = "time.unsynchronised";

/// Which daemon keeps the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TimeDaemon {
    /// Whichever runs.
    #[default]
    Auto,
    /// chronyd.
    Chrony,
    /// ntpd, of the NTP project or NTPsec.
    Ntpd,
    /// systemd-timesyncd.
    Timesyncd,
}

/// What the collector `time` is told.
#[derive(Debug, Clone, PartialEq)]
pub struct TimeConfig {
    /// How often it looks.
    pub interval: Duration,
    /// Which daemon is asked.
    pub daemon: TimeDaemon,
    /// For how long the clock must have been without a source, or a source silent.
    pub after: Duration,
    /// For how long it must be well again.
    pub clear_after: Duration,
    /// Whether a single source that does not answer is told too.
    pub sources: bool,
    /// The program `chronyc` and its first arguments, such as `-h` and a socket.
    pub chronyc: Vec<String>,
    /// The program `ntpq` and its first arguments.
    pub ntpq: Vec<String>,
    /// The folder in which systemd-timesyncd says when it last set the clock.
    pub timesync_dir: PathBuf,
    /// For how long systemd-timesyncd may say nothing: twice its longest time between two questions.
    pub timesync_silence: Duration,
}

impl Default for TimeConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(60),
            daemon: TimeDaemon::Auto,
            after: Duration::from_secs(180),
            clear_after: Duration::ZERO,
            sources: true,
            chronyc: vec!["chronyc".to_owned()],
            ntpq: vec!["ntpq".to_owned()],
            timesync_dir: PathBuf::from("/run/systemd/timesync"),
            timesync_silence: Duration::from_secs(2 * 2048),
        }
    }
}

impl TimeDaemon {
    /// Those that can be found running, the one that is believed first in front.
    const ALL: [Self; 3] = [Self::Chrony, Self::Ntpd, Self::Timesyncd];

    /// Its name among the processes, which has at most 15 bytes.
    fn process(self) -> &'static str {
        match self {
            Self::Auto => "",
            Self::Chrony => "chronyd",
            Self::Ntpd => "ntpd",
            Self::Timesyncd => "systemd-timesyn",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Timesyncd => "systemd-timesyncd",
            other => other.process(),
        }
    }
}

/// How the clock is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Clock {
    /// Why it is not synchronised, in words; `None` if it is.
    lost: Option<String>,
    /// What is to be said if it is.
    state: String,
    /// Where the daemon asks for the time.
    sources: Vec<Source>,
}

/// A time server, or a clock of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    name: String,
    /// It answered at least one of the last eight questions.
    answers: bool,
    /// The clock follows it.
    is_used: bool,
}

impl Clock {
    fn lost(why: impl Into<String>) -> Self {
        Self { lost: Some(why.into()), ..Self::default() }
    }
}

/// What came of asking the daemon.
enum Asked {
    Clock(Clock),
    /// The program that asks it is not there.
    NoProgram(String),
    /// The program ran and got no answer; why, in words.
    NoAnswer(String),
}

pub(super) struct Time {
    config: TimeConfig,
    host: Host,
    lost: Thresholds,
    silent: Thresholds,
    gates: Gates,
    seen: Option<TimeDaemon>,
    programs: CancellationToken,
    proc: PathBuf,
}

impl Time {
    pub(super) fn new(config: &TimeConfig, host: &Host) -> Self {
        Self {
            lost: Thresholds::on_off(Severity::Major, config.after, config.clear_after),
            silent: Thresholds::on_off(Severity::Minor, config.after, config.clear_after),
            config: config.clone(),
            host: host.clone(),
            gates: Gates::default(),
            seen: None,
            programs: CancellationToken::new(),
            proc: PathBuf::from("/proc"),
        }
    }

    /// How the clock is; or why there is none to look at.
    fn clock(&mut self, told: &Told) -> Result<Result<Clock, String>, LookError> {
        let is_auto = self.config.daemon == TimeDaemon::Auto;
        let daemon = if is_auto { running(&self.proc)?.first().copied() } else { Some(self.config.daemon) };
        let Some(daemon) = daemon else {
            return Ok(match self.seen {
                Some(seen) => Ok(Clock::lost(format!("{} does not run any more", seen.name()))),
                // It was told before this process began.
                None if !told.0.is_empty() => Ok(Clock::lost("no daemon that keeps the time runs any more")),
                None => Err("no daemon that keeps the time was ever seen here".to_owned()),
            });
        };
        let asked = match daemon {
            TimeDaemon::Auto => unreachable!("was resolved"),
            TimeDaemon::Chrony => daemons::chrony(&self.asker(&self.config.chronyc))?,
            TimeDaemon::Ntpd => daemons::ntpd(&self.asker(&self.config.ntpq))?,
            TimeDaemon::Timesyncd => {
                Asked::Clock(daemons::timesyncd(&self.config.timesync_dir, self.config.timesync_silence, SystemTime::now())?)
            }
        };
        match asked {
            Asked::Clock(clock) => {
                self.seen = Some(daemon);
                Ok(Ok(clock))
            }
            Asked::NoAnswer(why) if running(&self.proc)?.contains(&daemon) => {
                Err(LookError::new(format!("ask {}", daemon.name()), why))
            }
            Asked::NoAnswer(why) => Ok(Ok(Clock::lost(format!("{} does not run ({why})", daemon.name())))),
            Asked::NoProgram(program) if is_auto => {
                Ok(Err(format!("{} runs, but there is no {program} to ask it", daemon.name())))
            }
            Asked::NoProgram(program) => Err(LookError::new(format!("run {program}"), "there is no such program")),
        }
    }

    fn asker<'a>(&'a self, command: &'a [String]) -> Asker<'a> {
        Asker { command, cancel: &self.programs }
    }
}

/// Which daemons run, the one that is believed first in front.
fn running(proc: &Path) -> Result<Vec<TimeDaemon>, LookError> {
    let cannot = |error| LookError::new(format!("list processes in {}", proc.display()), error);
    let mut found = [false; TimeDaemon::ALL.len()];
    for entry in std::fs::read_dir(proc).map_err(cannot)? {
        let entry = entry.map_err(cannot)?;
        if !entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            continue;
        }
        // A process may end at any time.
        let Ok(name) = std::fs::read_to_string(entry.path().join("comm")) else { continue };
        for (daemon, found) in TimeDaemon::ALL.into_iter().zip(&mut found) {
            *found |= daemon.process() == name.trim_end();
        }
    }
    Ok(TimeDaemon::ALL.into_iter().zip(found).filter(|(_, found)| *found).map(|(daemon, _)| daemon).collect())
}

impl Collector for Time {
    fn look(&mut self, now: Duration, told: &Told) -> Result<Look, LookError> {
        let clock = match self.clock(told)? {
            Ok(clock) => clock,
            Err(why) => return Ok(Look::not_applicable(&why)),
        };
        let mut look = Look::default();
        let subject = Subject::new(self.host.resource(), UNSYNCHRONISED);
        let value = match &clock.lost {
            Some(why) => format!("not synchronised: {why}"),
            None => clock.state.clone(),
        };
        let severity = clock.lost.as_ref().map(|_| Severity::Major);
        look.readings.push(Reading { what: subject.resource.to_string(), value, severity });
        let is_lost = if clock.lost.is_some() { 1.0 } else { 0.0 };
        if let Some(severity) = self.gates.judge(now, &self.lost, &subject, is_lost, told) {
            let why = clock.lost.as_deref().unwrap_or("it was not for a while");
            let text = format!("The clock is not synchronised: {why}.");
            look.findings.push(Finding::new(subject, severity, &text));
        }
        for source in clock.sources.iter().filter(|_| self.config.sources) {
            let subject = Subject::new(self.host.part("ntp", &source.name), UNSYNCHRONISED);
            let value = match (source.is_used, source.answers) {
                (true, true) => "used",
                (false, true) => "answers",
                (_, false) => "does not answer",
            };
            let severity = (!source.answers).then_some(Severity::Minor);
            look.readings.push(Reading { what: subject.resource.to_string(), value: value.to_owned(), severity });
            let is_silent = if source.answers { 0.0 } else { 1.0 };
            if let Some(severity) = self.gates.judge(now, &self.silent, &subject, is_silent, told) {
                let text = format!("The time source {} does not answer.", source.name);
                look.findings.push(Finding::new(subject, severity, &text));
            }
        }
        look.again_in = self.gates.finish();
        Ok(look)
    }

    fn programs(&self) -> Option<CancellationToken> {
        Some(self.programs.clone())
    }
}

#[cfg(test)]
mod tests;
