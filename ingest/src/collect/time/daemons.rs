//! What the daemons say of the clock.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;

use super::super::LookError;
use super::super::program::{self, Program, ProgramError, Ran};
use super::{Asked, Clock, Source};

/// How long a program that asks a daemon may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The most that it may print.
const STDOUT_BYTES_MAX: usize = 1 << 18;
/// The most sources that are looked at.
const SOURCES_MAX: usize = 64;
/// What chrony calls its own clock when it follows no source but serves all the same (`local`).
const CHRONY_LOCAL: &str = "7F7F0101";

/// A program that asks a daemon, with its first arguments.
pub(super) struct Asker<'a> {
    pub(super) command: &'a [String],
    pub(super) cancel: &'a CancellationToken,
}

/// Asks with further `arguments`; none if there is no such program.
fn ask(asker: &Asker<'_>, arguments: &[&str]) -> Result<Option<Ran>, LookError> {
    let command: Vec<&OsStr> = asker.command.iter().map(OsStr::new).chain(arguments.iter().map(OsStr::new)).collect();
    let shown = command.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    let environment = BTreeMap::new();
    let program = Program {
        command,
        environment: &environment,
        timeout: TIMEOUT,
        stdout_bytes_max: STDOUT_BYTES_MAX,
        cancel: asker.cancel,
    };
    match program::run(&program) {
        Ok(ran) => Ok(Some(ran)),
        Err(ProgramError::Missing) => Ok(None),
        Err(error) => Err(LookError::new(format!("run {shown}"), error)),
    }
}

fn no_program(asker: &Asker<'_>) -> Asked {
    Asked::NoProgram(asker.command.first().cloned().unwrap_or_default())
}

/// chronyd, by `chronyc`.
pub(super) fn chrony(chronyc: &Asker<'_>) -> Result<Asked, LookError> {
    let Some(tracking) = ask(chronyc, &["-n", "-c", "tracking"])? else { return Ok(no_program(chronyc)) };
    let Some(sources) = ask(chronyc, &["-n", "-c", "sources"])? else { return Ok(no_program(chronyc)) };
    if let Some(ran) = [&tracking, &sources].into_iter().find(|ran| !ran.status.success()) {
        return Ok(Asked::NoAnswer(ran.complaint()));
    }
    match chrony_clock(&tracking.stdout, &sources.stdout) {
        Some(clock) => Ok(Asked::Clock(clock)),
        None => Err(LookError::new("understand chronyc", format!("it printed {:?}", tracking.stdout))),
    }
}

/// `tracking`: id, name, stratum, time, offset, …, leap status at the end. `sources`: mode, state, name, stratum, poll, reach, ….
pub(super) fn chrony_clock(tracking: &str, sources: &str) -> Option<Clock> {
    let fields: Vec<&str> = tracking.lines().next()?.split(',').collect();
    let (id, reference, stratum) = (fields.first()?, fields.get(1)?, fields.get(2)?);
    let (offset, leap) = (fields.get(4)?, fields.get(13)?);
    let offset_us = offset.parse::<f64>().ok()? * 1e6;
    let source = |line: &str| {
        let mut fields = line.split(',');
        let (_, state, name) = (fields.next()?, fields.next()?, fields.next()?);
        let reach = u32::from_str_radix(fields.nth(2)?, 8).ok()?;
        Some(Source { name: name.to_owned(), answers: reach != 0, is_used: matches!(state, "*" | "+") })
    };
    let listed: Vec<&str> = sources.lines().filter(|line| !line.trim().is_empty()).take(SOURCES_MAX).collect();
    let sources: Vec<Source> = listed.into_iter().map(source).collect::<Option<_>>()?;
    let lost = if *leap == "Not synchronised" {
        Some("chronyd says so".to_owned())
    } else if *id == CHRONY_LOCAL && sources.is_empty() {
        // It is meant to be its own source.
        None
    } else {
        no_source(&sources)
    };
    let state = format!("synchronised to {reference}, stratum {stratum}, {offset_us:.0} µs off");
    Some(Clock { lost, state, sources })
}

