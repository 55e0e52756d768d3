//! Programs that a look runs: without a shell, in a group of their own, with a limit on their time and on what they print.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio_util::sync::CancellationToken;

/// The most of its errors that is kept.
const STDERR_BYTES_MAX: usize = 4096;
/// How long to wait between two looks at a program that has nothing to say: at first, and at most.
const WAIT: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));
/// Where programs are looked for if the environment does not say.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What to run.
#[derive(Debug)]
pub(super) struct Program<'a> {
    /// The program, looked for on `PATH` unless it has a `/`, and its arguments.
    pub(super) command: Vec<&'a OsStr>,
    /// What its environment has beside `PATH` and `LC_ALL=C`.
    pub(super) environment: &'a BTreeMap<String, String>,
    /// How long it may run.
    pub(super) timeout: Duration,
    /// The most that it may print.
    pub(super) stdout_bytes_max: usize,
    /// Ends it before its time: nobody waits for what it says any more.
    pub(super) cancel: &'a CancellationToken,
}

/// What a program that ended has left.
#[derive(Debug)]
pub(super) struct Ran {
    /// How it ended.
    pub(super) status: ExitStatus,
    /// What it printed.
    pub(super) stdout: String,
    /// What it said of errors, cut.
    pub(super) stderr: String,
    /// It printed more than it may.
    pub(super) is_cut: bool,
}

impl Ran {
    /// How it ended and the first line of what it said of it.
    pub(super) fn complaint(&self) -> String {
        let ended = match (self.status.code(), self.status.signal()) {
            (Some(code), _) => format!("it ended with {code}"),
            (None, Some(signal)) => format!("it was killed by signal {signal}"),
            (None, None) => "it ended".to_owned(),
        };
        match self.stderr.lines().chain(self.stdout.lines()).map(str::trim).find(|line| !line.is_empty()) {
            Some(line) => format!("{ended}: {line}"),
            None => ended,
        }
    }
}

/// Why a program told nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProgramError {
    /// There is no such program.
    #[error("there is no such program")]
    Missing,
    /// It did not end in time, and was killed with all that it had started.
    #[error("it did not end within {} s and was killed", .0.as_secs_f64())]
    Timeout(Duration),
    /// Whoever looked was stopped, and it was killed with all that it had started.
    #[error("it was killed because its collector was stopped")]
    Cancelled,
    /// It could not be started, read or waited for.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Runs it to its end.
pub(super) fn run(program: &Program<'_>) -> Result<Ran, ProgramError> {
    let (name, arguments) = program.command.split_first().ok_or(ProgramError::Missing)?;
    let path = std::env::var_os("PATH").unwrap_or_else(|| PATH.into());
    let mut command = Command::new(name);
    command.args(arguments).env_clear().env("PATH", path).env("LC_ALL", "C").envs(program.environment);
    command.current_dir("/").process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().map_err(|error| match error.kind() {
        ErrorKind::NotFound => ProgramError::Missing,
        _ => ProgramError::Io(error),
    })?;
    let mut child = Supervised(child);
    child.see_end(program)
}

/// A program that is killed with its group if nobody saw it end.
struct Supervised(Child);

impl Supervised {
    fn see_end(&mut self, program: &Program<'_>) -> Result<Ran, ProgramError> {
        let deadline = Instant::now() + program.timeout;
        let mut stdout = Pipe::new(self.0.stdout.take(), program.stdout_bytes_max)?;
        let mut stderr = Pipe::new(self.0.stderr.take(), STDERR_BYTES_MAX)?;
        let mut wait = WAIT.0;
        loop {
            // First whether it has ended, then what it printed: so nothing is missed that it printed before its end. What
            // others print that it left behind is not waited for.
            let status = self.0.try_wait()?;
            let heard = stdout.read()? | stderr.read()?;
            if let Some(status) = status {
                let (stdout, is_cut) = stdout.text();
                return Ok(Ran { status, stdout, stderr: stderr.text().0, is_cut });
            }
            if program.cancel.is_cancelled() {
                return Err(ProgramError::Cancelled);
            }
            if Instant::now() >= deadline {
                return Err(ProgramError::Timeout(program.timeout));
            }
            wait = if heard { WAIT.0 } else { (wait * 2).min(WAIT.1) };
            std::thread::sleep(wait);
        }
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        // Its number is its own until it was waited for.
        if !matches!(self.0.try_wait(), Ok(None)) {
            return;
        }
        if let Some(group) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.0.wait();
    }
}

