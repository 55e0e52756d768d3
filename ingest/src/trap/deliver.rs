//! From datagrams to the journal: a thread makes events of them, a task brings the events in and answers informs.
//!
//! Several submissions are on their way at a time, so that the journal always has the next one, and all in one [`Lane`], so that
//! a linkUp never comes in before its linkDown. When one is refused, those behind it are as well; then all of them come in
//! again, in a new lane, traps and informs. An inform that is held is answered late: meanwhile its sender tries again, and each
//! of those datagrams waits behind it, is a duplicate of it, and is answered too.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use klaxon_schemas::event::Event;
use klaxon_store::door::{Door, DropReason, RejectReason, Tally};
use klaxon_store::publish::{Answer, Item, Lane, Pending, PublishError, Published};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::grumbler::Grumbler;

use super::inform::Informs;
use super::socket::{CloseOnDrop, Datagram, Queue, Reply, TrapSocket};
use super::{Ruled, TrapCounts};
use klaxon_snmp::{self as snmp, Answer as InformAnswer, Inbound, Refused, Unreadable};

/// The most events in one submission.
const BATCH_MAX: usize = 1_024;
/// The most submissions on their way at a time.
const IN_FLIGHT_MAX: usize = 4;
/// How long nothing is brought in after a refusal.
const REFUSED_WAIT: Duration = Duration::from_millis(100);
/// How long what came before the end may take to come in after it.
pub(super) const STOP_MAX: Duration = Duration::from_secs(10);

/// An event, and who waits to hear that it is durable.
#[derive(Debug)]
pub(super) struct Prepared {
    event: Arc<Event>,
    inform: Option<(Reply, InformAnswer)>,
}

/// Makes events of datagrams.
pub(super) struct Reader {
    pub(super) inbound: Inbound,
    /// For what senders of v3 must be told.
    pub(super) socket: Arc<TrapSocket>,
    pub(super) ruled: Ruled,
    pub(super) informs: Informs,
    pub(super) communities: Vec<String>,
    pub(super) counts: Arc<TrapCounts>,
    pub(super) door: Door,
}

impl Reader {
    /// Reads what comes by `queue` until it is closed, or until nobody takes the batches any more.
    pub(super) fn run(mut self, queue: &Queue, batches: &mpsc::Sender<Vec<Prepared>>) {
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
            self.ruled.refresh();
            for datagram in datagrams {
                if !self.ruled.sources.admits(datagram.from.ip(), datagram.at) {
                    tally.dropped[DropReason::RateLimited as usize] += 1;
                    continue;
                }
                match self.read(&datagram) {
                    Ok(prepared) => batch.push(prepared),
                    // Who asks is no door's visitor yet: what it comes with is still to come.
                    Err(Unreadable::Discovery(_)) => {}
                    Err(why) => {
                        tally.reject(RejectReason::Invalid, 1);
                        if let Some(others) = grumbler.hear() {
                            let source = datagram.from.ip().to_canonical();
                            tracing::warn!(%source, reason = %why, others, "a datagram to the trap port cannot be used");
                        }
                    }
                }
            }
            self.door.counts().settle(&tally);
            if !batch.is_empty()
                && let Err(unsent) = batches.blocking_send(batch)
            {
                return self.give_up(unsent.0.len(), queue);
            }
        }
    }

    /// Nobody brings anything in any more: what is in the queue is lost, and counted.
    fn give_up(&self, unsent: usize, queue: &Queue) {
        queue.close();
        let mut lost = unsent as u64;
        loop {
            match queue.take(BATCH_MAX).len() {
                0 => break,
                count => lost += count as u64,
            }
        }
        settle_lost(&self.door, lost);
    }

    fn read(&mut self, datagram: &Datagram) -> Result<Prepared, Unreadable> {
        let communities = &self.communities;
        let is_welcome =
            |community: &[u8]| communities.is_empty() || communities.iter().any(|known| known.as_bytes() == community);
        let count = |counter: &std::sync::atomic::AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        match self.inbound.read(&datagram.bytes, datagram.from.ip(), is_welcome, datagram.at) {
            Ok(notification) => {
                count(match notification.version {
                    snmp::Version::V1 => &self.counts.version_1,
                    snmp::Version::V2c => &self.counts.version_2c,
                    snmp::Version::V3 => &self.counts.v3.notifications,
                });
                let mut event = self.ruled.mapper.event(datagram.from, &notification);
                if let Some(inform) = &notification.inform {
                    event.origin.event_id = Some(self.informs.id(datagram.from, inform, datagram.at));
                }
                let event = Arc::new(event);
                let inform = notification.inform.map(|inform| (Reply::from(datagram), inform.answer));
                if inform.is_some() {
                    count(&self.counts.informs);
                }
                Ok(Prepared { event, inform })
            }
            Err(Refused { why, report }) => {
                count(self.counts.v3.refusal(&why).unwrap_or(match why {
                    Unreadable::Version(_) => &self.counts.other_version,
                    Unreadable::Community => &self.counts.other_community,
                    Unreadable::Kind(_) => &self.counts.no_notification,
                    _ => &self.counts.malformed,
                }));
                if let Some(Err(error)) = report.map(|report| self.socket.answer(&Reply::from(datagram), &report)) {
                    tracing::debug!(to = %datagram.from, %error, "a Report cannot be sent; whoever asked asks again");
                }
                Err(why)
            }
        }
    }
}

