//! The live table: what is true of the nodes below as long as their connections live, and is not journalled.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use klaxon_schemas::child::Reached;
use klaxon_schemas::names::ChildName;
use klaxon_schemas::time::Timestamp;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How many orders to a session wait at most.
pub(super) const ORDERS_MAX: usize = 16;
/// The most nodes that are remembered to have asked in and wait for approval.
const ASKED_MAX: usize = 4096;
/// After this time it is forgotten that somebody wanted to come in whom others heard.
const WAITS_MAX: Duration = Duration::from_secs(600);
/// What stands for a clock offset that is not known.
const UNKNOWN: i64 = i64::MIN;

/// How long a session must not have listened before that counts: what it does between two messages takes less.
const DEAF_LEAST: Duration = Duration::from_secs(1);

/// What a session is told by others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Order {
    /// See whether there are actions to be sent down, or something to be said of how far it has come.
    Look,
    /// Have the other side answer.
    Ping,
    /// Replace the credential.
    Rotate,
}

/// How a connection goes; written by its session, read by all.
#[derive(Debug)]
pub(super) struct Pulse {
    began: Instant,
    heard_us: AtomicU64,
    /// The same by the wall clock, in microseconds.
    heard_wall_us: AtomicI64,
    /// When it was asked that which it answered last; 0 if it has answered nothing.
    answered_us: AtomicU64,
    /// Since when its session does not listen: it has not begun, has no room, or something else to do; 0 if it listens.
    deaf_us: AtomicU64,
    offset_us: AtomicI64,
    round_trip_us: AtomicU64,
    /// [`mark`] of how far it has come, as it was told.
    pub(super) told: AtomicU64,
    /// How old the newest change was when it was durable here.
    pub(super) lag_us: AtomicU64,
    pub(super) bytes_in: AtomicU64,
    pub(super) bytes_out: AtomicU64,
    /// Changes and events.
    pub(super) items: AtomicU64,
}

impl Pulse {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            heard_us: AtomicU64::new(0),
            heard_wall_us: AtomicI64::new(super::now().as_micros()),
            answered_us: AtomicU64::new(0),
            deaf_us: AtomicU64::new(1),
            offset_us: AtomicI64::new(UNKNOWN),
            round_trip_us: AtomicU64::new(0),
            told: AtomicU64::new(0),
            lag_us: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            items: AtomicU64::new(0),
        }
    }

    /// The other side was heard.
    pub(super) fn heard(&self) {
        let us = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.heard_us.store(us, Ordering::Relaxed);
        self.heard_wall_us.store(super::now().as_micros(), Ordering::Relaxed);
    }

    /// The session listens from here on, or does not. What the other side said while nobody listened is yet to be heard: for so
    /// long it was not silent.
    pub(super) fn listens(&self, is_listening: bool, at: Instant) {
        let us = u64::try_from(at.saturating_duration_since(self.began).as_micros()).unwrap_or(u64::MAX).max(1);
        let deaf_us = self.deaf_us.load(Ordering::Relaxed);
        if !is_listening {
            self.deaf_us.store(if deaf_us == 0 { us } else { deaf_us }, Ordering::Relaxed);
            return;
        }
        if deaf_us > 0 && Duration::from_micros(us.saturating_sub(deaf_us)) >= DEAF_LEAST {
            self.heard();
        }
        self.deaf_us.store(0, Ordering::Relaxed);
    }

    /// Whether the session listens.
    pub(super) fn is_listening(&self) -> bool {
        self.deaf_us.load(Ordering::Relaxed) == 0
    }

    /// The other side answered what it was asked at `asked`: what was on its way before it died answers nothing.
    pub(super) fn answered(&self, asked: Instant) {
        let us = u64::try_from(asked.saturating_duration_since(self.began).as_micros()).unwrap_or(u64::MAX);
        self.answered_us.store(us.max(1), Ordering::Relaxed);
    }

    /// Whether the other side has answered what it was asked since `since`.
    pub(super) fn has_answered(&self, since: Instant) -> bool {
        let us = self.answered_us.load(Ordering::Relaxed);
        // What is kept is cut to microseconds.
        us > 0 && self.began + Duration::from_micros(us + 1) > since
    }

    /// When the other side was heard last.
    pub(super) fn heard_at(&self) -> Instant {
        self.began + Duration::from_micros(self.heard_us.load(Ordering::Relaxed))
    }

    fn last_heard(&self) -> Heard {
        let wall = Timestamp::from_micros(self.heard_wall_us.load(Ordering::Relaxed)).unwrap_or_default();
        Heard { at: self.heard_at(), wall }
    }

    /// The other side's clock is this far ahead, as its message says, which took as long as half a round trip.
    pub(super) fn clock(&self, theirs_us: i64, ours_us: i64) {
        let on_its_way = i64::try_from(self.round_trip_us.load(Ordering::Relaxed) / 2).unwrap_or(0);
        self.offset_us.store(theirs_us.saturating_add(on_its_way).saturating_sub(ours_us), Ordering::Relaxed);
    }

    pub(super) fn round_trip(&self, took: Duration) {
        self.round_trip_us.store(u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1), Ordering::Relaxed);
    }

    /// How far its clock is ahead of ours, in microseconds.
    pub(super) fn offset_us(&self) -> Option<i64> {
        Some(self.offset_us.load(Ordering::Relaxed)).filter(|offset| *offset != UNKNOWN)
    }

    /// How long a message and its answer take, in microseconds.
    pub(super) fn round_trip_us(&self) -> Option<u64> {
        Some(self.round_trip_us.load(Ordering::Relaxed)).filter(|us| *us > 0)
    }
}

