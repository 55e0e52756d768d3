//! Keeps the tables up to date: follows the changes, notes which alarms they are about, and at most some times a second takes
//! those from the state and publishes the next snapshot. Nothing is rebuilt but what changed.
//!
//! ```text
//! changes ─▶ gather: ids, steps of the history ─▶ take: their alarms, by one short look at the state ─▶ publish
//! ```

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use klaxon_schemas::alarm::{Alarm, ChangeNumber};
use klaxon_schemas::change::{Change, ChangeKind, Subject};
use klaxon_schemas::ids::{AlarmId, Position};
use klaxon_schemas::names::{AlarmType, Site};
use klaxon_snmp::EngineHome;
use klaxon_store::{Counts, HISTORY_LIMIT_MAX, HistoryQuery, Item, ReadError, STREAM_LIMIT_MAX, Silences, StateRead, Store};

use super::TablesConfig;
use super::indexes::Indexes;
use super::receivers::{self, ReceiversShown};
use super::sites::{self, SitesShown};
use super::snapshot::{Models, Row, SinceStart, Snapshot, Step, TimeKey};
use crate::uplink::SiteShown;

/// More records than this are not followed but taken from the state at once.
const BEHIND_MAX: u64 = 200_000;
/// How long the counts of sites and the receivers may be old.
pub(super) const STANDING_AGE_MAX: Duration = Duration::from_secs(1);

/// What is followed, and for whom.
pub(super) struct Follows {
    pub(super) store: Store,
    pub(super) config: TablesConfig,
    pub(super) own_site: Site,
    pub(super) indexes: Arc<Indexes>,
    pub(super) receivers: Option<ReceiversShown>,
    pub(super) sites: Option<SitesShown>,
    pub(super) engine: Arc<EngineHome>,
}

/// Who follows.
pub(super) struct Tracker {
    store: Store,
    config: TablesConfig,
    own_site: Site,
    pub(super) indexes: Arc<Indexes>,
    receivers: Option<ReceiversShown>,
    sites: Option<SitesShown>,
    /// The nodes below, as they were when it was looked last.
    below: Vec<SiteShown>,
    engine: Arc<EngineHome>,
    published: Arc<ArcSwap<Snapshot>>,
    /// The next snapshot, as far as it is.
    next: Snapshot,
    /// Up to where the changes were gathered.
    gathered: Position,
    /// The alarms that may have changed.
    dirty: HashSet<AlarmId>,
    /// Something else has changed.
    is_stirred: bool,
    suppressed: HashSet<AlarmType>,
    silences: Silences,
    /// The rows of the history, the oldest first.
    history: VecDeque<u32>,
    events: VecDeque<u32>,
    ends: VecDeque<TimeKey>,
}

impl Tracker {
    /// One with nothing yet.
    pub(super) fn new(follows: Follows) -> Self {
        let Follows { store, config, own_site, indexes, receivers, sites, engine } = follows;
        let next = Snapshot::empty(store.epoch());
        Self {
            store,
            config,
            own_site,
            indexes,
            receivers,
            sites,
            below: Vec::new(),
            engine,
            published: Arc::new(ArcSwap::from_pointee(next.clone())),
            next,
            gathered: Position::default(),
            dirty: HashSet::new(),
            is_stirred: false,
            suppressed: HashSet::new(),
            silences: Silences::default(),
            history: VecDeque::new(),
            events: VecDeque::new(),
            ends: VecDeque::new(),
        }
    }

    /// Takes everything as it is now, and publishes it.
    pub(super) fn begin(&mut self) {
        self.resync();
        // What stood before is no change since.
        self.next.since_start = SinceStart::default();
        self.look_at_receivers();
        self.look_at_sites();
        self.publish();
    }

    /// Forgets everything.
    pub(super) fn end(&mut self) {
        self.next = Snapshot::empty(self.store.epoch());
        (self.history, self.events, self.ends) = Default::default();
        (self.dirty, self.suppressed, self.silences) = Default::default();
        self.publish();
    }

    /// sysUpTime; 0 for as long as the engine has not started.
    fn uptime(&self) -> u32 {
        self.engine.started().map_or(0, |engine| engine.uptime_ticks())
    }

    /// Where snapshots are published.
    pub(super) fn published(&self) -> Arc<ArcSwap<Snapshot>> {
        Arc::clone(&self.published)
    }

