//! Tests of the store as a whole. A toy engine makes frames: what it decides is of no account, only that it is kept.

mod damage;
mod index;
mod life;
mod query;
mod retention;
mod view;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;

use klaxon_schemas::alarm::{Alarm, ChangeNumber, Clearance, ClearedBy, EngineMarks};
use klaxon_schemas::change::{Change, ChangeKind, Reason, Subject};
use klaxon_schemas::entry::{Entry, EntryKind};
use klaxon_schemas::event::{AlarmKey, Details, Event, Origin, Report, SpanRule};
use klaxon_schemas::ids::{AlarmId, Epoch, Position, Seq};
use klaxon_schemas::names::{AlarmType, Door, EventId, Qualifier, Site, Text};
use klaxon_schemas::resource::Resource;
use klaxon_schemas::severity::Severity;
use klaxon_schemas::state::{Cursor, Seen, StateKey, StateRecord};
use klaxon_schemas::time::{JournalTime, Timestamp};

use crate::{AppendError, Durable, Frame, Item, OpenReport, Results, Store, StoreConfig, ViewEngine, Writer};

fn at(number: u64) -> Timestamp {
    Timestamp::from_micros(1_700_000_000_000_000 + number as i64 * 1_000_000).expect("valid")
}

fn key(number: u64) -> AlarmKey {
    AlarmKey {
        site: Site::new(if number.is_multiple_of(3) { "south" } else { "north" }).expect("valid"),
        resource: Resource::new(&format!("host=web-{}.filesystem=/var/{number}", number % 7)).expect("valid"),
        alarm_type: AlarmType::new(["disk.full", "link.down", "fan.slow"][(number % 3) as usize]).expect("valid"),
        qualifier: Qualifier::new("").expect("valid"),
    }
}

fn alarm(number: u64) -> Alarm {
    Alarm {
        id: AlarmId::derive("north", Epoch(1), Seq(number)),
        key: key(number),
        owner: None,
        via: None,
        catalogued: true,
        severity: Severity::ALL[(number % 5) as usize],
        cleared: None,
        text: Text::new(&format!("something is wrong, number {number}")).expect("valid"),
        details: Details::default(),
        raise_seq: 1,
        first_raised_at: at(number),
        raised_at: at(number),
        event_time: None,
        changed_at: at(number),
        last_change: ChangeNumber { epoch: Epoch(1), seq: Seq(number) },
        count: 1,
        last_reported_at: at(number),
        last_event_time: None,
        producer: None,
        acknowledged: None,
        assigned: None,
        notes: Vec::new(),
        shelved: None,
        stale: None,
        engine: EngineMarks::default(),
    }
}

/// What the toy engine does.
#[derive(Debug, Clone, Copy)]
enum Step {
    Raise(u64),
    Again(u64),
    Clear(u64),
    Purge(u64),
    Forget(u64),
}

/// A toy engine with the writer that it feeds.
struct Toy {
    store: Store,
    writer: Writer,
    alarms: BTreeMap<u64, Arc<Alarm>>,
    seq: u64,
}

fn small(dir: &Path) -> StoreConfig {
    StoreConfig { segment_bytes: 64 * 1024, free_space_watermark_bytes: 0, ..StoreConfig::new(dir) }
}

/// The same with the view in `engine`.
fn small_in(dir: &Path, engine: ViewEngine) -> StoreConfig {
    let mut config = small(dir);
    config.view.engine = engine;
    config
}

/// The engines that this build has: what the view has a part in is tested with each.
fn engines() -> impl Iterator<Item = ViewEngine> {
    ViewEngine::ALL.into_iter().filter(|engine| engine.is_built())
}

fn event(number: u64) -> Arc<Event> {
    Arc::new(Event {
        key: key(number),
        report: Report::Raise(Severity::Major),
        text: Text::new("as reported").expect("valid"),
        details: Details::default(),
        event_time: None,
        origin: Origin::default(),
        lease: None,
        ends_at: None,
        span: SpanRule::default(),
        order_by_event_time: false,
    })
}

impl Toy {
    fn open(dir: &Path) -> (Self, OpenReport) {
        Self::open_with(small(dir))
    }

    fn open_in(dir: &Path, engine: ViewEngine) -> (Self, OpenReport) {
        Self::open_with(small_in(dir, engine))
    }

    fn open_with(config: StoreConfig) -> (Self, OpenReport) {
        let (store, writer, report) = Store::open(config).expect("opens");
        (Self { store, writer, alarms: BTreeMap::new(), seq: 0 }, report)
    }