/// Tells apart how far a child has come, well enough to see that it must be told.
pub(super) fn mark(reached: &Reached) -> u64 {
    let spans = reached.missing.len() as u64;
    reached.epoch.0.rotate_left(40) ^ reached.position.0.rotate_left(20) ^ reached.needed_after().0 ^ spans.rotate_left(56) | 1
}

/// A connected child.
#[derive(Debug, Clone)]
pub(super) struct Live {
    number: u64,
    /// Its store's id.
    pub(super) node: Uuid,
    /// From where it is connected.
    pub(super) address: Arc<str>,
    /// With what it proved itself, in a word.
    pub(super) proof: &'static str,
    /// Since when.
    pub(super) since: Timestamp,
    /// How it goes.
    pub(super) pulse: Arc<Pulse>,
    orders: mpsc::Sender<Order>,
    cut: CancellationToken,
}

impl Live {
    /// Tells the session; nothing comes of it if too much waits there already, and then it is told again.
    pub(super) fn order(&self, order: Order) {
        let _ = self.orders.try_send(order);
    }

    /// Ends the connection.
    pub(super) fn cut(&self) {
        self.cut.cancel();
    }
}

/// Somebody who asked in and waits to be approved.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    /// Its store's id.
    pub(super) node: Uuid,
    /// From where.
    pub(super) address: Arc<str>,
    /// The version of its program.
    pub(super) version: String,
    /// When, last.
    pub(super) at: Timestamp,
}

/// When somebody was heard.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heard {
    pub(super) at: Instant,
    pub(super) wall: Timestamp,
}

#[derive(Default)]
struct Content {
    live: BTreeMap<ChildName, Live>,
    /// When a child was last heard that is not connected.
    gone: BTreeMap<ChildName, Heard>,
    asked: BTreeMap<ChildName, Asked>,
    doubled: BTreeMap<ChildName, Instant>,
    /// Who wants to come in here and was heard by others: when last, and since when it waits.
    waits: BTreeMap<ChildName, (Timestamp, Instant)>,
    /// What nodes were given that joined, until they use it: the answer may not have come to them.
    given: BTreeMap<ChildName, super::NewToken>,
    last_number: u64,
}

/// The table.
#[derive(Default)]
pub(super) struct Table(Mutex<Content>);

/// What a session knows itself by in the table.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) name: ChildName,
    number: u64,
    pub(super) since: Timestamp,
    pub(super) pulse: Arc<Pulse>,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) cut: CancellationToken,
}

