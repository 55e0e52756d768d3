//! What is known of those who were heard: their keys, and how late it is at their engines.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use async_snmp::v3::{LocalizedKey, MAX_ENGINE_TIME, MasterKeys, PrivKey, TIME_WINDOW};

/// Of so many users at engines the keys and the time are remembered; at least of half of them, those heard last.
pub(super) const PEERS_MAX: usize = 16_384;

/// The keys of a user at one engine.
pub(crate) struct Keys {
    pub(crate) auth: LocalizedKey,
    pub(crate) privacy: Option<PrivKey>,
}

impl Keys {
    /// Takes two or three hashes of less than a hundred bytes.
    pub(crate) fn localized(master: &MasterKeys, engine_id: &[u8]) -> Self {
        let (auth, privacy) =
            master.localize(engine_id).expect("the protocols are in this build, or there were no master keys");
        Self { auth, privacy }
    }
}

/// A user at an engine. Each has a time of its own: who has the keys of one can say nothing of the time of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct PeerKey {
    bytes: [u8; 65],
    length: u8,
}

impl PeerKey {
    /// At most 32 octets each.
    pub(super) fn new(engine_id: &[u8], user: &[u8]) -> Self {
        let mut key = Self { bytes: [0; 65], length: 0 };
        let parts = [&[u8::try_from(engine_id.len()).expect("at most 32 octets")][..], engine_id, user];
        for part in parts {
            let at = usize::from(key.length);
            key.bytes[at..at + part.len()].copy_from_slice(part);
            key.length += u8::try_from(part.len()).expect("at most 32 octets");
        }
        key
    }

    /// The length of the id, the id, the name.
    pub(super) fn octets(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

struct Peer {
    /// What the keys were made of: the user may have others by now.
    master: Arc<MasterKeys>,
    keys: Arc<Keys>,
    time: Option<EngineTime>,
}

/// Those who proved to have the right keys, and nobody else: garbage takes no room here, and drives nobody out.
///
/// Two generations: who is heard is among the young; when there are too many, the young become the old, and the old are forgotten.
pub(super) struct Peers {
    young: HashMap<PeerKey, Peer>,
    old: HashMap<PeerKey, Peer>,
    max: usize,
}

impl Peers {
    pub(super) fn new(max: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), max }
    }

    /// The keys of a user at an engine, remembered or made.
    pub(super) fn keys(&self, key: &PeerKey, master: &Arc<MasterKeys>, engine_id: &[u8]) -> Arc<Keys> {
        let peer = self.young.get(key).or_else(|| self.old.get(key)).filter(|peer| Arc::ptr_eq(&peer.master, master));
        peer.map_or_else(|| Arc::new(Keys::localized(master, engine_id)), |peer| Arc::clone(&peer.keys))
    }

    /// Notes that somebody has proved to have `keys`.
    pub(super) fn heard(&mut self, key: PeerKey, master: &Arc<MasterKeys>, keys: &Arc<Keys>) -> &mut Option<EngineTime> {
        if !self.young.contains_key(&key) {
            let known = self.old.remove(&key);
            if self.young.len() >= self.max / 2 {
                self.old = std::mem::take(&mut self.young);
            }
            self.young.extend(known.map(|peer| (key, peer)));
        }
        let peer =
            self.young.entry(key).or_insert_with(|| Peer { master: Arc::clone(master), keys: Arc::clone(keys), time: None });
        if !Arc::ptr_eq(&peer.master, master) {
            (peer.master, peer.keys) = (Arc::clone(master), Arc::clone(keys));
        }
        &mut peer.time
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

/// Which users at which addresses have been told how late it is here. Two generations, as [`Peers`]: who is forgotten is told as if
/// for the first time.
pub(super) struct Told {
    young: HashSet<(Box<[u8]>, IpAddr)>,
    old: HashSet<(Box<[u8]>, IpAddr)>,
    max: usize,
}

impl Told {
    pub(super) fn new(max: usize) -> Self {
        Self { young: HashSet::new(), old: HashSet::new(), max }
    }

    /// Whether this is the first time that the user `name` is told at `source`. Only who is authentic may be noted.
    pub(super) fn is_first(&mut self, name: &[u8], source: IpAddr) -> bool {
        let whom = (Box::from(name), source.to_canonical());
        if self.young.contains(&whom) {
            return false;
        }
        let is_first = !self.old.remove(&whom);
        if self.young.len() >= self.max / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(whom);
        is_first
    }
}

/// How late it is at another engine (RFC 3414 section 2.3), as its authentic messages say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EngineTime {
    boots: u32,
    /// snmpEngineTime, which is also latestReceivedEngineTime: what came late does not move it.
    time: u32,
    at: Instant,
}

impl EngineTime {
    /// RFC 3414 section 3.2 step 7b: takes up what an authentic message of `at` says, and whether that was in the window. If it was
    /// not, what is known instead.
    pub(super) fn check(known: &mut Option<Self>, boots: u32, time: u32, at: Instant) -> Result<(), (u32, u32)> {
        let said = Self { boots, time, at };
        let known = known.get_or_insert(said);
        if boots > known.boots || (boots == known.boots && time > known.time) {
            *known = said;
        }
        let now = known.time_at(at);
        let is_old = boots < known.boots || time < now.saturating_sub(TIME_WINDOW);
        // An engine that cannot count any further proves nothing any more.
        if is_old || known.boots == MAX_ENGINE_TIME { Err((known.boots, now)) } else { Ok(()) }
    }