/// One of the two ways out of a program, read without waiting.
struct Pipe<R> {
    end: Option<R>,
    kept: Vec<u8>,
    bytes_max: usize,
    is_cut: bool,
}

impl<R: Read + AsFd> Pipe<R> {
    fn new(end: Option<R>, bytes_max: usize) -> std::io::Result<Self> {
        if let Some(end) = &end {
            fcntl_setfl(end, fcntl_getfl(end)? | OFlags::NONBLOCK)?;
        }
        Ok(Self { end, kept: Vec::new(), bytes_max, is_cut: false })
    }

    /// Reads what there is, at most as much as a pipe holds; says whether there was something.
    fn read(&mut self) -> std::io::Result<bool> {
        let Some(end) = &mut self.end else { return Ok(false) };
        let mut piece = [0; 4096];
        let mut heard = false;
        for _ in 0..(1 << 20) / piece.len() {
            match end.read(&mut piece) {
                Ok(0) => {
                    self.end = None;
                    break;
                }
                Ok(length) => {
                    let room = self.bytes_max - self.kept.len();
                    self.is_cut |= length > room;
                    self.kept.extend_from_slice(&piece[..length.min(room)]);
                    heard = true;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(heard)
    }

    fn text(self) -> (String, bool) {
        (String::from_utf8_lossy(&self.kept).into_owned(), self.is_cut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, timeout: Duration) -> Result<Ran, ProgramError> {
        let command = vec![OsStr::new("sh"), OsStr::new("-c"), OsStr::new(script)];
        let cancel = CancellationToken::new();
        run(&Program { command, environment: &BTreeMap::new(), timeout, stdout_bytes_max: 1 << 16, cancel: &cancel })
    }

    const LONG: Duration = Duration::from_secs(25);

    #[test]
    fn what_it_printed_is_kept_up_to_a_limit() {
        let ran = sh("printf out; printf err >&2; exit 3", LONG).expect("runs");
        assert_eq!((ran.stdout.as_str(), ran.stderr.as_str(), ran.status.code()), ("out", "err", Some(3)));
        assert_eq!(ran.complaint(), "it ended with 3: err");
        let ran = sh("head -c 3000000 /dev/zero", LONG).expect("is not held up");
        assert!(ran.is_cut && ran.status.success());
        assert_eq!(ran.stdout.len(), 1 << 16);
        assert!(!sh("head -c 65536 /dev/zero", LONG).expect("runs").is_cut);
        assert_eq!(sh("kill -9 $$", LONG).expect("runs").complaint(), "it was killed by signal 9");
    }

    #[test]
    fn what_does_not_end_is_killed_with_all_that_it_started() {
        let dir = tempfile::tempdir().expect("a folder");
        let pid = dir.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {0}.new; mv {0}.new {0}; wait", pid.display());
        let began = Instant::now();
        assert!(matches!(sh(&script, Duration::from_secs(1)), Err(ProgramError::Timeout(_))));
        assert!(began.elapsed() < Duration::from_secs(20));
        let child = std::fs::read_to_string(&pid).expect("it ran").trim().to_owned();
        let state = || std::fs::read_to_string(format!("/proc/{child}/stat")).ok();
        // Dead, though perhaps nobody has asked for its status yet.
        while state().is_some_and(|stat| !stat.contains(") Z ") && !stat.contains(") X ")) {
            assert!(began.elapsed() < Duration::from_secs(20), "{:?}", state());
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_stays_behind_with_the_output_open_is_not_waited_for() {
        let began = Instant::now();
        let ran = sh("echo said; sleep 15 & exit 0", LONG).expect("runs");
        assert_eq!(ran.stdout, "said\n");
        assert!(began.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn the_environment_is_small() {
        let environment = BTreeMap::from([("CHECKED".to_owned(), "yes".to_owned())]);
        let cancel = CancellationToken::new();
        let command = vec![OsStr::new("env")];
        let program = Program { command, environment: &environment, timeout: LONG, stdout_bytes_max: 1 << 16, cancel: &cancel };
        let ran = run(&program).expect("runs");
        let mut names: Vec<_> = ran.stdout.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
        names.sort_unstable();
        assert_eq!(names, ["CHECKED", "LC_ALL", "PATH"]);
        let missing = Program { command: vec![OsStr::new("/nowhere/program")], ..program };
        assert!(matches!(run(&missing), Err(ProgramError::Missing)));
    }
}
