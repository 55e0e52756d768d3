//! One connection to the node above, from its first message to its end.
//!
//! ```text
//! Hello ─▶ Welcome ─▶ credential on the disk ─▶ lineage ─┬─ nothing new ───────────────────────────────┐
//!            │                                           ├─ Compare ─▶ Differ ─▶ Alignment … Aligned ─▶ ┴▶ live, and beside it history
//!            └ Refused, BeginEpoch                       └─ diverged: a new numbering begins, and again
//! an agent:                                lineage ─┬─ nothing that it has taken is missing there ─────┬▶ events as they come
//!                                                   └─ it is new, or knows less: up to here what stands ┘
//! ```
//!
//! What is live goes first; at most one message of history is on its way. How far the node above has come is said by `Reached`
//! and nothing else, so a connection may end anywhere.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use klaxon_schemas::action::Action;
use klaxon_schemas::child::{Below, ChildKind, Digests, MISSING_SPANS_MAX, Reached, Span};
use klaxon_schemas::ids::{ActionId, Epoch, Position};
use klaxon_schemas::state::StateKey;
use klaxon_schemas::wire::v1;
use klaxon_schemas::wire::v1::uplink::{Down, Hello, PROTOCOL, Refusal, Up, Welcome};
use klaxon_store::Store;
use klaxon_store::door::Tally;
use klaxon_store::publish::{Answer, Item, PublishError, SUBMISSION_ENTRIES_MAX};
use tokio::sync::watch;
use tokio::time::Instant;

use super::batch::{self, BatchError, Ready, Snapshot};
use super::desk::Target;
use super::kept::{KeptError, Token};
use super::lineage::{Lineage, Mine, fingerprint_at, judge};
use super::link::{Heard, Link, LinkError};
use super::now;
use super::part::Part;
use super::stood::Stood;

/// How long the node above may take to answer who this node is: it journals that first.
const WELCOME_WAIT: Duration = Duration::from_secs(60);
/// The most messages of what is live that are on their way, if each is full.
const LIVE_MESSAGES_MAX: usize = 4;
/// After how many heartbeats without a word the connection is dead.
const SILENT_HEARTBEATS: f64 = 2.5;
/// The least that what is sent is given to be taken.
const TAKE_WAIT_MIN: Duration = Duration::from_secs(60);
/// The bounds of a heartbeat.
const HEARTBEAT_S: std::ops::RangeInclusive<u32> = 1..=3600;
/// How long the journal is given after it refused an action.
const AGAIN_WAIT: Duration = Duration::from_secs(2);
/// The most actions that wait to be journalled; what is beyond waits on the line.
const ACTIONS_MAX: usize = SUBMISSION_ENTRIES_MAX;

/// Why a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// The node stops, or has another node above it, or other settings.
    Wanted,
    /// A new numbering began: at once again.
    Anew,
    /// The node above says no.
    Refused { code: Refusal, reason: String, retry_after: Duration },
    /// It broke.
    Failed(Failure),
}

