//! Which units of systemd have failed, as `systemctl` says.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;

use klaxon_schemas::event::Attributes;
use klaxon_schemas::names::{AttributeName, AttributeValue};
use klaxon_schemas::severity::Severity;
use tokio_util::sync::CancellationToken;

use super::gate::Gates;
use super::pattern::Pattern;
use super::program::{self, Program, ProgramError, Ran};
use super::{Collector, Finding, Host, Look, LookError, Reading, Subject, Thresholds, Told};

/// How long `systemctl` may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The most that it may print.
const STDOUT_BYTES_MAX: usize = 1 << 20;
/// The most failed units whose details are asked for.
const SHOWN_MAX: usize = 100;

/// What the collector `units` is told.
#[derive(Debug, Clone, PartialEq)]
pub struct UnitsConfig {
    /// How often it looks.
    pub interval: Duration,
    /// How bad a failed unit is.
    pub severity: Severity,
    /// For how long a unit must have been failed.
    pub after: Duration,
    /// Units that may fail.
    pub exclude: Vec<Pattern>,
    /// The program `systemctl`: a name that is on `PATH`, or a path.
    pub systemctl: PathBuf,
}

impl Default for UnitsConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(30),
            severity: Severity::Major,
            after: Duration::ZERO,
            exclude: Vec::new(),
            systemctl: PathBuf::from("systemctl"),
        }
    }
}

pub(super) struct Units {
    config: UnitsConfig,
    thresholds: Thresholds,
    host: Host,
    gates: Gates,
    programs: CancellationToken,
}

/// A failed unit.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Unit {
    name: String,
    description: String,
}

impl Units {
    pub(super) fn new(config: &UnitsConfig, host: &Host) -> Self {
        Self {
            thresholds: Thresholds::on_off(config.severity, config.after, Duration::ZERO),
            config: config.clone(),
            host: host.clone(),
            gates: Gates::default(),
            programs: CancellationToken::new(),
        }
    }

    fn systemctl(&self, arguments: &[&str]) -> Result<Ran, ProgramError> {
        let mut command = vec![self.config.systemctl.as_os_str()];
        command.extend(arguments.iter().map(OsStr::new));
        let environment = BTreeMap::new();
        program::run(&Program {
            command,
            environment: &environment,
            timeout: TIMEOUT,
            stdout_bytes_max: STDOUT_BYTES_MAX,
            cancel: &self.programs,
        })
    }

    /// The failed units, or why there can be none.
    fn failed(&self) -> Result<Result<Vec<Unit>, String>, LookError> {
        let cannot = || format!("list failed units with {}", self.config.systemctl.display());
        let ran = match self.systemctl(&[
            "list-units",
            "--state=failed",
            "--no-legend",
            "--no-pager",
            "--plain",
            "--full",
            "--all",
        ]) {
            Ok(ran) => ran,
            Err(ProgramError::Missing) => return Ok(Err(format!("there is no {}", self.config.systemctl.display()))),
            Err(error) => return Err(LookError::new(cannot(), error)),
        };
        if ran.stderr.contains("not been booted with systemd") {
            return Ok(Err("this machine was not booted with systemd".to_owned()));
        }
        if !ran.status.success() {
            return Err(LookError::new(cannot(), ran.complaint()));
        }
        if ran.is_cut {
            return Err(LookError::new(cannot(), format!("it printed more than {STDOUT_BYTES_MAX} bytes")));
        }
        Ok(Ok(ran.stdout.lines().filter_map(unit).collect()))
    }

    /// What systemd knows of each, by name. That it cannot be learned takes nothing from the finding.
    fn details(&self, units: &[Unit]) -> BTreeMap<String, BTreeMap<String, String>> {
        if units.is_empty() {
            return BTreeMap::new();
        }
        let mut arguments = vec!["show", "--property=Id,Result,ExecMainStatus,NRestarts", "--"];
        arguments.extend(units.iter().take(SHOWN_MAX).map(|unit| unit.name.as_str()));
        match self.systemctl(&arguments) {
            Ok(ran) => shown(&ran.stdout),
            Err(error) => {
                tracing::debug!(%error, "why units failed cannot be learned");
                BTreeMap::new()
            }
        }
    }
}

