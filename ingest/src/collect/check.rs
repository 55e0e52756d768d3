//! Checks of one's own: a program that is run and says what it found.
//!
//! ```text
//! nagios   exit code and one line: OK - all is well | load=0.3;5;10      one alarm, as bad as the exit code says
//! json     objects: {"resource": …, "alarm_type": …, "severity": …}      all that holds; what is not printed any more is over
//! ```
//!
//! As with Nagios, a check that does not end in time is critical: most often it waits for what it is to check. One that cannot
//! be run, is killed, or prints what cannot be understood has told nothing: the collector failed, and its alarms become stale.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::time::Duration;

use klaxon_schemas::event::{ATTRIBUTES_MAX, Attributes, Report};
use klaxon_schemas::names::{AlarmType, AttributeName, AttributeValue, Qualifier, Site};
use klaxon_schemas::resource::Resource;
use klaxon_schemas::severity::Severity;
use klaxon_schemas::wire::v1::{InputError, parse_event};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::program::{self, Program, ProgramError, Ran};
use super::{Collector, Finding, Host, Look, LookError, Reading, Subject, Told};

/// The longest time a check may be given: less than what counts as a hung collector.
pub const CHECK_TIMEOUT_MAX: Duration = Duration::from_secs(25);
/// The most a check may print.
const STDOUT_BYTES_MAX: usize = 64 * 1024;
/// The longest name of a check.
const NAME_BYTES_MAX: usize = 64;
/// The fields that a finding in JSON may have.
const FIELDS: [&str; 6] = ["resource", "alarm_type", "qualifier", "severity", "text", "attributes"];

/// How a check says what it found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CheckFormat {
    /// By its exit code and a line of text, as plugins of Nagios and Icinga do.
    #[default]
    Nagios,
    /// By a list of findings in JSON: an array, or objects one after another.
    Json,
}

/// What the collector `check/NAME` is told.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckConfig {
    name: String,
    command: Vec<String>,
    /// How it says what it found.
    pub format: CheckFormat,
    /// How often it is run.
    pub interval: Duration,
    /// How long it may run, at most [`CHECK_TIMEOUT_MAX`]. Then it is killed, with all that it started.
    pub timeout: Duration,
    /// How often in a row it must say that something is wrong before that is told; in the format of Nagios only.
    pub raise_after_failures: u32,
    /// What it is about; `host=HOST.check=NAME` if absent.
    pub resource: Option<Resource>,
    /// Which kind of alarm it raises, unless its findings in JSON say so themselves.
    pub alarm_type: AlarmType,
    /// What its environment has beside `PATH` and `LC_ALL=C`.
    pub environment: BTreeMap<String, String>,
}

/// Why there can be no such check.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckConfigError {
    /// Its name has other characters, or is empty or too long.
    #[error("name: {0:?} has to be of letters, digits, . _ and -, at most {NAME_BYTES_MAX}")]
    Name(String),
    /// There is nothing to run.
    #[error("command: is empty")]
    Command,
}

