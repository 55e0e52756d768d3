//! The door's side of the journal: publishing returns when what was published is durable.
//!
//! Doors (HTTP, traps, collectors) hold a [`Publisher`], the loop that journals holds the one [`Intake`]. Between them is a
//! queue bounded by entries: whoever finds no room within a set time is told so, and nothing of the submission is taken.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use klaxon_schemas::action::Action;
use klaxon_schemas::change::Change;
use klaxon_schemas::child::{ChildFact, NotTaken, Relay};
use klaxon_schemas::event::Event;
use klaxon_schemas::ids::{AlarmId, Position};
use klaxon_schemas::names::{Door, Follower};
use klaxon_schemas::notify::{Outbox, Told};
use klaxon_schemas::state::{Followed, StateKey, StateRecord};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::Durable;

/// The most entries that wait to be journalled.
pub const QUEUE_ENTRIES_MAX: usize = 16_384;
/// The most entries in one submission.
pub const SUBMISSION_ENTRIES_MAX: usize = 4_096;
/// The most records in one [`Keep`].
pub const KEEP_RECORDS_MAX: usize = 1_024;
/// How long a submission waits for room before it is refused.
const ROOM_WAIT: Duration = Duration::from_secs(2);

/// What a door brings in.
#[derive(Debug, Clone)]
pub enum Item {
    /// A report.
    Event(Arc<Event>),
    /// An operator action.
    Action(Arc<Action>),
    /// What a site below this one sent of its alarms.
    Relay(Arc<Relay>),
    /// What became of a node below this one.
    Child(Arc<ChildFact>),
    /// What a follower of the changes wants kept. Never an entry.
    Keep(Arc<Keep>),
}

/// What a follower of the changes wants kept: all of it together, or nothing. At most [`KEEP_RECORDS_MAX`] records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keep {
    /// Who.
    pub follower: Follower,
    /// How far it has come; nothing if it is there no more.
    pub followed: Option<Followed>,
    /// What it was told of alarms; nothing where the end was told as well.
    pub told: Vec<(AlarmId, Option<Arc<Told>>)>,
    /// What its numbers stand for, by the first of them; nothing where that is needed no more.
    pub outbox: Vec<(u64, Option<Arc<Outbox>>)>,
}

impl Keep {
    /// Only how far it has come.
    pub fn cursor(follower: Follower, followed: Option<Followed>) -> Self {
        Self { follower, followed, told: Vec::new(), outbox: Vec::new() }
    }

    /// How many records it puts or deletes.
    pub fn records(&self) -> usize {
        1 + self.told.len() + self.outbox.len()
    }

    /// The records, as the state takes them.
    pub fn puts(&self) -> impl Iterator<Item = (StateKey, Option<StateRecord>)> {
        let follower = || self.follower.clone();
        let told = self
            .told
            .iter()
            .map(move |(alarm, told)| (StateKey::Told(follower(), *alarm), told.clone().map(StateRecord::Told)));
        let outbox = self
            .outbox
            .iter()
            .map(move |(first, outbox)| (StateKey::Outbox(follower(), *first), outbox.clone().map(StateRecord::Outbox)));
        let followed = (StateKey::Follower(follower()), self.followed.clone().map(StateRecord::Followed));
        told.chain(outbox).chain(std::iter::once(followed))
    }
}

impl Item {
    /// How many records of the journal it is at least.
    pub fn records(&self) -> usize {
        match self {
            Self::Event(_) | Self::Action(_) | Self::Relay(_) | Self::Child(_) => 1,
            Self::Keep(keep) => keep.records(),
        }
    }
}

/// What became of one item.
#[derive(Debug, Clone)]
pub enum Answer {
    /// It is journalled at this position, and these changes followed.
    Accepted {
        /// The entry's place.
        position: Position,
        /// What followed.
        changes: Vec<Arc<Change>>,
    },
    /// It had come before; the first one is durable.
    Duplicate,
    /// It was not taken.
    Rejected(Rejection),
}

