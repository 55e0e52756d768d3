//! Reading the changes for one receiver and planning what it is told: the walk, the difference to what stands, folding.
//!
//! ```text
//! walk ──▶ planned            a page of changes after the other
//!   │ retention overtook it, new epoch ──▶ gap ───┐
//!   │ old backlog when it is reached again ─▶ fold, digest ─┤
//!   │ another filter ──────────────────────────────┴─▶ scan: what was told against what stands ──▶ walk
//!   └ a type is (un)suppressed ──▶ scan of that type ──▶ walk
//! ```
//!
//! A scan reads the state in pieces while it moves on. So what it tells carries where the journal was then, and the walk
//! leaves out what is in it. Numbers do not say that: those of a mirrored alarm are of its owner, who may begin anew. What is
//! planned and not yet assigned is planned again after a restart, from what was told.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use klaxon_schemas::alarm::Alarm;
use klaxon_schemas::change::{Change, ChangeKind, Subject};
use klaxon_schemas::ids::{AlarmId, Position, Seq};
use klaxon_schemas::names::{AlarmType, Site};
use klaxon_schemas::notify::{Gap, GapReason, How, OutboxAlarm, OutboxEntry, Realign, Told, condition_sum};
use klaxon_schemas::state::{StateKey, StateRecord};
use klaxon_schemas::time::Timestamp;
use klaxon_store::{Item, Page, ReadError, StateRead, Store};

use super::What;
use super::fold::Fold;
use super::places::Places;
use super::plan::{Rules, Verdict, remains, told_of};

/// How many changes are read at a time.
pub(super) const PAGE_ITEMS_MAX: usize = 512;
/// How many alarms are compared while the state is held still.
const SCAN_ALARMS_MAX: usize = 512;

/// How far the changes were looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Reached {
    pub(super) position: Position,
    pub(super) seq: Option<Seq>,
    /// How many changes of other sites had come in.
    pub(super) mirrored: u64,
    pub(super) realign: Option<Realign>,
}

impl Reached {
    /// At `position`, where `state` is.
    pub(super) fn at(position: Position, state: &StateRead<'_>) -> Self {
        let cursor = state.cursor();
        Self { position, seq: Some(cursor.last_seq), mirrored: cursor.mirrored, realign: None }
    }
}

/// A step of what is to be kept, most often with something to tell.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    /// What is told, and what its number will stand for.
    pub(super) tell: Option<(What, OutboxEntry)>,
    /// What is kept of an alarm from then on.
    pub(super) told: Option<(AlarmId, Option<Arc<Told>>)>,
    /// How far the changes were looked at with it.
    pub(super) reached: Reached,
}

/// What the planner needs to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing: enough is planned.
    Room,
    /// What is committed next.
    Commit,
    /// What stands behind this position, from the disk.
    Journal(Position),
}

/// What happened on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Happened {
    pub(super) folded: u64,
    pub(super) folded_changes: u64,
    pub(super) gaps: u64,
}

/// A comparison of what was told with what stands.
#[derive(Debug)]
struct Scan {
    mode: Realign,
    /// Only of this type.
    only: Option<AlarmType>,
    /// What was told is looked through; then what stands.
    in_told: bool,
    after: Option<AlarmId>,
    /// Where things stand when it is done.
    reached: Reached,
}

/// A backlog that is being folded.
#[derive(Debug)]
struct Folding {
    fold: Fold,
    head: Reached,
    at: Position,
    suppressed: BTreeSet<AlarmType>,
}

/// The planner of one receiver.
#[derive(Debug)]
pub(super) struct Planner {
    pub(super) rules: Rules,
    /// This node's: only its own numbers have no gap.
    site: Site,
    fold_after: Option<Duration>,
    /// Where the journal is kept elsewhere: what of it was looked at.
    places: Option<Places>,
    told: BTreeMap<AlarmId, Arc<Told>>,
    /// Alarms whose end a scan told, by where the journal was then: the walk has yet to come past it.
    ended: HashMap<AlarmId, Position>,
    suppressed: BTreeSet<AlarmType>,
    reached: Reached,
    pending: VecDeque<Planned>,
    page: VecDeque<(Position, Item)>,
    page_reached: Position,
    scan: Option<Scan>,
    folding: Option<Folding>,
    /// The receiver was away: an old backlog is folded.
    was_away: bool,
    /// One step is planned to find out whether the receiver is there; the rest of the backlog may be folded.
    probing: bool,
    pub(super) happened: Happened,
}