impl CheckConfig {
    /// The check `name`, which runs `command`: a program and its arguments, without a shell.
    pub fn new(name: &str, command: Vec<String>) -> Result<Self, CheckConfigError> {
        let is_fit = |character: char| character.is_ascii_alphanumeric() || "._-".contains(character);
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(is_fit) {
            return Err(CheckConfigError::Name(name.to_owned()));
        }
        if command.first().is_none_or(String::is_empty) {
            return Err(CheckConfigError::Command);
        }
        Ok(Self {
            name: name.to_owned(),
            command,
            format: CheckFormat::Nagios,
            interval: Duration::from_secs(60),
            timeout: Duration::from_secs(10),
            raise_after_failures: 1,
            resource: None,
            alarm_type: AlarmType::new("check.failed").expect("is a name"),
            environment: BTreeMap::new(),
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The program and its arguments.
    pub fn command(&self) -> &[String] {
        &self.command
    }

    /// The alarm that it raises on `host`, unless its findings in JSON say otherwise: no two checks may have the same.
    pub fn subject(&self, host: &Host) -> Subject {
        let resource = self.resource.clone().unwrap_or_else(|| host.part("check", &self.name));
        let qualifier = Qualifier::new("").expect("may be empty");
        Subject { resource, alarm_type: self.alarm_type.clone(), qualifier }
    }
}

pub(super) struct Check {
    config: CheckConfig,
    subject: Subject,
    /// How often in a row something was wrong.
    failures: u32,
    programs: CancellationToken,
}

impl Check {
    pub(super) fn new(config: &CheckConfig, host: &Host) -> Self {
        let subject = config.subject(host);
        Self { config: config.clone(), subject, failures: 0, programs: CancellationToken::new() }
    }

    fn nagios(&mut self, ran: Result<Ran, ProgramError>, told: &Told) -> Result<Look, LookError> {
        let verdict = match ran {
            Ok(ran) => verdict(&ran).ok_or_else(|| self.cannot(ran.complaint()))?,
            Err(error @ ProgramError::Timeout(_)) => {
                let text = format!("The check {} told nothing: {error}.", self.config.name);
                Verdict { severity: Some(Severity::Critical), text, performance: Vec::new() }
            }
            Err(error) => return Err(self.cannot(error)),
        };
        let what = self.subject.resource.to_string();
        let mut look = Look::default();
        look.readings.push(Reading { what: what.clone(), value: verdict.text.clone(), severity: verdict.severity });
        let values = verdict.performance.iter();
        look.readings.extend(values.map(|(name, value)| {
            let value = format!("{name} {}", value.split(';').next().unwrap_or_default());
            Reading { what: what.clone(), value, severity: None }
        }));
        let Some(severity) = verdict.severity else {
            self.failures = 0;
            return Ok(look);
        };
        self.failures = self.failures.saturating_add(1);
        if self.failures >= self.config.raise_after_failures || told.severity(&self.subject).is_some() {
            let attributes = verdict
                .performance
                .iter()
                .take(ATTRIBUTES_MAX)
                .filter_map(|(name, value)| Some((AttributeName::lossy(name).ok()?, AttributeValue::lossy(value).ok()?)));
            let attributes = Attributes::new(attributes.collect()).expect("are not too many");
            let finding = Finding::new(self.subject.clone(), severity, &verdict.text);
            look.findings.push(Finding { attributes, ..finding });
        }
        Ok(look)
    }

    fn json(&self, ran: Result<Ran, ProgramError>) -> Result<Look, LookError> {
        let ran = ran.map_err(|error| self.cannot(error))?;
        if !ran.status.success() {
            return Err(self.cannot(ran.complaint()));
        }
        if ran.is_cut {
            return Err(self.cannot(format!("it printed more than {STDOUT_BYTES_MAX} bytes")));
        }
        let values = values(&ran.stdout).map_err(|error| self.misunderstood(error))?;
        let mut look = Look::default();
        for (index, value) in values.into_iter().enumerate() {
            let finding = self.finding(value).map_err(|error| self.misunderstood(format!("finding {}: {error}", index + 1)))?;
            look.findings.extend(finding);
        }
        look.readings.push(Reading {
            what: self.subject.resource.to_string(),
            value: format!("{} findings", look.findings.len()),
            severity: look.findings.iter().map(|finding| finding.severity).max(),
        });
        Ok(look)
    }

    /// A finding in JSON; none if it says that something does not hold.
    fn finding(&self, value: Value) -> Result<Option<Finding>, InputError> {
        let Value::Object(mut fields) = value else { return Err(InputError::new(".", "is no JSON object")) };
        if let Some(unknown) = fields.keys().find(|field| !FIELDS.contains(&field.as_str())) {
            return Err(InputError::new(unknown, "is not understood"));
        }
        fields.entry("resource").or_insert_with(|| self.subject.resource.as_str().into());
        fields.entry("alarm_type").or_insert_with(|| self.subject.alarm_type.as_str().into());
        let (event, _) = parse_event(&Value::Object(fields).to_string())?;
        let site = Site::new("here").expect("is a name");
        let event = event.into_event(&site)?;
        let Report::Raise(severity) = event.report else { return Ok(None) };
        let (resource, alarm_type, qualifier) = (event.key.resource, event.key.alarm_type, event.key.qualifier);
        let subject = Subject { resource, alarm_type, qualifier };
        Ok(Some(Finding { subject, severity, text: event.text, attributes: event.details.attributes }))
    }

    fn cannot(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> LookError {
        LookError::new(format!("run the check {} ({})", self.config.name, self.config.command[0]), source)
    }

    fn misunderstood(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> LookError {
        LookError::new(format!("understand what the check {} printed", self.config.name), source)
    }
}

/// What a plugin said.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    severity: Option<Severity>,
    text: String,
    performance: Vec<(String, String)>,
}

/// Exit code and first line; none if it was killed.
fn verdict(ran: &Ran) -> Option<Verdict> {
    let code = ran.status.code()?;
    let severity = match code {
        0 => None,
        1 => Some(Severity::Warning),
        2 => Some(Severity::Critical),
        _ => Some(Severity::Indeterminate),
    };
    let first = ran.stdout.lines().next().unwrap_or_default();
    let (text, performance) = first.split_once('|').unwrap_or((first, ""));
    let text = match text.trim() {
        "" if severity.is_some() => format!("The check said nothing; {}.", ran.complaint()),
        text => text.to_owned(),
    };
    Some(Verdict { severity, text, performance: performance_data(performance) })
}

/// `'a label'=1.5s;2;3;0;10 other=3`: names and what is behind them.
fn performance_data(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() && found.len() < ATTRIBUTES_MAX {
        let (label, behind) = match rest.strip_prefix('\'') {
            // A quote within a quoted label is doubled.
            Some(quoted) => {
                let ends = quoted.replace("''", "\u{1}\u{1}");
                let Some(end) = ends.find('\'') else { break };
                (quoted[..end].replace("''", "'"), &quoted[end + 1..])
            }
            None => {
                let Some(end) = rest.find('=') else { break };
                (rest[..end].trim().to_owned(), &rest[end..])
            }
        };
        let Some(value) = behind.strip_prefix('=') else { break };
        let end = value.find(char::is_whitespace).unwrap_or(value.len());
        if !label.is_empty() {
            found.push((label, value[..end].trim_end_matches(';').to_owned()));
        }
        rest = value[end..].trim_start();
    }
    found
}

/// The findings of an array, or objects one after another.
fn values(stdout: &str) -> Result<Vec<Value>, serde_json::Error> {
    if stdout.trim_start().starts_with('[') {
        return serde_json::from_str(stdout);
    }
    serde_json::Deserializer::from_str(stdout).into_iter().collect()
}

impl Collector for Check {
    fn look(&mut self, _: Duration, told: &Told) -> Result<Look, LookError> {
        let ran = program::run(&Program {
            command: self.config.command.iter().map(OsStr::new).collect(),
            environment: &self.config.environment,
            timeout: self.config.timeout.min(CHECK_TIMEOUT_MAX),
            stdout_bytes_max: STDOUT_BYTES_MAX,
            cancel: &self.programs,
        });
        match self.config.format {
            CheckFormat::Nagios => self.nagios(ran, told),
            CheckFormat::Json => self.json(ran),
        }
    }

    fn programs(&self) -> Option<CancellationToken> {
        Some(self.programs.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(script: &str) -> CheckConfig {
        let command = ["sh", "-c", script].map(str::to_owned).to_vec();
        CheckConfig::new("c", command).expect("is one")
    }

    fn look(config: &CheckConfig, told: &Told) -> Result<Look, String> {
        let mut check = Check::new(config, &Host::new("a").expect("is a name"));
        check.look(Duration::ZERO, told).map_err(|error| format!("{error}: {}", error.source))
    }

    fn json(script: &str) -> Result<Vec<Finding>, String> {
        look(&CheckConfig { format: CheckFormat::Json, ..check(script) }, &Told::default()).map(|look| look.findings)
    }

    #[test]
    fn the_exit_code_of_a_plugin_is_the_severity() {
        let said = |script: &str| {
            let look = look(&check(script), &Told::default()).expect("runs");
            look.findings.first().map(|finding| (finding.severity, finding.text.to_string()))
        };
        assert_eq!(said("echo 'OK - fine | a=1'"), None);
        assert_eq!(said("echo 'WARN - so so|a=1'; echo more; exit 1"), Some((Severity::Warning, "WARN - so so".to_owned())));
        assert_eq!(said("echo CRIT; exit 2"), Some((Severity::Critical, "CRIT".to_owned())));
        assert_eq!(said("echo hm; exit 3"), Some((Severity::Indeterminate, "hm".to_owned())));
        let silent = "The check said nothing; it ended with 2: no such host.".to_owned();
        assert_eq!(said("echo no such host >&2; exit 2"), Some((Severity::Critical, silent)));
        let look = look(&check("exit 2"), &Told::default()).expect("runs");
        assert_eq!(look.findings[0].subject.resource.as_str(), "host=a.check=c");
        assert_eq!(look.findings[0].subject.alarm_type.as_str(), "check.failed");
    }

    #[test]
    fn a_real_plugin_is_understood() {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut dirs = std::env::split_paths(&path).chain(["/usr/lib/nagios/plugins".into()]);
        let Some(plugin) = dirs.find_map(|dir| Some(dir.join("check_dummy")).filter(|plugin| plugin.exists())) else {
            assert!(std::env::var_os("CI").is_none(), "CI needs monitoring-plugins-basic");
            println!("skipped: there is no check_dummy on PATH; ./dev test unpacks one");
            return;
        };
        let plugin = plugin.to_str().expect("is UTF-8");
        for (code, severity) in
            [("0", None), ("1", Some(Severity::Warning)), ("2", Some(Severity::Critical)), ("3", Some(Severity::Indeterminate))]
        {
            let command = [plugin, code, "as it should|load=0.5;1;2"].map(str::to_owned).to_vec();
            let look = look(&CheckConfig::new("dummy", command).expect("is one"), &Told::default()).expect("runs");
            assert_eq!(look.findings.first().map(|finding| finding.severity), severity);
            assert!(look.readings[0].value.ends_with(": as it should"), "{look:?}");
            assert_eq!(look.readings[1].value, "load 0.5");
        }
    }

    #[test]
    fn it_may_have_to_fail_more_than_once() {
        let config = CheckConfig { raise_after_failures: 3, ..check("exit 2") };
        let mut check = Check::new(&config, &Host::new("a").expect("is a name"));
        let mut holds = |told: &Told| check.look(Duration::ZERO, told).expect("runs").findings.len();
        let nothing = Told::default();
        assert_eq!([holds(&nothing), holds(&nothing), holds(&nothing)], [0, 0, 1]);
        let told = Told(BTreeMap::from([(Check::new(&config, &Host::new("a").expect("is one")).subject, Severity::Critical)]));
        assert_eq!(look(&config, &told).expect("runs").findings.len(), 1, "it stood raised before");
    }

    #[test]
    fn no_answer_in_time_is_critical_and_what_cannot_run_is_a_failure() {
        let slow = CheckConfig { timeout: Duration::from_millis(300), ..check("sleep 600") };
        let look_slow = look(&slow, &Told::default()).expect("is told");
        assert_eq!(look_slow.findings[0].severity, Severity::Critical);
        assert_eq!(
            look_slow.findings[0].text.as_str(),
            "The check c told nothing: it did not end within 0.3 s and was killed."
        );
        let error = look(&CheckConfig { format: CheckFormat::Json, ..slow }, &Told::default()).expect_err("told nothing");
        assert_eq!(error, "cannot run the check c (sh): it did not end within 0.3 s and was killed");
        let error = look(&check("kill -9 $$"), &Told::default()).expect_err("told nothing");
        assert_eq!(error, "cannot run the check c (sh): it was killed by signal 9");
        let missing = CheckConfig::new("c", vec!["/nowhere/check".to_owned()]).expect("is one");
        let error = look(&missing, &Told::default()).expect_err("told nothing");
        assert_eq!(error, "cannot run the check c (/nowhere/check): there is no such program");
    }

    #[test]
    fn performance_data_as_plugins_write_it() {
        let of = |text: &str| {
            let found = performance_data(text).into_iter();
            found.map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>()
        };
        assert_eq!(of("time=0.02s;;;0 size=3B;;;0"), ["time: 0.02s;;;0", "size: 3B;;;0"]);
        assert_eq!(of("'C:\\ used'=3GB;4;5 'it''s'=1;;"), ["C:\\ used: 3GB;4;5", "it's: 1"]);
        assert_eq!(of("nonsense"), [""; 0]);
        assert_eq!(of("'open=1"), [""; 0]);
    }

    #[test]
    fn findings_in_json_are_all_that_holds() {
        let one = r#"{"severity":"minor","text":"so"}"#;
        let two =
            r#"{"resource":"door=1","alarm_type":"door.open","qualifier":"q","severity":"major","attributes":{"by":"x"}}"#;
        for printed in [format!("[{one},{two}]"), format!("{one}\n{two}\n"), format!(" {one}{two}")] {
            let findings = json(&format!("echo '{printed}'")).expect("is understood");
            assert_eq!(findings.len(), 2, "{printed}");
            assert_eq!(findings[0].subject.resource.as_str(), "host=a.check=c");
            assert_eq!((findings[0].subject.alarm_type.as_str(), findings[0].severity), ("check.failed", Severity::Minor));
            assert_eq!((findings[1].subject.resource.as_str(), findings[1].subject.qualifier.as_str()), ("door=1", "q"));
            assert_eq!(findings[1].attributes.get("by").map(AttributeValue::as_str), Some("x"));
        }
        assert_eq!(json("true"), Ok(Vec::new()));
        assert_eq!(json("echo '[]'"), Ok(Vec::new()));
        assert_eq!(json(r#"echo '{"severity":"cleared"}'"#), Ok(Vec::new()));
    }

    #[test]
    fn what_is_wrong_with_json_is_named() {
        let error = |script: &str| json(script).expect_err("is wrong");
        let prefix = "cannot understand what the check c printed: ";
        let finding = |fields: &str| error(&format!("echo '[{{\"severity\":\"minor\"}},{fields}]'")).replace(prefix, "");
        assert_eq!(finding(r#"{"text":"x"}"#), "finding 2: severity: is missing");
        assert_eq!(finding(r#"{"severity":"bad"}"#).split(',').next(), Some("finding 2: severity: unknown variant `bad`"));
        assert_eq!(finding(r#"{"severity":"minor","seq":1}"#), "finding 2: seq: is not understood");
        assert_eq!(finding("7"), "finding 2: .: is no JSON object");
        assert_eq!(error("echo oops"), format!("{prefix}expected value at line 1 column 1"));
        assert_eq!(error("echo '[]'; exit 1"), "cannot run the check c (sh): it ended with 1: []");
        assert_eq!(error("head -c 70000 /dev/zero"), "cannot run the check c (sh): it printed more than 65536 bytes");
    }

    #[test]
    fn a_check_has_a_name_and_a_command() {
        assert_eq!(CheckConfig::new("a b", vec!["x".to_owned()]), Err(CheckConfigError::Name("a b".to_owned())));
        assert_eq!(CheckConfig::new("", vec!["x".to_owned()]), Err(CheckConfigError::Name(String::new())));
        assert_eq!(CheckConfig::new("a", Vec::new()), Err(CheckConfigError::Command));
        assert_eq!(CheckConfig::new("a", vec![String::new()]), Err(CheckConfigError::Command));
    }
}