/// What breaks a connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error("what the node above gave cannot be kept: {0}")]
    Kept(#[from] KeptError),
    #[error("a new numbering cannot begin: {0}")]
    Epoch(String),
    #[error("the node above speaks protocol {0}, and this one {PROTOCOL}")]
    Protocol(u32),
    #[error("the node above said nothing of what it has within {} s", WELCOME_WAIT.as_secs())]
    NoWelcome,
    #[error("a task broke")]
    Broken(#[from] tokio::task::JoinError),
}

impl<E: Into<Failure>> From<E> for End {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Actions on their way into the journal: which, and what came of them.
type Acting = Pin<Box<dyn Future<Output = (Vec<Arc<Action>>, Result<Position, PublishError>)> + Send>>;

/// How far it is.
enum Phase {
    /// The node above compares.
    Comparing(Snapshot, Position),
    /// As many stretches of history are missing above as may be: the oldest comes first, and then the two compare.
    Filling(Position),
    /// What differs is being sent; behind it, what is missing goes from there on.
    Aligning(Snapshot, Position),
    /// Of an agent: what stands is being sent, in place of all that came up to a position.
    Standing(Stood, Position),
    /// Changes or events are sent as they come.
    Live,
}

/// A connection that has begun.
pub(super) struct Session<'a> {
    part: &'a Part,
    target: &'a Target,
    link: Link,
    welcome: Welcome,
    mine: Mine,
    phase: Phase,
    heartbeat: Duration,
    last_sent: Instant,
    last_heard: Instant,
    last_ping: Option<Instant>,
    /// What is live was sent up to here,
    sent: Position,
    /// and there was nothing else up to here.
    looked: Position,
    /// Where each message of it that is on its way ends.
    on_the_way: VecDeque<Position>,
    /// What the node above has said to have.
    reached: Option<Reached>,
    /// Up to where it is told only what stands, until it has that.
    standing_upto: Option<Position>,
    /// A message of history that waits for bandwidth, and where it begins.
    history: Option<(Position, Ready)>,
    /// Where the message of history begins that is on its way.
    asked: Option<Position>,
    actions: VecDeque<Arc<Action>>,
    acting: Option<Acting>,
    acting_from: Instant,
    /// Actions whose outcome is durable, and what must have been sent before that is said.
    acted: Vec<(ActionId, Position)>,
}

/// Says who this node is, is let in, and speaks until it is over. `wanted` wakes when another node is wanted than when `target` was
/// looked up.
pub(super) async fn speak(part: &Part, link: Link, target: &Target, wanted: watch::Receiver<u64>) -> End {
    let begun = tokio::select! {
        // A node above may take long to say anything.
        () = part.replanned(wanted.clone()) => Err(End::Wanted),
        begun = Session::begin(part, link, target) => begun,
    };
    match begun {
        Ok(mut session) => {
            let end = session.run(wanted).await;
            session.part.keep_cursor(true).await;
            session.part.board.lock().connected = false;
            match end {
                Err(End::Wanted) | Ok(()) => {
                    session.leave().await;
                    End::Wanted
                }
                Err(end) => end,
            }
        }
        Err(end) => {
            part.board.lock().connected = false;
            end
        }
    }
}

/// What followed from the first message.
pub(super) struct Greeted {
    pub(super) welcome: Welcome,
    mine: Mine,
    /// By how much the clock above is ahead.
    clock_offset_ms: i64,
}

/// The first message, and the answer to it. If a new numbering is asked for, it begins now, unless nothing is to be numbered for
/// the other side any more.
pub(super) async fn greet(part: &Part, link: &mut Link, may_begin: bool) -> Result<Greeted, End> {
    let store = part.door.store();
    let (node, last) = (store.node(), *store.committed().borrow());
    let mine = Mine::of(&node, last);
    let hello = Hello {
        protocols: vec![PROTOCOL],
        kind: part.plan().kind,
        site: part.site.clone(),
        node: node.node_id,
        epoch: node.epoch,
        epoch_after: node.epoch_after,
        last,
        last_seq: store.read().cursor().last_seq,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        wall: now(),
    };
    let asked = Instant::now();
    link.send(&Up::Hello(hello)).await?;
    let deadline = asked + WELCOME_WAIT;
    loop {
        let heard = tokio::time::timeout_at(deadline, link.hear()).await.map_err(|_| Failure::NoWelcome)??;
        match heard {
            Heard::Message(Down::Welcome(welcome)) => {
                if welcome.protocol != PROTOCOL {
                    return Err(Failure::Protocol(welcome.protocol).into());
                }
                // Its clock was read about in the middle.
                let half_us = i64::try_from(asked.elapsed().as_micros() / 2).unwrap_or(0);
                let offset_us = welcome.wall.micros_since(now().saturating_add_micros(-half_us));
                return Ok(Greeted { welcome, mine, clock_offset_ms: offset_us / 1000 });
            }
            Heard::Message(Down::Refused { reason, code, retry_after_s }) => {
                let retry_after = Duration::from_secs(u64::from(retry_after_s));
                return Err(End::Refused { code, reason, retry_after });
            }
            Heard::Message(Down::BeginEpoch { beyond }) => {
                if may_begin {
                    begin_epoch(part, beyond).await?;
                }
                return Err(End::Anew);
            }
            _ => {}
        }
    }
}

async fn begin_epoch(part: &Part, beyond: Epoch) -> Result<(), Failure> {
    if beyond >= Epoch::LATEST {
        return Err(Failure::Epoch(format!("beyond {beyond} there is none; the last is {}", Epoch::LATEST)));
    }
    let (told, begun) = tokio::sync::oneshot::channel();
    let control = crate::follow::Control::NewEpoch(beyond, told);
    part.control.send(control).map_err(|_| Failure::Epoch("the node is stopping".to_owned()))?;
    let begun = begun.await.map_err(|_| Failure::Epoch("the node is stopping".to_owned()))?;
    begun.map(drop).map_err(|error| Failure::Epoch(error.to_string()))
}

impl<'a> Session<'a> {
    async fn begin(part: &'a Part, mut link: Link, target: &'a Target) -> Result<Self, End> {
        let Greeted { mut welcome, mine, clock_offset_ms } = greet(part, &mut link, true).await?;
        part.board.lock().clock_offset_ms = Some(clock_offset_ms);
        // Before anything else: the token with which it joined is used up.
        let (name, credential) = (welcome.child.clone(), welcome.credential.take().map(Token));
        part.desk.welcomed(target.clone(), name, credential).await?;
        part.let_in();
        part.budget().replan(part.plan().bandwidth, Instant::now());
        let heartbeat = welcome.heartbeat_s.clamp(*HEARTBEAT_S.start(), *HEARTBEAT_S.end());
        let heartbeat = Duration::from_secs(u64::from(heartbeat));
        link.patience = heartbeat.mul_f64(SILENT_HEARTBEATS).max(TAKE_WAIT_MIN);
        let store = part.door.store().clone();
        let (reached, of) = (welcome.reached.clone(), mine.clone());
        let lineage = tokio::task::spawn_blocking(move || {
            let mut failed = None;
            let known = |position| {
                fingerprint_at(&store, position).unwrap_or_else(|error| {
                    failed = Some(error);
                    None
                })
            };
            let lineage = judge(&of, reached.as_ref(), known);
            let is_new = match lineage {
                Lineage::Behind(position) => batch::has_changes(&store, position)?,
                _ => true,
            };
            failed.map_or(Ok((lineage, is_new)), |error| Err(BatchError::from(error)))
        });
        let (lineage, is_new) = lineage.await??;
        let mut session = Self {
            part,
            target,
            link,
            phase: Phase::Live,
            heartbeat,
            last_sent: Instant::now(),
            last_heard: Instant::now(),
            last_ping: None,
            sent: Position(0),
            looked: Position(0),
            on_the_way: VecDeque::new(),
            reached: None,
            standing_upto: None,
            history: None,
            asked: None,
            actions: VecDeque::new(),
            acting: None,
            acting_from: Instant::now(),
            acted: Vec::new(),
            welcome,
            mine,
        };
        part.welcomed(&session.welcome);
        let (Lineage::Behind(after) | Lineage::Anew(after)) = lineage else {
            let Lineage::Diverged(beyond) = lineage else { unreachable!("the other two are taken") };
            begin_epoch(part, beyond).await?;
            session.link.close().await;
            return Err(End::Anew);
        };
        (session.sent, session.looked) = (after, after);
        let is_agent = part.plan().kind == ChildKind::Agent;
        if is_agent {
            session.stand(lineage).await?;
        }
        if let Some(reached) = session.welcome.reached.take().filter(|reached| reached.epoch == session.mine.epoch) {
            session.take_reached(reached);
        }
        if !is_agent && is_new {
            session.phase = Phase::Filling(after);
            session.fill().await?;
        }
        Ok(session)
    }

    /// Of an agent: decides whether the node above, which may be new or have gone back in time, is first told what stands, in place
    /// of what came up to some position. Up to where that is the case is kept until it has been told, so that nothing behind it
    /// is taken for known.
    async fn stand(&mut self, lineage: Lineage) -> Result<(), End> {
        let part = self.part;
        let kept = part.desk.kept().and_then(|kept| kept.standing_upto);
        let reached = self.welcome.reached.as_ref();
        let here = reached.filter(|reached| reached.epoch == self.mine.epoch).map_or(Position(0), |reached| reached.position);
        let parted = reached.and_then(|reached| self.mine.parted_beyond(reached.epoch));
        let upto = match (kept, part.followed(), lineage) {
            (Some(kept), ..) => Some(kept.min(self.mine.last)),
            // It has forgotten what it had.
            (None, Some(followed), Lineage::Behind(_)) => Some(followed),
            (None, None, Lineage::Behind(_)) => None,
            (None, ..) if reached.is_none() => Some(self.mine.last),
            // Which of what was numbered twice came in is not known; but up to here it was the same journal.
            (None, followed, _) => parted.map(|end| followed.map_or(end, |followed| followed.min(end))),
        };
        let Some(upto) = upto.filter(|upto| *upto > here) else {
            part.desk.standing(self.target.url.clone(), None).await?;
            return Ok(());
        };
        let is_known = reached.is_some();
        let (store, name) = (part.door.store().clone(), self.welcome.child.clone());
        let stood = tokio::task::spawn_blocking(move || Stood::take(&store, &name, is_known, here, upto)).await?;
        let stood = stood.map_err(BatchError::from)?;
        part.desk.standing(self.target.url.clone(), Some(upto)).await?;
        let Some(stood) = stood else {
            // It took some of it before, again and again: with a new numbering all places are free.
            begin_epoch(part, self.mine.epoch).await?;
            return Err(End::Anew);
        };
        (self.sent, self.looked) = (here, here);
        self.phase = Phase::Standing(stood, upto);
        self.standing_upto = Some(upto);
        Ok(())
    }

    /// Sends some of what stands; with the last of it, that there is nothing else up to where that was decided.
    async fn send_standing(&mut self) -> Result<bool, End> {
        if self.on_the_way.len() >= LIVE_MESSAGES_MAX {
            return Ok(false);
        }
        let Phase::Standing(stood, upto) = std::mem::replace(&mut self.phase, Phase::Live) else { return Ok(false) };
        let (json_bytes, after) = (self.part.budget().batch_json_bytes(), self.sent);
        let made = tokio::task::spawn_blocking(move || {
            let mut stood = stood;
            let ready = stood.next(after, upto, json_bytes);
            (stood, ready)
        });
        let (stood, ready) = made.await?;
        let ready = ready.map_err(BatchError::from)?;
        if ready.upto < upto {
            self.phase = Phase::Standing(stood, upto);
        }
        (self.sent, self.looked) = (ready.upto, ready.upto);
        self.on_the_way.push_back(ready.upto);
        self.part.board.lock().changes_sent += ready.items as u64;
        self.send(ready.bytes, false).await?;
        Ok(true)
    }

    /// Compares, unless a stretch of history must come first, because one more would be missing then.
    async fn fill(&mut self) -> Result<bool, End> {
        let Phase::Filling(after) = self.phase else { return Ok(false) };
        if self.reached.as_ref().is_some_and(|reached| reached.missing.len() >= MISSING_SPANS_MAX) {
            return Ok(false);
        }
        self.compare(after).await?;
        Ok(true)
    }

    async fn run(&mut self, mut wanted: watch::Receiver<u64>) -> Result<(), End> {
        let mut committed = self.part.door.store().committed();
        let mut keep = tokio::time::interval(super::KEEP_EVERY);
        keep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            // Another numbering began: what is sent from here on would be taken for changes of the one that was.
            if self.part.door.store().epoch() != self.mine.epoch {
                return Err(End::Anew);
            }
            let wait = self.pump().await?;
            self.part.board.lock().settled = self.settled();
            let beat = self.beat().await?;
            tokio::select! {
                biased;
                () = self.part.stop.cancelled() => return Ok(()),
                _ = wanted.changed() => {
                    if self.part.is_replanned() {
                        return Ok(());
                    }
                }
                // Who has ordered more than can wait is not heard until there is room.
                heard = self.link.hear(), if self.actions.len() < ACTIONS_MAX => self.hear(heard?).await?,
                (actions, outcome) = acting(&mut self.acting) => self.settle(actions, outcome),
                _ = keep.tick() => self.part.keep_cursor(false).await,
                changed = committed.changed() => if changed.is_err() { return Ok(()) },
                () = tokio::time::sleep_until(beat.min(wait.unwrap_or(beat))) => {}
            }
        }
    }

    /// Sends what can be sent now; tells when more can, if time is what it waits for.
    async fn pump(&mut self) -> Result<Option<Instant>, End> {
        self.act();
        let now = Instant::now();
        let live_at = self.part.budget().live_at(now);
        if live_at > now {
            return Ok(Some(live_at));
        }
        if self.fill().await? {
            return Ok(None);
        }
        match &mut self.phase {
            Phase::Comparing(..) => Ok(None),
            Phase::Filling(_) => self.send_history().await,
            Phase::Aligning(snapshot, _) => {
                let json_bytes = self.part.budget().batch_json_bytes();
                let mut taken = std::mem::replace(snapshot, Snapshot::empty());
                let (taken, part) = tokio::task::spawn_blocking(move || {
                    let part = taken.next(json_bytes);
                    (taken, part)
                })
                .await?;
                *snapshot = taken;
                match part.map_err(BatchError::from)? {
                    Some(part) => self.send(part.bytes, false).await?,
                    None => self.aligned().await?,
                }
                Ok(Some(now))
            }
            Phase::Standing(..) => {
                let is_sent = self.send_standing().await?;
                Ok(is_sent.then_some(now))
            }
            Phase::Live => {
                if self.send_live().await? {
                    return Ok(Some(now));
                }
                self.say_acted().await?;
                self.send_history().await
            }
        }
    }

    async fn send(&mut self, bytes: bytes::Bytes, is_history: bool) -> Result<(), End> {
        let len = bytes.len();
        self.link.send_bytes(bytes).await?;
        if is_history {
            self.part.budget().take_history(len);
        } else {
            self.part.budget().take(len);
        }
        self.last_sent = Instant::now();
        Ok(())
    }

    async fn say(&mut self, message: &Up) -> Result<(), End> {
        let len = self.link.send(message).await?;
        self.part.budget().take(len);
        self.last_sent = Instant::now();
        Ok(())
    }

    /// Asks the node above in which ranges of ids its picture is another one.
    async fn compare(&mut self, after: Position) -> Result<(), End> {
        let store = self.part.door.store().clone();
        let (snapshot, digests) = tokio::task::spawn_blocking(move || {
            let snapshot = Snapshot::take(&store);
            let digests = Digests::of(&snapshot.alarms).to_hex();
            (snapshot, digests)
        })
        .await?;
        self.say(&Up::Compare { at: snapshot.at, digests }).await?;
        self.phase = Phase::Comparing(snapshot, after);
        Ok(())
    }

    /// All parts are sent: from here on it goes live.
    async fn aligned(&mut self) -> Result<(), End> {
        let Phase::Aligning(snapshot, after) = std::mem::replace(&mut self.phase, Phase::Live) else { return Ok(()) };
        let at = snapshot.at;
        let store = self.part.door.store().clone();
        let (fingerprint, below) = tokio::task::spawn_blocking(move || {
            let fingerprint = fingerprint_at(&store, at).map_err(BatchError::from)?.unwrap_or_default();
            Ok::<_, BatchError>((fingerprint, below(&store)))
        })
        .await??;
        // What the node above has already was not there when it was asked.
        let after = after.min(at);
        self.say(&Up::Relay(v1::RelayContent::Aligned { at, after, fingerprint, below })).await?;
        (self.sent, self.looked) = (at, at);
        self.on_the_way.push_back(at);
        Ok(())
    }

    /// Sends what is live; whether something was sent.
    async fn send_live(&mut self) -> Result<bool, End> {
        let store = self.part.door.store();
        if *store.committed().borrow() <= self.looked || self.on_the_way.len() >= LIVE_MESSAGES_MAX {
            return Ok(false);
        }
        let (store, sent, looked, json_bytes) = (store.clone(), self.sent, self.looked, self.part.budget().batch_json_bytes());
        let is_agent = self.part.plan().kind == ChildKind::Agent;
        let name = self.welcome.child.clone();
        // While something is on its way, little waits for more.
        const FULL_ITEMS: usize = 64;
        let least = if self.on_the_way.is_empty() { 0 } else { FULL_ITEMS };
        let made = tokio::task::spawn_blocking(move || {
            if is_agent {
                batch::events(&store, &name, (sent, looked), least, json_bytes)
            } else {
                batch::live(&store, (sent, looked), least, json_bytes)
            }
        });
        let ready = made.await??;
        self.looked = ready.looked;
        if ready.bytes.is_empty() {
            return Ok(false);
        }
        self.sent = ready.upto;
        self.on_the_way.push_back(ready.upto);
        self.part.board.lock().changes_sent += ready.items as u64;
        self.send(ready.bytes, false).await?;
        Ok(true)
    }

    /// Sends the next of what is missing, if nothing of it is on its way; tells when it can, if it waits for bandwidth.
    async fn send_history(&mut self) -> Result<Option<Instant>, End> {
        let Some(span) = self.missing().filter(|_| self.asked.is_none()) else { return Ok(None) };
        if self.history.as_ref().is_none_or(|(after, _)| *after != span.after) {
            let (store, json_bytes) = (self.part.door.store().clone(), self.part.budget().batch_json_bytes());
            let ready = tokio::task::spawn_blocking(move || batch::history(&store, span, json_bytes)).await??;
            self.history = Some((span.after, ready));
        }
        let Some((after, ready)) = self.history.take() else { return Ok(None) };
        let now = Instant::now();
        let at = self.part.budget().history_at(ready.bytes.len(), now);
        if at > now {
            self.history = Some((after, ready));
            return Ok(Some(at));
        }
        self.asked = Some(after);
        self.part.board.lock().history_sent += ready.items as u64;
        self.send(ready.bytes, true).await?;
        Ok(None)
    }

    fn missing(&self) -> Option<Span> {
        self.reached.as_ref().and_then(|reached| reached.missing.first()).copied()
    }

    /// Sends a ping if it is time; tells when it is the next time.
    async fn beat(&mut self) -> Result<Instant, End> {
        let now = Instant::now();
        let silent_at = self.last_heard + self.heartbeat.mul_f64(SILENT_HEARTBEATS);
        if now >= silent_at {
            return Err(LinkError::Silent { silent: now - self.last_heard }.into());
        }
        let mut due = (self.last_sent + self.heartbeat).min(self.last_heard + self.heartbeat);
        if let Some(last) = self.last_ping {
            due = due.max(last + self.heartbeat);
        }
        if now >= due {
            /// What a ping has, masked, with its head.
            const PING_BYTES: usize = 14;
            self.link.ping(super::now().as_micros().to_be_bytes()).await?;
            self.part.budget().take(PING_BYTES);
            (self.last_ping, self.last_sent) = (Some(now), now);
            due = now + self.heartbeat;
        }
        Ok(due.min(silent_at))
    }

    async fn hear(&mut self, heard: Heard) -> Result<(), End> {
        self.last_heard = Instant::now();
        let message = match heard {
            Heard::Pong(payload) => {
                let sent = payload.as_ref().try_into().ok().map(i64::from_be_bytes);
                let round_trip = sent.map(|sent| now().as_micros().saturating_sub(sent) / 1000);
                self.part.board.lock().round_trip_ms = round_trip.filter(|ms| *ms >= 0);
                return Ok(());
            }
            Heard::Ping => return Ok(()),
            Heard::Message(message) => message,
        };
        match message {
            Down::Differ { buckets } => {
                // Said again while what differs is being sent, it is no news.
                if let Phase::Comparing(snapshot, after) = &mut self.phase {
                    let (mut snapshot, after) = (std::mem::replace(snapshot, Snapshot::empty()), *after);
                    snapshot.want(buckets);
                    self.phase = Phase::Aligning(snapshot, after);
                }
            }
            Down::Reached(reached) => {
                if self.reached.as_ref() != Some(&reached) {
                    self.part.board.lock().advances += 1;
                }
                self.take_reached(reached);
                self.has_stood().await?;
            }
            Down::Action(action) => match Action::try_from(action) {
                Ok(action) => self.actions.push_back(Arc::new(action)),
                Err(error) => tracing::warn!(%error, "the node above sent an action that is not understood"),
            },
            Down::Credential { token } => {
                self.part.desk.rotated(self.target.url.clone(), Token(token)).await?;
                self.say(&Up::Rotated).await?;
                tracing::info!("the node above gave a new credential");
            }
            Down::Refused { reason, code, retry_after_s } => {
                let retry_after = Duration::from_secs(u64::from(retry_after_s));
                return Err(End::Refused { code, reason, retry_after });
            }
            Down::BeginEpoch { beyond } => {
                begin_epoch(self.part, beyond).await?;
                return Err(End::Anew);
            }
            Down::Welcome(_) | Down::Unknown => {}
        }
        Ok(())
    }

    fn take_reached(&mut self, reached: Reached) {
        if reached.epoch != self.mine.epoch {
            return;
        }
        while self.on_the_way.front().is_some_and(|upto| *upto <= reached.position) {
            self.on_the_way.pop_front();
        }
        if self.asked.is_some() && self.asked != reached.missing.first().map(|span| span.after) {
            self.asked = None;
        }
        self.part.reached(&reached);
        self.reached = Some(reached);
    }

    /// Up to where it has all but what is on its way or missing, if nothing is.
    fn settled(&self) -> Option<Position> {
        let lacks = self.reached.as_ref().is_none_or(|reached| !reached.missing.is_empty());
        (matches!(self.phase, Phase::Live) && self.on_the_way.is_empty() && !lacks).then_some(self.looked)
    }

    /// What stands was told: behind it, nothing is left out.
    async fn has_stood(&mut self) -> Result<(), End> {
        let reached = self.reached.as_ref().map(|reached| reached.position);
        if self.standing_upto.is_some_and(|upto| reached.is_some_and(|reached| reached >= upto)) {
            self.part.desk.standing(self.target.url.clone(), None).await?;
            self.standing_upto = None;
        }
        Ok(())
    }

    /// Brings in the actions that came, in their order.
    fn act(&mut self) {
        if self.acting.is_some() || self.actions.is_empty() {
            return;
        }
        let actions: Vec<_> = self.actions.drain(..).collect();
        let (door, from) = (self.part.door.clone(), self.acting_from);
        self.acting = Some(Box::pin(async move {
            tokio::time::sleep_until(from).await;
            let items = actions.iter().map(|action| Item::Action(Arc::clone(action))).collect();
            let mut actions = actions;
            let outcome = door.publish(items, Tally::default()).await.map(|published| {
                let mut answers = published.answers.iter();
                // What is not taken has no outcome: above, nobody is told that it has.
                actions.retain(|action| match answers.next() {
                    Some(Answer::Rejected(reason)) => {
                        tracing::warn!(action = %action.id, %reason, "an action of the node above is not taken");
                        false
                    }
                    _ => true,
                });
                published.durable.position()
            });
            (actions, outcome)
        }));
    }

    fn settle(&mut self, actions: Vec<Arc<Action>>, outcome: Result<Position, PublishError>) {
        self.acting = None;
        match outcome {
            Ok(position) => self.acted.extend(actions.iter().map(|action| (action.id, position))),
            Err(error) => {
                tracing::debug!(%error, "actions of the node above cannot be carried out now");
                self.acting_from = Instant::now() + AGAIN_WAIT;
                for action in actions.into_iter().rev() {
                    self.actions.push_front(action);
                }
            }
        }
    }

    /// Says of which actions the outcome is known, once what they led to was sent, and those further below have said theirs.
    async fn say_acted(&mut self) -> Result<(), End> {
        let looked = self.looked;
        if !self.acted.iter().any(|(_, position)| *position <= looked) {
            return Ok(());
        }
        let waiting = waiting_below(self.part.door.store());
        let is_over = |(id, position): &(ActionId, Position)| *position <= looked && !waiting.contains(id);
        let over: Vec<_> = self.acted.iter().filter(|acted| is_over(acted)).map(|(id, _)| *id).collect();
        self.acted.retain(|acted| !is_over(acted));
        if over.is_empty() {
            return Ok(());
        }
        self.say(&Up::Relay(v1::RelayContent::Acted { actions: over })).await
    }

    /// Tells the node above, if another one is above from now on, and ends the connection.
    async fn leave(mut self) {
        let address = &self.target.url;
        if let Some(to) = self.part.desk.left(address) {
            match self.say(&Up::Moved { to }).await {
                Ok(()) => self.part.desk.told_of_leaving(address).await,
                Err(end) => tracing::debug!(?end, "the node above could not be told that it is left"),
            }
        }
        self.link.close().await;
    }
}

/// What became of the actions that are being brought in; never, if there are none.
async fn acting(acting: &mut Option<Acting>) -> (Vec<Arc<Action>>, Result<Position, PublishError>) {
    match acting {
        Some(acting) => acting.await,
        None => std::future::pending().await,
    }
}

/// The nodes below this one, and those below them.
fn below(store: &Store) -> Vec<Below> {
    let read = store.read();
    let children = read.state().children().iter().filter(|(_, child)| child.kind.owns() && child.retired.is_none());
    children
        .flat_map(|(name, child)| {
            let own = Below {
                name: name.clone(),
                kind: child.kind,
                version: child.version.clone(),
                silent_since: child.silent_since,
                via: None,
            };
            std::iter::once(own).chain(child.below.iter().map(|further| further.through(name)))
        })
        .collect()
}

/// The actions on whose outcome a node further below has yet to report.
fn waiting_below(store: &Store) -> Vec<ActionId> {
    let read = store.read();
    let ids = read.records().filter_map(|(key, _)| match key {
        StateKey::Pending(_, id) => Some(*id),
        _ => None,
    });
    ids.collect()
}