    /// Takes notice of the changes that are committed. If they cannot be read, all is taken from the state.
    pub(super) fn gather(&mut self) {
        if let Err(error) = self.gather_changes() {
            if !matches!(error, ReadError::Gap { .. }) {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the tables cannot follow the changes; they are made anew"
                );
            }
            self.resync();
        }
    }

    fn gather_changes(&mut self) -> Result<(), ReadError> {
        let committed = *self.store.committed().borrow();
        if committed.0.saturating_sub(self.gathered.0) > BEHIND_MAX {
            self.resync();
            return Ok(());
        }
        while self.gathered < committed {
            let page = self.store.changes_after(self.gathered, STREAM_LIMIT_MAX)?;
            for (position, item) in page.items {
                match item {
                    Item::Change(change) => self.note(position, change),
                    Item::Touched(touched) => drop(self.dirty.insert(touched.alarm)),
                }
            }
            if page.reached <= self.gathered {
                break;
            }
            self.gathered = page.reached;
        }
        Ok(())
    }

    /// Takes notice of a change.
    fn note(&mut self, position: Position, change: Arc<Change>) {
        let now = self.uptime();
        let stats = &mut self.next.since_start;
        stats.changed = now;
        match &change.subject {
            // What is known already stands in the history only.
            _ if change.past => {}
            Subject::Alarm { alarm, .. } => {
                self.dirty.insert(alarm.id);
                if ends(&change, alarm) {
                    stats.last_clear = now;
                }
            }
            Subject::Suppression { .. } => self.is_stirred = true,
            _ => {}
        }
        self.remember(position, change);
        self.is_stirred = true;
    }

    /// Puts a change into the history and what is made of it, and forgets the oldest.
    fn remember(&mut self, position: Position, change: Arc<Change>) {
        let rows_max = self.config.history_rows;
        // Within 32 bits; after four billion records the numbers begin anew, and the window is far smaller.
        let index = u32::try_from((position.0.saturating_sub(1)) % u64::from(u32::MAX)).expect("is below") + 1;
        if let Some(row) = self.ended(&change) {
            let key = TimeKey::new(change.at, row.index);
            if self.next.ends.insert(key, row).is_none() {
                self.ends.push_back(key);
            }
            if self.ends.len() > rows_max {
                // A clock that was set back makes an end that is not the last: the earliest goes, as RFC 3877 wants it.
                self.ends.make_contiguous().sort_unstable();
                self.ends.pop_front().map(|key| self.next.ends.remove(key));
            }
        }
        let step = Step { position, change };
        if self.config.wrs.is_some() && !step.change.past && super::wrs::is_event(step.change.kind) {
            keep(&mut self.next.events, &mut self.events, index, step.clone(), rows_max);
        }
        keep(&mut self.next.history, &mut self.history, index, step, rows_max);
    }

    /// The row in the table of ended alarms that a change makes: that of an alarm that was listed.
    fn ended(&self, change: &Change) -> Option<Row> {
        let Subject::Alarm { alarm, .. } = &change.subject else { return None };
        let ends = !change.past && ends(change, alarm) && self.config.rfc3877;
        let index = self.indexes.of(alarm.id);
        let suppressed = self.suppressed.contains(&alarm.key.alarm_type);
        let row = Row { alarm: Arc::clone(alarm), index, suppressed, silent_since: None };
        (ends && row.is_listed()).then_some(row)
    }

    /// Whether there is something to publish.
    pub(super) fn is_stirred(&self) -> bool {
        self.is_stirred || !self.dirty.is_empty() || self.next.position < self.gathered
    }

    /// Takes what changed from the state, and publishes.
    pub(super) fn take_and_publish(&mut self) {
        let dirty = std::mem::take(&mut self.dirty);
        let (alarms, counts) = {
            let state = self.store.read();
            let alarms: Vec<_> = dirty.into_iter().map(|id| (id, state.alarm(id).cloned())).collect();
            let suppressed: HashSet<AlarmType> = state.suppressions().map(|(alarm_type, _)| alarm_type.clone()).collect();
            let is_as_before = suppressed == self.suppressed;
            self.suppressed = suppressed;
            let silences = std::mem::replace(&mut self.silences, state.state().silences());
            look(&mut self.next, &state);
            let counts = state.counts();
            drop(state);
            if !is_as_before {
                self.suppress();
            }
            self.silence(&silences);
            (alarms, counts)
        };
        self.model();
        alarms.into_iter().for_each(|(id, alarm)| self.put(id, alarm));
        self.count(&counts);
        self.publish();
    }

    /// Takes everything from the state, and the history from the journal.
    fn resync(&mut self) {
        let (alarms, counts) = {
            let state = self.store.read();
            self.suppressed = state.suppressions().map(|(alarm_type, _)| alarm_type.clone()).collect();
            self.silences = state.state().silences();
            look(&mut self.next, &state);
            (state.alarms().cloned().collect::<Vec<_>>(), state.counts())
        };
        self.gathered = self.next.position;
        self.model();
        // What is gone has no alarm here.
        let here: HashSet<AlarmId> = alarms.iter().map(|alarm| alarm.id).collect();
        let gone: Vec<AlarmId> = self
            .next
            .active
            .iter()
            .map(|(_, row)| row.alarm.id)
            .chain(self.dirty.drain())
            .filter(|id| !here.contains(id))
            .collect();
        gone.into_iter().for_each(|id| self.put(id, None));
        alarms.into_iter().for_each(|alarm| self.put(alarm.id, Some(alarm)));
        self.indexes.retain(|id| here.contains(id));
        self.count(&counts);
        self.recall();
        self.is_stirred = true;
    }

    /// Reads the history up to where the tables are, as far as it is shown.
    fn recall(&mut self) {
        (self.next.history, self.next.events, self.next.ends) = Default::default();
        (self.history, self.events, self.ends) = Default::default();
        let mut query = HistoryQuery { cursor: Some(Position(self.gathered.0 + 1)), ..HistoryQuery::default() };
        let mut steps = Vec::new();
        while steps.len() < self.config.history_rows {
            query.limit = (self.config.history_rows - steps.len()).min(HISTORY_LIMIT_MAX);
            match self.store.history(&query) {
                Ok(page) => {
                    steps.extend(page.items);
                    query.cursor = page.next;
                    if query.cursor.is_none() {
                        break;
                    }
                }
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "the table of the last changes begins later: the journal cannot be read");
                    break;
                }
            }
        }
        steps.into_iter().rev().for_each(|(position, change)| self.remember(position, Arc::new(change)));
    }

    /// Takes up the catalogue, if it is another one.
    fn model(&mut self) {
        let Some(catalogue) = &self.next.catalogue else { return };
        if self.next.models.digest.as_ref() != Some(catalogue.digest()) {
            self.next.models = Arc::new(Models::of(catalogue));
            self.next.since_start.models_changed = self.uptime();
        }
    }

    /// Puts an alarm where it belongs now, or away if it is not there any more.
    fn put(&mut self, id: AlarmId, alarm: Option<Arc<Alarm>>) {
        let index = self.indexes.hold(id);
        let is_gone = alarm.is_none();
        let row = alarm.filter(|alarm| alarm.is_active()).map(|alarm| {
            let suppressed = self.suppressed.contains(&alarm.key.alarm_type);
            let silent_since = self.silences.since(&alarm);
            Row { alarm, index, suppressed, silent_since }
        });
        let before = match row.clone() {
            Some(row) => self.next.active.insert(index, row),
            None => self.next.active.remove(index),
        };
        self.list(before.as_ref(), row);
        if is_gone {
            self.indexes.release(id);
        }
    }

    /// Puts a row into the tables of what is listed, or takes it out.
    fn list(&mut self, before: Option<&Row>, row: Option<Row>) {
        let key = |row: &Row| TimeKey::new(row.alarm.raised_at, row.index);
        let row = row.filter(Row::is_listed);
        let was = before.filter(|row| row.is_listed());
        let (old, new) = (was.map(key), row.as_ref().map(key));
        let now = self.uptime();
        let stats = &mut self.next.since_start;
        if old != new {
            stats.listed_changed = now;
        }
        // What is shelved or suppressed as it is raised is counted when it comes to the list, if it does.
        if let Some(row) = &row {
            let is_raise = old != new;
            if is_raise {
                stats.raises = stats.raises.wrapping_add(1);
                stats.last_raise = now;
            }
            if is_raise || was.is_some_and(|was| was.alarm.severity != row.alarm.severity) {
                let count = &mut stats.raised[row.alarm.severity as usize];
                *count = count.wrapping_add(1);
            }
        }
        if self.config.rfc3877 {
            if let Some(old) = old.filter(|_| old != new) {
                self.next.by_time.remove(old);
            }
            if let (Some(new), Some(row)) = (new, &row) {
                self.next.by_time.insert(new, row.clone());
            }
        }
        if self.config.wrs.is_some() {
            match (row, before) {
                (Some(row), _) => drop(self.next.listed.insert(row.index, row)),
                (None, Some(before)) => drop(self.next.listed.remove(before.index)),
                (None, None) => {}
            }
        }
    }

    /// Marks every row by the suppressions as they are now.
    fn suppress(&mut self) {
        let is_wrong = |row: &&Row| self.suppressed.contains(&row.alarm.key.alarm_type) != row.suppressed;
        let wrong: Vec<Row> = self.next.active.iter().map(|(_, row)| row).filter(is_wrong).cloned().collect();
        for before in wrong {
            let row = Row { suppressed: !before.suppressed, ..before.clone() };
            self.next.active.insert(row.index, row.clone());
            self.list(Some(&before), Some(row));
        }
    }

    /// Marks the rows of alarms that come through nodes of which it is not as it was `before` whether they are silent.
    fn silence(&mut self, before: &Silences) {
        let differing = self.silences.differing(before);
        if differing.is_empty() {
            return;
        }
        let rows = self.next.active.iter().map(|(_, row)| row);
        let through = rows.filter(|row| row.alarm.via.as_ref().is_some_and(|via| differing.contains(via)));
        let wrong = through.filter(|row| self.silences.since(&row.alarm) != row.silent_since);
        for before in wrong.cloned().collect::<Vec<_>>() {
            let row = Row { silent_since: self.silences.since(&before.alarm), ..before.clone() };
            self.next.active.insert(row.index, row.clone());
            self.list(Some(&before), Some(row));
        }
    }

    /// Takes up the counts.
    fn count(&mut self, counts: &Counts) {
        self.next.severities = Default::default();
        for site in counts.sites.values() {
            for (sum, one) in self.next.severities.iter_mut().zip(&site.by_severity) {
                sum.total += one.total;
                sum.acknowledged += one.acknowledged;
                sum.shelved += one.shelved;
                sum.suppressed += one.suppressed;
                sum.stale += one.stale;
                sum.shown += one.shown;
            }
        }
        self.next.cleared = counts.cleared();
        let rows = sites::rows(&self.own_site, counts, &self.below);
        self.next.sites = Arc::new(rows);
    }

    /// Takes up how the nodes below are.
    pub(super) fn look_at_sites(&mut self) {
        let Some(shown) = &self.sites else { return };
        self.below = shown();
        let rows = sites::rows(&self.own_site, &self.store.read().counts(), &self.below);
        if *self.next.sites != rows {
            self.next.sites = Arc::new(rows);
            self.is_stirred = true;
        }
    }

    /// Takes up how the receivers are; says whether that has changed.
    pub(super) fn look_at_receivers(&mut self) {
        let Some(shown) = &self.receivers else { return };
        let rows = receivers::rows(shown());
        if *self.next.receivers != rows {
            self.next.receivers = Arc::new(rows);
            self.is_stirred = true;
        }
    }

    fn publish(&mut self) {
        self.is_stirred = false;
        self.published.store(Arc::new(self.next.clone()));
    }
}

/// What is said of the state as a whole.
fn look(next: &mut Snapshot, state: &StateRead<'_>) {
    next.position = state.position();
    let cursor = state.cursor();
    next.last_change = ChangeNumber { epoch: cursor.epoch, seq: cursor.last_seq };
    next.catalogue = state.catalogue();
}

/// Whether an alarm is over with a change.
fn ends(change: &Change, alarm: &Alarm) -> bool {
    matches!(change.kind, ChangeKind::Cleared | ChangeKind::Retired)
        || (change.kind == ChangeKind::Realigned && !alarm.is_active())
}

/// Keeps a step under its number, and of all at most `rows_max`.
fn keep(rows: &mut super::sorted::Sorted<u32, Step>, order: &mut VecDeque<u32>, index: u32, step: Step, rows_max: usize) {
    if rows.insert(index, step).is_none() {
        order.push_back(index);
    }
    if order.len() > rows_max {
        order.pop_front().map(|oldest| rows.remove(oldest));
    }
}
