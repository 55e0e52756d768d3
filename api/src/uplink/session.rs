//! One connection of a node below, from its first message to its end.
//!
//! ```text
//! hello ─▶ seat in the table ─▶ Joined, Connected durable ─▶ Welcome, pending actions
//!    ┌──────────────────────────────────────────────────────────────────────────────┐
//!    │ message ─▶ step ─▶ submitted in a lane, at most [`STEPS_MAX`] at a time      │
//!    │ a step is durable ─▶ Reached          the journal refused ─▶ again, in order │
//!    └──────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! While as many steps are on their way as may be, nothing is read: the other side waits as TCP makes it wait. A large message,
//! which is backlog, waits folded until the large ones of all nodes below leave room for it ([`super::bulk`]).

mod begin;
mod shared;
mod unlisted;

use std::collections::{HashSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use bytes::Bytes;
use klaxon_schemas::child::{CREDENTIALS_MAX, Child, ChildEvent, ChildFact, ChildKind, Credential, Digests, NotTaken};
use klaxon_schemas::error::chain;
use klaxon_schemas::ids::{ActionId, Epoch, Position};
use klaxon_schemas::names::{ChildName, Text};
use klaxon_schemas::time::Timestamp;
use klaxon_schemas::wire::v1;
use klaxon_schemas::wire::v1::uplink::{Down, Refusal, UpOf};
use klaxon_store::door::Tally;
use klaxon_store::publish::{Answer, Item, Lane, Pending, PublishError, Published, Rejection};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::clock::by_clock_ahead;
use super::entrance::Proof;
use super::steps::{Malformed, Step, Voice};
use super::table::{Order, Seat, mark};
use super::{NewToken, Uplinks, codec, later, new_token, now, read};
use shared::Twin;
use unlisted::Unlisted;

/// How long the other side may take to say who it is.
const HELLO_WAIT: Duration = Duration::from_secs(10);
/// How long the other side may take to read what it is sent.
const WRITE_WAIT: Duration = Duration::from_secs(20);
/// The most steps that are on their way to the journal.
const STEPS_MAX: usize = 16;
/// The most bytes of messages, unfolded, that are on their way to the journal.
const STEPS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How many durable steps are gathered into one answer while more are on their way.
const STEPS_TOLD: usize = 4;
/// How long the journal is given after it refused.
const AGAIN_WAIT: Duration = Duration::from_millis(500);
/// How long the journal may refuse before the other side is sent away to come again.
const REFUSED_MAX: Duration = Duration::from_secs(60);
/// When somebody who found no room is to come again.
const BUSY_RETRY_S: u32 = 10;
/// When somebody who was refused for what he is or sent is to come again.
const REFUSED_RETRY_S: u32 = 60;
/// From this size on, unfolded, a message is read where it holds up nobody else.
const LARGE_BYTES: usize = 64 * 1024;
/// How long old credentials hold at least while it is not known whether the new one came to the other side's disk.
const OFFER_HOLDS: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long old credentials hold once the new one is on the other side's disk.
const OVERLAP: Duration = Duration::from_secs(3600);

/// Why a connection ends.
#[derive(Debug)]
enum End {
    /// The other side went, or the connection broke.
    Gone(String),
    /// It is refused, for this reason.
    Refused { code: Refusal, reason: String, retry_after_s: u32 },
    /// The node stops.
    Stopping,
    /// The watch, or a connection of the same node, has ended it.
    Cut,
    /// It is to begin a new numbering.
    Anew { beyond: Epoch },
}

impl End {
    fn refused(code: Refusal, reason: impl Into<String>) -> Self {
        let retry_after_s = if matches!(code, Refusal::Busy) { BUSY_RETRY_S } else { REFUSED_RETRY_S };
        Self::Refused { code, reason: reason.into(), retry_after_s }
    }
}

impl From<Malformed> for End {
    fn from(malformed: Malformed) -> Self {
        Self::refused(Refusal::Malformed, malformed.0)
    }
}

/// A connection whose other side has proven who it is.
pub(super) struct Session {
    uplinks: Uplinks,
    name: ChildName,
    proof: Proof,
    address: Arc<str>,
    socket: WebSocket,
}

/// Items that were submitted together, and what came of it.
struct Submitted {
    items: Vec<Item>,
    pending: Option<Pending>,
    bytes: usize,
    newest: Option<Timestamp>,
    /// Its share in what all large messages may hold at one time, if it is the last of one.
    room: Option<OwnedSemaphorePermit>,
}

/// A large message that waits for its share.
struct Held {
    message: Bytes,
    /// It keeps its turn however often the session has something else to do.
    room: Pin<Box<dyn Future<Output = Option<OwnedSemaphorePermit>> + Send + Sync>>,
}

/// What a session knows once it has begun.
struct Talk {
    seat: Seat,
    /// Its store's id.
    node: Uuid,
    kind: ChildKind,
    epoch: Epoch,
    lane: Lane,
    submitted: VecDeque<Submitted>,
    /// What is read on with, before anything else of the connection.
    held: Option<Held>,
    /// When what the journal refused is brought in again.
    again: Option<Instant>,
    /// Since when it has taken nothing.
    refused_since: Option<Instant>,
    /// The last that was said of how far it has come.
    told: u64,
    untold: usize,
    /// Up to where what is live has come, with all that is on its way.
    live_at: Option<Position>,
    /// Since when what an agent sent is with the journal and not come in, and up to where it has.
    behind: Option<(Instant, Position)>,
    /// It is connected to another node as well, as that says.
    twin: Option<Twin>,
    /// When it was last looked after what is shared with other nodes.
    looked: Instant,
    /// What is to be compared as soon as nothing is on its way.
    compare: Option<(Position, Digests)>,
    /// What differed then and has not been listed since.
    unlisted: Unlisted,
    /// Actions that were sent down over this connection.
    sent: HashSet<ActionId>,
    /// When the other side was last asked to answer, and with what.
    asked: Option<(Instant, Bytes)>,
    /// What it was given for its join token, until it goes on.
    joining: Option<Credential>,
    /// A credential that it has not said to have yet.
    offered: Option<NewToken>,
}

/// A message, its events in the form in which they came.
type Heard = UpOf<serde_json::Value>;

/// For whom a session reads.
struct Speaker {
    uplinks: Uplinks,
    name: ChildName,
    kind: ChildKind,
    epoch: Epoch,
}

impl Speaker {
    fn voice<T>(&self, speak: impl FnOnce(Voice<'_>) -> T) -> T {
        let store = self.uplinks.store();
        speak(Voice {
            child: &self.name,
            epoch: self.epoch,
            is_region: self.kind == ChildKind::Region,
            here: self.uplinks.site(),
            is_shared: store.original().is_some(),
            is_other: &|name| name != self.name.as_str() && read::is_owner(store, name),
            mirrored: &|from, to| read::mirrored(store, &self.name, from, to),
        })
    }

    /// What `speak` makes of what was said; what may take long is made where it holds up nobody else.
    async fn speak<T: Send + 'static>(
        self,
        is_long: bool,
        speak: impl FnOnce(Voice<'_>) -> Result<T, Malformed> + Send + 'static,
    ) -> Result<T, End> {
        if !is_long {
            return Ok(self.voice(speak)?);
        }
        let spoken = tokio::task::spawn_blocking(move || self.voice(speak)).await;
        Ok(spoken.unwrap_or_else(|_| Err(Malformed("a message that breaks its reader".to_owned())))?)
    }
}

/// What happens next.
enum Next {
    Message(Option<Result<Message, axum::Error>>),
    Room(Option<OwnedSemaphorePermit>),
    Settled(Result<Published, PublishError>),
    Order(Option<Order>),
    Again,
    Stop,
    Cut,
}

impl Session {
    pub(super) fn new(uplinks: Uplinks, name: ChildName, proof: Proof, address: Arc<str>, socket: WebSocket) -> Self {
        Self { uplinks, name, proof, address, socket }
    }

    /// Speaks with the other side until one of both ends it.
    pub(super) async fn run(mut self) {
        match self.begin().await {
            Ok(talk) => {
                let mut talk = talk;
                let end = self.talk(&mut talk).await;
                self.uplinks.table().leave(&talk.seat);
                // What ends may take its time, and keeps no room from others meanwhile.
                talk.held = None;
                talk.submitted.iter_mut().for_each(|submitted| submitted.room = None);
                self.end(end).await;
                self.settle_rest(talk.submitted).await;
            }
            Err(end) => self.end(end).await,
        }
    }

    async fn talk(&mut self, talk: &mut Talk) -> End {
        loop {
            let next = self.next(talk).await;
            let done = match next {
                Next::Stop => return End::Stopping,
                Next::Cut => return End::Cut,
                Next::Order(None) => return End::Cut,
                Next::Order(Some(order)) => self.obey(talk, order).await,
                Next::Settled(outcome) => self.settled(talk, outcome).await,
                Next::Again => self.submit_again(talk).await,
                Next::Message(message) => self.received(talk, message).await,
                Next::Room(room) => self.go_on(talk, room).await,
            };
            if let Err(end) = done {
                return end;
            }
        }
    }

    async fn next(&mut self, talk: &mut Talk) -> Next {
        let bytes: usize = talk.submitted.iter().map(|submitted| submitted.bytes).sum();
        let has_room = talk.submitted.len() < STEPS_MAX && bytes < STEPS_BYTES_MAX;
        let reads = has_room && talk.again.is_none() && talk.compare.is_none() && talk.held.is_none();
        talk.seat.pulse.listens(reads, Instant::now());
        let again = talk.again;
        let front = talk.submitted.front_mut().and_then(|submitted| submitted.pending.as_mut());
        let (is_settling, is_again) = (front.is_some(), again.is_some());
        let settled = async {
            match front {
                Some(pending) => pending.outcome().await,
                None => std::future::pending().await,
            }
        };
        let due = tokio::time::sleep_until(again.unwrap_or_else(Instant::now));
        let is_held = talk.held.is_some();
        let room = async {
            match &mut talk.held {
                Some(held) => held.room.as_mut().await,
                None => std::future::pending().await,
            }
        };
        let next = tokio::select! {
            biased;
            () = self.uplinks.stop().cancelled() => Next::Stop,
            () = talk.seat.cut.cancelled() => Next::Cut,
            outcome = settled, if is_settling => Next::Settled(outcome),
            order = talk.seat.orders.recv() => Next::Order(order),
            () = due, if is_again && !is_settling => Next::Again,
            room = room, if is_held => Next::Room(room),
            message = self.socket.recv(), if reads => Next::Message(message),
        };
        talk.seat.pulse.listens(false, Instant::now());
        next
    }

    async fn received(&mut self, talk: &mut Talk, message: Option<Result<Message, axum::Error>>) -> Result<(), End> {
        let message = match message {
            None => return Err(End::Gone("it ended the connection".to_owned())),
            Some(Err(error)) => return Err(broken(&error)),
            Some(Ok(message)) => message,
        };
        talk.seat.pulse.heard();
        if talk.looked.elapsed() >= self.uplinks.config().heartbeat / 2 {
            talk.looked = Instant::now();
            self.look_behind(talk)?;
            self.look_elsewhere(talk).await?;
        }
        if matches!(message, Message::Binary(_) | Message::Ping(_)) {
            self.spend_join_token(talk).await?;
        }
        match message {
            Message::Binary(bytes) => {
                self.count_in(talk, bytes.len());
                match self.uplinks.bulk().share(&bytes) {
                    None => self.unfold(talk, bytes, None).await,
                    Some(room) => {
                        talk.held = Some(Held { message: bytes, room: Box::pin(room) });
                        Ok(())
                    }
                }
            }
            Message::Ping(payload) => {
                self.count_in(talk, payload.len());
                if let Ok(wall) = <[u8; 8]>::try_from(&*payload) {
                    talk.seat.pulse.clock(i64::from_be_bytes(wall), now().as_micros());
                }
                Ok(())
            }
            Message::Pong(payload) => {
                self.count_in(talk, payload.len());
                if let Some((at, _)) = talk.asked.take_if(|(_, asked)| *asked == payload) {
                    talk.seat.pulse.round_trip(at.elapsed());
                    talk.seat.pulse.answered(at);
                }
                Ok(())
            }
            Message::Text(_) => Err(End::refused(Refusal::Malformed, "a text message; an uplink speaks in binary ones")),
            Message::Close(_) => Err(End::Gone("it ended the connection".to_owned())),
        }
    }

    /// It goes on behind the Welcome, and so has its credential on its disk: its join token is good for nothing any more.
    async fn spend_join_token(&mut self, talk: &mut Talk) -> Result<(), End> {
        let Some(credential) = talk.joining.take() else { return Ok(()) };
        self.tell(ChildEvent::Joined { credential }).await?;
        self.uplinks.table().used(&self.name);
        tracing::info!(child = %self.name, "a node below has joined");
        Ok(())
    }

    /// There is room for the large message that waits.
    async fn go_on(&mut self, talk: &mut Talk, room: Option<OwnedSemaphorePermit>) -> Result<(), End> {
        let Some(held) = talk.held.take() else { return Ok(()) };
        self.unfold(talk, held.message, room).await
    }

    async fn unfold(&mut self, talk: &mut Talk, message: Bytes, room: Option<OwnedSemaphorePermit>) -> Result<(), End> {
        let (up, size) = decode(message).await.map_err(|reason| End::refused(Refusal::Malformed, reason))?;
        self.understood(talk, up, size, room).await
    }

    async fn understood(
        &mut self,
        talk: &mut Talk,
        up: Heard,
        bytes: usize,
        room: Option<OwnedSemaphorePermit>,
    ) -> Result<(), End> {
        let only = |is_so: bool, what: &str| {
            if is_so { Ok(()) } else { Err(End::refused(Refusal::Malformed, format!("{what} of a node of this kind"))) }
        };
        match up {
            Heard::Hello(_) => Err(End::refused(Refusal::Malformed, "a second hello")),
            Heard::Compare { digests, at } => {
                only(talk.kind.owns(), "a comparison")?;
                let digests = Digests::from_hex(&digests)
                    .ok_or_else(|| End::refused(Refusal::Malformed, "digests: are not 16 hexadecimal digits for each range"))?;
                talk.compare = Some((at, digests));
                self.compare(talk).await
            }
            Heard::Relay(form) => {
                only(talk.kind.owns(), "a relay")?;
                talk.unlisted.note(&form)?;
                // How much an alignment takes away is not seen from its size.
                let is_long = bytes >= LARGE_BYTES || matches!(form, v1::RelayContent::Alignment { .. });
                let live_at = talk.live_at;
                let step = self.speaker(talk).speak(is_long, move |voice| voice.relay(form, bytes, live_at)).await?;
                self.note_left_out(&step);
                self.uplinks.counts().changes(step.count);
                self.submit(talk, step, bytes, room).await
            }
            Heard::Events { events, upto, lost, .. } => {
                only(talk.kind == ChildKind::Agent, "events")?;
                if lost > 0 {
                    tracing::warn!(child = %self.name, records = lost, "an agent keeps no longer what has not come yet");
                }
                let live_at = talk.live_at;
                let speak = move |voice: Voice<'_>| voice.events(events, upto, lost, live_at);
                let step = self.speaker(talk).speak(bytes >= LARGE_BYTES, speak).await?;
                self.uplinks.counts().events(step.count);
                self.uplinks.counts().events_rejected(step.rejected);
                self.uplinks.counts().events_lost(lost);
                self.submit(talk, step, bytes, room).await
            }
            Heard::Moved { to } => {
                let to = Text::lossy(&to).map_err(|error| End::refused(Refusal::Malformed, format!("to: {error}")))?;
                self.tell(ChildEvent::Moved { to: to.clone() }).await?;
                Err(End::refused(Refusal::Gone, format!("it has another node above it now: {to}")))
            }
            Heard::Rotated => self.rotated(talk).await,
            Heard::Unknown => Ok(()),
        }
    }

    /// What is known of the other side, so that what it says can be looked at where it holds up nobody else.
    fn speaker(&self, talk: &Talk) -> Speaker {
        Speaker { uplinks: self.uplinks.clone(), name: self.name.clone(), kind: talk.kind, epoch: talk.epoch }
    }

    fn note_left_out(&self, step: &Step) {
        if let Some(reason) = &step.left_out_for {
            tracing::warn!(child = %self.name, count = step.left_out, %reason, "something that a node sent is left out");
            self.uplinks.counts().left_out(step.left_out);
        }
    }

    async fn submit(
        &mut self,
        talk: &mut Talk,
        step: Step,
        bytes: usize,
        room: Option<OwnedSemaphorePermit>,
    ) -> Result<(), End> {
        talk.live_at = step.live_at.or(talk.live_at);
        talk.seat.pulse.items.fetch_add(step.count, Ordering::Relaxed);
        let parts = step.items.len().max(1);
        for items in step.items {
            let submitted = Submitted { items, pending: None, bytes: bytes / parts, newest: step.newest, room: None };
            talk.submitted.push_back(submitted);
        }
        if let Some(last) = talk.submitted.back_mut().filter(|_| room.is_some()) {
            last.room = room;
        }
        self.bring_in(talk).await;
        Ok(())
    }

    /// Gives everything its place in the queue to the journal that has none yet.
    async fn bring_in(&mut self, talk: &mut Talk) {
        let Talk { submitted, lane, again, refused_since, .. } = talk;
        if again.is_some() {
            return;
        }
        for one in submitted.iter_mut().filter(|one| one.pending.is_none()) {
            match self.uplinks.door().submit(one.items.clone(), lane).await {
                Ok(pending) => one.pending = Some(pending),
                Err(error) => {
                    tracing::debug!(child = %self.name, %error, "the journal takes nothing of an uplink now");
                    *again = Some(Instant::now() + AGAIN_WAIT);
                    refused_since.get_or_insert_with(Instant::now);
                    return;
                }
            }
        }
    }

    async fn submit_again(&mut self, talk: &mut Talk) -> Result<(), End> {
        talk.again = None;
        if talk.refused_since.is_some_and(|since| since.elapsed() >= REFUSED_MAX) {
            return Err(End::refused(Refusal::Busy, "the journal takes nothing"));
        }
        talk.lane = Lane::default();
        self.bring_in(talk).await;
        Ok(())
    }

    /// It is known what became of the first that was submitted.
    async fn settled(&mut self, talk: &mut Talk, outcome: Result<Published, PublishError>) -> Result<(), End> {
        // It has answered, and is not asked again.
        if let Some(first) = talk.submitted.front_mut() {
            first.pending = None;
        }
        match outcome {
            Ok(published) => {
                talk.refused_since = None;
                let Some(done) = talk.submitted.pop_front() else { return Ok(()) };
                self.settle(&published);
                let rejected = published.answers.iter().find_map(|answer| match answer {
                    Answer::Rejected(rejection) => Some(rejection),
                    Answer::Accepted { .. } | Answer::Duplicate => None,
                });
                if let Some(end) = rejected.and_then(|rejection| not_taken(rejection, talk.kind)) {
                    return Err(end);
                }
                self.pass_rejected(talk, &done, &published).await?;
                if let Some(newest) = done.newest {
                    let offset = talk.seat.pulse.offset_us().unwrap_or(0);
                    let lag = now().micros_since(newest).saturating_add(offset).max(0);
                    talk.seat.pulse.lag_us.store(lag.cast_unsigned(), Ordering::Relaxed);
                }
                talk.untold += 1;
                if talk.submitted.is_empty() || talk.untold >= STEPS_TOLD {
                    self.tell_reached(talk).await?;
                }
                self.compare(talk).await
            }
            Err(PublishError::Stopping) => Err(End::Stopping),
            Err(error @ PublishError::TooMany { .. }) => Err(End::refused(Refusal::Malformed, error.to_string())),
            Err(error) => {
                // Those behind it in its lane are refused as well; all of them come in again, in their order.
                tracing::debug!(child = %self.name, %error, "the journal refused what came over an uplink");
                for one in &mut talk.submitted {
                    if let Some(mut pending) = one.pending.take()
                        && let Ok(published) = pending.outcome().await
                    {
                        self.settle(&published);
                    }
                }
                talk.again = Some(Instant::now() + AGAIN_WAIT);
                talk.refused_since.get_or_insert_with(Instant::now);
                Ok(())
            }
        }
    }

    /// Goes on behind events that the journal does not take, as it would take them from no reporter.
    async fn pass_rejected(&mut self, talk: &mut Talk, done: &Submitted, published: &Published) -> Result<(), End> {
        let mut last = None;
        for (item, answer) in done.items.iter().zip(&published.answers) {
            if let (Item::Event(event), Answer::Rejected(reason)) = (item, answer)
                && let Some(mark) = &event.origin.relay
            {
                tracing::warn!(child = %self.name, position = %mark.position, %reason, "an event of an agent is not taken");
                self.uplinks.counts().events_rejected(1);
                last = Some(mark.position);
            }
        }
        let Some(position) = last else { return Ok(()) };
        let passed = self.speaker(talk).voice(|voice| voice.passed(position, None, 0));
        talk.submitted.push_back(Submitted { items: vec![passed], pending: None, bytes: 0, newest: None, room: None });
        self.bring_in(talk).await;
        Ok(())
    }

    fn settle(&self, published: &Published) {
        let mut tally = Tally::default();
        published.answers.iter().for_each(|answer| tally.note(answer));
        self.uplinks.door().counts().settle(&tally);
    }

    /// Counts what was on its way when the connection ended.
    async fn settle_rest(&mut self, rest: VecDeque<Submitted>) {
        for one in rest {
            let outcome = match one.pending {
                Some(mut pending) => pending.outcome().await,
                None => Err(PublishError::Busy),
            };
            match outcome {
                Ok(published) => self.settle(&published),
                Err(error) => {
                    let mut tally = Tally::default();
                    tally.refuse(&error, one.items.len() as u64);
                    self.uplinks.door().counts().settle(&tally);
                }
            }
        }
    }

    async fn tell_reached(&mut self, talk: &mut Talk) -> Result<(), End> {
        talk.untold = 0;
        let Some(reached) = self.uplinks.child(&self.name).and_then(|child| child.reached.clone()) else { return Ok(()) };
        let now = mark(&reached);
        if now == talk.told && !talk.submitted.is_empty() {
            return Ok(());
        }
        talk.told = now;
        talk.seat.pulse.told.store(now, Ordering::Relaxed);
        self.send(Some(talk), &Down::Reached(reached)).await
    }

    /// Compares, once nothing is on its way any more.
    async fn compare(&mut self, talk: &mut Talk) -> Result<(), End> {
        if !talk.submitted.is_empty() {
            return Ok(());
        }
        let Some((at, theirs)) = talk.compare.take() else { return Ok(()) };
        let (store, name) = (self.uplinks.store().clone(), self.name.clone());
        let ours = tokio::task::spawn_blocking(move || read::digests(&store, &name)).await;
        let ours = ours.map_err(|_| End::refused(Refusal::Busy, "the comparison broke"))?;
        let buckets = ours.differing(&theirs);
        tracing::info!(child = %self.name, %at, differing = buckets.len(), "the alarms of a node were compared");
        talk.unlisted = Unlisted::of(&buckets);
        self.send(Some(talk), &Down::Differ { buckets }).await
    }

    async fn obey(&mut self, talk: &mut Talk, order: Order) -> Result<(), End> {
        match order {
            Order::Look => {
                self.send_actions(talk).await?;
                let child = self.uplinks.child(&self.name);
                let now = child.and_then(|child| child.reached.as_ref().map(mark)).unwrap_or(0);
                if now != talk.told { self.tell_reached(talk).await } else { Ok(()) }
            }
            Order::Ping => self.ping(talk).await,
            Order::Rotate => self.rotate(talk).await,
        }
    }

    async fn send_actions(&mut self, talk: &mut Talk) -> Result<(), End> {
        let pending = read::pending_of(self.uplinks.store(), &self.name);
        talk.sent.retain(|id| pending.iter().any(|pending| pending.action.id == *id));
        for one in pending {
            if !talk.sent.contains(&one.action.id) {
                let action = by_clock_ahead(&one.action, talk.seat.pulse.offset_us().unwrap_or(0));
                self.send(Some(talk), &Down::Action(v1::Action::from(&action))).await?;
                talk.sent.insert(one.action.id);
            }
        }
        Ok(())
    }

    async fn ping(&mut self, talk: &mut Talk) -> Result<(), End> {
        let payload = Bytes::copy_from_slice(&now().as_micros().to_be_bytes());
        talk.asked = Some((Instant::now(), payload.clone()));
        self.write(Some(talk), Message::Ping(payload)).await
    }

    /// Gives it another credential. It holds from here on, beside the one in use: whether it came to the other side's disk is
    /// not known before the other side says so.
    async fn rotate(&mut self, talk: &mut Talk) -> Result<(), End> {
        if talk.offered.is_some() || !talk.submitted.is_empty() || matches!(self.proof, Proof::Certificate) {
            return Ok(());
        }
        let since = now();
        let holding =
            |child: &Child| child.credentials.iter().filter(|one| one.until.is_none_or(|until| until > since)).count();
        if self.uplinks.child(&self.name).is_none_or(|child| holding(&child) >= CREDENTIALS_MAX) {
            // One more would take away the oldest, which may be the one in use.
            return Ok(());
        }
        let token = new_token();
        let credential = Credential { hash: token.hash.clone(), since, until: None };
        let others_until = later(since, self.uplinks.config().credential_lifetime.max(OFFER_HOLDS));
        self.tell(ChildEvent::Rotated { credential, others_until }).await?;
        tracing::info!(child = %self.name, "a node below is given a new credential");
        self.send(Some(talk), &Down::Credential { token: token.text.clone() }).await?;
        talk.offered = Some(token);
        Ok(())
    }

    async fn rotated(&mut self, talk: &mut Talk) -> Result<(), End> {
        let Some(token) = talk.offered.take() else { return Ok(()) };
        let since = now();
        let credential = Credential { hash: token.hash, since, until: None };
        self.tell(ChildEvent::Rotated { credential, others_until: later(since, OVERLAP) }).await
    }

    /// Journals what became of it.
    async fn tell(&mut self, what: ChildEvent) -> Result<(), End> {
        self.tell_all(vec![what]).await
    }

    async fn tell_all(&mut self, whats: Vec<ChildEvent>) -> Result<(), End> {
        let fact = |what| ChildFact { child: self.name.clone(), actor: None, what };
        match self.uplinks.tell(whats.into_iter().map(fact).collect()).await {
            Ok(published) => match super::rejection(&published) {
                None => Ok(()),
                Some(reason) => Err(End::refused(Refusal::Busy, reason)),
            },
            Err(PublishError::Stopping) => Err(End::Stopping),
            Err(error) => Err(End::refused(Refusal::Busy, error.to_string())),
        }
    }

    fn count_in(&self, talk: &Talk, bytes: usize) {
        self.uplinks.counts().bytes_in(bytes as u64);
        talk.seat.pulse.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    async fn send(&mut self, talk: Option<&Talk>, down: &Down) -> Result<(), End> {
        let bytes = codec::encode(down).map_err(|error| End::Gone(format!("cannot be told: {error}")))?;
        self.write(talk, Message::Binary(bytes)).await
    }

    async fn write(&mut self, talk: Option<&Talk>, message: Message) -> Result<(), End> {
        let bytes = match &message {
            Message::Binary(bytes) | Message::Ping(bytes) => bytes.len() as u64,
            _ => 0,
        };
        match timeout(WRITE_WAIT, self.socket.send(message)).await {
            Ok(Ok(())) => {
                self.uplinks.counts().bytes_out(bytes);
                if let Some(talk) = talk {
                    talk.seat.pulse.bytes_out.fetch_add(bytes, Ordering::Relaxed);
                }
                Ok(())
            }
            Ok(Err(error)) => Err(End::Gone(error.to_string())),
            Err(_) => Err(End::Gone(format!("it does not read; nothing could be sent for {} s", WRITE_WAIT.as_secs()))),
        }
    }

    /// Says why, as far as the other side can still be told, and closes.
    async fn end(&mut self, end: End) {
        let (code, words) = match &end {
            End::Gone(reason) => {
                tracing::info!(child = %self.name, address = %self.address, %reason, "the uplink of a node ended");
                return;
            }
            End::Stopping => (close_code::AWAY, "the node is stopping"),
            End::Cut => {
                tracing::info!(child = %self.name, address = %self.address, "the uplink of a node was ended here");
                (close_code::POLICY, "ended")
            }
            End::Refused { code, reason, .. } => {
                self.uplinks.counts().refused(*code);
                tracing::warn!(child = %self.name, address = %self.address, ?code, %reason, "the uplink of a node is refused");
                (close_code::POLICY, "refused")
            }
            End::Anew { beyond } => {
                self.uplinks.counts().new_epoch();
                tracing::warn!(child = %self.name, address = %self.address, %beyond, "a node below is told to begin a new numbering");
                (close_code::POLICY, "come again")
            }
        };
        let last = match end {
            End::Refused { code, reason, retry_after_s } => Some(Down::Refused { reason, code, retry_after_s }),
            End::Anew { beyond } => Some(Down::BeginEpoch { beyond }),
            End::Gone(_) | End::Stopping | End::Cut => None,
        };
        if let Some(last) = last
            && self.send(None, &last).await.is_err()
        {
            return;
        }
        let close = Message::Close(Some(CloseFrame { code, reason: words.into() }));
        let _ = timeout(WRITE_WAIT, self.socket.send(close)).await;
        // What was sent before is lost if the connection is torn down while the other side still sends: it is read to its end.
        let _ = timeout(CLOSE_WAIT, async { while let Some(Ok(_)) = self.socket.recv().await {} }).await;
    }
}

/// How long the other side is read on after it was told that this is the end.
const CLOSE_WAIT: Duration = Duration::from_secs(2);

/// What the library says of a connection that broke. What the other side did wrong is told to it.
fn broken(error: &axum::Error) -> End {
    let text = error.to_string();
    if text.contains("too long") || text.contains("too large") || text.contains("exceed") {
        return End::refused(Refusal::Malformed, format!("a message that is too large: {text}"));
    }
    End::Gone(text)
}

/// The message in `bytes`, and how many it is unfolded.
async fn decode(bytes: Bytes) -> Result<(Heard, usize), String> {
    let read = |bytes: &[u8]| -> Result<(Heard, usize), codec::CodecError> {
        let json = codec::unfold(bytes)?;
        Ok((serde_json::from_slice(&json)?, json.len()))
    };
    if codec::unfolded_bytes(&bytes).is_some_and(|unfolded| unfolded < LARGE_BYTES) {
        return read(&bytes).map_err(|error| chain(&error));
    }
    let decoded = tokio::task::spawn_blocking(move || read(&bytes).map_err(|error| chain(&error))).await;
    decoded.unwrap_or_else(|_| Err("a message that breaks its reader".to_owned()))
}

/// How it ends because the journal, or the engine, did not take a step; nothing if it goes on.
fn not_taken(rejection: &Rejection, kind: ChildKind) -> Option<End> {
    let reason = rejection.to_string();
    match rejection {
        Rejection::NotTaken(NotTaken::OtherEpoch { known, .. }) => Some(End::Anew { beyond: *known }),
        Rejection::NotTaken(NotTaken::UnknownChild { .. }) => Some(End::refused(Refusal::Gone, reason)),
        Rejection::NotTaken(NotTaken::AwaitsApproval { .. }) => Some(End::refused(Refusal::AwaitsApproval, reason)),
        Rejection::NotTaken(NotTaken::TooManyLost { .. } | NotTaken::Broke { .. }) => Some(End::refused(Refusal::Busy, reason)),
        Rejection::NotTaken(_) => Some(End::refused(Refusal::Malformed, reason)),
        // One event among many, which a reporter at this node would be refused as well.
        _ if kind == ChildKind::Agent => None,
        _ => Some(End::refused(Refusal::Malformed, reason)),
    }
}

/// What a child is now, if it may still be heard.
fn present(child: Option<Arc<Child>>) -> Result<Arc<Child>, End> {
    child.filter(|child| child.retired.is_none()).ok_or_else(|| End::refused(Refusal::Gone, "it was retired here"))
}