/// Counts what is lost because the node stops, and says how much that is.
fn settle_lost(door: &Door, lost: u64) {
    if lost == 0 {
        return;
    }
    let mut tally = Tally::default();
    tally.dropped[DropReason::Stopping as usize] += lost;
    door.counts().settle(&tally);
    tracing::error!(lost, "traps and informs are lost: the node stops, and the journal does not take them in time");
}

/// A submission that waits for its place in the queue.
type Submitting = Pin<Box<dyn Future<Output = Result<Pending, PublishError>> + Send>>;

/// Brings events in, and answers.
pub(super) struct Deliver {
    pub(super) door: Door,
    pub(super) socket: Arc<TrapSocket>,
    pub(super) counts: Arc<TrapCounts>,
    pub(super) stop: CancellationToken,
    /// How long it goes on after `stop`, or after nothing comes any more.
    pub(super) stop_max: Duration,
}

impl Deliver {
    /// Brings in all that comes by `batches`, until nothing comes any more and all of it is settled, or the time to stop is over.
    pub(super) async fn run(&self, mut batches: mpsc::Receiver<Vec<Prepared>>) {
        let mut lane = Lane::default();
        let mut waiting = VecDeque::new();
        let mut submitting: Option<Submitting> = None;
        let mut in_flight: VecDeque<(Vec<Prepared>, Pending)> = VecDeque::new();
        let mut refused: VecDeque<Vec<Prepared>> = VecDeque::new();
        let mut not_before = tokio::time::Instant::now();
        let mut is_open = true;
        let mut end: Option<tokio::time::Instant> = None;
        while is_open || !waiting.is_empty() || !in_flight.is_empty() || !refused.is_empty() {
            if end.is_none() && batches.is_closed() {
                end = Some(tokio::time::Instant::now() + self.stop_max);
            }
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
                () = self.stop.cancelled(), if end.is_none() => end = Some(tokio::time::Instant::now() + self.stop_max),
                () = at(end), if end.is_some() => break,
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
        // What has its place in the queue may come in yet; nobody is answered for it.
        let mut left: Vec<_> = in_flight.into_iter().map(|(batch, _)| batch).chain(refused).chain(waiting).collect();
        batches.close();
        left.extend(std::iter::from_fn(|| batches.try_recv().ok()));
        self.lose(left.into_iter().flatten());
    }

    /// What is durable is counted, and answered if it asks for that.
    fn settle(&self, batch: Vec<Prepared>, published: &Published) {
        let mut tally = Tally::default();
        published.answers.iter().for_each(|answer| tally.note(answer));
        // Who has an answer and asks for the counts finds it counted.
        self.door.counts().settle(&tally);
        let mut unanswered = 0;
        for (prepared, answer) in batch.into_iter().zip(&published.answers) {
            let is_durable = matches!(answer, Answer::Accepted { .. } | Answer::Duplicate);
            let Some((reply, answer)) = prepared.inform else { continue };
            let say = || self.socket.answer(&reply, &answer.encode().map_err(std::io::Error::other)?);
            match is_durable.then(say) {
                Some(Ok(())) => drop(self.counts.answered.fetch_add(1, Ordering::Relaxed)),
                Some(Err(error)) => {
                    unanswered += 1;
                    tracing::debug!(to = %reply.to, %error, "an inform cannot be answered; its sender tries again");
                }
                None => unanswered += 1,
            }
        }
        self.counts.unanswered.fetch_add(unanswered, Ordering::Relaxed);
    }

    /// What of a refused batch is to be brought in again: all of it, unless there is no hope before the end.
    fn keep(&self, batch: Vec<Prepared>, error: &PublishError) -> Option<Vec<Prepared>> {
        let is_full = matches!(error, PublishError::DiskFull { .. } | PublishError::Unread { .. });
        if *error == PublishError::Stopping || (is_full && self.stop.is_cancelled()) {
            tracing::debug!(reason = %error, "the journal takes no traps any more");
            self.lose(batch.into_iter());
            return None;
        }
        self.counts.held.fetch_add(batch.len() as u64, Ordering::Relaxed);
        Some(batch)
    }

    /// Gives up what did not come in before the end.
    fn lose(&self, lost: impl Iterator<Item = Prepared>) {
        let (informs, traps): (Vec<_>, Vec<_>) = lost.partition(|prepared| prepared.inform.is_some());
        self.counts.unanswered.fetch_add(informs.len() as u64, Ordering::Relaxed);
        settle_lost(&self.door, (informs.len() + traps.len()) as u64);
    }
}

/// When the time is over, if there is one.
async fn at(end: Option<tokio::time::Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
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

#[cfg(test)]
mod tests {
    use klaxon_schemas::names::Site;
    use klaxon_store::publish::{self, Next};
    use klaxon_store::{Store, StoreConfig};

    use super::super::{SourceLimit, TrapControl, TrapRules};
    use super::*;

    const INFORM: &[u8] = include_bytes!("../../../fuzz/corpus/trap/v2c-inform.bin");
    const LINK_DOWN: &[u8] = include_bytes!("../../../fuzz/corpus/trap/v2c-link-down.bin");

    #[test]
    fn what_the_journal_does_not_take_before_the_end_is_counted_as_lost() {
        let dir = tempfile::tempdir().expect("can be made");
        let (store, _writer, _) = Store::open(StoreConfig::new(dir.path())).expect("opens");
        let (publisher, intake) = publish::queue();
        let door = Door::new("trap".parse().expect("is a word"), publisher, store);
        let counts = Arc::<TrapCounts>::default();
        let socket = Arc::new(TrapSocket::bind("127.0.0.1:0".parse().expect("an address"), 65_536).expect("a port is free"));
        let queue = Queue::new(10_000, 1 << 24);
        let (batches, waiting) = mpsc::channel(1);
        let control =
            TrapControl::new(TrapRules { source_limit: SourceLimit { rate_max: 0, burst_max: 0 }, ..Default::default() });
        let ruled = Ruled::new(control, Site::new("here").expect("valid"), Arc::default());
        let (informs, communities) = (Informs::default(), Vec::new());
        let (inbound, reading) =
            (Inbound::new(Arc::new(snmp::EngineHome::new(dir.path())), snmp::Users::default()), Arc::clone(&socket));
        let (counting, entering) = (Arc::clone(&counts), door.clone());
        let reader = Reader { inbound, socket: reading, ruled, informs, communities, counts: counting, door: entering };
        let stop = CancellationToken::new();
        let stop_max = Duration::from_millis(50);
        let deliver = Deliver { door: door.clone(), socket, counts: Arc::clone(&counts), stop: stop.clone(), stop_max };
        // More than is on its way at a time, and than waits behind that.
        let sent = BATCH_MAX as u64 * 8;
        for number in 0..sent {
            let bytes = bytes::Bytes::from_static(if number % 2 == 0 { INFORM } else { LINK_DOWN });
            let datagram =
                Datagram { from: "127.0.0.1:9".parse().expect("an address"), to: None, bytes, at: std::time::Instant::now() };
            assert!(queue.put(datagram));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("can be made");
        std::thread::scope(|scope| {
            scope.spawn(|| reader.run(&queue, &batches));
            runtime.block_on(async {
                tokio::join!(deliver.run(waiting), async {
                    // Nobody answers the first, the second is refused and held.
                    let (_first, second) = (submission(&intake).await, submission(&intake).await);
                    second.answer(Err(PublishError::Busy));
                    stop.cancel();
                });
            });
            // The thread that reads finds nobody who takes what it has.
            queue.close();
        });
        let (received, totals) = door.counts().totals();
        assert_eq!((received, totals.dropped[DropReason::Stopping as usize]), (sent, sent));
        assert!(counts.unanswered.load(Ordering::Relaxed) > 0);
    }

    async fn submission(intake: &publish::Intake) -> publish::Submission {
        loop {
            match intake.next(Some(Duration::ZERO)) {
                Next::Submission(submission) => return submission,
                _ => tokio::task::yield_now().await,
            }
        }
    }
}