impl Planner {
    /// Goes on where `reached` says, with what was told.
    pub(super) fn new(
        rules: Rules,
        (site, fold_after): (Site, Option<Duration>),
        places: Option<Places>,
        told: BTreeMap<AlarmId, Arc<Told>>,
        reached: Reached,
        store: &Store,
    ) -> Self {
        let suppressed = suppressed(&store.read());
        let mut planner = Self {
            rules,
            site,
            fold_after,
            places,
            told,
            ended: HashMap::new(),
            suppressed,
            reached,
            pending: VecDeque::new(),
            page: VecDeque::new(),
            page_reached: reached.position,
            scan: None,
            folding: None,
            was_away: true,
            probing: false,
            happened: Happened::default(),
        };
        if let Some(mode) = reached.realign {
            planner.begin_scan(mode, None, Reached { realign: None, ..reached });
        }
        planner
    }

    /// Where things stand once all that is planned is taken.
    pub(super) fn reached(&self) -> Reached {
        self.reached
    }

    /// Where things stand, if nothing is planned or under way: changes that were looked at and not told.
    pub(super) fn passed_over(&self) -> Option<Reached> {
        let is_idle = self.pending.is_empty() && self.scan.is_none() && self.folding.is_none();
        is_idle.then_some(self.reached)
    }

    /// Of how many alarms the receiver was told, and not of their end.
    pub(super) fn told_len(&self) -> usize {
        self.told.len()
    }

    /// Which alarms stand for the receiver.
    pub(super) fn standing(&self) -> impl Iterator<Item = AlarmId> {
        self.told.iter().filter(|(_, told)| !told.left).map(|(id, _)| *id)
    }

    /// How many steps are planned.
    pub(super) fn planned(&self) -> usize {
        self.pending.len()
    }

    /// The next step, if one is planned.
    pub(super) fn take(&mut self) -> Option<Planned> {
        self.pending.pop_front()
    }

    /// Where the journal is kept elsewhere: the places of what was looked at up to `position`, of which less is not asked afterwards.
    pub(super) fn places_at(&mut self, position: Position) -> BTreeMap<u16, i64> {
        self.places.as_mut().map(|places| places.up_to(position)).unwrap_or_default()
    }

    /// The receiver cannot be reached: what waits by then may be folded.
    pub(super) fn is_away(&mut self) {
        self.was_away = true;
    }

    /// Whether the alarm was told of, as the next step will find it.
    fn told(&self, id: AlarmId) -> Option<&Told> {
        self.told.get(&id).map(|told| &**told)
    }

    /// Begins with what stands, or tells it anew.
    pub(super) fn realign(&mut self, store: &Store, mode: Realign) {
        let head = self.head(store, mode);
        self.begin_scan(mode, None, Reached { realign: None, ..head });
        self.reached = Reached { realign: Some(mode), ..head };
    }

    /// Where a realignment goes on: from here on, or from where the walk is.
    fn head(&mut self, store: &Store, mode: Realign) -> Reached {
        match mode {
            Realign::Standing => self.reached,
            Realign::Whole | Realign::Lost => {
                // The state is at least as far as this, so whatever the scan leaves out stands behind it.
                let mut position = *store.committed().borrow();
                let state = store.read();
                if let Some(places) = &mut self.places {
                    position = state.position();
                    places.jump(position, copied(&state));
                }
                let head = Reached::at(position, &state);
                self.suppressed = suppressed(&state);
                drop(state);
                self.page.clear();
                self.page_reached = head.position;
                head
            }
        }
    }

    /// Tells that changes are left out, and then how things stand.
    pub(super) fn gap(&mut self, store: &Store, reason: GapReason) {
        let before = self.reached;
        self.folding = None;
        self.realign(store, Realign::Whole);
        // What came from sites below is numbered by them.
        let mirrors = store.read().state().children().values().any(|child| child.kind.owns());
        let changes = match (reason, before.seq, self.reached.seq) {
            (GapReason::Retention | GapReason::Damaged, Some(from), Some(to)) if !mirrors && self.places.is_none() => {
                to.0.checked_sub(from.0)
            }
            _ => None,
        };
        let to = self.reached.position;
        let gap = Gap { reason, from: before.position.plus(1).min(to), to, changes };
        // What is left out may be no changes at all, but repeats and heartbeats.
        let tell = (changes != Some(0)).then(|| (What::Gap(gap.clone()), OutboxEntry::Gap { gap }));
        self.happened.gaps += u64::from(tell.is_some());
        self.pending.push_back(Planned { tell, told: None, reached: self.reached });
    }

