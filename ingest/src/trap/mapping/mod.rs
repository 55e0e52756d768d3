//! Mappings: which trap is which event. They stand in TOML files; `docs/TRAPS.md` says how one is written.
//!
//! ```text
//! files ─▶ form: as TOML has them ─▶ file: checked, names resolved ─▶ rules, by OID in matcher
//! trap ─▶ matcher: the rules for its OID ─▶ rule: the first that takes it makes resource, type, severity, text …
//! ```
//!
//! Configured files go before those that come with the program, and the first rule that takes a trap has it. Within either, rules
//! for exactly the OID go before those for a subtree, longer subtrees before shorter ones, and then files and rules in their
//! order. What no rule takes is a log event of type `snmp.trap`.

mod file;
mod form;
mod matcher;
mod rule;
mod template;
#[cfg(test)]
mod tests;
mod value;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use sha2::{Digest as _, Sha256};

use file::Wrong;
use matcher::{Hit, Index, Pattern, TrapOids};
use rule::Rule;
use template::{Names, Scene};

pub(super) use rule::{Mapped, whole_arcs};
pub(super) use template::Subject;
pub(super) use value::{shown, type_name};

/// The most files, those of folders included.
pub const FILES_MAX: usize = 1_000;
/// The largest file.
pub const FILE_BYTES_MAX: u64 = 4 << 20;
/// The most rules in all files together.
pub const RULES_MAX: usize = 100_000;

/// What comes with the program: file and text.
const BUILT_IN: [(&str, &str); 8] = [
    ("bgp4-mib.toml", include_str!("../../../../schemas/mappings/bgp4-mib.toml")),
    ("bridge-mib.toml", include_str!("../../../../schemas/mappings/bridge-mib.toml")),
    ("entity-mib.toml", include_str!("../../../../schemas/mappings/entity-mib.toml")),
    ("entity-state-mib.toml", include_str!("../../../../schemas/mappings/entity-state-mib.toml")),
    ("if-mib.toml", include_str!("../../../../schemas/mappings/if-mib.toml")),
    ("ospf-trap-mib.toml", include_str!("../../../../schemas/mappings/ospf-trap-mib.toml")),
    ("snmpv2-mib.toml", include_str!("../../../../schemas/mappings/snmpv2-mib.toml")),
    ("ups-mib.toml", include_str!("../../../../schemas/mappings/ups-mib.toml")),
];

/// All mappings that are in force. Cloning shares them.
#[derive(Clone)]
pub struct Mappings {
    /// Those of the configuration.
    own: Arc<Layer>,
    built_in: Arc<Layer>,
}

/// Files that are looked through together.
struct Layer {
    files: Vec<Source>,
    /// With the file of each.
    rules: Vec<(usize, Rule)>,
    index: Index,
    digest: [u8; 32],
}

/// A file.
struct Source {
    label: String,
    names: Names,
}

/// Why files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MappingError {
    /// A file or folder cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Something in a file is wrong.
    #[error("{}:{line}: {}{reason}", path.display(), if key.is_empty() { String::new() } else { format!("{key}: ") })]
    Wrong {
        /// Which file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The key that is at fault, where one is.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is too much of it.
    #[error("{}: {reason}", path.display())]
    TooMuch {
        /// Where it became too much.
        path: PathBuf,
        /// What is too much.
        reason: String,
    },
}

/// What a rule says of a trap: for those who want to know why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// The file it stands in.
    pub file: String,
    /// Where it begins, from 1.
    pub line: usize,
    /// What it is called.
    pub rule: String,
    /// What it says.
    pub verdict: Verdict,
}

/// What a rule says of a trap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is the first that takes it.
    Matched {
        /// The rules of the same file that clear what it raises.
        cleared_by: Vec<String>,
        /// The rule whose alarm it clears.
        clears: Option<String>,
    },
    /// It does not take it, and why.
    Missed(String),
    /// Another took it before.
    NotReached,
    /// It is for another trap, whose OID is much the same.
    Near(String),
}

