//! Which of many things are meant: names by globs, files by paths with globs in them.

use std::path::{Component, Path, PathBuf};

use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};

/// The most files one path may stand for.
pub(super) const FILES_MAX: usize = 1000;

/// Globs, one of which has to fit: `*` and `?`, `[a-z]`, `{a,b}`; `*` stands for `/` too.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Globs(Vec<Glob>);

/// A text that is no glob, or no path with globs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} {reason}")]
pub struct GlobsError {
    text: String,
    reason: String,
}

impl GlobsError {
    fn new(text: &str, reason: impl Into<String>) -> Self {
        Self { text: text.to_owned(), reason: reason.into() }
    }
}

impl Globs {
    /// Checks and keeps them.
    pub fn new<T: AsRef<str>>(texts: &[T]) -> Result<Self, GlobsError> {
        let globs = texts.iter().map(|text| {
            let text = text.as_ref();
            Glob::new(text).map_err(|error| GlobsError::new(text, format!("is no glob: {}", error.kind())))
        });
        let globs: Vec<_> = globs.collect::<Result<_, _>>()?;
        // Each fits; together they may be too large.
        set(&globs).map_err(|error| GlobsError::new("", format!("are too many: {}", error.kind())))?;
        Ok(Self(globs))
    }

    pub(super) fn set(&self) -> GlobSet {
        set(&self.0).expect("was checked")
    }
}

fn set(globs: &[Glob]) -> Result<GlobSet, globset::Error> {
    let mut builder = GlobSetBuilder::new();
    for glob in globs {
        builder.add(glob.clone());
    }
    builder.build()
}

/// An absolute path whose components may be globs: `/etc/ssl/*/cert?.pem`. `**` is not among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathGlob(String);

impl PathGlob {
    /// Checks and keeps it.
    pub fn new(text: &str) -> Result<Self, GlobsError> {
        if !text.starts_with('/') {
            return Err(GlobsError::new(text, "is no absolute path"));
        }
        for component in text.split('/').filter(|component| has_glob(component)) {
            if component.contains("**") {
                return Err(GlobsError::new(text, "has **, which is not understood here"));
            }
            Glob::new(component).map_err(|error| GlobsError::new(text, format!("is no glob: {}", error.kind())))?;
        }
        Ok(Self(text.to_owned()))
    }

    /// The text as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The files it stands for now, at most [`FILES_MAX`]; a path without globs is itself, whether there is a file or not. A
    /// folder that cannot be read is an error, one that is not there holds nothing.
    pub(super) fn files(&self) -> std::io::Result<Vec<PathBuf>> {
        if !has_glob(&self.0) {
            return Ok(vec![PathBuf::from(&self.0)]);
        }
        let mut paths = vec![PathBuf::from("/")];
        for component in Path::new(&self.0).components() {
            let Component::Normal(name) = component else { continue };
            let name = name.to_string_lossy();
            if !has_glob(&name) {
                paths.iter_mut().for_each(|path| path.push(&*name));
                continue;
            }
            let glob = GlobBuilder::new(&name).literal_separator(true).build().expect("was checked").compile_matcher();
            let mut found = Vec::new();
            for path in paths {
                found.extend(matching(&path, &glob)?);
                found.truncate(FILES_MAX);
            }
            paths = found;
        }
        paths.retain(|path| path.is_file());
        paths.sort();
        Ok(paths)
    }
}

/// What of a folder fits; hidden files have to be asked for, as in a shell.
fn matching(dir: &Path, glob: &globset::GlobMatcher) -> std::io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error),
    };
    let wants_hidden = glob.glob().glob().starts_with('.');
    let mut found = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        if glob.is_match(&name) && (wants_hidden || !name.as_encoded_bytes().starts_with(b".")) {
            found.push(dir.join(name));
        }
    }
    found.sort();
    Ok(found)
}

fn has_glob(text: &str) -> bool {
    text.contains(['*', '?', '[', '{'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_fit_names() {
        let set = Globs::new(&["/var/lib/docker/*", "user@*.service"]).expect("are globs").set();
        assert!(set.is_match("/var/lib/docker/overlay2/x/merged") && set.is_match("user@1000.service"));
        assert!(!set.is_match("/var/lib/dockerx") && !set.is_match("/"));
        assert!(!Globs::default().set().is_match("/"));
        assert_eq!(
            Globs::new(&["a[b"]).expect_err("is none").to_string(),
            "\"a[b\" is no glob: unclosed character class; missing ']'"
        );
    }

    #[test]
    fn paths_with_globs_stand_for_files() {
        let dir = tempfile::tempdir().expect("a folder");
        for name in ["a/cert.pem", "b/cert.pem", "b/key.pem", "b/.hidden.pem", "c/other"] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().expect("has one")).expect("a folder");
            std::fs::write(path, "").expect("a file");
        }
        std::fs::create_dir(dir.path().join("a/folder.pem")).expect("a folder");
        let files = |glob: &str| {
            let glob = PathGlob::new(&format!("{}/{glob}", dir.path().display())).expect("is one");
            let files = glob.files().expect("can be read").into_iter();
            files.map(|path| path.strip_prefix(dir.path()).expect("is below").display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(files("*/cert.pem"), ["a/cert.pem", "b/cert.pem"]);
        assert_eq!(files("b/*.pem"), ["b/cert.pem", "b/key.pem"]);
        assert_eq!(files("b/.*.pem"), ["b/.hidden.pem"]);
        assert_eq!(files("{a,c}/*"), ["a/cert.pem", "c/other"]);
        assert_eq!(files("none/*.pem"), [""; 0]);
        assert_eq!(files("none/cert.pem"), ["none/cert.pem"], "said by name");
        assert!(PathGlob::new("etc/x").is_err() && PathGlob::new("/etc/**/x").is_err() && PathGlob::new("/etc/[x").is_err());
    }
}
