//! The reader's handle, and what reader, writer and keeper share.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use klaxon_schemas::access::{Scope, Token};
use klaxon_schemas::alarm::Alarm;
use klaxon_schemas::catalogue::Catalogue;
use klaxon_schemas::entry::Entry;
use klaxon_schemas::event::AlarmKey;
use klaxon_schemas::ids::{AlarmId, Epoch, Position};
use klaxon_schemas::names::{AlarmType, Site, TokenName};
use klaxon_schemas::resource::Resource;
use klaxon_schemas::state::{Cursor, Heartbeat, Shelf, StateKey, StateRecord, Suppression};
use klaxon_schemas::time::Timestamp;
use tokio::sync::watch;

use crate::config::{Retention, StoreConfig};
use crate::files;
use crate::history::{self, HistoryPage, HistoryQuery};
use crate::journal::{DamageError, Journal, ReadError};
use crate::node::NodeIdentity;
use crate::open::{self, OpenError, OpenReport};
use crate::state::{AlarmPage, AlarmQuery, Carry, Counts, State};
use crate::stream::{self, Page, Ring};
use crate::view::Dirty;
use crate::writer::Writer;

/// More rows than this are not left to wait for the keeper's next round.
const DIRTY_ROWS_MANY: usize = 20_000;

/// The store as everybody reads it; cloning shares it.
#[derive(Clone)]
pub struct Store(Arc<Shared>);

/// The committed state, held still while this lives. Commits wait meanwhile: take what is needed, and let go.
pub struct StateRead<'a>(RwLockReadGuard<'a, State>);

/// What the store is at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// Whose store it is.
    pub node: NodeIdentity,
    /// The first record that retention has kept.
    pub first_position: Position,
    /// The last committed record.
    pub last_position: Position,
    /// How many segments there are.
    pub segments: usize,
    /// How large they are together.
    pub journal_bytes: u64,
    /// Up to where the view has come.
    pub view_position: Position,
    /// How large the view is.
    pub view_bytes: u64,
    /// How much space is free where the store is, if the system says.
    pub free_bytes: Option<u64>,
    /// The free space below which intake is refused.
    pub free_space_watermark_bytes: u64,
    /// How many alarms are held, cleared ones with them.
    pub alarms: usize,
    /// How many keyed records are held.
    pub records: usize,
    /// How often the view had to be opened or built anew since the start.
    pub view_repairs: u64,
    /// How many frames were synced since the start.
    pub syncs: u64,
    /// How long all of these syncs took.
    pub sync_time: Duration,
}

/// What reader, writer and keeper share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: StoreConfig,
    node: RwLock<NodeIdentity>,
    retention: RwLock<Retention>,
    pub(crate) journal: Arc<Journal>,
    state: RwLock<State>,
    ring: RwLock<Ring>,
    committed: watch::Sender<Position>,
    queue: Mutex<KeeperQueue>,
    wake: Condvar,
    /// What must be written again before the journal loses its records up to a position.
    carry: Mutex<Option<(Position, Carry)>>,
    carry_wanted: AtomicBool,
    /// There is too much that a follower has yet to read, for whom it is kept.
    pub(crate) unread: AtomicBool,
    damage: Mutex<Option<DamageError>>,
    /// All full segments were read since the start.
    pub(crate) checked: AtomicBool,
    pub(crate) view_position: AtomicU64,
    pub(crate) view_bytes: AtomicU64,
    pub(crate) view_repairs: AtomicU64,
    /// Nothing where the journal is this store's own.
    original: Mutex<Option<Original>>,
}

/// The journal of which a store is a copy, where that is kept elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Original {
    /// Since when it can be reached, and the copy is up to date; nothing while it is not.
    pub reached_since: Option<Instant>,
    /// As of when the copy is, if it is not up to date: when it was last, as far as is known.
    pub as_of: Timestamp,
}

/// What waits for the keeper.
#[derive(Debug, Default)]
struct KeeperQueue {
    dirty: Dirty,
    stop: bool,
}