    fn frame(&mut self, steps: &[Step]) -> Frame {
        let first = self.writer.next_position();
        let mut frame = Frame::default();
        let mut results = Results::default();
        for (number, step) in steps.iter().enumerate() {
            let position = first.plus(number as u64);
            let (Step::Raise(id) | Step::Again(id) | Step::Clear(id) | Step::Purge(id) | Step::Forget(id)) = *step;
            frame.entries.push(Entry {
                position,
                at: JournalTime(position.0),
                wall: at(position.0),
                door: Door::new("test").expect("valid"),
                kind: EntryKind::Event(event(id)),
            });
            let seen = StateKey::EventId(None, EventId::new(&format!("e{id}")).expect("valid"));
            let kind = match step {
                Step::Raise(_) => {
                    self.alarms.insert(id, Arc::new(alarm(id)));
                    results.puts.push((seen, Some(StateRecord::Seen(Seen { at: JournalTime(position.0) }))));
                    ChangeKind::Raised
                }
                Step::Again(_) => {
                    let alarm = Arc::make_mut(self.alarms.get_mut(&id).expect("was raised"));
                    alarm.count += 1;
                    alarm.last_reported_at = at(position.0);
                    results.touched.push(Arc::clone(&self.alarms[&id]));
                    continue;
                }
                Step::Clear(_) => {
                    let alarm = Arc::make_mut(self.alarms.get_mut(&id).expect("was raised"));
                    alarm.cleared = Some(Clearance { at: at(position.0), by: ClearedBy::Report });
                    ChangeKind::Cleared
                }
                Step::Purge(_) => ChangeKind::Purged,
                Step::Forget(_) => {
                    results.puts.push((seen, None));
                    continue;
                }
            };
            self.seq += 1;
            results.changes.push(Arc::new(Change {
                site: self.alarms[&id].key.site.clone(),
                number: ChangeNumber { epoch: Epoch(1), seq: Seq(self.seq) },
                at: at(position.0),
                past: false,
                kind,
                reasons: vec![Reason::Entry(position)],
                actor: None,
                from: None,
                note: None,
                subject: Subject::Alarm { alarm: Arc::clone(&self.alarms[&id]), previous_severity: None },
                place: None,
            }));
            if kind == ChangeKind::Purged {
                self.alarms.remove(&id);
            }
        }
        let applied = Position(first.0 + steps.len() as u64 - 1);
        results.cursor =
            Cursor { applied, at: JournalTime(applied.0), epoch: Epoch(1), last_seq: Seq(self.seq), ..Cursor::default() };
        frame.results = Some(results);
        frame
    }

    fn commit(&mut self, steps: &[Step]) -> Durable {
        self.try_commit(steps).expect("is appended")
    }

    fn try_commit(&mut self, steps: &[Step]) -> Result<Durable, AppendError> {
        let frame = self.frame(steps);
        let (sender, outcome) = mpsc::channel();
        self.writer.submit(frame, move |outcome| sender.send(outcome).expect("is waited for"));
        outcome.recv().expect("is answered")
    }

    fn put(&mut self, puts: Vec<(StateKey, Option<StateRecord>)>) {
        let cursor = self.store.read().cursor().clone();
        let results = Results { puts, cursor, ..Results::default() };
        let (sender, outcome) = mpsc::channel();
        let frame = Frame { entries: Vec::new(), results: Some(results) };
        self.writer.submit(frame, move |outcome| sender.send(outcome).expect("is waited for"));
        outcome.recv().expect("is answered").expect("is appended");
    }

    /// Raises `count` alarms from number `first` on, `frame` in a frame.
    fn raise(&mut self, first: u64, count: u64, frame: u64) {
        for start in (first..first + count).step_by(frame as usize) {
            let steps: Vec<Step> = (start..(start + frame).min(first + count)).map(Step::Raise).collect();
            self.commit(&steps);
        }
    }

    fn items(&self) -> Vec<(Position, Item)> {
        let mut items = Vec::new();
        let mut after = Position(self.store.info().first_position.0 - 1);
        let end = self.store.info().last_position;
        while after < end {
            let page = self.store.changes_after(after, 17).expect("reads");
            assert!(page.reached > after);
            after = page.reached;
            items.extend(page.items);
        }
        items
    }

    fn close(self) {
        self.writer.close().expect("closes");
    }

    /// Ends as a kill does: nothing is brought up to date but what was acknowledged.
    fn kill(self, dir: &Path, to: &Path) {
        copy_dir(dir, to);
        drop(self);
    }
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("makes");
    for entry in std::fs::read_dir(from).expect("lists") {
        let entry = entry.expect("lists");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("has a type").is_dir() {
            copy_dir(&entry.path(), &target);
        } else if let Err(error) = std::fs::copy(entry.path(), target) {
            // Of a store that is open: what is being replaced is gone again.
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}");
        }
    }
}
