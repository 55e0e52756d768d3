//! What all that the uplink does shares: where to, by which door, and how things stand.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

use klaxon_api::http::{UplinkShown, UplinkState};
use klaxon_schemas::child::Reached;
use klaxon_schemas::ids::Position;
use klaxon_schemas::names::{Follower, Site};
use klaxon_schemas::state::Followed;
use klaxon_schemas::time::Timestamp;
use klaxon_schemas::wire::v1::uplink::Welcome;
use klaxon_store::door::{Door, Tally};
use klaxon_store::publish::{Item, Keep};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::budget::Budget;
use super::desk::{Desk, Target};
use super::kept::Token;
use super::link::LineCounts;
use super::{Address, FOLLOWER, Plan, now};
use crate::follow::Control;

/// How things stand.
#[derive(Debug, Default)]
pub(super) struct Board(Mutex<Standing>);

/// What is known of the connection.
#[derive(Debug, Default)]
pub(super) struct Standing {
    pub(super) connected: bool,
    pub(super) connected_since: Option<Timestamp>,
    pub(super) disconnected_since: Option<Timestamp>,
    pub(super) parent: Option<Site>,
    pub(super) parent_version: Option<String>,
    pub(super) last_error: Option<(String, Timestamp)>,
    pub(super) next_try_at: Option<Timestamp>,
    pub(super) connections: u64,
    /// How often the node above has said that more has come in.
    pub(super) advances: u64,
    pub(super) changes_sent: u64,
    pub(super) history_sent: u64,
    pub(super) clock_offset_ms: Option<i64>,
    pub(super) round_trip_ms: Option<i64>,
    pub(super) reached: Option<Reached>,
    /// The node above is not known to lack anything up to here.
    pub(super) settled: Option<Position>,
    /// What was last kept of how far it has come, and whether anything is.
    kept: Option<Position>,
}

impl Board {
    pub(super) fn lock(&self) -> MutexGuard<'_, Standing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What all that the uplink does needs.
pub(super) struct Part {
    pub(super) door: Door,
    pub(super) site: Site,
    pub(super) control: mpsc::Sender<Control>,
    pub(super) desk: Arc<Desk>,
    pub(super) board: Board,
    pub(super) line: Arc<LineCounts>,
    pub(super) stop: CancellationToken,
    /// What may be sent, over all connections.
    pub(super) budget: Mutex<Budget>,
    /// Whoever speaks with the node above has this: there a second connection of this node would be taken for another node.
    pub(super) turn: tokio::sync::Mutex<()>,
    /// What the connection that lives follows from.
    pub(super) current: Mutex<Option<(Plan, Address, Option<Token>)>>,
}

impl Part {
    pub(super) fn plan(&self) -> Plan {
        self.desk.plan()
    }

    pub(super) fn budget(&self) -> MutexGuard<'_, Budget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the node above is, looked up where it may take its time.
    pub(super) async fn target(&self) -> Result<Option<Target>, String> {
        let desk = Arc::clone(&self.desk);
        tokio::task::spawn_blocking(move || desk.target()).await.map_err(|error| error.to_string())?
    }

    /// The connection that begins follows from what is wanted now.
    pub(super) fn take_up(&self) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = self.desk.wanted();
    }

    /// The connection that lives is let in: a token that was to be taken is taken, or not.
    pub(super) fn let_in(&self) {
        if let Some((_, _, join_token)) = &mut *self.current.lock().unwrap_or_else(PoisonError::into_inner) {
            *join_token = None;
        }
    }

    /// Whether the connection that lives is not the one that is wanted any more.
    pub(super) fn is_replanned(&self) -> bool {
        self.desk.is_held() || *self.current.lock().unwrap_or_else(PoisonError::into_inner) != self.desk.wanted()
    }