impl Shared {
    /// Around what was found at the start.
    pub(crate) fn new(
        config: StoreConfig,
        node: NodeIdentity,
        journal: Arc<Journal>,
        state: State,
        view: Position,
        dirty: Dirty,
    ) -> Self {
        let committed = journal.last();
        Self {
            retention: RwLock::new(config.retention.clone()),
            config,
            node: RwLock::new(node),
            journal,
            state: RwLock::new(state),
            ring: RwLock::new(Ring::new(committed)),
            committed: watch::Sender::new(committed),
            queue: Mutex::new(KeeperQueue { dirty, stop: false }),
            wake: Condvar::new(),
            carry: Mutex::new(None),
            carry_wanted: AtomicBool::new(false),
            unread: AtomicBool::new(false),
            damage: Mutex::new(None),
            checked: AtomicBool::new(false),
            view_position: AtomicU64::new(view.0),
            view_bytes: AtomicU64::new(0),
            view_repairs: AtomicU64::new(0),
            original: Mutex::default(),
        }
    }

    /// Keeps that the journal is damaged, and says so the first time.
    pub(crate) fn note_damage(&self, damage: DamageError) {
        let mut first = self.damage.lock().expect("nobody panics while holding it");
        if first.is_none() {
            tracing::error!(error = &damage as &dyn std::error::Error, "the journal is damaged");
            *first = Some(damage);
        }
    }

    fn noting<T>(&self, outcome: Result<T, ReadError>) -> Result<T, ReadError> {
        if let Err(ReadError::Damaged(damage)) = &outcome {
            self.note_damage(damage.clone());
        }
        outcome
    }

    /// How much history is kept now.
    pub(crate) fn retention(&self) -> Retention {
        self.retention.read().expect("nobody panics while holding it").clone()
    }

    /// Whose store it is, and the numbering that it is in.
    pub(crate) fn node(&self) -> NodeIdentity {
        self.node.read().expect("nobody panics while holding it").clone()
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.node.read().expect("nobody panics while holding it").epoch
    }

    pub(crate) fn set_node(&self, node: NodeIdentity) {
        *self.node.write().expect("nobody panics while holding it") = node;
    }

    pub(crate) fn set_retention(&self, retention: Retention) {
        *self.retention.write().expect("nobody panics while holding it") = retention;
    }

    pub(crate) fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().expect("nobody panics while writing it")
    }

    pub(crate) fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().expect("nobody panics while writing it")
    }

    pub(crate) fn ring_mut(&self) -> RwLockWriteGuard<'_, Ring> {
        self.ring.write().expect("nobody panics while writing it")
    }

    /// Tells the watchers that the journal has come to `position`.
    pub(crate) fn commit(&self, position: Position) {
        self.committed.send_replace(position);
    }

    /// The last position that watchers were told.
    pub(crate) fn committed(&self) -> Position {
        *self.committed.borrow()
    }

    /// Adds to what the view is to be told.
    pub(crate) fn dirty(&self, add: impl FnOnce(&mut Dirty)) {
        let mut queue = self.queue.lock().expect("nobody panics while holding it");
        add(&mut queue.dirty);
        if queue.dirty.rows() > DIRTY_ROWS_MANY {
            self.wake.notify_one();
        }
    }

    /// For the keeper: waits at most `wait` for something to do; what is dirty, and whether to stop.
    pub(crate) fn take_dirty(&self, wait: Duration) -> (Dirty, bool) {
        let queue = self.queue.lock().expect("nobody panics while holding it");
        let idle = |queue: &mut KeeperQueue| !queue.stop && queue.dirty.rows() <= DIRTY_ROWS_MANY;
        let (mut queue, _) = self.wake.wait_timeout_while(queue, wait, idle).expect("nobody panics while holding it");
        let position = queue.dirty.position;
        let dirty = std::mem::replace(&mut queue.dirty, Dirty { position, ..Dirty::default() });
        (dirty, queue.stop)
    }

    /// The keeper is to finish.
    pub(crate) fn stop_keeper(&self) {
        self.queue.lock().expect("nobody panics while holding it").stop = true;
        self.wake.notify_one();
    }

    /// Whether the writer is to carry something forward; cheap.
    pub(crate) fn carry_wanted(&self) -> bool {
        self.carry_wanted.load(Ordering::Acquire)
    }

    pub(crate) fn carry_planned(&self, planned: bool) {
        self.carry_wanted.store(planned, Ordering::Release);
    }

    /// What is to be carried forward.
    pub(crate) fn carry(&self) -> MutexGuard<'_, Option<(Position, Carry)>> {
        self.carry.lock().expect("nobody panics while holding it")
    }

    /// This is to be carried forward, or nothing.
    pub(crate) fn plan_carry(&self, plan: Option<(Position, Carry)>) {
        let mut carry = self.carry();
        self.carry_planned(plan.is_some());
        *carry = plan;
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("dir", &self.0.config.dir).finish_non_exhaustive()
    }
}