/// Who wants to be in the table.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) name: ChildName,
    pub(super) node: Uuid,
    pub(super) address: Arc<str>,
    pub(super) proof: &'static str,
}

/// Why there is no seat.
pub(super) enum NoSeat {
    /// Somebody with its name has it.
    Taken(Live),
    /// All are taken.
    Full,
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, Content> {
        self.0.lock().expect("nobody panics while holding it")
    }

    /// A seat, if nobody has it and there are fewer than `seats_max`.
    pub(super) fn sit(&self, candidate: &Candidate, seats_max: usize) -> Result<Seat, NoSeat> {
        let mut content = self.lock();
        if let Some(first) = content.live.get(&candidate.name) {
            return Err(NoSeat::Taken(first.clone()));
        }
        if content.live.len() >= seats_max {
            return Err(NoSeat::Full);
        }
        content.last_number += 1;
        let number = content.last_number;
        let (sender, orders) = mpsc::channel(ORDERS_MAX);
        let (pulse, cut) = (Arc::new(Pulse::new()), CancellationToken::new());
        let since = super::now();
        let live = Live {
            number,
            node: candidate.node,
            address: Arc::clone(&candidate.address),
            proof: candidate.proof,
            since,
            pulse: Arc::clone(&pulse),
            orders: sender,
            cut: cut.clone(),
        };
        content.live.insert(candidate.name.clone(), live);
        content.gone.remove(&candidate.name);
        content.asked.remove(&candidate.name);
        content.waits.remove(&candidate.name);
        Ok(Seat { name: candidate.name.clone(), number, since, pulse, orders, cut })
    }

    /// The session is over.
    pub(super) fn leave(&self, seat: &Seat) {
        self.free(&seat.name, seat.number);
    }

    /// The connection `live` is dead: its seat is free.
    pub(super) fn unseat(&self, name: &ChildName, live: &Live) {
        live.cut();
        self.free(name, live.number);
    }

    fn free(&self, name: &ChildName, number: u64) {
        let mut content = self.lock();
        if content.live.get(name).is_some_and(|live| live.number == number)
            && let Some(live) = content.live.remove(name)
        {
            content.gone.insert(name.clone(), live.pulse.last_heard());
        }
    }

    /// The connection of `name`.
    pub(super) fn live(&self, name: &ChildName) -> Option<Live> {
        self.lock().live.get(name).cloned()
    }

    /// All connections.
    pub(super) fn all(&self) -> BTreeMap<ChildName, Live> {
        self.lock().live.clone()
    }

    /// How many are connected.
    pub(super) fn len(&self) -> usize {
        self.lock().live.len()
    }

    /// When `name` was last heard since the start.
    pub(super) fn heard(&self, name: &ChildName) -> Option<Heard> {
        let content = self.lock();
        let live = content.live.get(name).map(|live| live.pulse.last_heard());
        live.or_else(|| content.gone.get(name).copied())
    }

    /// It wants to come in: it is not silent, whether there is room for it or not.
    pub(super) fn knocked(&self, name: &ChildName) {
        self.lock().gone.insert(name.clone(), Heard { at: Instant::now(), wall: super::now() });
    }

    /// Keeps only what is about `names`.
    pub(super) fn keep(&self, is_kept: impl Fn(&ChildName) -> bool) {
        let mut content = self.lock();
        content.gone.retain(|name, _| is_kept(name));
        content.asked.retain(|name, _| is_kept(name));
        content.doubled.retain(|name, _| is_kept(name));
        content.waits.retain(|name, _| is_kept(name));
        content.given.retain(|name, _| is_kept(name));
    }

    /// It wants to come in, and others heard it at `heard`: when they had last when it wanted that first, and when that was.
    pub(super) fn waits(&self, name: &ChildName, heard: Timestamp) -> (Timestamp, Instant) {
        let mut content = self.lock();
        let waits = content.waits.entry(name.clone()).or_insert_with(|| (heard, Instant::now()));
        if waits.1.elapsed() >= WAITS_MAX {
            *waits = (heard, Instant::now());
        }
        *waits
    }

