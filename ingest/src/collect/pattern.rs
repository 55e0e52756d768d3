//! What an operator means: names by patterns such as `eth0`, `enp3s0f*` and `{ens1,ens2}`, files by paths with patterns in them.

use std::path::{Component, Path, PathBuf};

use globset::{Glob, GlobBuilder, GlobMatcher};

/// The most files one path may stand for.
pub(super) const FILES_MAX: usize = 1000;

/// A pattern of names; `*` stands for `/` too.
#[derive(Debug, Clone)]
pub struct Pattern(GlobMatcher);

/// A text that is no pattern, or no path with patterns.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} {reason}")]
pub struct PatternError {
    text: String,
    reason: String,
}

impl PatternError {
    fn new(text: &str, reason: impl Into<String>) -> Self {
        Self { text: text.to_owned(), reason: reason.into() }
    }
}

impl Pattern {
    /// Reads a pattern: `*`, `?`, `[…]` and `{…,…}` stand for more than themselves. A backslash is one: systemd escapes names
    /// with it.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        let glob = GlobBuilder::new(text).backslash_escape(false).build();
        let glob = glob.map_err(|error| PatternError::new(text, format!("is no pattern: {}", error.kind())))?;
        Ok(Self(glob.compile_matcher()))
    }

    /// Reads several.
    pub fn all<T: AsRef<str>>(texts: &[T]) -> Result<Vec<Self>, PatternError> {
        texts.iter().map(|text| Self::new(text.as_ref())).collect()
    }

    /// Whether `name` is one that is meant.
    pub fn matches(&self, name: &str) -> bool {
        self.0.is_match(name)
    }

    /// The name, if the pattern can mean only one.
    pub fn only(&self) -> Option<&str> {
        let text = self.0.glob().glob();
        (!text.contains(['*', '?', '[', ']', '{', '}'])).then_some(text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.glob() == other.0.glob()
    }
}

impl Eq for Pattern {}

/// Whether `name` is asked for (`true`), excluded (`false`), or neither. A whole name in `include` goes before `exclude`, and
/// that before patterns in `include`.
pub(super) fn chosen(include: &[Pattern], exclude: &[Pattern], name: &str) -> Option<bool> {
    let fits = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches(name));
    if include.iter().any(|pattern| pattern.only() == Some(name)) {
        Some(true)
    } else if fits(exclude) {
        Some(false)
    } else {
        fits(include).then_some(true)
    }
}

/// An absolute path whose components may be globs: `/etc/ssl/*/cert?.pem`. `**` is not among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathGlob(String);

impl PathGlob {
    /// Checks and keeps it.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        if !text.starts_with('/') {
            return Err(PatternError::new(text, "is no absolute path"));
        }
        for component in text.split('/').filter(|component| has_glob(component)) {
            if component.contains("**") {
                return Err(PatternError::new(text, "has **, which is not understood here"));
            }
            component_glob(component).map_err(|error| PatternError::new(text, format!("is no glob: {}", error.kind())))?;
        }
        Ok(Self(text.to_owned()))
    }

    /// The text as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The files it stands for now, at most [`FILES_MAX`]; a path without globs is itself, whether there is a file or not. A
    /// folder that is not there holds nothing, and what cannot be told to be a file or none is taken for one.
    pub(super) fn files(&self) -> Files {
        if !has_glob(&self.0) {
            return Files { paths: vec![PathBuf::from(&self.0)], unreadable: Vec::new() };
        }
        let mut unreadable = Vec::new();
        let mut paths = vec![PathBuf::from("/")];
        for component in Path::new(&self.0).components() {
            let Component::Normal(name) = component else { continue };
            let name = name.to_string_lossy();
            if !has_glob(&name) {
                paths.iter_mut().for_each(|path| path.push(&*name));
                continue;
            }
            let glob = component_glob(&name).expect("was checked").compile_matcher();
            let mut found = Vec::new();
            for path in paths {
                match matching(&path, &glob) {
                    Ok(paths) => found.extend(paths),
                    Err(error) if is_absent(&error) => {}
                    Err(error) => unreadable.push((path, error)),
                }
                found.truncate(FILES_MAX);
            }
            paths = found;
        }
        paths.retain(|path| match path.metadata() {
            Ok(metadata) => metadata.is_file(),
            Err(error) => !is_absent(&error),
        });
        paths.sort();
        Files { paths, unreadable }
    }
}

