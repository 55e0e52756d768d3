//! The manual pages, made from the tree of commands when a package is built.

use std::path::Path;

use super::failure::{Code, Failure, Outcome};

/// `klaxon man DIR`: one page for the program and one for each of its commands.
pub(super) fn write(program: clap::Command, dir: &Path) -> Outcome {
    let failed = |error: std::io::Error| Failure::new(Code::Failed, format!("cannot write to {}: {error}", dir.display()));
    std::fs::create_dir_all(dir).map_err(failed)?;
    clap_mangen::generate_to(program, dir).map_err(failed)
}