impl Mappings {
    /// Those that come with the program.
    pub fn built_in() -> Self {
        static BUILT: OnceLock<Mappings> = OnceLock::new();
        let build = || {
            let mut layer = Layer::empty();
            for (name, text) in BUILT_IN {
                layer.add(format!("built-in {name}"), Path::new(name), text).expect("a test reads them");
            }
            Self { own: Arc::new(Layer::empty()), built_in: Arc::new(layer) }
        };
        BUILT.get_or_init(build).clone()
    }

    /// Those in `paths`, each a file or a folder whose `*.toml` are taken by name, and behind them those that come with the
    /// program.
    pub fn load(paths: &[PathBuf]) -> Result<Self, MappingError> {
        let mut layer = Layer::empty();
        for path in paths {
            for file in files(path)? {
                let text = read(&file)?;
                layer.add(file.display().to_string(), &file, &text)?;
            }
        }
        Ok(Self { own: Arc::new(layer), built_in: Self::built_in().built_in })
    }

    /// That of the text of a file which is called `name`, and behind it those that come with the program.
    pub fn parse(text: &str, name: &str) -> Result<Self, MappingError> {
        let mut layer = Layer::empty();
        layer.add(name.to_owned(), Path::new(name), text)?;
        Ok(Self { own: Arc::new(layer), built_in: Self::built_in().built_in })
    }

    /// How many rules the configured files have.
    pub fn rules(&self) -> usize {
        self.own.rules.len()
    }

    /// What the first rule that takes it makes of a trap.
    pub(super) fn map<'m>(&'m self, subject: &Subject<'m>) -> Option<Mapped<'m>> {
        let oids = TrapOids::of(subject.notification);
        self.layers().find_map(|layer| layer.index.hits(&oids).find_map(|hit| layer.apply(hit, subject).ok()))
    }

    /// What every rule for a trap says of it.
    pub(super) fn judge(&self, subject: &Subject<'_>) -> Vec<Judgement> {
        let oids = TrapOids::of(subject.notification);
        let mut is_taken = false;
        let mut judgements = Vec::new();
        for layer in self.layers() {
            for hit in layer.index.hits(&oids) {
                let verdict = match layer.apply(hit, subject) {
                    Ok(_) if is_taken => Verdict::NotReached,
                    Ok(_) => layer.matched(hit),
                    Err(miss) => Verdict::Missed(miss.to_string()),
                };
                is_taken |= matches!(verdict, Verdict::Matched { .. });
                judgements.push(layer.judgement(hit, verdict));
            }
        }
        if judgements.is_empty() {
            for layer in self.layers() {
                for hit in layer.index.near(oids.sent) {
                    let pattern = layer.pattern(hit);
                    let reason = format!("is for {}", klaxon_snmp::Oid::new(&pattern.oid));
                    judgements.push(layer.judgement(hit, Verdict::Near(reason)));
                }
            }
        }
        judgements
    }

    /// What files call an OID: the longest name, with the arcs behind it. Configured files go before others.
    pub(super) fn name_of(&self, oid: &[u32]) -> Option<String> {
        self.layers().find_map(|layer| {
            let objects = layer.files.iter().flat_map(|file| file.names.0.values());
            let named = objects.filter(|object| !object.is_row && oid.starts_with(&object.oid));
            let object = named.max_by_key(|object| object.oid.len())?;
            let instance = &oid[object.oid.len()..];
            let dot = if instance.is_empty() { "" } else { "." };
            Some(format!("{}{dot}{}", object.name, klaxon_snmp::Oid::new(instance)))
        })
    }

    fn layers(&self) -> impl Iterator<Item = &Layer> {
        [&*self.own, &*self.built_in].into_iter()
    }
}

impl PartialEq for Mappings {
    fn eq(&self, other: &Self) -> bool {
        self.own.digest == other.own.digest
    }
}

impl Eq for Mappings {}

impl Default for Mappings {
    fn default() -> Self {
        Self::built_in()
    }
}

