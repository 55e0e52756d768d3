//! The SNMP engine that this node is (RFC 3411 section 3.1.1): its id for ever, and how often it has started.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_snmp::v3::{AuthoritativeEngine, DesSaltState, MAX_ENGINE_TIME, PersistedAuthoritativeEngine, PersistedDesSaltState};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The file in the node's data directory.
pub const ENGINE_FILE: &str = "snmp-engine.json";
/// By so many starts at least a restored engine is ahead of its backup.
const RESTORED_BOOTS_AHEAD: u32 = 10_000;
/// To so many a restored engine is set at most: some starts are left (the end is 2^31 - 1, RFC 3414 section 2.2.2).
const BOOTS_MAX: u32 = MAX_ENGINE_TIME - 10_000;
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
        let path = dir.join(ENGINE_FILE);
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

    /// snmpEngineBoots and snmpEngineTime as they were at `at`. The library keeps its own clock to itself; both began at the start.
    /// After 68 years without a restart the time stands still.
    pub(crate) fn boots_and_time(&self, at: Instant) -> (u32, u32) {
        let seconds = at.saturating_duration_since(self.started).as_secs();
        (self.boots(), u32::try_from(seconds).unwrap_or(u32::MAX).min(MAX_ENGINE_TIME))
    }
}

/// What [`ENGINE_FILE`] holds in a store that is restored, by what it held in the backup: the same engine, because managers know
/// the node by its id, with more boots than it can have had meanwhile, because whoever has heard it takes nothing of fewer (RFC 3414
/// section 3.2 step 7b). The backup cannot tell how many those were. So they are the minutes since 1970, which no node that starts
/// less than once a minute catches up with, and which grow from one restore of the same backup to the next; and where the clock
/// is wrong, 10 000 more than in the backup. What makes no sense stays as it is, for [`Engine::start`] to tell of.
pub fn restored(content: Vec<u8>) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    restored_at(content, now)
}

fn restored_at(content: Vec<u8>, now: Duration) -> Vec<u8> {
    let Ok(before) = read(&content) else { return content };
    let minutes = u32::try_from(now.as_secs() / 60).unwrap_or(u32::MAX);
    let boots = before.engine_boots().saturating_add(RESTORED_BOOTS_AHEAD).max(minutes);
    // An engine that has reached the end of its boots stays there: it needs another id.
    let boots = boots.min(BOOTS_MAX).max(before.engine_boots());
    written(before.engine_id(), boots)
}

/// Where the engine is kept, and the engine itself once it could be started: for all who speak for this node, at whatever time they
/// come. A disk that is full when the node starts keeps nobody from speaking later.
#[derive(Debug)]
pub struct EngineHome {
    dir: PathBuf,
    engine: OnceLock<Engine>,
    /// Held by whoever starts it.
    starting: Mutex<()>,
}

impl EngineHome {
    /// The home in the data directory `dir`.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), engine: OnceLock::new(), starting: Mutex::default() }
    }

    /// The engine, started if it is not yet. Writes to the disk then.
    pub fn engine(&self) -> Result<Engine, EngineError> {
        let _starting = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
        match self.engine.get() {
            Some(engine) => Ok(engine.clone()),
            None => {
                let engine = Engine::start(&self.dir)?;
                Ok(self.engine.get_or_init(|| engine).clone())
            }
        }
    }

    /// The engine, if it has started. Does not wait for whoever starts it.
    pub fn started(&self) -> Option<Engine> {
        self.engine.get().cloned()
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

fn written(engine_id: &[u8], engine_boots: u32) -> Vec<u8> {
    let engine_id = engine_id.iter().map(|octet| format!("{octet:02x}")).collect();
    serde_json::to_vec(&Kept { engine_id, engine_boots }).expect("has only text and numbers")
}

/// Whole or not at all, and on the disk.
fn write(path: &Path, state: &PersistedAuthoritativeEngine) -> io::Result<()> {
    let dir = path.parent().expect("is a file in a folder");
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(&written(state.engine_id(), state.engine_boots()))?;
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
    fn a_restored_engine_keeps_its_id_and_has_more_boots_than_it_can_have_had() {
        let of = |boots: u32| written(b"\x80\x00\x1f\x88\x05node", boots);
        let boots = |boots: u32, minutes: u64| {
            let restored = read(&restored_at(of(boots), Duration::from_secs(60 * minutes))).expect("makes sense");
            assert_eq!(restored.engine_id(), b"\x80\x00\x1f\x88\x05node");
            restored.engine_boots()
        };
        assert_eq!([boots(3, 30_000_000), boots(3, 30_000_001)], [30_000_000, 30_000_001], "twice from one backup");
        assert_eq!(boots(30_000_000, 30_000_001), 30_010_000);
        assert_eq!(boots(3, 0), 10_003, "by a clock that is wrong");
        assert_eq!([boots(3, u64::MAX / 60), boots(BOOTS_MAX + 1, 0)], [BOOTS_MAX, BOOTS_MAX + 1]);
        assert_eq!(boots(MAX_ENGINE_TIME, 0), MAX_ENGINE_TIME);
        assert_eq!(restored(b"rubbish".to_vec()), b"rubbish");
        let dir = tempfile::tempdir().expect("can be made");
        fs::write(dir.path().join(ENGINE_FILE), restored(of(3))).expect("is written");
        assert!(Engine::start(dir.path()).expect("starts").boots() > 29_000_000);
    }

    #[test]
    fn an_engine_that_cannot_be_kept_does_not_start() {
        let dir = tempfile::tempdir().expect("can be made");
        assert!(matches!(Engine::start(&dir.path().join("missing")), Err(EngineError::Io { .. })));
        for wrong in ["", "{}", r#"{"engine_id":"80","engine_boots":1}"#, r#"{"engine_id":"8000zz8805","engine_boots":1}"#] {
            fs::write(dir.path().join(ENGINE_FILE), wrong).expect("is written");
            let error = Engine::start(dir.path()).map(|_| ()).expect_err("is damaged");
            assert!(matches!(error, EngineError::Damaged { .. }), "{wrong}: {error}");
        }
    }
}
