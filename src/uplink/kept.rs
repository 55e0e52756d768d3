//! What the node keeps of the node above, in `uplink.json` beside its store: where it is and with what this node proves who it is.
//!
//! ```text
//! join / [uplink] url ─▶ url, join token ──Welcome.credential──▶ url, name, credential ──Down::Credential──▶ the newer one
//! rehome              ─▶ the other one is asked first; when it has let this node in: its url, name and credential, and whom
//!                        this node leaves, until that one was told
//! [uplink] url anew   ─▶ url, join token, and whom it leaves: told once the new one has let this node in, gone back to until then
//! leave               ─▶ none is above, and whom it leaves
//! ```
//!
//! It is written, with nobody else allowed to read it, and synced, before what it says is used.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use klaxon_schemas::ids::Position;
use klaxon_schemas::names::ChildName;
use klaxon_schemas::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::Address;

/// The file, in the store's folder.
pub const FILE: &str = "uplink.json";
/// The newest form of the file that this program reads.
const FORMAT: u32 = 1;
/// Only the node may read it.
const MODE: u32 = 0o600;

/// A word that is not shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(pub String);

impl Token {
    /// The one that stands in the file at `path`.
    pub(crate) fn in_file(path: &Path) -> Result<Self, String> {
        let text = klaxon_api::trust::read_text(path)?;
        let token = text.trim();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!("{} holds no token: one word is expected", path.display()));
        }
        Ok(Self(token.to_owned()))
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

/// What is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The form of the file.
    pub(super) format: u32,
    /// Where the node above is.
    pub url: Address,
    /// What the settings said when this was written: if they say something else, that counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configured: Option<Address>,
    /// With what the node joins, as long as it has not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join_token: Option<Token>,
    /// By which name it is known there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<ChildName>,
    /// With what it proves who it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<Token>,
    /// The credential before that one, in case that the node above knows only that: it may have gone back in time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Token>,
    /// Of an agent: what stands is all that the node above is told of what came up to here, because it is new, or has had it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standing_upto: Option<Position>,
    /// None is above any more, `url` was the last.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_off: bool,
    /// Whom it leaves and has yet to tell so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaving: Option<Leaving>,
}

/// A node above that is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaving {
    /// Where it is.
    pub url: Address,
    /// By which name it knows this node,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<ChildName>,
    /// and with what this node proves that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<Token>,
    /// Since when.
    pub since: Timestamp,
}

/// Why it cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    /// The system refuses.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not of the form that was expected.
    #[error("{} cannot be read: {reason}; if it cannot be mended, remove it and join anew", path.display())]
    Form {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A newer program wrote it.
    #[error("{} has format {found}, which is newer than this program, which knows {FORMAT}", path.display())]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
}

impl Kept {
    /// The node above is there, and this one is to join it with `join_token`.
    pub fn joining(url: Address, configured: Option<Address>, join_token: Option<Token>) -> Self {
        Self {
            format: FORMAT,
            url,
            configured,
            join_token,
            name: None,
            credential: None,
            previous: None,
            standing_upto: None,
            is_off: false,
            leaving: None,
        }
    }

    /// The same for a node that is ordered to join `url`: at the node that is above already, the credential holds until the token
    /// was taken, and whom it leaves is told all the same.
    pub fn joined_anew(&self, url: Address, configured: Option<Address>, join_token: Token) -> Self {
        let leaving = self.leaving.clone().filter(|leaving| leaving.url != url);
        if self.url == url && !self.is_off {
            return Self { configured, join_token: Some(join_token), leaving, ..self.clone() };
        }
        Self { leaving, ..Self::joining(url, configured, Some(join_token)) }
    }

    /// The same for a node that has `self` above it now: that one is left, and is to be told.
    pub fn leaving(&self, now: Timestamp) -> Option<Leaving> {
        let is_known = !self.is_off && (self.name.is_some() || self.credential.is_some());
        is_known.then(|| Leaving {
            url: self.url.clone(),
            name: self.name.clone(),
            credential: self.credential.clone(),
            since: now,
        })
    }

    /// Reads it from the store's folder `dir`, if it is there.
    pub fn read(dir: &Path) -> Result<Option<Self>, KeptError> {
        let path = dir.join(FILE);
        let form = |reason: String| KeptError::Form { path: path.clone(), reason };
        let json = match fs::read(&path) {
            Ok(json) => json,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(KeptError::Io { action: "read", path, source }),
        };
        /// What every format has.
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let Format { format: found } = serde_json::from_slice(&json).map_err(|error| form(error.to_string()))?;
        if found > FORMAT {
            return Err(KeptError::Newer { path, found });
        }
        serde_json::from_slice(&json).map(Some).map_err(|error| form(error.to_string()))
    }

    /// Writes it to the store's folder `dir`: when this returns it is on the disk, and whoever reads sees all of it or what was
    /// there before.
    pub fn write(&self, dir: &Path) -> Result<(), KeptError> {
        let path = dir.join(FILE);
        let temporary = path.with_extension("json.tmp");
        let mut json = serde_json::to_vec_pretty(self).expect("words serialize");
        json.push(b'\n');
        let write = || {
            remove(&temporary)?;
            let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&temporary)?;
            file.write_all(&json)?;
            give_to_owner(&file, dir)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            File::open(dir)?.sync_all()
        };
        write().map_err(|source| {
            // What is half written only takes room, which may be what is missing.
            let _ = fs::remove_file(&temporary);
            KeptError::Io { action: "write", path: path.clone(), source }
        })
    }
}

/// What root makes in a folder of somebody else is that one's: the node must be able to read it.
pub(crate) fn give_to_owner(file: &File, dir: &Path) -> io::Result<()> {
    let (made, owner) = (file.metadata()?, fs::metadata(dir)?);
    if made.uid() == 0 && owner.uid() != 0 {
        std::os::unix::fs::fchown(file, Some(owner.uid()), Some(owner.gid()))?;
    }
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_is_kept_is_read_again_and_nobody_else_may() {
        let dir = tempfile::tempdir().expect("can be made");
        assert_eq!(Kept::read(dir.path()).expect("is not there"), None);
        let url: Address = "https://noc.example".parse().expect("is an address");
        let mut kept = Kept::joining(url, None, Some(Token("hush".to_owned())));
        kept.write(dir.path()).expect("is written");
        kept.credential = Some(Token("hush hush".to_owned()));
        kept.write(dir.path()).expect("is written again");
        assert_eq!(Kept::read(dir.path()).expect("is read"), Some(kept.clone()));
        let mode = fs::metadata(dir.path().join(FILE)).expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, MODE);
        assert!(!format!("{kept:?}").contains("hush"));
        fs::write(dir.path().join(FILE), "{}").expect("is written");
        assert!(Kept::read(dir.path()).is_err());
    }
}