impl Store {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    /// Opens the store in `config.dir`, making it if there is none.
    pub fn open(config: StoreConfig) -> Result<(Self, Writer, OpenReport), OpenError> {
        open::open(config)
    }

    /// The committed state.
    pub fn read(&self) -> StateRead<'_> {
        StateRead(self.0.state())
    }

    /// The last committed position, as it moves.
    pub fn committed(&self) -> watch::Receiver<Position> {
        self.0.committed.subscribe()
    }

    /// The changes and touches behind `after`, at most `limit` (and at most [`crate::STREAM_LIMIT_MAX`]).
    pub fn changes_after(&self, after: Position, limit: usize) -> Result<Page, ReadError> {
        self.0.noting(stream::page(&self.0.ring, &self.0.journal, after, limit))
    }

    /// The same without ever waiting for the disk: nothing if what is behind `after` is in memory no more.
    pub fn recent_changes_after(&self, after: Position, limit: usize) -> Option<Page> {
        stream::recent(&self.0.ring, after, limit)
    }

    /// The changes that `query` asks for. Looks at a bounded number of records: a page may be short and still have a cursor.
    pub fn history(&self, query: &HistoryQuery) -> Result<HistoryPage, ReadError> {
        self.0.noting(history::page(&self.0.journal, query))
    }

    /// The entry at `position`, if one stands there and is still kept.
    pub fn entry(&self, position: Position) -> Result<Option<Entry>, ReadError> {
        self.0.noting(history::entry(&self.0.journal, position))
    }

    /// The entries behind `after`, in order: what was journalled and has no results yet.
    pub fn entries_after(&self, after: Position) -> Result<Vec<Entry>, ReadError> {
        history::entries_after(&self.0.journal, after)
    }

    /// Entries behind `after`, in order, at most `limit` and about `bytes_max` of them, and up to where this goes: ask behind it
    /// next. Looks at a bounded number of records: there may be none, and more behind.
    pub fn entries_page(&self, after: Position, limit: usize, bytes_max: usize) -> Result<(Vec<Entry>, Position), ReadError> {
        self.0.noting(history::entries_page(&self.0.journal, after, limit, bytes_max))
    }

    /// The first damage that a reader, or the check behind the start, has met in the journal.
    pub fn damage(&self) -> Option<DamageError> {
        self.0.damage.lock().expect("nobody panics while holding it").clone()
    }

    /// Whether all of the journal was read since the start, so that no damage means that there is none.
    pub fn is_checked(&self) -> bool {
        self.0.checked.load(Ordering::Relaxed)
    }

    /// Builds every index of a full segment that is not there.
    pub(crate) fn build_indexes(&self) -> Result<(), ReadError> {
        let segments = self.0.journal.segments();
        segments.iter().try_for_each(|segment| segment.index().map(drop))
    }

    /// The journal of which this store is a copy, if it is one.
    pub fn original(&self) -> Option<Original> {
        *self.0.original.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note that this store is a copy, and whether its original can be reached. Whether that is news.
    pub fn note_original(&self, is_reached: bool) -> bool {
        let mut original = self.0.original.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = original.is_none_or(|one| one.reached_since.is_some() != is_reached);
        if is_news {
            // What was there at the start is as of the last that was applied.
            let as_of = if original.is_none() { self.0.state().cursor().wall } else { crate::node::now() };
            *original = Some(Original { reached_since: is_reached.then(Instant::now), as_of });
        }
        is_news
    }

    /// What the store is at the moment.
    pub fn info(&self) -> Info {
        let shared = &self.0;
        let segments = shared.journal.segments();
        let (alarms, records) = {
            let state = shared.state();
            (state.alarms_len(), state.records_len())
        };
        Info {
            node: shared.node(),
            first_position: segments[0].header.first,
            last_position: shared.committed(),
            segments: segments.len(),
            journal_bytes: segments.iter().map(|segment| segment.bytes()).sum(),
            view_position: Position(shared.view_position.load(Ordering::Relaxed)),
            view_bytes: shared.view_bytes.load(Ordering::Relaxed),
            free_bytes: files::free_bytes(&shared.config.dir).ok(),
            free_space_watermark_bytes: shared.config.free_space_watermark_bytes,
            alarms,
            records,
            view_repairs: shared.view_repairs.load(Ordering::Relaxed),
            syncs: shared.journal.syncs.load(Ordering::Relaxed),
            sync_time: Duration::from_micros(shared.journal.sync_us.load(Ordering::Relaxed)),
        }
    }

    /// Whose store it is.
    pub fn node(&self) -> NodeIdentity {
        self.0.node()
    }

    /// The numbering of changes.
    pub fn epoch(&self) -> Epoch {
        self.0.epoch()
    }
}