/// Why an item is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Its number is below the window in which duplicates are recognised.
    #[error("too old: its number is below the window in which duplicates are recognised")]
    TooOld,
    /// As many alarms are active as there may be.
    #[error("alarm limit reached: {limit} alarms are active")]
    AlarmLimit {
        /// How many there may be.
        limit: usize,
    },
    /// As many reporters have promised to be heard from as may.
    #[error("heartbeat limit reached: {limit} promises to be heard from are kept")]
    HeartbeatLimit {
        /// How many there may be.
        limit: usize,
    },
    /// As many followers' cursors are kept as there may be.
    #[error("follower limit reached: the cursors of {limit} followers are kept")]
    FollowerLimit {
        /// How many there may be.
        limit: usize,
    },
    /// More records than are kept together.
    #[error("too large: {records} records, at most {KEEP_RECORDS_MAX} are kept together")]
    KeepTooLarge {
        /// How many it has.
        records: usize,
    },
    /// It is an operator's action, and this node's alarms are those of its site.
    #[error("operators act at the site: this node is an agent, and the node above it owns its alarms")]
    AtTheSite,
    /// It does not fit what is known of the node below that it is from, or about. It may be journalled, and had no effect.
    #[error(transparent)]
    NotTaken(#[from] NotTaken),
    /// It is too large for the journal.
    #[error("too large: {bytes} bytes in the journal, at most {bytes_max} are allowed")]
    TooLarge {
        /// How large it is.
        bytes: usize,
        /// How large it may be.
        bytes_max: usize,
    },
}

/// A submission that is durable.
#[derive(Debug)]
pub struct Published {
    /// What became of each item, in their order.
    pub answers: Vec<Answer>,
    /// The proof, and up to where the journal is durable.
    pub durable: Durable,
}

/// Why nothing of a submission was taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The queue stayed full.
    #[error("too many events wait to be journalled")]
    Busy,
    /// More items than [`SUBMISSION_ENTRIES_MAX`].
    #[error("has {items} items, at most {SUBMISSION_ENTRIES_MAX} are taken at once")]
    TooMany {
        /// How many it has.
        items: usize,
    },
    /// The disk has no room.
    #[error("the disk that holds the journal has no room: {free_bytes} bytes are free, {needed_bytes} are kept free")]
    DiskFull {
        /// How much is free.
        free_bytes: u64,
        /// How much must be.
        needed_bytes: u64,
    },
    /// As much of the journal as may be is kept for the node above, which has yet to have it.
    #[error(
        "the journal is full of what the node above has yet to take: it has {journal_bytes} bytes, {history_max_bytes} are allowed"
    )]
    Unread {
        /// How large it is.
        journal_bytes: u64,
        /// How large it may grow.
        history_max_bytes: u64,
    },
    /// The journal is kept elsewhere, and cannot be reached.
    #[error("the journal cannot be reached: {reason}")]
    Away {
        /// Why.
        reason: String,
    },
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopping,
}

/// One submission on its way.
pub struct Submission {
    /// By which way it came.
    pub door: Door,
    /// What came; never empty.
    pub items: Vec<Item>,
    lane: Lane,
    reply: oneshot::Sender<Result<Published, PublishError>>,
    _room: OwnedSemaphorePermit,
}

impl Submission {
    /// Tells the door what became of it. A door that has gone is no error.
    pub fn answer(self, outcome: Result<Published, PublishError>) {
        if outcome.is_err() {
            self.lane.0.store(true, Ordering::Release);
        }
        let _ = self.reply.send(outcome);
    }
}

/// Submissions that must not overtake each other: when one of them is refused, those behind it are refused as well. Then the
/// sender begins a new lane and brings them all in again, in their order.
#[derive(Debug, Clone, Default)]
pub struct Lane(Arc<AtomicBool>);

/// A submission that has its place in the queue.
#[derive(Debug)]
pub struct Pending(oneshot::Receiver<Result<Published, PublishError>>);

impl Pending {
    /// What became of it. Cancelling this loses nothing; it is not asked again once it has answered.
    pub async fn outcome(&mut self) -> Result<Published, PublishError> {
        (&mut self.0).await.unwrap_or(Err(PublishError::Stopping))
    }
}

/// What stands in the queue.
enum Queued {
    Submission(Submission),
    /// Nothing came in, but there is something to do.
    Wake,
}

/// The doors' end of the queue.
#[derive(Clone)]
pub struct Publisher {
    room: Arc<Semaphore>,
    queue: mpsc::Sender<Queued>,
}

/// The journalling loop's end of the queue.
pub struct Intake {
    queue: mpsc::Receiver<Queued>,
    room: Arc<Semaphore>,
}

/// What [`Intake::next`] brings.
pub enum Next {
    /// A submission.
    Submission(Submission),
    /// The time is over and nothing came.
    Nothing,
    /// No door is left, or the intake was closed and everything taken has been handed out.
    Ended,
}

