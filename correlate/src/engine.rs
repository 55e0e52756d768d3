//! The engine's state, and the order in which an entry passes through the stages.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use klaxon_schemas::access::Token;
use klaxon_schemas::alarm::{Alarm, ChangeNumber, OrderMark};
use klaxon_schemas::catalogue::Catalogue;
use klaxon_schemas::change::{Change, ChangeKind, Reason, RefusalReason, Subject, Timer};
use klaxon_schemas::child::{Below, Child, NotTaken, PendingAction};
use klaxon_schemas::entry::{Entry, EntryKind, Started};
use klaxon_schemas::event::{AlarmKey, Event, Report};
use klaxon_schemas::ids::{ActionId, AlarmId, Epoch, Position, Seq};
use klaxon_schemas::names::{Actor, AlarmType, ChildName, Site, Text, TokenName};
use klaxon_schemas::severity::Severity;
use klaxon_schemas::state::{Cursor, Novelty, Quarantined, Settings, Shelf, StateKey, StateRecord, Suppression, Tombstone};
use klaxon_schemas::time::{JournalTime, Timestamp};

use crate::admit::{Admission, Screening};
use crate::aging::Aging;
use crate::heartbeats::Heartbeats;
use crate::intern::Interner;
use crate::mirror::Mirror;
use crate::output::{Disposition, Output};
use crate::timers::{Due, Timers};

/// The most deadlines and shelving steps that one deadline entry works off; what remains is due at once.
pub const TIMERS_PER_ENTRY_MAX: usize = 1024;

/// The most entries put aside whose records are kept; what happened to older ones stands in history.
const QUARANTINED_MAX: usize = 1000;

/// The door of the node's own reports, which no limit turns away.
pub(crate) const NODE_DOOR: &str = "node";

/// The state of all alarms of one site, and what is needed to go on from it.
pub struct Engine {
    pub(crate) site: Site,
    pub(crate) settings: Settings,
    pub(crate) cursor: Cursor,
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) alarms: HashMap<AlarmId, Arc<Alarm>>,
    pub(crate) by_key: HashMap<AlarmKey, AlarmId>,
    pub(crate) active: usize,
    /// Cleared alarms, the one cleared first at the front.
    pub(crate) cleared: BTreeSet<(JournalTime, AlarmId)>,
    pub(crate) admission: Admission,
    pub(crate) tombstones: HashMap<AlarmKey, Tombstone>,
    pub(crate) tombstones_by_age: Aging,
    quarantined: Aging,
    pub(crate) heartbeats: Heartbeats,
    pub(crate) shelves: BTreeMap<ActionId, Arc<Shelf>>,
    pub(crate) suppressions: BTreeMap<AlarmType, Arc<Suppression>>,
    pub(crate) tokens: BTreeMap<TokenName, Arc<Token>>,
    pub(crate) children: BTreeMap<ChildName, Arc<Child>>,
    /// Those that were retired, and of which something is still to be forgotten.
    pub(crate) retired: BTreeSet<ChildName>,
    pub(crate) pending: BTreeMap<ChildName, BTreeMap<ActionId, Arc<PendingAction>>>,
    pub(crate) mirror: Mirror,
    pub(crate) timers: Timers,
    pub(crate) interner: Interner,
}

/// What is the same for all changes that one entry leads to.
pub(crate) struct Moment<'a> {
    pub(crate) entry: &'a Entry,
    pub(crate) now: JournalTime,
    pub(crate) wall: Timestamp,
    /// The deadline that speaks here in the place of a report.
    pub(crate) timer: Option<Timer>,
}

/// What a change says beside its subject.
pub(crate) struct Cause {
    pub(crate) kind: ChangeKind,
    pub(crate) reasons: Vec<Reason>,
    pub(crate) actor: Option<Actor>,
    pub(crate) from: Option<Text>,
    pub(crate) note: Option<Text>,
}

impl Cause {
    pub(crate) fn new(kind: ChangeKind, reasons: &[Reason]) -> Self {
        Self { kind, reasons: reasons.to_vec(), actor: None, from: None, note: None }
    }
}