    /// Puts what was given out before in another numbering behind the gap that begins this one, in front of how things stand.
    pub(super) fn tell_again(&mut self, what: What, entry: OutboxEntry) {
        self.pending.push_back(Planned { tell: Some((what, entry)), told: None, reached: self.reached });
    }

    /// What was given out is told from what is left of it. If the journal forgot it, that may say something else of an alarm, and
    /// then that is what the receiver knows: what stands is compared with it.
    pub(super) fn restored<'a>(&mut self, all: impl Iterator<Item = &'a What>) {
        let of_alarm = all.filter_map(|what| match what {
            What::Alarm { alarm, .. } => Some((alarm.id, condition_sum(alarm))),
            _ => None,
        });
        // Of each alarm the last.
        for (id, said) in of_alarm.collect::<BTreeMap<_, _>>() {
            if let Some(told) = self.told.get_mut(&id).filter(|told| told.said != said) {
                *told = Arc::new(Told { said, ..(**told).clone() });
                let told = Some((id, Some(Arc::clone(told))));
                self.pending.push_back(Planned { tell: None, told, reached: self.reached });
            }
        }
    }

    fn begin_scan(&mut self, mode: Realign, only: Option<AlarmType>, reached: Reached) {
        self.scan = Some(Scan { mode, only, in_told: mode != Realign::Standing, after: None, reached });
    }

    /// Plans one step to try the receiver with, or says what is needed for it. What follows may still be folded.
    pub(super) fn plan_probe(&mut self, store: &Store, now: Timestamp) -> Need {
        self.probing = true;
        let need = self.go_on(store, 1, now);
        if need == Need::Room {
            self.forget_page();
        }
        need
    }

    /// Plans until `wanted` steps are there, or something is needed.
    pub(super) fn plan(&mut self, store: &Store, wanted: usize, now: Timestamp) -> Need {
        if std::mem::take(&mut self.probing) {
            self.forget_page();
        }
        self.go_on(store, wanted, now)
    }

    /// What was read and not looked at is read again.
    fn forget_page(&mut self) {
        self.page.clear();
        self.page_reached = self.reached.position;
    }

    fn go_on(&mut self, store: &Store, wanted: usize, now: Timestamp) -> Need {
        loop {
            if self.pending.len() >= wanted {
                return Need::Room;
            }
            if self.scan.is_some() {
                self.scan_on(store, now);
            } else if let Some((position, item)) = self.page.pop_front() {
                self.look_at(store, position, &item);
            } else {
                self.reached.position = self.reached.position.max(self.page_reached);
                let after = self.folding.as_ref().map_or(self.reached.position, |folding| folding.at);
                match store.recent_changes_after(after, PAGE_ITEMS_MAX) {
                    Some(page) if page.reached <= after && self.folding.is_none() => {
                        return self.caught_up();
                    }
                    Some(page) => self.feed(store, page, now),
                    None if self.folding.is_none() && after >= *store.committed().borrow() => {
                        return self.caught_up();
                    }
                    None => return Need::Journal(after),
                }
            }
        }
    }

    fn caught_up(&mut self) -> Need {
        self.was_away &= self.probing;
        self.ended.clear();
        Need::Commit
    }

    /// Takes what was read.
    pub(super) fn feed(&mut self, store: &Store, page: Page, now: Timestamp) {
        if self.folding.is_none() && !self.probing && self.is_to_be_folded(&page, now) {
            self.begin_fold(store);
        }
        if self.folding.is_some() {
            self.fold_on(&page);
        } else {
            self.page_reached = page.reached.max(self.page_reached);
            self.page = page.items.into();
        }
    }

    /// Takes why nothing could be read. Gives the error back if it is not known to be for ever.
    pub(super) fn failed(&mut self, store: &Store, error: ReadError) -> Result<(), ReadError> {
        match error {
            ReadError::Gap { .. } => self.gap(store, GapReason::Retention),
            ReadError::Beyond { .. } => self.gap(store, GapReason::NewEpoch),
            ReadError::Damaged(_) => self.gap(store, GapReason::Damaged),
            other => return Err(other),
        }
        Ok(())
    }

    fn is_to_be_folded(&self, page: &Page, now: Timestamp) -> bool {
        let Some(after) = self.fold_after.filter(|_| self.was_away) else { return false };
        let first = page.items.iter().find_map(|(_, item)| match item {
            Item::Change(change) => Some(change.at),
            Item::Touched(_) => None,
        });
        first.is_some_and(|at| now.micros_since(at) > i64::try_from(after.as_micros()).unwrap_or(i64::MAX))
    }

    fn begin_fold(&mut self, store: &Store) {
        let position = *store.committed().borrow();
        let head = Reached { realign: Some(Realign::Whole), ..Reached::at(position, &store.read()) };
        let at = self.reached.position;
        self.was_away = false;
        self.folding = Some(Folding { fold: Fold::new(at.plus(1)), head, at, suppressed: self.suppressed.clone() });
    }

    fn fold_on(&mut self, page: &Page) {
        let Some(folding) = &mut self.folding else { return };
        for (position, item) in page.items.iter().filter(|(position, _)| *position <= folding.head.position) {
            let Item::Change(change) = item else { continue };
            folding.at = *position;
            if let (Some(places), Some(place)) = (&mut self.places, change.place)
                && !places.look(*position, place)
            {
                continue;
            }
            note_suppression(&mut folding.suppressed, change);
            let (suppressed, told) = (&folding.suppressed, &self.told);
            folding.fold.look(&self.rules, change, |of| suppressed.contains(of), |id| told.contains_key(&id));
        }
        folding.at = page.reached;
        if folding.at < folding.head.position {
            return;
        }
        let Some(Folding { fold, head, suppressed, .. }) = self.folding.take() else { return };
        self.suppressed = suppressed;
        self.page_reached = head.position;
        self.reached = head;
        self.begin_scan(Realign::Whole, None, Reached { realign: None, ..head });
        self.happened.folded += 1;
        let tell = fold.digest(head.position).map(|digest| {
            self.happened.folded_changes += digest.changes;
            (What::Digest(Arc::new(digest.clone())), OutboxEntry::Digest { digest })
        });
        self.pending.push_back(Planned { tell, told: None, reached: head });
    }

    fn look_at(&mut self, store: &Store, position: Position, item: &Item) {
        let Item::Change(change) = item else {
            self.reached.position = position;
            return;
        };
        let before = self.reached;
        let (seq, mirrored) = if change.site == self.site && self.places.is_none() {
            (Some(change.number.seq), before.mirrored)
        } else {
            (before.seq, before.mirrored + 1)
        };
        self.reached = Reached { position, seq, mirrored, realign: None };
        let is_new = match (&mut self.places, change.place) {
            (Some(places), Some(place)) => places.look(position, place),
            _ => true,
        };
        if change.past || !is_new {
            return;
        }
        match &change.subject {
            Subject::Alarm { alarm, .. } => self.look_at_alarm(store, position, change, alarm),
            Subject::Event { event, .. } if self.rules.logs(change, self.suppressed.contains(&event.key.alarm_type)) => {
                let tell = Some((What::Log { change: Arc::clone(change) }, OutboxEntry::Log { position, place: change.place }));
                self.pending.push_back(Planned { tell, told: None, reached: self.reached });
            }
            Subject::Suppression { alarm_type, .. } => {
                note_suppression(&mut self.suppressed, change);
                if !self.rules.filter.suppressed {
                    // Until it is done, a restart has to look at this change again.
                    let done = std::mem::replace(&mut self.reached, before);
                    self.begin_scan(Realign::Standing, Some(alarm_type.clone()), done);
                }
            }
            _ => {}
        }
    }

    fn look_at_alarm(&mut self, store: &Store, position: Position, change: &Arc<Change>, alarm: &Arc<Alarm>) {
        if self.ended.get(&alarm.id).is_some_and(|seen| position <= *seen) {
            return;
        }
        let suppressed = self.suppressed.contains(&alarm.key.alarm_type);
        let verdict = self.rules.judge(self.told(alarm.id), (position, change), alarm, suppressed);
        // It is told as it stands, unless it has changed since.
        let told = matches!(verdict, Verdict::Tell(_)).then(|| store.read().state().as_told(alarm));
        self.tell(verdict, told.as_ref().unwrap_or(alarm), (position, Some(change)), suppressed);
    }

    /// Plans what follows for an alarm, from a change, or from how it stands where the journal is.
    fn tell(
        &mut self,
        verdict: Verdict,
        alarm: &Arc<Alarm>,
        (seen, change): (Position, Option<&Arc<Change>>),
        suppressed: bool,
    ) {
        let how = match verdict {
            Verdict::Silent => return,
            Verdict::Forget => {
                self.told.remove(&alarm.id);
                self.pending.push_back(Planned { tell: None, told: Some((alarm.id, None)), reached: self.reached });
                return;
            }
            Verdict::Tell(how) => how,
        };
        let told = told_of(how, alarm, seen);
        let before = match &told {
            Some(told) => self.told.insert(alarm.id, Arc::clone(told)),
            None => self.told.remove(&alarm.id),
        };
        let is_end = matches!(how, How::Cleared | How::Retired);
        if is_end && change.is_none() {
            self.ended.insert(alarm.id, seen);
        }
        let entry = OutboxEntry::Alarm(OutboxAlarm {
            alarm: alarm.id,
            how,
            position: change.map(|_| seen),
            place: change.and_then(|change| change.place),
            number: alarm.last_change,
            suppressed,
            last: before.filter(|_| is_end).map(|told| Box::new((*told).clone())),
        });
        let change = change.map(Arc::clone);
        let what = What::Alarm { how, change, alarm: Arc::clone(alarm), suppressed };
        self.pending.push_back(Planned { tell: Some((what, entry)), told: Some((alarm.id, told)), reached: self.reached });
    }

    /// Compares one piece.
    fn scan_on(&mut self, store: &Store, now: Timestamp) {
        let Some(scan) = self.scan.take() else { return };
        if scan.in_told { self.scan_told(store, scan, now) } else { self.scan_standing(store, scan) }
    }

    fn scan_told(&mut self, store: &Store, mut scan: Scan, now: Timestamp) {
        let from = scan.after.map_or(Bound::Unbounded, Bound::Excluded);
        let piece = self.told.range((from, Bound::Unbounded)).take(SCAN_ALARMS_MAX);
        let piece: Vec<_> = piece.map(|(id, told)| (*id, Arc::clone(told))).collect();
        match piece.last() {
            Some((last, _)) => scan.after = Some(*last),
            None => (scan.in_told, scan.after) = (false, None),
        }
        let state = store.read();
        let standing: Vec<_> = piece.iter().map(|(id, _)| state.alarm(*id).cloned()).collect();
        let seen = state.position();
        drop(state);
        for ((id, told), alarm) in piece.into_iter().zip(standing) {
            if alarm.as_ref().is_some_and(|alarm| alarm.is_active()) {
                // It is met among what stands.
                continue;
            }
            let suppressed = self.suppressed.contains(&told.key.alarm_type);
            let verdict = self.rules.compare(Some(&told), alarm.as_deref(), suppressed, scan.mode);
            let alarm = alarm.unwrap_or_else(|| Arc::new(remains(id, &told, now)));
            self.tell(verdict, &alarm, (seen, None), suppressed);
        }
        self.scan = Some(scan);
    }

    fn scan_standing(&mut self, store: &Store, mut scan: Scan) {
        let state = store.read();
        let mut piece = state.state().alarms_behind(scan.after, SCAN_ALARMS_MAX);
        piece.iter_mut().for_each(|alarm| *alarm = state.state().as_told(alarm));
        let seen = state.position();
        drop(state);
        let Some(last) = piece.last() else {
            self.reached = scan.reached;
            self.pending.push_back(Planned { tell: None, told: None, reached: self.reached });
            return;
        };
        scan.after = Some(last.id);
        for alarm in piece {
            if scan.only.as_ref().is_some_and(|only| *only != alarm.key.alarm_type) {
                continue;
            }
            let suppressed = self.suppressed.contains(&alarm.key.alarm_type);
            let told = self.told(alarm.id);
            if told.is_none() && !alarm.is_active() {
                continue;
            }
            let verdict = self.rules.compare(told, Some(&alarm), suppressed, scan.mode);
            self.tell(verdict, &alarm, (seen, None), suppressed);
        }
        self.scan = Some(scan);
    }
}

fn suppressed(state: &StateRead<'_>) -> BTreeSet<AlarmType> {
    state.suppressions().map(|(alarm_type, _)| alarm_type.clone()).collect()
}

/// How far each partition of the journal has been copied.
pub(super) fn copied(state: &StateRead<'_>) -> Vec<(u16, i64)> {
    let of = |partition| match state.record(&StateKey::Partition(partition)) {
        Some(StateRecord::Copied(copied)) => Some((partition, copied.changes)),
        _ => None,
    };
    (0..).map_while(of).collect()
}

fn note_suppression(suppressed: &mut BTreeSet<AlarmType>, change: &Change) {
    if change.past {
        return;
    }
    let Subject::Suppression { alarm_type, .. } = &change.subject else { return };
    match change.kind {
        ChangeKind::Suppressed => suppressed.insert(alarm_type.clone()),
        _ => suppressed.remove(alarm_type),
    };
}