/// What a path with patterns stands for.
#[derive(Debug)]
pub(super) struct Files {
    /// The files, in order.
    pub(super) paths: Vec<PathBuf>,
    /// Folders that could not be read, and why: there may be more files in them.
    pub(super) unreadable: Vec<(PathBuf, std::io::Error)>,
}

fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}

fn component_glob(component: &str) -> Result<Glob, globset::Error> {
    GlobBuilder::new(component).literal_separator(true).backslash_escape(false).build()
}

/// What of a folder fits; hidden files have to be asked for, as in a shell.
fn matching(dir: &Path, glob: &GlobMatcher) -> std::io::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir)?;
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
    fn a_pattern_without_signs_means_one_name() {
        let pattern = |text| Pattern::new(text).expect("is one");
        assert_eq!(pattern("eth0.7").only(), Some("eth0.7"));
        assert!(pattern("eth0.7").matches("eth0.7") && !pattern("eth0.7").matches("eth0x7"));
        for (text, meant, not_meant) in [
            ("eth*", "eth12", "ens1"),
            ("eth?", "eth1", "eth12"),
            ("{a,b}", "b", "c"),
            ("e[0-3]", "e2", "e4"),
            ("/var/lib/docker/*", "/var/lib/docker/overlay2/x/merged", "/var/lib/dockerx"),
            ("user@*.service", "user@1000.service", "user@1000xservice"),
        ] {
            assert_eq!(pattern(text).only(), None, "{text}");
            assert!(pattern(text).matches(meant) && !pattern(text).matches(not_meant), "{text}");
        }
        // systemd escapes names with a backslash.
        let escaped = r"systemd-fsck@dev-disk-by\x2duuid.service";
        assert_eq!(pattern(escaped).only(), Some(escaped));
        assert!(pattern(escaped).matches(escaped) && pattern(r"*by\x2d*").matches(escaped));
        let error = Pattern::new("a[b").expect_err("is none").to_string();
        assert_eq!(error, "\"a[b\" is no pattern: unclosed character class; missing ']'");
    }

    #[test]
    fn a_whole_name_goes_before_what_is_excluded() {
        let patterns = |texts: &[&str]| Pattern::all(texts).expect("are patterns");
        let (include, exclude) = (patterns(&["/data", "/mnt/*"]), patterns(&["/mnt/old", "/d*"]));
        let chosen = |name| chosen(&include, &exclude, name);
        assert_eq!((chosen("/data"), chosen("/dev"), chosen("/mnt/old")), (Some(true), Some(false), Some(false)));
        assert_eq!((chosen("/mnt/new"), chosen("/")), (Some(true), None));
    }

    #[test]
    fn paths_with_patterns_stand_for_files() {
        let dir = tempfile::tempdir().expect("a folder");
        for name in ["a/cert.pem", "b/cert.pem", "b/key.pem", "b/.hidden.pem", "c/other"] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().expect("has one")).expect("a folder");
            std::fs::write(path, "").expect("a file");
        }
        std::fs::create_dir(dir.path().join("a/folder.pem")).expect("a folder");
        let files = |glob: &str| {
            let glob = PathGlob::new(&format!("{}/{glob}", dir.path().display())).expect("is one");
            let files = glob.files();
            assert!(files.unreadable.is_empty(), "{files:?}");
            files
                .paths
                .iter()
                .map(|path| path.strip_prefix(dir.path()).expect("is below").display().to_string())
                .collect::<Vec<_>>()
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