/// One line: name, load state, active state, sub state, description; some versions put a dot before it.
fn unit(line: &str) -> Option<Unit> {
    let mut line = line.trim_start_matches(|character: char| matches!(character, '●' | '*' | '×') || character.is_whitespace());
    let mut columns = [""; 4];
    for column in &mut columns {
        let end = line.find(char::is_whitespace).unwrap_or(line.len());
        (*column, line) = (&line[..end], line[end..].trim_start());
    }
    let [name, _, active, _] = columns;
    (active == "failed").then(|| Unit { name: name.to_owned(), description: line.trim_end().to_owned() })
}

/// Blocks of `NAME=value`, one for each unit, parted by empty lines.
fn shown(stdout: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let blocks = stdout.split("\n\n").filter_map(|block| {
        let lines = block.lines().filter_map(|line| line.split_once('='));
        let mut properties: BTreeMap<_, _> = lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Some((properties.remove("Id")?, properties))
    });
    blocks.collect()
}

/// What is said of a failed unit.
fn finding(subject: Subject, severity: Severity, unit: &Unit, details: Option<&BTreeMap<String, String>>) -> Finding {
    let detail =
        |name: &str| details.and_then(|details| details.get(name)).map(String::as_str).filter(|value| !value.is_empty());
    let mut why = Vec::new();
    if let Some(result) = detail("Result").filter(|result| *result != "success") {
        why.push(result.to_owned());
    }
    if let Some(status) = detail("ExecMainStatus").filter(|status| *status != "0") {
        why.push(format!("status {status}"));
    }
    let why = if why.is_empty() { String::new() } else { format!(" ({})", why.join(", ")) };
    let description = if unit.description.is_empty() { String::new() } else { format!(": {}", unit.description) };
    let text = format!("The unit {} has failed{why}{description}", unit.name);
    let named = [("result", "Result"), ("exit-status", "ExecMainStatus"), ("restarts", "NRestarts")];
    let attributes = named.into_iter().filter_map(|(name, property)| {
        let value = AttributeValue::lossy(detail(property)?).ok()?;
        Some((AttributeName::new(name).expect("is a name"), value))
    });
    let attributes = Attributes::new(attributes.collect()).expect("are few");
    Finding { attributes, ..Finding::new(subject, severity, &text) }
}

