//! From datagrams to the journal: a thread makes events of them, a task brings the events in and answers informs.
//!
//! Several submissions are on their way at a time, so that the journal always has the next one, and all in one [`Lane`], so that
//! a linkUp never comes in before its linkDown. When one is refused, those behind it are as well; then all of them come in
//! again, in a new lane, without the informs: their senders were not answered and try again by themselves.

use std::collections::VecDeque;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use klaxon_schemas::event::Event;
use klaxon_store::door::{Door, RejectReason, Tally};
use klaxon_store::publish::{Answer, Item, Lane, Pending, PublishError, Published};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::TrapCounts;
use super::map::Mapper;
use super::pdu::{self, Unreadable};
use super::socket::{Datagram, Queue, Reply, TrapSocket};

/// The most events in one submission.
const BATCH_MAX: usize = 1_024;
/// The most submissions on their way at a time.
const IN_FLIGHT_MAX: usize = 4;
/// How long nothing is brought in after a refusal.
const REFUSED_WAIT: Duration = Duration::from_millis(100);
/// Of what cannot be used, one is told of in this time.
const GRUMBLE_EVERY: Duration = Duration::from_secs(60);

/// An event, and who waits to hear that it is durable.
#[derive(Debug)]
pub(super) struct Prepared {
    event: Arc<Event>,
    inform: Option<(Reply, Vec<u8>)>,
}

/// Makes events of datagrams.
pub(super) struct Reader {
    pub(super) mapper: Mapper,
    pub(super) communities: Vec<String>,
    pub(super) counts: Arc<TrapCounts>,
    pub(super) door: Door,
}

impl Reader {
    /// Reads what comes by `queue` until it is closed, or until nobody takes the batches any more.
    pub(super) fn run(self, queue: &Queue, batches: &mpsc::Sender<Vec<Prepared>>) {
        // Whatever ends this thread, nobody waits for it to make room.
        let _closed = CloseOnDrop(queue);
        let mut grumbler = Grumbler::default();
        loop {
            let datagrams = queue.take(BATCH_MAX);
            if datagrams.is_empty() {
                return;
            }
            let mut tally = Tally::default();
            let mut batch = Vec::with_capacity(datagrams.len());
            for datagram in datagrams {
                match self.read(&datagram) {
                    Ok(prepared) => batch.push(prepared),
                    Err(why) => {
                        tally.reject(RejectReason::Invalid, 1);
                        grumbler.hear(datagram.from, &why);
                    }
                }
            }
            self.door.counts().settle(&tally);
            if !batch.is_empty() && batches.blocking_send(batch).is_err() {
                return;
            }
        }
    }

    fn read(&self, datagram: &Datagram) -> Result<Prepared, Unreadable> {
        let is_welcome = |community: &[u8]| {
            self.communities.is_empty() || self.communities.iter().any(|known| known.as_bytes() == community)
        };
        let count = |counter: &std::sync::atomic::AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        match pdu::decode(&datagram.bytes, is_welcome) {
            Ok(notification) => {
                count(match notification.version {
                    pdu::Version::V1 => &self.counts.version_1,
                    pdu::Version::V2c => &self.counts.version_2c,
                });
                let event = Arc::new(self.mapper.event(datagram.from, &notification));
                let inform = notification.inform.map(|inform| (Reply::from(datagram), inform.response));
                if inform.is_some() {
                    count(&self.counts.informs);
                }
                Ok(Prepared { event, inform })
            }
            Err(why) => {
                count(match why {
                    Unreadable::Malformed(_) | Unreadable::NoTrapOid => &self.counts.malformed,
                    Unreadable::Version(_) => &self.counts.other_version,
                    Unreadable::Community => &self.counts.other_community,
                    Unreadable::Kind(_) => &self.counts.no_notification,
                });
                Err(why)
            }
        }
    }
}

struct CloseOnDrop<'a>(&'a Queue);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Tells of what cannot be used: the first at once, and then one a minute with the number of the others.
#[derive(Debug, Default)]
struct Grumbler {
    last: Option<Instant>,
    others: u64,
}

impl Grumbler {
    fn hear(&mut self, source: SocketAddr, why: &Unreadable) {
        if self.last.is_some_and(|last| last.elapsed() < GRUMBLE_EVERY) {
            self.others += 1;
            return;
        }
        tracing::warn!(%source, reason = %why, others = self.others, "a datagram to the trap port cannot be used");
        *self = Self { last: Some(Instant::now()), others: 0 };
    }
}

/// A submission that waits for its place in the queue.
type Submitting = Pin<Box<dyn Future<Output = Result<Pending, PublishError>> + Send>>;

/// Brings events in, and answers.
pub(super) struct Deliver {
    pub(super) door: Door,
    pub(super) socket: Arc<TrapSocket>,
    pub(super) counts: Arc<TrapCounts>,
    pub(super) stop: CancellationToken,
}