impl fmt::Debug for Mappings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files: Vec<&str> = self.own.files.iter().map(|file| &*file.label).collect();
        f.debug_struct("Mappings").field("files", &files).field("rules", &self.rules()).finish_non_exhaustive()
    }
}

impl Layer {
    fn empty() -> Self {
        Self { files: Vec::new(), rules: Vec::new(), index: Index::default(), digest: [0; 32] }
    }

    fn add(&mut self, label: String, path: &Path, text: &str) -> Result<(), MappingError> {
        let too_much = |reason| MappingError::TooMuch { path: path.to_owned(), reason };
        if self.files.len() >= FILES_MAX {
            return Err(too_much(format!("is one mapping file more than the {FILES_MAX} that may be")));
        }
        let read = file::read(text).map_err(|Wrong { line, key, reason }| {
            let path = path.to_owned();
            MappingError::Wrong { path, line, key, reason }
        })?;
        if self.rules.len() + read.rules.len() > RULES_MAX {
            return Err(too_much(format!("has more rules than the {RULES_MAX} that all files may have together")));
        }
        let sum = Sha256::new().chain_update(self.digest).chain_update(&label).chain_update([0]).chain_update(text);
        self.digest = sum.finalize().into();
        let file = self.files.len();
        self.files.push(Source { label, names: read.names });
        for rule in read.rules {
            let number = u32::try_from(self.rules.len()).expect("there are few");
            for (pattern, which) in rule.patterns.iter().zip(0..) {
                self.index.add(pattern, (number, which));
            }
            self.rules.push((file, rule));
        }
        Ok(())
    }

    fn rule(&self, (rule, _): Hit) -> &Rule {
        &self.rules[rule as usize].1
    }

    fn pattern(&self, hit: Hit) -> &Pattern {
        &self.rule(hit).patterns[usize::from(hit.1)]
    }

    fn apply<'m>(&'m self, hit: Hit, subject: &Subject<'m>) -> Result<Mapped<'m>, matcher::Miss<'m>> {
        let scene = Scene { subject: *subject, trap: self.pattern(hit).name.as_deref() };
        self.rule(hit).apply(&scene)
    }

    fn matched(&self, hit: Hit) -> Verdict {
        let (file, rule) = &self.rules[hit.0 as usize];
        let clear = |(other, clearing): &&(usize, Rule)| other == file && clearing.clears.as_ref() == Some(&rule.name);
        let cleared_by = self.rules.iter().filter(clear).map(|(_, clearing)| clearing.name.clone()).collect();
        Verdict::Matched { cleared_by, clears: rule.clears.clone() }
    }

    fn judgement(&self, hit: Hit, verdict: Verdict) -> Judgement {
        let (file, rule) = &self.rules[hit.0 as usize];
        Judgement { file: self.files[*file].label.clone(), line: rule.line, rule: rule.name.clone(), verdict }
    }
}

/// The files that a path stands for.
fn files(path: &Path) -> Result<Vec<PathBuf>, MappingError> {
    let failed = |source| MappingError::Read { path: path.to_owned(), source };
    if !std::fs::metadata(path).map_err(failed)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path).map_err(failed)?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<PathBuf>>>().map_err(failed)?;
    // What editors and package managers leave beside a file does not end like this.
    let mut files: Vec<_> = paths.into_iter().filter(|path| path.extension().is_some_and(|end| end == "toml")).collect();
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<String, MappingError> {
    let failed = |source| MappingError::Read { path: path.to_owned(), source };
    let known = std::fs::metadata(path).map_err(failed)?;
    if !known.is_file() {
        return Err(failed(std::io::Error::other("is neither a file nor a folder")));
    }
    let bytes = known.len();
    if bytes > FILE_BYTES_MAX {
        let reason = format!("has {bytes} bytes, and a mapping file at most {FILE_BYTES_MAX}");
        return Err(MappingError::TooMuch { path: path.to_owned(), reason });
    }
    std::fs::read_to_string(path).map_err(failed)
}
