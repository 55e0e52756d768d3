//! Whether an inform has come before: the id that its event has.
//!
//! A sender that hears no answer sends the same bytes again, from the same address and port, for seconds or a few minutes. Later
//! the same bytes are news: a device that reboots begins to count its requests anew and has the same up time. So the id is of
//! what came, whence, and in which ten minutes it came first:
//!
//! ```text
//! 12:09:50  linkDown   first seen: id of 12:00
//! 12:10:20  linkDown   sent again: seen within ten minutes, same id, a duplicate
//! 12:31:00  linkDown   the device rebooted: id of 12:30, an event
//! ```
//!
//! What was seen first when is known to this process only. After a restart what is sent again within the same ten minutes of the
//! clock is still a duplicate, by its id; what crosses their border is a second event. The engine remembers ids for a day, so that
//! a clock which is set back does no harm but that a reboot may be missed.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use klaxon_schemas::names::EventId;
use sha2::{Digest as _, Sha256};

use klaxon_snmp::Inform;

/// How long after the first one the same bytes are the same inform.
const AGAIN_MAX: Duration = Duration::from_secs(600);
/// The most informs that are remembered; the oldest gives way, and is then known by the clock alone.
const INFORMS_MAX: usize = 65_536;

/// What tells an inform from others.
type Fingerprint = [u8; 16];

/// The informs of the last minutes.
#[derive(Debug)]
pub(super) struct Informs {
    /// One moment by either clock, so that every other one of the first is one of the second.
    begun: (Instant, SystemTime),
    /// When each came first.
    first: HashMap<Fingerprint, Instant>,
    /// The same, the oldest first.
    by_age: VecDeque<(Instant, Fingerprint)>,
}

impl Default for Informs {
    fn default() -> Self {
        Self::new(Instant::now(), SystemTime::now())
    }
}

impl Informs {
    fn new(now: Instant, clock: SystemTime) -> Self {
        Self { begun: (now, clock), first: HashMap::new(), by_age: VecDeque::new() }
    }

    /// The id of an inform that came from `source` at `at`. A community is no part of it: it is a secret.
    pub(super) fn id(&mut self, source: SocketAddr, inform: &Inform, at: Instant) -> EventId {
        let source = SocketAddr::new(source.ip().to_canonical(), source.port()).to_string();
        let digest = Sha256::new().chain_update(source).chain_update([0]).chain_update(&inform.pdu).finalize();
        let mut fingerprint = Fingerprint::default();
        fingerprint.copy_from_slice(&digest[..16]);
        self.forget(at);
        let first = *self.first.entry(fingerprint).or_insert_with(|| {
            self.by_age.push_back((at, fingerprint));
            at
        });
        let (begun, clock) = self.begun;
        let since_begun = first.saturating_duration_since(begun);
        let time = (clock + since_begun).duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut id = String::from("inform-");
        for byte in fingerprint {
            let _ = write!(id, "{byte:02x}");
        }
        let _ = write!(id, "-{}", time.as_secs() / AGAIN_MAX.as_secs());
        EventId::new(&id).expect("is letters, digits and hyphens")
    }

    fn forget(&mut self, now: Instant) {
        while let Some((at, fingerprint)) = self.by_age.front()
            && (now.saturating_duration_since(*at) >= AGAIN_MAX || self.by_age.len() >= INFORMS_MAX)
        {
            self.first.remove(fingerprint);
            self.by_age.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The last second of ten minutes.
    const BORDER: Duration = Duration::from_secs(1_700_000_400 - 1);

    fn inform(bytes: &'static [u8]) -> Inform {
        Inform { pdu: bytes.into(), answer: klaxon_snmp::Answer::made(Vec::new()) }
    }

    fn source() -> SocketAddr {
        "192.0.2.7:1000".parse().expect("an address")
    }

    #[test]
    fn the_same_bytes_are_the_same_inform_for_ten_minutes_and_then_another() {
        let begun = Instant::now();
        let after = |seconds| begun + Duration::from_secs(seconds);
        let mut informs = Informs::new(begun, SystemTime::UNIX_EPOCH + BORDER);
        let first = informs.id(source(), &inform(b"down"), after(0));
        assert_eq!(first, informs.id(source(), &inform(b"down"), after(1)), "in the next ten minutes of the clock");
        assert_eq!(first, informs.id(source(), &inform(b"down"), after(599)));
        let second = informs.id(source(), &inform(b"down"), after(600));
        assert_ne!(first, second, "it rebooted");
        assert_eq!(second, informs.id(source(), &inform(b"down"), after(1199)));
        assert_ne!(second, informs.id(source(), &inform(b"down"), after(1200)));
        assert_eq!((informs.first.len(), informs.by_age.len()), (1, 1), "what is old is forgotten");
    }

    #[test]
    fn another_process_knows_it_within_the_same_ten_minutes_and_by_either_family() {
        let begun = Instant::now();
        let clock = SystemTime::UNIX_EPOCH + BORDER + Duration::from_secs(1);
        let mapped = "[::ffff:192.0.2.7]:1000".parse().expect("an address");
        let one = Informs::new(begun, clock).id(source(), &inform(b"down"), begun);
        let other = Informs::new(begun, clock + Duration::from_secs(599)).id(mapped, &inform(b"down"), begun);
        assert_eq!(one, other);
    }

    #[test]
    fn the_oldest_gives_way() {
        let begun = Instant::now();
        let mut informs = Informs::new(begun, SystemTime::UNIX_EPOCH + BORDER);
        for port in 0..70_000_u32 {
            let source = SocketAddr::from(([192, 0, 2, u8::try_from(port >> 16).expect("is small")], (port & 0xffff) as u16));
            informs.id(source, &inform(b"down"), begun);
        }
        assert_eq!((informs.first.len(), informs.by_age.len()), (INFORMS_MAX, INFORMS_MAX));
    }
}