impl Deliver {
    /// Brings in all that comes by `batches`, until nothing comes any more and all of it is settled.
    pub(super) async fn run(&self, mut batches: mpsc::Receiver<Vec<Prepared>>) {
        let mut lane = Lane::default();
        let mut waiting = VecDeque::new();
        let mut submitting: Option<Submitting> = None;
        let mut in_flight: VecDeque<(Vec<Prepared>, Pending)> = VecDeque::new();
        let mut refused: VecDeque<Vec<Prepared>> = VecDeque::new();
        let mut not_before = tokio::time::Instant::now();
        let mut is_open = true;
        while is_open || !waiting.is_empty() || !in_flight.is_empty() {
            if !refused.is_empty() && in_flight.is_empty() && submitting.is_none() {
                // All that was in the lane has come back, in its order.
                refused.append(&mut waiting);
                waiting = std::mem::take(&mut refused);
                lane = Lane::default();
                not_before = tokio::time::Instant::now() + REFUSED_WAIT;
                if waiting.is_empty() {
                    continue;
                }
            }
            let may_submit = submitting.is_none() && refused.is_empty() && in_flight.len() < IN_FLIGHT_MAX;
            tokio::select! {
                biased;
                outcome = first(&mut in_flight), if !in_flight.is_empty() => {
                    let (batch, _) = in_flight.pop_front().expect("it was there");
                    match outcome {
                        Ok(published) => self.settle(batch, &published),
                        Err(error) => refused.extend(self.keep(batch, &error)),
                    }
                }
                outcome = place(&mut submitting), if submitting.is_some() => {
                    submitting = None;
                    let batch: Vec<Prepared> = waiting.pop_front().expect("is submitted from there");
                    match outcome {
                        Ok(pending) => in_flight.push_back((batch, pending)),
                        Err(error) => refused.extend(self.keep(batch, &error)),
                    }
                }
                () = tokio::time::sleep_until(not_before), if may_submit && !waiting.is_empty() => {
                    let (door, lane) = (self.door.clone(), lane.clone());
                    let items = waiting[0].iter().map(|prepared| Item::Event(Arc::clone(&prepared.event))).collect();
                    submitting = Some(Box::pin(async move { door.submit(items, &lane).await }));
                }
                batch = batches.recv(), if is_open && waiting.is_empty() && refused.is_empty() => match batch {
                    Some(batch) => waiting.push_back(batch),
                    None => is_open = false,
                },
            }
        }
    }

    /// What is durable is counted, and answered if it asks for that.
    fn settle(&self, batch: Vec<Prepared>, published: &Published) {
        let mut tally = Tally::default();
        let mut unanswered = 0;
        for (prepared, answer) in batch.into_iter().zip(&published.answers) {
            tally.note(answer);
            let is_durable = matches!(answer, Answer::Accepted { .. } | Answer::Duplicate);
            let Some((reply, response)) = prepared.inform else { continue };
            match is_durable.then(|| self.socket.answer(&reply, &response)) {
                Some(Ok(())) => drop(self.counts.answered.fetch_add(1, Ordering::Relaxed)),
                Some(Err(error)) => {
                    unanswered += 1;
                    tracing::debug!(to = %reply.to, %error, "an inform cannot be answered; its sender tries again");
                }
                None => unanswered += 1,
            }
        }
        self.counts.unanswered.fetch_add(unanswered, Ordering::Relaxed);
        self.door.counts().settle(&tally);
    }

    /// What of a refused batch is to be brought in again: the traps, unless the node stops. Informs come again by themselves.
    fn keep(&self, mut batch: Vec<Prepared>, error: &PublishError) -> Option<Vec<Prepared>> {
        let mut tally = Tally::default();
        let informs = batch.extract_if(.., |prepared| prepared.inform.is_some()).count() as u64;
        tally.refuse(error, informs);
        self.counts.unanswered.fetch_add(informs, Ordering::Relaxed);
        if self.stop.is_cancelled() || *error == PublishError::Stopping {
            let traps = batch.len() as u64;
            tally.refuse(error, traps);
            if traps > 0 {
                tracing::error!(traps, reason = %error, "traps are lost: the node stops, and the journal does not take them");
            }
            batch.clear();
        }
        self.door.counts().settle(&tally);
        self.counts.held.fetch_add(batch.len() as u64, Ordering::Relaxed);
        (!batch.is_empty()).then_some(batch)
    }
}

/// What became of the oldest submission. Cancelling this loses nothing.
async fn first(in_flight: &mut VecDeque<(Vec<Prepared>, Pending)>) -> Result<Published, PublishError> {
    let (_, pending) = in_flight.front_mut().expect("there is one");
    pending.outcome().await
}

/// Whether a submission has its place. Cancelling this loses nothing.
async fn place(submitting: &mut Option<Submitting>) -> Result<Pending, PublishError> {
    submitting.as_mut().expect("there is one").await
}
