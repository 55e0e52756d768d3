//! What keeps a damaged view from ending the process.
//!
//! The engine checks its data, but some of its files have no checksum, and what they say is asserted: on a flipped bit it panics
//! while it holds locks, panics again when it is dropped on the way out, and that ends the process. Two things stand against it:
//!
//! * the files that are written once and never again are sealed with a checksum of ours beside the view, at each start and at
//!   each clean end: `view.seal`, a line a file. sled writes everything again, and its files are sealed from a clean end to the
//!   next start;
//! * an attempt to open leaves a mark, `view.opening`, until it has come to an end: a start that finds one does not try again.
//!
//! Either way the view is built anew. A kill in the middle of an open costs the same, and nothing else.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use super::ViewError;
use crate::config::ViewEngine;
use crate::files;

/// How much of a file is read at a time.
const CHUNK_BYTES: usize = 256 * 1024;

/// How the view is used when it is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// The engine has it, and may write.
    Open,
    /// Nobody has it until the next start.
    AtRest,
}

/// Whether a file, named from the view's folder, is sealed.
fn is_sealed(path: &Path, used: Use) -> bool {
    if path.starts_with(ViewEngine::Sled.as_str()) {
        return used == Use::AtRest;
    }
    path.file_name().and_then(|name| name.to_str()).is_some_and(is_written_once)
}

/// Whether fjall writes a file of this name once: its format, and each version of what a keyspace consists of.
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
        match checksum(&view.join(name)) {
            Ok(found) if format!("{found:08x}") == sum => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound && !name.is_empty() => {}
            _ => return Err(ViewError::Changed(name.to_owned())),
        }
    }
    Ok(())
}

/// Seals the files as they are now, after they were read and found good.
///
/// A full disk makes no view worse: if the seal of one that is in use cannot be written, the seal before it is taken away, so
/// that the next start does not hold the files against it. A view at rest keeps the one from when it was in use.
pub(crate) fn write(view: &Path, used: Use) -> Result<(), ViewError> {
    let sums = sums(view, used).map_err(ViewError::Io)?;
    let path = seal_path(view);
    if fs::read_to_string(&path).is_ok_and(|seal| seal == sums) {
        return Ok(());
    }
    match files::replace(&path, sums.as_bytes()) {
        Err(error) if used == Use::Open => {
            tracing::warn!(%error, "the view cannot be sealed, and is as good as its engine says");
            files::remove_file(&path).and_then(|()| files::sync_parent(&path)).map_err(ViewError::Io)
        }
        outcome => outcome.map_err(ViewError::Io),
    }
}

/// A line for each sealed file: checksum and name, in order.
fn sums(view: &Path, used: Use) -> io::Result<String> {
    let mut found = Vec::new();
    let mut dirs = vec![view.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                dirs.push(entry.path());
            } else {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    let mut sums = String::new();
    for path in &found {
        let name = path.strip_prefix(view).unwrap_or(path);
        if is_sealed(name, used) {
            writeln!(sums, "{:08x} {}", checksum(path)?, name.display()).expect("a string takes everything");
        }
    }
    Ok(sums)
}

/// The checksum of a whole file, however large.
fn checksum(path: &Path) -> io::Result<u32> {
    let mut file = BufReader::with_capacity(CHUNK_BYTES, fs::File::open(path)?);
    let mut sum = 0;
    loop {
        let bytes = file.fill_buf()?;
        if bytes.is_empty() {
            return Ok(sum);
        }
        sum = crc32c::crc32c_append(sum, bytes);
        let length = bytes.len();
        file.consume(length);
    }
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