impl Engine {
    /// An engine in the state that was committed: the alarms, the keyed records and the cursor.
    pub fn load(
        site: Site,
        alarms: impl IntoIterator<Item = Arc<Alarm>>,
        records: impl IntoIterator<Item = (StateKey, StateRecord)>,
        cursor: Cursor,
    ) -> Self {
        let mut engine = Self {
            site,
            settings: Settings::default(),
            catalogue: Arc::new(Catalogue::empty()),
            alarms: HashMap::new(),
            by_key: HashMap::new(),
            active: 0,
            cleared: BTreeSet::new(),
            admission: Admission::default(),
            tombstones: HashMap::new(),
            tombstones_by_age: Aging::default(),
            quarantined: Aging::default(),
            heartbeats: Heartbeats::default(),
            shelves: BTreeMap::new(),
            suppressions: BTreeMap::new(),
            tokens: BTreeMap::new(),
            children: BTreeMap::new(),
            retired: BTreeSet::new(),
            pending: BTreeMap::new(),
            mirror: Mirror::default(),
            timers: Timers::default(),
            interner: Interner::default(),
            cursor,
        };
        let mut below = BTreeMap::new();
        for (key, record) in records {
            engine.load_record(key, record, &mut below);
        }
        for (name, below) in below {
            if let Some(child) = engine.children.get_mut(&name) {
                Arc::make_mut(child).below = below;
            }
        }
        for alarm in alarms {
            if alarm.is_mirrored() {
                engine.mirror.put(alarm);
                continue;
            }
            engine.index(&alarm);
            engine.by_key.insert(alarm.key.clone(), alarm.id);
            engine.alarms.insert(alarm.id, alarm);
        }
        engine
    }

    fn load_record(&mut self, key: StateKey, record: StateRecord, below: &mut BTreeMap<ChildName, Arc<Vec<Below>>>) {
        match (key, record) {
            (StateKey::Tombstone(key), StateRecord::Tombstone(tombstone)) => {
                self.tombstones_by_age.note(StateKey::Tombstone(key.clone()), tombstone.at);
                self.tombstones.insert(key, tombstone);
            }
            (StateKey::Shelf(id), StateRecord::Shelf(shelf)) => {
                self.timers.add_shelf(&shelf);
                self.shelves.insert(id, shelf);
            }
            (StateKey::Suppression(alarm_type), StateRecord::Suppression(suppression)) => {
                self.suppressions.insert(alarm_type, suppression);
            }
            (StateKey::Token(name), StateRecord::Token(token)) => {
                self.tokens.insert(name, token);
            }
            (StateKey::Bundle(_), StateRecord::Bundle(catalogue)) => self.catalogue = catalogue,
            (StateKey::Settings, StateRecord::Settings(settings)) => self.settings = settings,
            // Their positions are in order, so that is how they age.
            (key @ StateKey::Quarantine(position), _) => self.quarantined.note(key, JournalTime(position.0)),
            (StateKey::Heartbeat(key), StateRecord::Heartbeat(heartbeat)) => {
                let key = Arc::new(key);
                self.timers.add_heartbeat(&key, &heartbeat, self.cursor.started_at);
                self.heartbeats.put(key, heartbeat);
            }
            (StateKey::Child(name), StateRecord::Child(child)) => {
                self.note_record(&name, child);
            }
            (StateKey::Below(name), StateRecord::Below(rows)) => {
                below.insert(name, rows);
            }
            (StateKey::Pending(child, id), StateRecord::Pending(pending)) => {
                let key = (child, id);
                self.timers.add_pending(&key, &pending);
                self.pending.entry(key.0).or_default().insert(key.1, pending);
            }
            (StateKey::Follower(_) | StateKey::Told(..) | StateKey::Outbox(..) | StateKey::Partition(_), _) => {}
            (key, record) => self.admission.load(key, &record),
        }
    }

    /// How far it has come.
    pub fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// What it is held to.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The catalogue in force.
    pub fn catalogue(&self) -> &Arc<Catalogue> {
        &self.catalogue
    }

    /// One alarm of this node's own.
    pub fn alarm(&self, id: AlarmId) -> Option<&Arc<Alarm>> {
        self.alarms.get(&id)
    }

    /// One alarm, this node's own or mirrored.
    pub(crate) fn any_alarm(&self, id: AlarmId) -> Option<&Arc<Alarm>> {
        self.alarms.get(&id).or_else(|| self.mirror.get(id))
    }

    /// How many alarms of this node's own are active.
    pub fn active_alarms(&self) -> usize {
        self.active
    }

    /// How many reporters have promised to be heard from.
    pub fn heartbeats(&self) -> usize {
        self.heartbeats.len()
    }