    /// Returns when the connection that lives, or is being made, is not the one that is wanted any more; `wanted` wakes when it may be
    /// another.
    pub(super) async fn replanned(&self, mut wanted: watch::Receiver<u64>) {
        while !self.is_replanned() {
            if wanted.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Why the node above is not reached, or was not last, and when that was known.
    pub(super) fn last_error(&self) -> Option<(String, Option<Timestamp>)> {
        let (broken, last) = (self.desk.broken(), self.board.lock().last_error.clone());
        match (broken, last) {
            (Some(broken), last) => {
                let at = last.filter(|(reason, _)| *reason == broken).map(|(_, at)| at);
                Some((broken, at))
            }
            (None, last) => last.map(|(reason, at)| (reason, Some(at))),
        }
    }

    /// The node above is not the one that was: nothing is known of it.
    pub(super) fn forget_standing(&self) {
        let mut board = self.board.lock();
        (board.reached, board.settled, board.parent, board.parent_version) = (None, None, None, None);
        (board.clock_offset_ms, board.round_trip_ms) = (None, None);
    }

    /// Up to where the node above is known to have had all, as far as that is kept.
    pub(super) fn followed(&self) -> Option<Position> {
        self.door.store().read().state().followers().get(&follower()).map(|followed| followed.position)
    }

    pub(super) fn welcomed(&self, welcome: &Welcome) {
        let mut board = self.board.lock();
        board.connected = true;
        board.connections += 1;
        board.connected_since = Some(now());
        board.disconnected_since = None;
        board.next_try_at = None;
        board.parent = Some(welcome.parent.clone());
        board.parent_version = Some(welcome.version.clone());
        tracing::info!(parent = %welcome.parent, name = %welcome.child, "the node above is reached");
    }

    pub(super) fn reached(&self, reached: &Reached) {
        self.board.lock().reached = Some(reached.clone());
    }

    /// Keeps how far the node above has come, so that retention waits for it. If it cannot be kept now, it is the next time.
    pub(super) async fn keep_cursor(&self, is_last: bool) {
        let position = {
            let board = self.board.lock();
            let position = board.reached.as_ref().map(Reached::needed_after);
            position.filter(|position| board.kept != Some(*position))
        };
        let Some(position) = position else { return };
        let followed = Followed { position, delivery: None };
        let keep = Item::Keep(Arc::new(Keep::cursor(follower(), Some(followed))));
        match self.door.publish(vec![keep], Tally::default()).await {
            Ok(_) => self.board.lock().kept = Some(position),
            Err(error) if is_last => tracing::debug!(%error, "how far the node above has come is not kept"),
            Err(_) => {}
        }
    }

    /// No node is above: retention waits for nobody. Tells whether that is kept.
    pub(super) async fn forget_cursor(&self) -> bool {
        if self.followed().is_none() {
            return true;
        }
        let keep = Item::Keep(Arc::new(Keep::cursor(follower(), None)));
        let is_forgotten = self.door.publish(vec![keep], Tally::default()).await.is_ok();
        if is_forgotten {
            self.board.lock().kept = None;
        }
        is_forgotten
    }

    /// How things stand, for whoever asks.
    pub(super) fn shown(&self) -> UplinkShown {
        let (plan, kept, has_target) = (self.plan(), self.desk.kept(), self.desk.has_target());
        let (last_error, last_error_at) = self.last_error().unzip();
        let kept = kept.filter(|kept| !kept.is_off);
        let board = self.board.lock();
        let state = match (board.connected, has_target) {
            (true, _) => UplinkState::Connected,
            (false, true) => UplinkState::Disconnected,
            (false, false) => UplinkState::Off,
        };
        let last = *self.door.store().committed().borrow();
        let reached = board.reached.as_ref();
        let load = |count: &std::sync::atomic::AtomicU64| count.load(std::sync::atomic::Ordering::Relaxed);
        UplinkShown {
            state,
            kind: plan.kind,
            url: kept
                .as_ref()
                .map(|kept| &kept.url)
                .or(plan.configured.as_ref())
                .filter(|_| has_target)
                .map(ToString::to_string),
            name: kept.as_ref().and_then(|kept| kept.name.clone()),
            parent: board.parent.clone(),
            parent_version: board.parent_version.clone(),
            since: if board.connected { board.connected_since } else { board.disconnected_since },
            last_error,
            last_error_at: last_error_at.flatten(),
            next_try_at: board.next_try_at,
            position: last,
            reached: reached.map(|reached| reached.position),
            // What stands behind its place and is of no interest to it is no lag.
            lag_records: reached
                .map(|reached| if board.settled == Some(last) { 0 } else { last.0.saturating_sub(reached.position.0) }),
            history_missing_records: reached
                .map(|reached| reached.missing.iter().map(|span| span.upto.0.saturating_sub(span.after.0)).sum()),
            changes_sent: board.changes_sent,
            history_sent: board.history_sent,
            connections: board.connections,
            sent_bytes: load(&self.line.sent),
            received_bytes: load(&self.line.received),
            clock_offset_ms: board.clock_offset_ms,
            round_trip_ms: board.round_trip_ms,
        }
    }
}

/// Under which name it is kept how far the node above has come.
pub(super) fn follower() -> Follower {
    FOLLOWER.parse().expect("is a word")
}
