//! What is reported while the brokers are away, kept in the node's own journal until they have it. It goes to them in its order,
//! each report under an id of its own, so that one that goes twice counts once.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant, SystemTime};

use klaxon_schemas::entry::{Entry, EntryKind};
use klaxon_schemas::event::Event;
use klaxon_schemas::ids::{Epoch, Position};
use klaxon_schemas::names::{Door, EventId};
use klaxon_schemas::time::{JournalTime, Timestamp};
use klaxon_store::kafka::{Events, Place};
use klaxon_store::publish::Publisher;
use klaxon_store::{ReadError, Store};

/// The most reports that are on their way to the brokers together.
const BATCH_ENTRIES_MAX: usize = 500;
/// And about how many bytes they have at most.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// When reports that did not get there are sent again.
const RETRY_WAIT: Duration = Duration::from_secs(1);

/// What waits for the brokers.
pub(super) struct Spool {
    /// Whether reports are kept while the brokers are away.
    is_on: bool,
    /// All up to here is with the brokers.
    done: Position,
    /// The last report that was kept, on the disk or on its way there.
    last: Position,
    /// Something may wait behind what is done.
    is_pending: bool,
    /// Up to where what is on its way goes.
    on_its_way: bool,
    not_before: Option<Instant>,
    landed: (mpsc::Sender<Option<Position>>, mpsc::Receiver<Option<Position>>),
}

impl Spool {
    /// As the store has it.
    pub(super) fn of(store: &Store, is_on: bool) -> Self {
        let (done, last) = (store.read().cursor().applied, *store.committed().borrow());
        // What was kept before goes to the brokers, whatever is set now.
        Self { is_on, done, last, is_pending: true, on_its_way: false, not_before: None, landed: mpsc::channel() }
    }

    /// As the store has it, after what was to be written there last was not.
    pub(super) fn begin_anew(&mut self, store: &Store) {
        *self = Self::of(store, self.is_on);
    }

    /// Whether a report is to be kept here, behind those that wait, though the brokers may be there by now.
    pub(super) fn takes(&self, is_away: bool) -> bool {
        self.is_on && (is_away || self.is_pending)
    }

    /// All up to here needs nobody's attention any more; nothing, if that is all there is.
    pub(super) fn done(&self) -> Option<Position> {
        self.is_pending.then_some(self.done)
    }

    /// The entry that keeps a report at `position`.
    pub(super) fn keep(&mut self, position: Position, epoch: Epoch, door: Door, event: &Arc<Event>) -> Entry {
        if !self.is_pending {
            (self.is_pending, self.done) = (true, Position(position.0 - 1));
        }
        self.last = position;
        let mut event = Event::clone(event);
        if event.origin.event_id.is_none() && event.origin.sequence.is_none() {
            event.origin.event_id = EventId::new(&format!("spool:{epoch}:{position}")).ok();
        }
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let micros = i64::try_from(since.as_micros()).unwrap_or(i64::MAX);
        Entry {
            position,
            at: JournalTime(micros.cast_unsigned()),
            wall: Timestamp::from_micros(micros).unwrap_or_default(),
            door,
            kind: EntryKind::Event(Arc::new(event)),
        }
    }

    /// Sends what waits, some at a time. Whether something came to the brokers that is to be kept as sent.
    pub(super) fn send(&mut self, store: &Store, events: &Events, wake: &Publisher) -> Result<bool, ReadError> {
        let mut is_news = false;
        for landed in self.landed.1.try_iter() {
            self.on_its_way = false;
            match landed {
                Some(upto) => (self.done, is_news) = (upto, true),
                None => self.not_before = Some(Instant::now() + RETRY_WAIT),
            }
        }
        let is_away = store.original().is_none_or(|original| original.reached_since.is_none());
        if !self.is_pending || self.on_its_way || is_away || self.not_before.is_some_and(|at| at > Instant::now()) {
            return Ok(is_news);
        }
        let committed = *store.committed().borrow();
        let (entries, upto) = store.entries_page(self.done, BATCH_ENTRIES_MAX, BATCH_BYTES_MAX)?;
        if entries.is_empty() {
            self.done = upto;
            self.is_pending = upto < self.last;
            if upto < committed {
                wake.wake();
            }
            return Ok(is_news);
        }
        self.on_its_way = true;
        let (left, is_whole) = (Arc::new(AtomicUsize::new(entries.len())), Arc::new(AtomicBool::new(true)));
        for entry in entries {
            let (left, is_whole) = (Arc::clone(&left), Arc::clone(&is_whole));
            let (landed, wake) = (self.landed.0.clone(), wake.clone());
            events.send(Place::OfItsSite, &entry.door, entry.kind, move |sent| {
                if let Err(error) = sent {
                    tracing::debug!(%error, "a report that was kept does not get to the brokers yet");
                    is_whole.store(false, Ordering::Relaxed);
                }
                if left.fetch_sub(1, Ordering::AcqRel) == 1 {
                    // The loop may have ended: it is sent again then.
                    let _ = landed.send(is_whole.load(Ordering::Relaxed).then_some(upto));
                    wake.wake();
                }
            });
        }
        Ok(is_news)
    }
}

#[cfg(test)]
mod tests {
    use klaxon_schemas::names::Site;
    use klaxon_store::kafka::Cluster;
    use klaxon_store::{Frame, StoreConfig, publish};

    use super::*;
    use crate::own::{self, OwnAlarm};

    fn events() -> Events {
        let brokers = vec!["127.0.0.1:9".to_owned()];
        let prefix = "klaxon.".to_owned();
        let cluster = Cluster { brokers, prefix, partitions: 4, replication: 1, min_insync: 1, tls: None, sasl: None };
        Events::new(&cluster).expect("the settings are good")
    }

    #[test]
    fn what_was_taken_last_waits_though_it_is_not_on_the_disk_yet() {
        let dir = tempfile::tempdir().expect("can be made");
        let (store, mut writer, _) = Store::open(StoreConfig::new(dir.path())).expect("opens");
        store.note_original(true);
        let (wake, _intake) = publish::queue();
        let (events, mut spool) = (events(), Spool::of(&store, true));
        let EntryKind::Event(event) = own::raise(&Site::new("here").expect("valid"), OwnAlarm::Quarantine, "") else {
            panic!("it is an event");
        };
        let frame = |spool: &mut Spool, position| Frame {
            entries: vec![spool.keep(position, store.epoch(), own::door(), &event)],
            results: None,
        };
        let (first, (go, wait)) = (writer.next_position(), mpsc::channel::<()>());
        writer.submit(frame(&mut spool, first), move |durable| {
            assert!(durable.is_ok());
            // What comes behind it is on its way to the disk for so long.
            let _ = wait.recv();
        });
        let second = writer.next_position();
        writer.submit(frame(&mut spool, second), |durable| assert!(durable.is_ok()));
        let mut committed = store.committed();
        while *committed.borrow_and_update() < first {
            std::thread::yield_now();
        }
        // The brokers have the first.
        spool.landed.0.send(Some(first)).expect("is heard");
        assert!(spool.send(&store, &events, &wake).expect("can be read"));
        assert!(spool.takes(false), "the second waits");
        go.send(()).expect("it waits");
        writer.drain();
        spool.send(&store, &events, &wake).expect("can be read");
        assert!(spool.on_its_way, "the second goes to the brokers");
    }
}