    /// All alarms, this node's own and mirrored, by id.
    pub fn alarms(&self) -> Vec<Arc<Alarm>> {
        let mut alarms: Vec<_> = self.alarms.values().chain(self.mirror.iter()).cloned().collect();
        alarms.sort_by_key(|alarm| alarm.id);
        alarms
    }

    /// When something will happen by itself; a time that has passed if something waits to be done.
    pub fn next_deadline(&self) -> Option<JournalTime> {
        let is_sweeping = !self.retired.is_empty() || self.shelves.values().any(|shelf| shelf.is_working());
        let sweeping = is_sweeping.then_some(self.cursor.at);
        let purge = |cleared_at: JournalTime, count: usize| match count > self.settings.cleared_max {
            true => self.cursor.at,
            false => cleared_at + self.purge_after(),
        };
        let own = self.cleared.first().map(|(at, _)| purge(*at, self.cleared.len()));
        let mirrored = self.mirror.first_cleared().map(|(at, _, count)| purge(at, count));
        [sweeping, own, mirrored, self.timers.first()].into_iter().flatten().min()
    }

    /// What a door may learn about a report before it is journalled.
    pub fn screen(&self, event: &Event, door: &str) -> Screening {
        if let Some(mark) = &event.origin.relay {
            // What an agent relays is journalled whatever becomes of it, so that the agent may go on.
            return match self.relayed_behind(mark) {
                Ok(None) => Screening::Duplicate,
                Ok(Some(_)) | Err(_) => Screening::Fresh,
            };
        }
        match self.admission.novelty(event) {
            Novelty::Duplicate => Screening::Duplicate,
            Novelty::TooOld => Screening::TooOld,
            Novelty::New if self.is_one_too_many(event, door) => Screening::AlarmLimit,
            Novelty::New if self.is_one_heartbeat_too_many(event, door) => Screening::HeartbeatLimit,
            Novelty::New => Screening::Fresh,
        }
    }

    /// Whether `event` would raise one alarm more than there may be.
    pub(crate) fn is_one_too_many(&self, event: &Event, door: &str) -> bool {
        self.active >= self.settings.active_alarms_max
            && door != NODE_DOOR
            && matches!(event.report, Report::Raise(_))
            && self.would_begin_episode(event)
    }

    /// Applies one entry: first what was due before it, then what it is itself, of which [`Output::own_changes`] tells.
    pub fn apply(&mut self, entry: &Entry, out: &mut Output) -> Disposition {
        let moment = self.moment(entry);
        match &entry.kind {
            // Leases run anew before any is looked at; what else is due, deadline entries work off.
            EntryKind::Started(started) => self.start(&moment, started),
            EntryKind::Deadline => self.fire(&moment, TIMERS_PER_ENTRY_MAX, out),
            _ => self.fire(&moment, usize::MAX, out),
        }
        self.admission.age(moment.now, &self.settings, out);
        self.age_tombstones(&moment, out);
        out.begin_own();
        let disposition = self.dispatch(&moment, out);
        self.advance(entry);
        disposition
    }

    /// Numbers changes in `epoch` from here on; from 1, unless it is the numbering already.
    pub fn adopt(&mut self, epoch: Epoch) {
        if epoch != self.cursor.epoch {
            self.cursor.epoch = epoch;
            self.cursor.last_seq = Seq(0);
        }
    }

    /// Passes over an entry that breaks the engine, and keeps that it did. Tells what is to be said to the node below that sent it,
    /// if that is to come again.
    pub fn quarantine(&mut self, entry: &Entry, failure: Text, out: &mut Output) -> Option<NotTaken> {
        let moment = self.moment(entry);
        let mut broke = None;
        match &entry.kind {
            EntryKind::Started(started) => self.start(&moment, started),
            EntryKind::Deadline => self.disarm(&moment, out),
            EntryKind::Relay(relay) => broke = self.pass_over(&moment, relay, out),
            // What the agent relays behind it comes all the same. If it was not the agent's turn, nothing is noted.
            EntryKind::Event(event) => {
                if let Some(mark) = &event.origin.relay {
                    let _ = self.note_relayed(&moment, mark, out);
                }
            }
            EntryKind::Child(fact) => {
                if let Some(mark) = fact.passed() {
                    let _ = self.note_relayed(&moment, &mark, out);
                }
            }
            _ => {}
        }
        let key = StateKey::Quarantine(entry.position);
        self.quarantined.note(key, JournalTime(entry.position.0));
        while let Some(oldest) = self.quarantined.pop(moment.now, None, QUARANTINED_MAX) {
            out.delete(oldest);
        }
        let quarantined = Quarantined { failure: failure.clone(), at: entry.wall };
        out.put(StateKey::Quarantine(entry.position), StateRecord::Quarantine(quarantined));
        let cause = Cause::new(ChangeKind::Quarantined, &[moment.reason()]);
        self.emit(&moment, cause, Subject::Quarantine { entry: entry.position, failure }, out);
        self.advance(entry);
        broke
    }