    fn time_at(&self, at: Instant) -> u32 {
        let passed = at.saturating_duration_since(self.at).as_secs();
        u32::try_from(passed).unwrap_or(u32::MAX).saturating_add(self.time).min(MAX_ENGINE_TIME)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use async_snmp::v3::AuthProtocol;

    use super::*;

    #[test]
    fn a_message_is_in_time_when_its_engine_has_not_been_heard_150_seconds_later() {
        let begun = Instant::now();
        let mut known = None;
        let mut check = |boots, time, seconds| EngineTime::check(&mut known, boots, time, begun + Duration::from_secs(seconds));
        assert_eq!(check(3, 1000, 0), Ok(()), "the first one is believed");
        assert_eq!(check(3, 850, 0), Ok(()));
        assert_eq!(check(3, 849, 0), Err((3, 1000)));
        // Its time goes on while nothing comes.
        assert_eq!(check(3, 1000, 150), Ok(()));
        assert_eq!(check(3, 1000, 151), Err((3, 1151)));
        // It is ahead: that is believed, and is how late it is from then on.
        assert_eq!(check(3, 9000, 151), Ok(()));
        assert_eq!(check(3, 1151, 151), Err((3, 9000)));
        // It starts anew, and what it said before is old.
        assert_eq!(check(4, 5, 160), Ok(()));
        assert_eq!(check(3, 9010, 160), Err((4, 5)));
        // It has forgotten how often it started.
        assert_eq!(check(1, 0, 170), Err((4, 15)));
        assert_eq!(check(MAX_ENGINE_TIME, 0, 170), Err((MAX_ENGINE_TIME, 0)), "it cannot count any further");
    }

    #[test]
    fn who_was_told_is_remembered_and_their_number_is_bounded() {
        let mut told = Told::new(100);
        let source = |number: u32| IpAddr::from(number.to_be_bytes());
        assert!(told.is_first(b"noc", source(1)) && !told.is_first(b"noc", source(1)));
        assert!(told.is_first(b"noc", source(2)) && told.is_first(b"other", source(1)));
        for number in 0..1000 {
            told.is_first(b"many", source(number));
            assert!(!told.is_first(b"noc", source(1)), "who comes often stays");
            assert!(told.young.len() + told.old.len() <= 100);
        }
        assert!(!told.is_first(b"many", source(990)) && told.is_first(b"many", source(3)));
    }

    #[test]
    fn who_was_heard_last_is_remembered_and_their_number_is_bounded() {
        let master = Arc::new(MasterKeys::new(AuthProtocol::Sha1, b"password").expect("are made"));
        let keys = Arc::new(Keys::localized(&master, b"engine"));
        let key = |number: usize| PeerKey::new(&number.to_be_bytes(), b"noc");
        let mut peers = Peers::new(100);
        *peers.heard(key(7), &master, &keys) = Some(EngineTime { boots: 1, time: 2, at: Instant::now() });
        for number in 0..1000 {
            peers.heard(key(number), &master, &keys);
            peers.heard(key(7), &master, &keys);
            assert!(peers.len() <= 100);
        }
        let is_known = |peers: &Peers, number| Arc::ptr_eq(&peers.keys(&key(number), &master, b"engine"), &keys);
        assert!((951..1000).chain([7]).all(|number| is_known(&peers, number)));
        assert!(!is_known(&peers, 800));
        // Other keys of the same user: those are taken, and the time stays.
        let other = Arc::new(MasterKeys::new(AuthProtocol::Sha1, b"wordpass").expect("are made"));
        assert!(!Arc::ptr_eq(&peers.keys(&key(7), &other, b"engine"), &keys));
        let made = peers.keys(&key(7), &other, b"engine");
        assert!(peers.heard(key(7), &other, &made).is_some());
        assert!(Arc::ptr_eq(&peers.keys(&key(7), &other, b"engine"), &made));
        assert_ne!(PeerKey::new(b"12345", b"6"), PeerKey::new(b"1234", b"56"));
    }
}
