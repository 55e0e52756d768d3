//! What keeps a damaged view from ending the process.
//!
//! The engine checks its data, but some of its files have no checksum, and what they say is asserted: on a flipped bit it panics
//! while it holds locks, panics again when it is dropped on the way out, and that ends the process. Two things stand against it:
//!
//! * the files that are written once and never again are sealed with a checksum of ours beside the view, at each start and at
//!   each clean end: `view.seal`, a line a file;
//! * an attempt to open leaves a mark, `view.opening`, until it has come to an end: a start that finds one does not try again.
//!
//! Either way the view is built anew. A kill in the middle of an open costs the same, and nothing else.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::ViewError;
use crate::files;

/// Whether the engine writes a file of this name once: its format, and each version of what a keyspace consists of.
fn is_written_once(name: &str) -> bool {
    name == "version" || name.strip_prefix('v').is_some_and(|number| number.parse::<u64>().is_ok())
}

fn seal_path(view: &Path) -> PathBuf {
    view.with_extension("seal")
}

/// Checks the files that are sealed and still there. A view that was never sealed is as good as its engine says.
pub(super) fn check(view: &Path) -> Result<(), ViewError> {
    let seal = match fs::read_to_string(seal_path(view)) {
        Ok(seal) => seal,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(ViewError::Io(error)),
    };
    for line in seal.lines() {
        let (sum, name) = line.split_once(' ').unwrap_or((line, ""));
        match fs::read(view.join(name)) {
            Ok(bytes) if format!("{:08x}", crc32c::crc32c(&bytes)) == sum => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound && !name.is_empty() => {}
            _ => return Err(ViewError::Changed(name.to_owned())),
        }
    }
    Ok(())
}

/// Seals the files as they are now, after they were read and found good.
pub(crate) fn write(view: &Path) -> Result<(), ViewError> {
    let sums = sums(view).map_err(ViewError::Io)?;
    if fs::read_to_string(seal_path(view)).is_ok_and(|seal| seal == sums) {
        return Ok(());
    }
    files::replace(&seal_path(view), sums.as_bytes()).map_err(ViewError::Io)
}

/// A line for each sealed file: checksum and name, in order.
fn sums(view: &Path) -> io::Result<String> {
    let mut found = Vec::new();
    let mut dirs = vec![view.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                dirs.push(entry.path());
            } else if entry.file_name().to_str().is_some_and(is_written_once) {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    let mut sums = String::new();
    for path in found {
        let sum = crc32c::crc32c(&fs::read(&path)?);
        let name = path.strip_prefix(view).unwrap_or(&path);
        writeln!(sums, "{sum:08x} {}", name.display()).expect("a string takes everything");
    }
    Ok(sums)
}

/// An attempt to open the view.
pub(super) struct Attempt(PathBuf);

impl Attempt {
    fn path(view: &Path) -> PathBuf {
        view.with_extension("opening")
    }

    /// Leaves the mark, unless one is there.
    pub(super) fn begin(view: &Path) -> Result<Self, ViewError> {
        let path = Self::path(view);
        match fs::File::create_new(&path) {
            Ok(_) => Ok(Self(path)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(ViewError::Unfinished),
            Err(error) => Err(ViewError::Io(error)),
        }
    }

    /// Takes the mark away: the view is open.
    pub(super) fn end(self) -> Result<(), ViewError> {
        files::remove_file(&self.0).map_err(ViewError::Io)
    }

    /// Takes away what an attempt left that did not come to an end: the view is a new one.
    pub(super) fn forget(view: &Path) -> Result<(), ViewError> {
        files::remove_file(&Self::path(view)).map_err(ViewError::Io)
    }
}