    fn moment<'a>(&self, entry: &'a Entry) -> Moment<'a> {
        Moment { entry, now: entry.at.max(self.cursor.at), wall: entry.wall, timer: None }
    }

    /// Takes the deadline that is due first away from what it belongs to: the engine broke on it, and would again.
    fn disarm(&mut self, moment: &Moment<'_>, out: &mut Output) {
        let due = self.timers.pop(moment.now);
        if let Some(Due::Silence(key)) = &due {
            self.lose_heartbeat(moment, key, out);
            return;
        }
        if let Some(Due::Unanswered(child, id)) = due {
            return self.drop_pending(moment, &child, id, out);
        }
        let is_due = |at: JournalTime, count: usize| count > self.settings.cleared_max || at + self.purge_after() <= moment.now;
        let own_is_due = self.cleared.first().is_some_and(|(at, _)| is_due(*at, self.cleared.len()));
        let mirrored_is_due = self.mirror.first_cleared().is_some_and(|(at, _, count)| is_due(at, count));
        match due {
            None if own_is_due => {}
            None if mirrored_is_due => return self.keep_first_cleared(moment, out),
            None if !self.retired.is_empty() => return self.keep_retired(moment, out),
            _ => {}
        }
        let first_cleared = self.cleared.first().map(|(_, id)| *id);
        let ((Some(Due::End(id) | Due::Lease(id) | Due::Unshelve(id)), _) | (None, Some(id))) = (&due, &first_cleared) else {
            return;
        };
        let Some(alarm) = self.alarms.get(id) else { return };
        let mut alarm = Alarm::clone(alarm);
        match due {
            Some(Due::End(_)) => alarm.engine.end = None,
            Some(Due::Lease(_)) => alarm.engine.lease = None,
            Some(_) => alarm.engine.shelved_until = None,
            None => alarm.engine.cleared_at = Some(moment.now),
        }
        self.touch(alarm, out);
    }

    fn advance(&mut self, entry: &Entry) {
        self.cursor.applied = entry.position;
        self.cursor.at = entry.at.max(self.cursor.at);
        self.cursor.wall = entry.wall;
    }

    fn dispatch(&mut self, moment: &Moment<'_>, out: &mut Output) -> Disposition {
        match &moment.entry.kind {
            EntryKind::Event(event) => return self.report(moment, event, out),
            EntryKind::Action(action) => return self.act(moment, action, out),
            EntryKind::Relay(relay) => return self.mirror(moment, relay, out),
            EntryKind::Child(fact) => return self.child(moment, fact, out),
            EntryKind::Started(_) | EntryKind::ClockStep { .. } | EntryKind::Deadline => {}
            EntryKind::Bundle { digest, catalogue } => {
                if let Some(before) = self.cursor.catalogue.replace(digest.clone()).filter(|before| before != digest) {
                    out.delete(StateKey::Bundle(before));
                }
                out.put(StateKey::Bundle(digest.clone()), StateRecord::Bundle(Arc::clone(catalogue)));
                self.catalogue = Arc::clone(catalogue);
            }
            EntryKind::Settings(settings) => {
                self.settings = settings.clone();
                out.put(StateKey::Settings, StateRecord::Settings(settings.clone()));
            }
        }
        Disposition::Applied
    }

    /// Leases run anew from here: nobody could renew one while the node was away.
    fn start(&mut self, moment: &Moment<'_>, started: &Started) {
        self.adopt(started.epoch);
        self.cursor.boot = started.boot.clone();
        let before = std::mem::replace(&mut self.cursor.started_at, moment.now);
        for alarm in self.alarms.values() {
            self.timers.remove(alarm, before);
            self.timers.add(alarm, moment.now);
        }
        for (key, heartbeat) in self.heartbeats.iter() {
            self.timers.remove_heartbeat(key, heartbeat, before);
            self.timers.add_heartbeat(key, heartbeat, moment.now);
        }
    }

    fn fire(&mut self, moment: &Moment<'_>, bound: usize, out: &mut Output) {
        let mut done = 0;
        while done < bound {
            if let Some(due) = self.timers.pop(moment.now) {
                self.fire_one(moment, due, out);
            } else if !self.purge_one(moment, out) && !self.purge_mirrored(moment, out) {
                break;
            }
            done += 1;
        }
        let left = bound.min(TIMERS_PER_ENTRY_MAX).saturating_sub(done);
        self.sweep_shelves(moment, left, out);
        self.sweep_retired(moment, left, out);
    }

    fn fire_one(&mut self, moment: &Moment<'_>, due: Due, out: &mut Output) {
        match due {
            Due::End(id) => self.end(moment, id, out),
            Due::Lease(id) => self.stale(moment, id, out),
            Due::Silence(key) => self.silence(moment, &key, out),
            Due::Unanswered(child, id) => {
                self.give_up(moment, &(child, id), RefusalReason::Unanswered, out);
            }
            Due::Unshelve(id) => {
                let reasons = [Reason::Timer(Timer::Shelved), moment.reason()];
                self.hand_over(moment, id, &reasons, out);
            }
            Due::ShelfBegin(id) => self.begin_shelf(id, out),
            Due::ShelfForgotten(id) => self.forget_shelf(id, out),
            Due::ShelfEnd(id) => {
                let reasons = [Reason::Timer(Timer::Shelved), moment.reason()];
                self.end_shelf(moment, id, Cause::new(ChangeKind::ShelfRemoved, &reasons), out);
            }
        }
    }

    fn purge_one(&mut self, moment: &Moment<'_>, out: &mut Output) -> bool {
        let Some((cleared_at, id)) = self.cleared.first().copied() else { return false };
        if self.cleared.len() <= self.settings.cleared_max && cleared_at + self.purge_after() > moment.now {
            return false;
        }
        let cause = Cause::new(ChangeKind::Purged, &[Reason::Timer(Timer::Purge), moment.reason()]);
        self.forget(moment, id, cause, out);
        true
    }

    pub(crate) fn purge_after(&self) -> Duration {
        Duration::from_secs(self.settings.purge_cleared_after_s)
    }

    fn age_tombstones(&mut self, moment: &Moment<'_>, out: &mut Output) {
        let lifetime = Duration::from_secs(self.settings.tombstone_lifetime_s);
        while let Some(key) = self.tombstones_by_age.pop(moment.now, Some(lifetime), self.settings.tombstones_max) {
            if let StateKey::Tombstone(alarm) = &key {
                self.tombstones.remove(alarm);
            }
            out.delete(key);
        }
    }

    /// The key under which an alarm is kept: its type by the catalogue's id, not by an alias.
    pub(crate) fn canonical(&self, key: &AlarmKey) -> AlarmKey {
        match self.catalogue.get(&key.alarm_type) {
            Some(entry) if entry.id != key.alarm_type => AlarmKey { alarm_type: entry.id.clone(), ..key.clone() },
            _ => key.clone(),
        }
    }

    /// The alarm that is kept under `key`.
    pub fn find(&self, key: &AlarmKey) -> Option<&Arc<Alarm>> {
        self.alarms.get(self.by_key.get(key)?)
    }

    /// Gives the next number to a change and puts it out.
    pub(crate) fn emit(&mut self, moment: &Moment<'_>, cause: Cause, subject: Subject, out: &mut Output) {
        let number = self.next_number();
        self.cursor.last_seq = number.seq;
        out.change(Change {
            site: self.site.clone(),
            number,
            at: moment.wall,
            past: false,
            kind: cause.kind,
            reasons: cause.reasons,
            actor: cause.actor,
            from: cause.from,
            note: cause.note,
            subject,
            place: None,
        });
    }

    pub(crate) fn next_number(&self) -> ChangeNumber {
        ChangeNumber { epoch: self.cursor.epoch, seq: self.cursor.last_seq.next() }
    }

    /// Replaces an alarm by what it is after a change, and puts the change out.
    pub(crate) fn commit(
        &mut self,
        moment: &Moment<'_>,
        mut alarm: Alarm,
        previous_severity: Option<Severity>,
        cause: Cause,
        out: &mut Output,
    ) {
        alarm.changed_at = moment.wall;
        alarm.last_change = self.next_number();
        self.interner.alarm(&mut alarm);
        let alarm = Arc::new(alarm);
        self.replace(Arc::clone(&alarm));
        self.emit(moment, cause, Subject::Alarm { alarm, previous_severity }, out);
    }

    /// Replaces an alarm by what it is after a report that changed nothing else.
    pub(crate) fn touch(&mut self, alarm: Alarm, out: &mut Output) {
        out.touch(alarm.id);
        self.replace(Arc::new(alarm));
    }

    /// Forgets an alarm, and puts out the change that says so.
    pub(crate) fn forget(&mut self, moment: &Moment<'_>, id: AlarmId, cause: Cause, out: &mut Output) {
        let Some(alarm) = self.alarms.remove(&id) else { return };
        self.by_key.remove(&alarm.key);
        self.unindex(&alarm);
        if !alarm.engine.order.is_empty() {
            let order = alarm.engine.order.clone();
            self.bury(&alarm.key, Tombstone { order, event_time: None, at: moment.now }, out);
        }
        let mut alarm = Alarm::clone(&alarm);
        alarm.changed_at = moment.wall;
        alarm.last_change = self.next_number();
        let subject = Subject::Alarm { alarm: Arc::new(alarm), previous_severity: None };
        self.emit(moment, cause, subject, out);
    }

    /// Remembers how far the reports of an alarm that is not there had come.
    pub(crate) fn bury(&mut self, key: &AlarmKey, tombstone: Tombstone, out: &mut Output) {
        let now = tombstone.at;
        let state_key = StateKey::Tombstone(key.clone());
        self.tombstones_by_age.note(state_key.clone(), now);
        self.tombstones.insert(key.clone(), tombstone.clone());
        out.put(state_key, StateRecord::Tombstone(tombstone));
    }

    /// Takes a tombstone away; its order goes on with the alarm.
    pub(crate) fn exhume(&mut self, key: &AlarmKey, out: &mut Output) -> Vec<OrderMark> {
        match self.tombstones.remove(key) {
            Some(tombstone) => {
                let state_key = StateKey::Tombstone(key.clone());
                self.tombstones_by_age.remove(&state_key);
                out.delete(state_key);
                tombstone.order
            }
            None => Vec::new(),
        }
    }

    /// Replaces an alarm without a change of its own: another one follows at once.
    pub(crate) fn replace_quietly(&mut self, alarm: Alarm) {
        self.replace(Arc::new(alarm));
    }

    fn replace(&mut self, alarm: Arc<Alarm>) {
        match self.alarms.get(&alarm.id).cloned() {
            Some(before) => self.unindex(&before),
            None => {
                self.by_key.insert(alarm.key.clone(), alarm.id);
            }
        }
        self.index(&alarm);
        self.alarms.insert(alarm.id, alarm);
    }

    fn index(&mut self, alarm: &Alarm) {
        self.timers.add(alarm, self.cursor.started_at);
        match alarm.engine.cleared_at {
            Some(at) => {
                self.cleared.insert((at, alarm.id));
            }
            None => self.active += 1,
        }
    }

    fn unindex(&mut self, alarm: &Alarm) {
        self.timers.remove(alarm, self.cursor.started_at);
        match alarm.engine.cleared_at {
            Some(at) => {
                self.cleared.remove(&(at, alarm.id));
            }
            None => self.active -= 1,
        }
    }
}

impl Moment<'_> {
    /// The entry itself as a reason.
    pub(crate) fn reason(&self) -> Reason {
        Reason::Entry(self.position())
    }

    /// What led to what a report, or a deadline in its place, does.
    pub(crate) fn reasons(&self) -> Vec<Reason> {
        self.timer.map(Reason::Timer).into_iter().chain([self.reason()]).collect()
    }

    pub(crate) fn position(&self) -> Position {
        self.entry.position
    }

    /// What the wall clock would say at a journal time if nobody set it.
    pub(crate) fn wall_time(&self, time: JournalTime) -> Timestamp {
        let ahead = i64::try_from(time.since(self.now).as_micros()).unwrap_or(i64::MAX);
        let behind = i64::try_from(self.now.since(time).as_micros()).unwrap_or(i64::MAX);
        self.wall.saturating_add_micros(ahead - behind)
    }

    /// The journal time at which the wall clock would say `time` if nobody set it.
    pub(crate) fn journal_time(&self, time: Timestamp) -> JournalTime {
        self.now.saturating_add_micros(time.micros_since(self.wall)).max(self.now)
    }
}