impl StateRead<'_> {
    /// The whole state, as what works on the files also gives it.
    pub fn state(&self) -> &State {
        &self.0
    }

    /// Up to where the journal is in this state.
    pub fn position(&self) -> Position {
        self.0.position()
    }
    /// How far the engine has come.
    pub fn cursor(&self) -> &Cursor {
        self.0.cursor()
    }
    /// The alarm `id`.
    pub fn alarm(&self, id: AlarmId) -> Option<&Arc<Alarm>> {
        self.0.alarm(id)
    }
    /// The alarms within `scope` whose id begins with these hexadecimal digits (dashes are ignored), at most `limit`.
    pub fn find_by_prefix(&self, hex_prefix: &str, scope: &Scope, limit: usize) -> Vec<&Arc<Alarm>> {
        self.0.find_by_prefix(hex_prefix, scope, limit)
    }
    /// All alarms, cleared ones with them, by id.
    pub fn alarms(&self) -> impl Iterator<Item = &Arc<Alarm>> {
        self.0.alarms()
    }
    /// All keyed records.
    pub fn records(&self) -> impl Iterator<Item = (&StateKey, &StateRecord)> {
        self.0.records()
    }
    /// The record under `key`.
    pub fn record(&self, key: &StateKey) -> Option<&StateRecord> {
        self.0.record(key)
    }
    /// The alarm under `key`, if there is one; it may be cleared.
    pub fn find(&self, key: &AlarmKey) -> Option<&Arc<Alarm>> {
        self.0.find(key)
    }
    /// The alarms at exactly this resource, cleared ones with them.
    pub fn at<'a>(&'a self, site: &Site, resource: &Resource) -> impl Iterator<Item = &'a Arc<Alarm>> + use<'a> {
        self.0.at(site, resource)
    }
    /// The alarms at resources whose text begins with `text`, cleared ones with them, in the order of these texts.
    pub fn beginning<'a>(&'a self, site: &Site, text: &'a str) -> impl Iterator<Item = &'a Arc<Alarm>> + use<'a> {
        self.0.beginning(site, text)
    }
    /// One page of the alarms that `query` asks for.
    pub fn list(&self, query: &AlarmQuery) -> AlarmPage {
        self.0.list(query)
    }
    /// How many alarms there are of what kind.
    pub fn counts(&self) -> Counts {
        self.0.counts()
    }
    /// Whether the type is suppressed.
    pub fn is_suppressed(&self, alarm_type: &AlarmType) -> bool {
        self.0.is_suppressed(alarm_type)
    }
    /// The suppressed types.
    pub fn suppressions(&self) -> impl Iterator<Item = (&AlarmType, &Arc<Suppression>)> {
        self.0.suppressions()
    }
    /// Who may do what by showing which token.
    pub fn tokens(&self) -> &BTreeMap<TokenName, Arc<Token>> {
        self.0.tokens()
    }
    /// Who has promised to be heard from, by the alarm that silence is.
    pub fn heartbeats(&self) -> &BTreeMap<AlarmKey, Arc<Heartbeat>> {
        self.0.heartbeats()
    }
    /// The shelves.
    pub fn shelves(&self) -> impl Iterator<Item = &Arc<Shelf>> {
        self.0.shelves()
    }
    /// The catalogue in force.
    pub fn catalogue(&self) -> Option<Arc<Catalogue>> {
        self.0.catalogue()
    }
}