/// Why none of the sources can be followed, if so.
fn no_source(sources: &[Source]) -> Option<String> {
    if sources.iter().any(|source| source.is_used && source.answers) {
        return None;
    }
    let answering = sources.iter().filter(|source| source.answers).count();
    Some(match (sources.len(), answering) {
        (0, _) => "no time source is configured".to_owned(),
        (1, 0) => format!("the time source {} does not answer", sources[0].name),
        (all, 0) => format!("none of {all} time sources answers"),
        (all, _) => format!("of {all} time sources {answering} answer, and none is fit"),
    })
}

/// ntpd, by `ntpq`.
pub(super) fn ntpd(ntpq: &Asker<'_>) -> Result<Asked, LookError> {
    let Some(ran) = ask(ntpq, &["-p", "-n", "-w"])? else { return Ok(no_program(ntpq)) };
    // It ends with 0 even if nobody answers.
    if !ran.status.success() || !ran.stdout.lines().any(|line| line.starts_with("====")) {
        let said_no_peers = ran.stdout.contains("No association") || ran.stderr.contains("No association");
        return Ok(if said_no_peers {
            Asked::Clock(Clock::lost("no time source is configured"))
        } else {
            Asked::NoAnswer(ran.complaint())
        });
    }
    match ntpd_clock(&ran.stdout) {
        Some(clock) => Ok(Asked::Clock(clock)),
        None => Err(LookError::new("understand ntpq", format!("it printed {:?}", ran.stdout))),
    }
}

/// The table behind the line of `=`: a sign and the address, then refid, stratum, type, when, poll, reach (octal), delay,
/// offset, jitter. A long address has a line of its own.
pub(super) fn ntpd_clock(table: &str) -> Option<Clock> {
    let mut sources = Vec::new();
    let mut state = String::new();
    let mut lines = table.lines().skip_while(|line| !line.starts_with("====")).skip(1).filter(|line| !line.trim().is_empty());
    while let Some(line) = lines.next() {
        let mut line = line.to_owned();
        let mut sign = ' ';
        if line.starts_with([' ', 'x', '.', '-', '+', '#', '*', 'o']) {
            sign = line.remove(0);
        }
        if line.split_whitespace().count() == 1 {
            line.push(' ');
            line.push_str(lines.next()?);
        }
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [name, refid, stratum, _, _, _, reach, _, offset, _] = fields.get(..10)? else { return None };
        // A pool is a place where sources are found, and the clock of the machine itself is none.
        if matches!(*refid, ".POOL." | ".BCST." | ".MCST." | ".ACST." | ".LOCL.") || name.starts_with("127.127.1.") {
            continue;
        }
        let answers = u32::from_str_radix(reach, 8).ok()? != 0;
        let is_used = matches!(sign, '*' | 'o' | '+' | '#');
        if matches!(sign, '*' | 'o') {
            state = format!("synchronised to {name}, stratum {stratum}, {offset} ms off");
        }
        sources.push(Source { name: (*name).to_owned(), answers, is_used });
    }
    sources.truncate(SOURCES_MAX);
    let lost = if state.is_empty() {
        no_source(&sources).or_else(|| Some("none of the time sources is selected".to_owned()))
    } else {
        no_source(&sources)
    };
    Some(Clock { lost, state, sources })
}

/// systemd-timesyncd: the file `synchronized` is touched each time the clock was set by a server.
pub(super) fn timesyncd(dir: &Path, silence: Duration, wall: SystemTime) -> Result<Clock, LookError> {
    let path = dir.join("synchronized");
    let set_at = match std::fs::metadata(&path).and_then(|metadata| metadata.modified()) {
        Ok(set_at) => set_at,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Clock::lost("systemd-timesyncd has heard from no server since the boot"));
        }
        Err(error) => return Err(LookError::new(format!("read {}", path.display()), error)),
    };
    // What seems to come is from a clock that was set back since.
    let age = wall.duration_since(set_at).unwrap_or_default();
    if age > silence {
        return Ok(Clock::lost(format!("systemd-timesyncd has heard from no server for {} minutes", age.as_secs() / 60)));
    }
    Ok(Clock { state: format!("synchronised {} s ago", age.as_secs()), ..Clock::default() })
}