/// A queue.
pub fn queue() -> (Publisher, Intake) {
    let room = Arc::new(Semaphore::new(QUEUE_ENTRIES_MAX));
    let (sender, receiver) = mpsc::channel();
    (Publisher { room: Arc::clone(&room), queue: sender }, Intake { queue: receiver, room })
}

impl Publisher {
    /// Publishes `items` and waits until they are durable. If the caller is cancelled, they may or may not be taken.
    pub async fn publish(&self, door: Door, items: Vec<Item>) -> Result<Published, PublishError> {
        self.submit(door, items, &Lane::default()).await?.outcome().await
    }

    /// Gives `items` their place in the queue, behind what is in it, and does not wait until they are durable.
    pub async fn submit(&self, door: Door, items: Vec<Item>, lane: &Lane) -> Result<Pending, PublishError> {
        if items.len() > SUBMISSION_ENTRIES_MAX {
            return Err(PublishError::TooMany { items: items.len() });
        }
        let entries = u32::try_from(items.len().max(1)).expect("bounded above");
        let room = match tokio::time::timeout(ROOM_WAIT, Arc::clone(&self.room).acquire_many_owned(entries)).await {
            Ok(Ok(room)) => room,
            Ok(Err(_closed)) => return Err(PublishError::Stopping),
            Err(_elapsed) => return Err(PublishError::Busy),
        };
        let (reply, answer) = oneshot::channel();
        let submission = Submission { door, items, lane: lane.clone(), reply, _room: room };
        self.queue.send(Queued::Submission(submission)).map_err(|_| PublishError::Stopping)?;
        Ok(Pending(answer))
    }

    /// Has [`Intake::next`] look up from its waiting.
    pub fn wake(&self) {
        // Nobody waits any more: then there is nothing to do.
        let _ = self.queue.send(Queued::Wake);
    }

    /// How many entries wait.
    pub fn waiting(&self) -> usize {
        QUEUE_ENTRIES_MAX.saturating_sub(self.room.available_permits())
    }

    /// Takes nothing more; what was taken is still answered.
    pub fn close(&self) {
        self.room.close();
    }
}

impl Intake {
    /// The next submission, waiting at most `wait` (for ever if absent).
    pub fn next(&self, wait: Option<Duration>) -> Next {
        let outcome = match wait {
            Some(wait) => self.queue.recv_timeout(wait),
            None => self.queue.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected),
        };
        match outcome {
            Ok(Queued::Wake) => Next::Nothing,
            Ok(Queued::Submission(submission)) => match in_order(submission) {
                Some(submission) => Next::Submission(submission),
                None => Next::Nothing,
            },
            Err(mpsc::RecvTimeoutError::Timeout) if self.room.is_closed() => Next::Ended,
            Err(mpsc::RecvTimeoutError::Timeout) => Next::Nothing,
            Err(mpsc::RecvTimeoutError::Disconnected) => Next::Ended,
        }
    }

    /// A submission that already waits.
    pub fn waiting(&self) -> Option<Submission> {
        loop {
            if let Queued::Submission(submission) = self.queue.try_recv().ok()?
                && let Some(submission) = in_order(submission)
            {
                return Some(submission);
            }
        }
    }
}

/// The submission, unless one before it in its lane was refused: then it is refused as well.
fn in_order(submission: Submission) -> Option<Submission> {
    if !submission.lane.0.load(Ordering::Acquire) {
        return Some(submission);
    }
    submission.answer(Err(PublishError::Busy));
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_behind_a_refused_submission_of_its_lane_is_refused_and_nothing_else() {
        let (publisher, intake) = queue();
        let door: Door = "test".parse().expect("is a word");
        let (lane, other) = (Lane::default(), Lane::default());
        let mut first = publisher.submit(door.clone(), Vec::new(), &lane).await.expect("there is room");
        let mut behind = publisher.submit(door.clone(), Vec::new(), &lane).await.expect("there is room");
        let _elsewhere = publisher.submit(door, Vec::new(), &other).await.expect("there is room");
        let full = PublishError::DiskFull { free_bytes: 1, needed_bytes: 2 };
        intake.waiting().expect("waits").answer(Err(full.clone()));
        assert!(intake.waiting().is_some_and(|submission| !submission.lane.0.load(Ordering::Acquire)));
        assert!(intake.waiting().is_none());
        assert_eq!(first.outcome().await.err(), Some(full));
        assert_eq!(behind.outcome().await.err(), Some(PublishError::Busy));
    }
}
