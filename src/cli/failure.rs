//! How a command ends when it does not end well: one line for a person, one number for a script.

use std::io;

/// The exit codes, as `klaxon --help` lists them.
pub(super) const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  refused, or failed
  2  the command line or a file is wrong
  3  no node answers
  4  there is no such thing
  5  not now: busy, stopping or out of room; try again

A node is looked for at --node, $KLAXON_NODE, ./klaxon-data/klaxon.sock, /run/klaxon/klaxon.sock and
http://127.0.0.1:7780, in this order. Operator actions need the Unix socket; members of the group
klaxon may use that of the packaged node.";

/// What kind of failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    /// Refused, or failed.
    Failed = 1,
    /// The command line or a file is wrong.
    Usage = 2,
    /// No node answers.
    NoNode = 3,
    /// There is no such thing.
    NotFound = 4,
    /// Not now.
    Later = 5,
}

/// Why a command failed.
#[derive(Debug)]
pub(super) struct Failure {
    /// What kind.
    pub(super) code: Code,
    /// One line: what is wrong, and what to do. Empty if it was said already.
    pub(super) message: String,
    /// Whoever read the output went away: no failure of ours.
    pub(super) reader_gone: bool,
}

/// What a command comes to.
pub(super) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// A failure of a kind.
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), reader_gone: false }
    }

    /// A failure that was told already, line by line.
    pub(super) fn told() -> Self {
        Self::new(Code::Failed, "")
    }

    /// An error with all that led to it.
    pub(super) fn of(code: Code, error: &(dyn std::error::Error + 'static)) -> Self {
        Self::new(code, klaxon_schemas::error::chain(error))
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(Code::Failed, format!("{error:#}"))
    }
}

/// An error in writing the output.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let reader_gone = error.kind() == io::ErrorKind::BrokenPipe;
        Self { code: Code::Failed, message: format!("cannot write the output: {error}"), reader_gone }
    }
}
