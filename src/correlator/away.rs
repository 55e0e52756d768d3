//! Whether the brokers were away, so that nobody could be heard: leases run anew from when they are there again.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use klaxon_schemas::time::JournalTime;
use klaxon_store::kafka::Probe;
use tokio_util::sync::CancellationToken;

use super::journal_now;

/// How often it is asked while they are there, and while they are not.
const LOOK: Duration = Duration::from_secs(1);
const LOOK_AWAY: Duration = Duration::from_millis(100);
/// How long an answer is waited for.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// What is shorter harms no lease.
const AWAY_LEAST: Duration = Duration::from_secs(6);
/// They may have been there so long before it was seen.
const SEEN_LATE: Duration = Duration::from_millis(3_500);

/// What is known of it.
pub(super) struct Away {
    state: Mutex<State>,
    changed: Condvar,
    stop: CancellationToken,
}

struct State {
    /// When a broker answered last.
    answered: Instant,
    partitions: BTreeMap<u16, Partition>,
    begun: Instant,
}

struct Partition {
    /// When it took something last.
    taken: Instant,
    /// When it took something again after it did not, at the earliest.
    back: Option<JournalTime>,
}

impl Away {
    /// Asks them from now on, on a thread of its own.
    pub(super) fn watch(probe: Probe, stop: CancellationToken) -> Arc<Self> {
        let begun = Instant::now();
        let state = State { answered: begun, partitions: BTreeMap::new(), begun };
        let away = Arc::new(Self { state: Mutex::new(state), changed: Condvar::new(), stop });
        let watched = Arc::clone(&away);
        std::thread::Builder::new()
            .name("away".to_owned())
            .spawn(move || watched.look(&probe))
            .expect("a thread can be had at the start");
        away
    }

    fn look(&self, probe: &Probe) {
        while !self.stop.is_cancelled() {
            let taken = probe.takes(ANSWER_WAIT);
            let is_there = taken.is_some();
            if let Some(taken) = taken {
                self.note(&taken);
            }
            std::thread::sleep(if is_there { LOOK } else { LOOK_AWAY });
        }
        self.changed.notify_all();
    }

    fn note(&self, taken: &[u16]) {
        let (mut state, now, back) = (self.lock(), Instant::now(), earlier(journal_now(), SEEN_LATE));
        let (mut longest, begun) = (Duration::ZERO, state.begun);
        for number in taken {
            let partition = state.partitions.entry(*number).or_insert(Partition { taken: begun, back: None });
            let gone = now - std::mem::replace(&mut partition.taken, now);
            if gone >= AWAY_LEAST {
                partition.back = Some(back);
                longest = longest.max(gone);
            }
        }
        if !longest.is_zero() {
            tracing::warn!(seconds = longest.as_secs(), "the brokers took nothing for a while; leases run anew");
        }
        state.answered = now;
        drop(state);
        self.changed.notify_all();
    }

    /// Waits until a broker has answered of late.
    pub(super) fn settle(&self) {
        let mut state = self.lock();
        while state.answered.elapsed() >= AWAY_LEAST && !self.stop.is_cancelled() {
            let waited = self.changed.wait_timeout(state, LOOK);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Whether leases of a partition that run from `started_at` are to run anew before what came in at `at`.
    pub(super) fn leases_anew(&self, partition: u16, started_at: JournalTime, at: JournalTime) -> bool {
        let back = self.lock().partitions.get(&partition).and_then(|one| one.back);
        back.is_some_and(|back| started_at < back && at >= back)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn earlier(at: JournalTime, by: Duration) -> JournalTime {
    JournalTime(at.0.saturating_sub(u64::try_from(by.as_micros()).unwrap_or(u64::MAX)))
}
