//! The SNMP engine that this node is (RFC 3411 section 3.1.1): its id for ever, and how often it has started.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use async_snmp::v3::{AuthoritativeEngine, DesSaltState, PersistedAuthoritativeEngine, PersistedDesSaltState};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The file in the node's data directory.
const FILE: &str = "snmp-engine.json";
/// How an id begins (RFC 3411 section 5, SnmpEngineID): by the enterprise 8072, net-snmp, whose playpen the MIB stands in until
/// a number is assigned; then octets as the administrator likes.
const ID_PREFIX: [u8; 5] = [0x80, 0x00, 0x1f, 0x88, 0x05];

/// The engine. Clones share its clock; whoever speaks for this node (the agent, what sends and what receives) has one.
#[derive(Clone)]
pub struct Engine {
    pub(crate) authoritative: AuthoritativeEngine,
    pub(crate) des_salt: DesSaltState,
    started: Instant,
}

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// What is kept of it cannot be read or written.
    #[error("{}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What is kept of it makes no sense. A new one would be a stranger to all who know this one, so none is made.
    #[error("{}: {reason}; restore it from a backup, or remove it for a new engine id", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// What is kept.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    /// As hexadecimal digits.
    engine_id: String,
    /// snmpEngineBoots of the last start.
    engine_boots: u32,
}

impl Engine {
    /// The engine of the node whose data are in `dir`, once more started: snmpEngineBoots is one more than ever before, and on
    /// the disk before anybody hears of it.
    pub fn start(dir: &Path) -> Result<Self, EngineError> {
        let path = dir.join(FILE);
        let failed = |source| EngineError::Io { path: path.clone(), source };
        let damaged = |reason: String| EngineError::Damaged { path: path.clone(), reason };
        let before = match fs::read(&path) {
            Ok(bytes) => Some(read(&bytes).map_err(damaged)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        let keeping = path.clone();
        let keep = move |state: &PersistedAuthoritativeEngine| write(&keeping, state);
        let boots = before.as_ref().map(PersistedAuthoritativeEngine::engine_boots);
        let started = match before {
            Some(before) => AuthoritativeEngine::restart(before, keep),
            None => {
                let id = [&ID_PREFIX[..], Uuid::new_v4().as_bytes()].concat();
                AuthoritativeEngine::install(id, keep)
            }
        };
        let authoritative = started.map_err(|error| failed(io::Error::other(error.to_string())))?;
        // The salt of DES counts on from the boots (RFC 3414 section 8.1.1.1), which are kept already.
        let kept = |_: &PersistedDesSaltState| Ok::<(), io::Error>(());
        let des_salt = match boots {
            Some(boots) => PersistedDesSaltState::new(boots).and_then(|before| DesSaltState::restart(before, kept)),
            None => DesSaltState::install(kept),
        };
        let des_salt = des_salt.map_err(|error| damaged(error.to_string()))?;
        Ok(Self { authoritative, des_salt, started: Instant::now() })
    }

    /// snmpEngineID.
    pub fn id(&self) -> &[u8] {
        self.authoritative.engine_id()
    }

    /// snmpEngineBoots.
    pub fn boots(&self) -> u32 {
        self.authoritative.engine_boots()
    }

    /// sysUpTime: hundredths of a second since the start. After 497 days it begins anew.
    pub fn uptime_ticks(&self) -> u32 {
        ((self.started.elapsed().as_millis() / 10) & u128::from(u32::MAX)) as u32
    }
}

/// Where the engine is kept, and the engine itself once it could be started: for all who speak for this node, at whatever time they
/// come. A disk that is full when the node starts keeps nobody from speaking later.
#[derive(Debug)]
pub struct EngineHome {
    dir: PathBuf,
    engine: Mutex<Option<Engine>>,
}

impl EngineHome {
    /// The home in the data directory `dir`.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), engine: Mutex::default() }
    }

    /// The engine, started if it is not yet. Writes to the disk then.
    pub fn engine(&self) -> Result<Engine, EngineError> {
        let mut engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
        match &*engine {
            Some(engine) => Ok(engine.clone()),
            None => Ok(engine.insert(Engine::start(&self.dir)?).clone()),
        }
    }

    /// The engine, if it has started.
    pub fn started(&self) -> Option<Engine> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("id", &self.id()).field("boots", &self.boots()).finish()
    }
}

fn read(bytes: &[u8]) -> Result<PersistedAuthoritativeEngine, String> {
    let kept: Kept = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let digits = kept.engine_id.as_bytes();
    if !digits.len().is_multiple_of(2) || !digits.is_ascii() {
        return Err("engine_id is no even number of hexadecimal digits".to_owned());
    }
    let octet = |pair: &[u8]| u8::from_str_radix(&String::from_utf8_lossy(pair), 16);
    let id: Result<Vec<u8>, _> = digits.chunks(2).map(octet).collect();
    let id = id.map_err(|_| "engine_id is no hexadecimal digits".to_owned())?;
    PersistedAuthoritativeEngine::new(id, kept.engine_boots).map_err(|error| error.to_string())
}

/// Whole or not at all, and on the disk.
fn write(path: &Path, state: &PersistedAuthoritativeEngine) -> io::Result<()> {
    let engine_id = state.engine_id().iter().map(|octet| format!("{octet:02x}")).collect();
    let kept = Kept { engine_id, engine_boots: state.engine_boots() };
    let dir = path.parent().expect("is a file in a folder");
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(serde_json::to_string(&kept).expect("has only text and numbers").as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_keeps_its_id_and_never_starts_with_the_same_boots() {
        let dir = tempfile::tempdir().expect("can be made");
        let first = Engine::start(dir.path()).expect("starts");
        let id = first.id().to_vec();
        assert_eq!((id[..5].to_vec(), id.len(), first.boots()), (ID_PREFIX.to_vec(), 21, 1));
        drop(first);
        for boots in 2..5 {
            let engine = Engine::start(dir.path()).expect("starts");
            assert_eq!((engine.id(), engine.boots()), (&id[..], boots));
        }
    }

    #[test]
    fn an_engine_is_started_once_and_as_soon_as_it_can_be() {
        let dir = tempfile::tempdir().expect("can be made");
        let home = EngineHome::new(&dir.path().join("later"));
        assert!(matches!(home.engine(), Err(EngineError::Io { .. })));
        fs::create_dir(dir.path().join("later")).expect("can be made");
        assert_eq!([home.engine().expect("starts").boots(), home.engine().expect("has started").boots()], [1, 1]);
    }

    #[test]
    fn an_engine_that_cannot_be_kept_does_not_start() {
        let dir = tempfile::tempdir().expect("can be made");
        assert!(matches!(Engine::start(&dir.path().join("missing")), Err(EngineError::Io { .. })));
        for wrong in ["", "{}", r#"{"engine_id":"80","engine_boots":1}"#, r#"{"engine_id":"8000zz8805","engine_boots":1}"#] {
            fs::write(dir.path().join(FILE), wrong).expect("is written");
            let error = Engine::start(dir.path()).map(|_| ()).expect_err("is damaged");
            assert!(matches!(error, EngineError::Damaged { .. }), "{wrong}: {error}");
        }
    }
}