impl Collector for Units {
    fn look(&mut self, now: Duration, told: &Told) -> Result<Look, LookError> {
        let mut units = match self.failed()? {
            Ok(units) => units,
            Err(why) => return Ok(Look::not_applicable(&why)),
        };
        units.retain(|unit| !self.config.exclude.iter().any(|pattern| pattern.matches(&unit.name)));
        let details = self.details(&units);
        let mut look = Look::default();
        look.readings.push(Reading {
            what: self.host.resource().to_string(),
            value: format!("{} failed units", units.len()),
            severity: (!units.is_empty()).then_some(self.config.severity),
        });
        for unit in &units {
            let subject = Subject::new(self.host.part("unit", &unit.name), "unit.failed");
            let value = format!("failed: {}", unit.description);
            let what = subject.resource.to_string();
            look.readings.push(Reading { what, value, severity: Some(self.config.severity) });
            if let Some(severity) = self.gates.judge(now, &self.thresholds, &subject, 1.0, told) {
                look.findings.push(finding(subject, severity, unit, details.get(&unit.name)));
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
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;

    /// What systemd 252 prints, and an older one with its dots.
    const LISTED: &str = "\
nginx.service                        loaded failed failed A high performance web server and a reverse proxy server
systemd-fsck@dev-disk-by\\x2duuid-1.service loaded failed failed File System Check on /dev/disk/by-uuid/1
● run-credentials.mount not-found failed failed
  bad.timer loaded active waiting Not failed at all
";
    const SHOWN: &str = "\
Id=nginx.service\nResult=exit-code\nExecMainStatus=1\nNRestarts=5\n
Id=systemd-fsck@dev-disk-by\\x2duuid-1.service\nResult=timeout\nExecMainStatus=0\nNRestarts=0\n
Id=run-credentials.mount\nResult=success\n";

    /// A program that answers as `systemctl` does.
    fn stand_in(dir: &Path) -> UnitsConfig {
        let systemctl = dir.join("systemctl");
        let script = "#!/bin/sh\ncd \"$(dirname \"$0\")\"\ncase $1 in list-units) cat errors >&2; cat listed; exit $(cat code) ;;\n\
                      show) cat shown ;; esac\n";
        std::fs::write(&systemctl, script).expect("a file");
        std::fs::set_permissions(&systemctl, PermissionsExt::from_mode(0o755)).expect("is ours");
        for (name, content) in [("listed", LISTED), ("shown", SHOWN), ("errors", ""), ("code", "0")] {
            std::fs::write(dir.join(name), content).expect("a file");
        }
        UnitsConfig { systemctl, ..UnitsConfig::default() }
    }

    #[test]
    fn failed_units_are_told_with_why() {
        let dir = tempfile::tempdir().expect("a folder");
        let config = stand_in(dir.path());
        let mut units = Units::new(&config, &Host::new("a").expect("is a name"));
        let look = units.look(Duration::ZERO, &Told::default()).expect("looks");
        let said: Vec<_> =
            look.findings.iter().map(|finding| (finding.subject.resource.as_str(), finding.text.as_str())).collect();
        assert_eq!(
            said,
            [
                (
                    "host=a.unit=nginx.service",
                    "The unit nginx.service has failed (exit-code, status 1): A high performance web server and a reverse proxy server"
                ),
                (
                    "host=a.unit=systemd-fsck@dev-disk-by\\x2duuid-1.service",
                    "The unit systemd-fsck@dev-disk-by\\x2duuid-1.service has failed (timeout): File System Check on /dev/disk/by-uuid/1"
                ),
                ("host=a.unit=run-credentials.mount", "The unit run-credentials.mount has failed"),
            ]
        );
        assert_eq!(look.findings[0].severity, Severity::Major);
        assert_eq!(look.findings[0].attributes.get("exit-status").map(AttributeValue::as_str), Some("1"));
        assert_eq!(look.findings[0].subject.resource.elements().count(), 2);
        std::fs::write(dir.path().join("listed"), "").expect("a file");
        assert_eq!(units.look(Duration::ZERO, &Told::default()).expect("looks").findings, []);
    }

    #[test]
    fn what_is_excluded_or_too_new_is_not_told() {
        let dir = tempfile::tempdir().expect("a folder");
        let exclude = Pattern::all(&["nginx.*", "run-*.mount"]).expect("are patterns");
        let config = UnitsConfig { exclude, after: Duration::from_secs(60), ..stand_in(dir.path()) };
        let mut units = Units::new(&config, &Host::new("a").expect("is a name"));
        let look = units.look(Duration::ZERO, &Told::default()).expect("looks");
        assert_eq!((look.findings.len(), look.again_in), (0, Some(Duration::from_secs(60))));
        assert_eq!(units.look(Duration::from_secs(60), &Told::default()).expect("looks").findings.len(), 1);
    }

    #[test]
    fn without_systemd_there_is_nothing_to_look_at_and_what_fails_otherwise_is_a_fault() {
        let dir = tempfile::tempdir().expect("a folder");
        let config = stand_in(dir.path());
        let mut units = Units::new(&config, &Host::new("a").expect("is a name"));
        let mut answers = |errors: &str| {
            std::fs::write(dir.path().join("errors"), errors).expect("a file");
            std::fs::write(dir.path().join("code"), "1").expect("a file");
            units.look(Duration::ZERO, &Told::default())
        };
        let look =
            answers("System has not been booted with systemd as init system (PID 1). Can't operate.\n").expect("is no fault");
        assert_eq!(look, Look::not_applicable("this machine was not booted with systemd"));
        let error = answers("Failed to connect to bus: Connection refused\n").expect_err("is a fault");
        assert_eq!(error.source.to_string(), "it ended with 1: Failed to connect to bus: Connection refused");
        let config = UnitsConfig { systemctl: "/nowhere/systemctl".into(), ..config };
        let mut units = Units::new(&config, &Host::new("a").expect("is a name"));
        let look = units.look(Duration::ZERO, &Told::default()).expect("is no fault");
        assert_eq!(look, Look::not_applicable("there is no /nowhere/systemctl"));
    }
}
