//! The one binary: the command line decides what it is.

use std::process::ExitCode;

fn main() -> ExitCode {
    klaxon::cli::main()
}