    /// Somebody asked in and must be approved first.
    pub(super) fn ask(&self, name: ChildName, asked: Asked) {
        let mut content = self.lock();
        if content.asked.len() < ASKED_MAX || content.asked.contains_key(&name) {
            content.asked.insert(name, asked);
        }
    }

    /// Who asked in as `name`.
    pub(super) fn asked(&self, name: &ChildName) -> Option<Asked> {
        self.lock().asked.get(name).cloned()
    }

    /// Another node claims to be `name`; whether that is news.
    pub(super) fn doubled(&self, name: &ChildName) -> bool {
        self.lock().doubled.insert(name.clone(), Instant::now()).is_none()
    }

    /// Whose second node was last heard before `quiet`.
    pub(super) fn single(&self, quiet: Duration) -> Vec<ChildName> {
        let content = self.lock();
        content.doubled.iter().filter(|(_, at)| at.elapsed() >= quiet).map(|(name, _)| name.clone()).collect()
    }

    /// It was told that `name` is single again.
    pub(super) fn told_single(&self, name: &ChildName) {
        self.lock().doubled.remove(name);
    }

    /// What `name` was given, and has not used.
    pub(super) fn given(&self, name: &ChildName) -> Option<super::NewToken> {
        self.lock().given.get(name).cloned()
    }

    /// This is given to it.
    pub(super) fn give(&self, name: ChildName, token: super::NewToken) {
        self.lock().given.insert(name, token);
    }

    /// It has its credential.
    pub(super) fn used(&self, name: &ChildName) {
        self.lock().given.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(name: &str) -> Candidate {
        let name = ChildName::new(name).expect("valid");
        Candidate { name, node: Uuid::from_u128(1), address: "127.0.0.1:1".into(), proof: "token" }
    }

    #[tokio::test]
    async fn a_name_has_one_seat_and_who_was_unseated_frees_no_other() {
        let table = Table::default();
        let first = table.sit(&candidate("a"), 2).ok().expect("is free");
        let Err(NoSeat::Taken(live)) = table.sit(&candidate("a"), 2) else { panic!("it is taken") };
        table.unseat(&first.name, &live);
        assert!(first.cut.is_cancelled());
        let second = table.sit(&candidate("a"), 2).ok().expect("is free again");
        table.leave(&first);
        assert_eq!(table.len(), 1);
        table.sit(&candidate("b"), 2).ok().expect("there is one more");
        assert!(matches!(table.sit(&candidate("c"), 2), Err(NoSeat::Full)));
        table.leave(&second);
        assert!(table.live(&second.name).is_none() && table.heard(&second.name).is_some());
    }

    #[tokio::test]
    async fn a_node_to_which_nobody_listened_was_not_silent() {
        let pulse = Pulse::new();
        let begun = pulse.began;
        assert!(!pulse.is_listening(), "it has not begun");
        pulse.listens(true, begun);
        tokio::time::sleep(Duration::from_millis(2)).await;
        for round in 1..10 {
            // What is done between two messages does not count.
            pulse.listens(false, begun + 20 * round * DEAF_LEAST);
            assert!(!pulse.is_listening());
            pulse.listens(true, begun + 20 * round * DEAF_LEAST + DEAF_LEAST / 2);
        }
        assert!(pulse.is_listening() && pulse.heard_at() == begun);
        for round in 1..10 {
            pulse.listens(false, begun + round * DEAF_LEAST / 2);
        }
        pulse.listens(true, begun + 5 * DEAF_LEAST);
        assert!(pulse.is_listening() && pulse.heard_at() > begun);
    }

    #[tokio::test]
    async fn only_an_answer_to_what_was_asked_since_shows_that_a_connection_lives() {
        let pulse = Pulse::new();
        tokio::time::sleep(Duration::from_millis(2)).await;
        let before = Instant::now();
        tokio::time::sleep(Duration::from_millis(2)).await;
        let since = Instant::now();
        pulse.heard();
        assert!(!pulse.has_answered(since), "what was on its way is heard, and answers nothing");
        pulse.answered(before);
        assert!(!pulse.has_answered(since), "it was asked before");
        pulse.answered(Instant::now());
        assert!(pulse.has_answered(since));
    }
}
