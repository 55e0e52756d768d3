//! What a message from below becomes: items for the journal, checked and cut to size.
//!
//! A child speaks only for itself. What the engine checks again is checked here too where a mistake would otherwise only be
//! told by silence: that what is sent goes on where the last left off.

use std::sync::Arc;

use klaxon_schemas::alarm::Alarm;
use klaxon_schemas::change::{Change, Subject};
use klaxon_schemas::child::{ALIGNMENT_LOST_MAX, BELOW_MAX, ChildEvent, ChildFact, Relay, RelayContent, site_of};
use klaxon_schemas::entry::RELAY_BYTES_MAX;
use klaxon_schemas::event::{AlarmKey, Details, Event, RelayMark};
use klaxon_schemas::ids::{AlarmId, Epoch, Position};
use klaxon_schemas::names::{ChildName, Site};
use klaxon_schemas::time::Timestamp;
use klaxon_schemas::wire::v1;
use klaxon_schemas::wire::v1::uplink::PlacedEventOf;
use klaxon_store::publish::{Item, SUBMISSION_ENTRIES_MAX};
use serde_json::Value;
use uuid::Uuid;

/// About how large a part of an alignment is that is cut out of a larger one.
const PART_BYTES: usize = RELAY_BYTES_MAX / 4;
/// How large one alarm or change may be before its notes and attributes are left out: an entry of a journal has room for it.
const ITEM_BYTES_MAX: usize = RELAY_BYTES_MAX / 2;
/// How large the changes of one message may be together.
const CHANGES_BYTES_MAX: usize = RELAY_BYTES_MAX - 64 * 1024;
/// The most actions that one entry says to be done.
const ACTED_MAX: usize = 10_000;
/// The most changes that are not understood which are kept count of in one step.
const UNREAD_MAX: u64 = 10_000;
/// About how large the id of an alarm is that is not understood.
const UNREAD_BYTES: usize = 48;
/// The most alarms that are lost with a part: half of what a step may lose, because it is counted before it takes effect.
const PART_LOST_MAX: usize = ALIGNMENT_LOST_MAX / 2;
/// About how much is journalled of what is lost with a part: each alarm twice, as it ended and as it is forgotten.
const PART_LOST_BYTES: usize = 1024 * 1024;

/// A message that cannot be used: why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Malformed(pub(super) String);

fn malformed(reason: impl Into<String>) -> Malformed {
    Malformed(reason.into())
}

/// For whom a child may speak.
pub(super) struct Voice<'a> {
    /// Who it is.
    pub(super) child: &'a ChildName,
    /// Its numbering.
    pub(super) epoch: Epoch,
    /// It relays what others own.
    pub(super) is_region: bool,
    /// The site of this node.
    pub(super) here: &'a Site,
    /// The journal is shared with other nodes: what it takes may reach the engine without what comes before it, and the engine that
    /// knows an agent has the alarms of this site.
    pub(super) is_shared: bool,
    /// Whether a name is that of another child of this node that owns alarms: no agent reports in its place.
    pub(super) is_other: &'a dyn Fn(&str) -> bool,
    /// The alarms that are mirrored through it from one id to another, by id, each with about how large it is.
    pub(super) mirrored: &'a dyn Fn(AlarmId, AlarmId) -> Vec<(AlarmId, usize)>,
}

/// What is to be journalled of one message, in order.
#[derive(Debug, Default)]
pub(super) struct Step {
    /// Submissions, each with items that are taken together.
    pub(super) items: Vec<Vec<Item>>,
    /// How many changes, alarms or events it has.
    pub(super) count: u64,
    /// How many events could not be read.
    pub(super) rejected: u64,
    /// How many changes or alarms are left out, or kept without their notes and attributes.
    pub(super) left_out: u64,
    /// Why the first of them is.
    pub(super) left_out_for: Option<String>,
    /// When the newest change in it happened, by its owner's clock.
    pub(super) newest: Option<Timestamp>,
    /// Up to where what is live has come when all of it is durable, if it says.
    pub(super) live_at: Option<Position>,
}

impl Step {
    fn leave_out(&mut self, reason: String) {
        self.leave_out_some(1, || reason);
    }

    fn leave_out_some(&mut self, count: u64, reason: impl FnOnce() -> String) {
        self.left_out += count;
        if count > 0 {
            self.left_out_for.get_or_insert_with(reason);
        }
    }
}

impl Voice<'_> {
    fn may_speak_for(&self, owner: &Site) -> Result<(), Malformed> {
        // Whether a site below a region is better heard itself, the engine decides, alarm by alarm.
        let is_own = *owner == site_of(self.child);
        let is_below = self.is_region && owner != self.here;
        if is_own || is_below { Ok(()) } else { Err(malformed(format!("{} sent what {owner} owns", self.child))) }
    }

    fn check_alarm(&self, alarm: &Alarm) -> Result<(), Malformed> {
        alarm.owner.as_ref().map_or(Ok(()), |owner| self.may_speak_for(owner))
    }

    fn check_changes(&self, changes: &[Arc<Change>]) -> Result<Option<Timestamp>, Malformed> {
        for change in changes {
            self.may_speak_for(&change.site)?;
            if let Subject::Alarm { alarm, .. } = &change.subject {
                self.check_alarm(alarm)?;
            }
        }
        Ok(changes.last().map(|change| change.at))
    }

    /// Whether a child may say something about `key`. Its alarms may name a site of which nobody else is heard; a region names
    /// those below it.
    fn check_key(&self, key: &AlarmKey) -> Result<(), String> {
        let is_own = key.site == site_of(self.child);
        let is_here = key.site == *self.here;
        if is_own || !(is_here || (!self.is_region && (self.is_other)(&key.site))) {
            return Ok(());
        }
        Err(format!("site: {} has an alarm of {}, for which it may not speak", self.child, key.site))
    }

    /// Leaves out the alarms that it may not send, and what is too large of others.
    fn sift_alarms(&self, alarms: &mut Vec<Arc<Alarm>>, is_large: bool, step: &mut Step) {
        alarms.retain_mut(|alarm| {
            if let Err(reason) = self.check_key(&alarm.key) {
                step.leave_out(reason);
                return false;
            }
            if is_large && alarm_bytes(alarm) > ITEM_BYTES_MAX {
                step.leave_out(format!("alarm {} has more than {ITEM_BYTES_MAX} bytes", alarm.id));
                *alarm = Arc::new(bare(alarm));
            }
            true
        });
    }

    /// Leaves out the changes that it may not send, and what is too large of others. What is left out counts as not understood:
    /// nobody here will know what it said.
    fn sift_changes(&self, changes: &mut Vec<Arc<Change>>, unread: &mut u64, is_large: bool, step: &mut Step) {
        let sent = changes.len();
        step.leave_out_some(*unread, || format!("{unread} changes are not understood"));
        self.sift_known(changes, is_large, step);
        *unread = unread.saturating_add((sent - changes.len()) as u64).min(UNREAD_MAX);
    }

    fn sift_known(&self, changes: &mut Vec<Arc<Change>>, is_large: bool, step: &mut Step) {
        changes.retain(|change| {
            let checked = match &change.subject {
                Subject::Alarm { alarm, .. } => self.check_key(&alarm.key),
                Subject::Event { event, .. } => self.check_key(&event.key),
                _ => Ok(()),
            };
            checked.map_err(|reason| step.leave_out(reason)).is_ok()
        });
        if !is_large {
            return;
        }
        let mut sizes: Vec<_> = changes.iter().map(|change| change_bytes(change)).collect();
        for (change, bytes) in changes.iter_mut().zip(&mut sizes).filter(|(_, bytes)| **bytes > ITEM_BYTES_MAX) {
            let number = change.number.seq;
            step.leave_out(format!("change {number} has {bytes} bytes, at most {ITEM_BYTES_MAX} are kept"));
            let mut kept = Change { reasons: Vec::new(), ..Change::clone(change) };
            if let Subject::Alarm { alarm, .. } = &mut kept.subject {
                *alarm = Arc::new(bare(alarm));
            }
            *bytes = change_bytes(&kept);
            *change = Arc::new(kept);
        }
        // Together they are one entry. What a child sends beyond that is its mistake, and the others do not wait for it.
        let mut bytes: usize = sizes.iter().sum();
        while bytes > CHANGES_BYTES_MAX
            && let Some((place, size)) = sizes.iter().copied().enumerate().max_by_key(|(_, size)| *size)
        {
            let change = changes.remove(place);
            let number = change.number.seq;
            step.leave_out(format!("change {number} is among more than {CHANGES_BYTES_MAX} bytes in one message"));
            sizes.remove(place);
            bytes -= size;
        }
    }

    /// What `form` becomes, of a message of `bytes`, if what is live has come in up to `live_at` with all that is on its way.
    pub(super) fn relay(&self, form: v1::RelayContent, bytes: usize, live_at: Option<Position>) -> Result<Step, Malformed> {
        let mut content = RelayContent::try_from(form).map_err(|error| malformed(format!("relay: {error}")))?;
        let mut step = Step::default();
        let upward = |after: Position, upto: Position| {
            if after <= upto { Ok(()) } else { Err(malformed(format!("upto: {upto} is before {after}"))) }
        };
        // What is journalled has a few fields more than what was sent.
        let is_large = bytes >= ITEM_BYTES_MAX / 2;
        match &mut content {
            RelayContent::Alignment { from, to, alarms, unread, .. } => {
                let is_sorted =
                    alarms.is_sorted_by(|one, other| one.id < other.id) && unread.is_sorted_by(|one, other| one < other);
                let is_within = alarms.iter().map(|alarm| &alarm.id).chain(&*unread).all(|id| (*from..=*to).contains(id));
                let is_twice = alarms.iter().any(|alarm| unread.binary_search(&alarm.id).is_ok());
                if from > to || !is_sorted || !is_within || is_twice {
                    return Err(malformed("alarms: are not in the order of their ids, or not between from and to"));
                }
                step.leave_out_some(unread.len() as u64, || format!("alarm {} is not understood", unread[0]));
                alarms.iter().try_for_each(|alarm| self.check_alarm(alarm))?;
                step.count = alarms.len() as u64;
                self.sift_alarms(alarms, is_large, &mut step);
            }
            RelayContent::Aligned { at, after, below, .. } => {
                upward(*after, *at)?;
                if below.len() > BELOW_MAX {
                    return Err(malformed(format!("below: has {} nodes, at most {BELOW_MAX} are allowed", below.len())));
                }
                for version in below.iter_mut().filter_map(|below| below.version.as_mut()) {
                    *version = kept_version(version);
                }
                step.live_at = Some(*at);
            }
            RelayContent::Live { after, upto, changes, unread } => {
                upward(*after, *upto)?;
                if live_at.is_none_or(|live_at| *after > live_at) {
                    let reached = live_at.unwrap_or_default();
                    return Err(malformed(format!("after: is {after}, and what is live has come in up to {reached}")));
                }
                step.newest = self.check_changes(changes)?;
                step.count = changes.len() as u64;
                step.live_at = live_at.max(Some(*upto));
                self.sift_changes(changes, unread, is_large, &mut step);
            }
            RelayContent::History { after, upto, changes, unread } => {
                upward(*after, *upto)?;
                self.check_changes(changes)?;
                step.count = changes.len() as u64;
                self.sift_changes(changes, unread, is_large, &mut step);
            }
            RelayContent::Gap { after, upto } => upward(*after, *upto)?,
            RelayContent::Acted { .. } => {}
        }
        let parts = match content {
            RelayContent::Alignment { at, from, to, alarms, unread } => {
                parts(at, (from, to), listed(alarms, unread), (self.mirrored)(from, to))
            }
            RelayContent::Acted { actions } if actions.len() > ACTED_MAX => {
                actions.chunks(ACTED_MAX).map(|actions| RelayContent::Acted { actions: actions.to_vec() }).collect()
            }
            other => vec![other],
        };
        let relay = |content| {
            let relay = Relay { child: self.child.clone(), epoch: self.epoch, content };
            Item::Relay(Arc::new(relay))
        };
        step.items = parts.into_iter().map(|content| vec![relay(content)]).collect();
        Ok(step)
    }

    /// What the events of an agent become, that are all of its journal up to `upto`. What cannot be read is left out and
    /// counted: an agent that waited for it would send nothing any more.
    ///
    /// All that came before, up to `live_at`, is on its way.
    pub(super) fn events(
        &self,
        events: Vec<PlacedEventOf<Value>>,
        upto: Position,
        lost: u64,
        live_at: Option<Position>,
    ) -> Result<Step, Malformed> {
        let mut step = Step { count: events.len() as u64, ..Step::default() };
        let mut items = Vec::with_capacity(events.len() + 1);
        let mut last = Position::default();
        let mut taken = Position::default();
        let mut after = live_at.filter(|_| self.is_shared);
        let mut go_on = |to: Position| std::mem::replace(&mut after, self.is_shared.then_some(to));
        if lost > 0 {
            let behind = events.first().map_or(upto, |first| Position(first.position.0.saturating_sub(1)));
            items.push(self.passed(behind, go_on(behind), lost));
        }
        for placed in events {
            let at = placed.position;
            if at <= last {
                return Err(malformed(format!("position: {at} is not behind {last}")));
            }
            last = at;
            step.newest = Some(placed.received_at);
            match self.event(placed) {
                Ok(mut event) => {
                    let after = go_on(at);
                    event.origin.relay.iter_mut().for_each(|mark| mark.after = after);
                    taken = at;
                    items.push(Item::Event(Arc::new(event)));
                }
                Err(reason) => {
                    tracing::warn!(child = %self.child, position = %at, %reason, "an event of an agent cannot be taken");
                    step.rejected += 1;
                }
            }
        }
        let upto = upto.max(last);
        if taken < upto {
            items.push(self.passed(upto, go_on(upto), 0));
        }
        step.live_at = Some(upto);
        while !items.is_empty() {
            let rest = items.split_off(items.len().min(SUBMISSION_ENTRIES_MAX));
            step.items.push(std::mem::replace(&mut items, rest));
        }
        Ok(step)
    }

    /// That nothing is left to come up to `position`.
    pub(super) fn passed(&self, position: Position, after: Option<Position>, lost: u64) -> Item {
        let what = ChildEvent::Passed { epoch: self.epoch, position, after, lost };
        Item::Child(Arc::new(ChildFact { child: self.child.clone(), actor: None, what }))
    }

    fn event(&self, placed: PlacedEventOf<Value>) -> Result<Event, String> {
        let event: v1::Event = serde_json::from_value(placed.event).map_err(|error| error.to_string())?;
        let mut event = event.into_event(self.here).map_err(|error| error.to_string())?;
        if (self.is_other)(&event.key.site) {
            return Err(format!("site: {} owns its alarms itself", event.key.site));
        }
        if self.is_shared && event.key.site != *self.here {
            return Err(format!("site: an agent of a site whose journal is in a Kafka reports for {} only", self.here));
        }
        event.event_time = event.event_time.or(Some(placed.received_at));
        event.origin.relay =
            Some(RelayMark { child: self.child.clone(), epoch: self.epoch, position: placed.position, after: None });
        Ok(event)
    }
}

fn alarm_bytes(alarm: &Alarm) -> usize {
    serde_json::to_vec(&v1::Alarm::shown(alarm, false)).map_or(0, |json| json.len())
}

fn change_bytes(change: &Change) -> usize {
    serde_json::to_vec(&v1::Change::shown(change, |_| false)).map_or(0, |json| json.len())
}

/// An alarm without what may be long of it. It is compared, acted on and told of all the same.
fn bare(alarm: &Alarm) -> Alarm {
    Alarm { notes: Vec::new(), details: Details::default(), ..alarm.clone() }
}

/// As much of the text of a version as is kept.
pub(super) fn kept_version(version: &str) -> String {
    const CHARS_MAX: usize = 64;
    version.chars().filter(|character| !character.is_control()).take(CHARS_MAX).collect()
}

/// An alarm that a site lists; nothing but its id of one that is not understood.
type Listed = (AlarmId, Option<Arc<Alarm>>);

/// What a site lists, by id.
fn listed(alarms: Vec<Arc<Alarm>>, unread: Vec<AlarmId>) -> Vec<Listed> {
    let known = alarms.into_iter().map(|alarm| (alarm.id, Some(alarm)));
    let mut listed: Vec<_> = known.chain(unread.into_iter().map(|id| (id, None))).collect();
    listed.sort_by_key(|(id, _)| *id);
    listed
}

/// An alignment in parts that the journal takes, which together are about all ids between two. What is mirrored there and not
/// sent is lost with the part in whose range it is.
fn parts(
    at: Position,
    (from, to): (AlarmId, AlarmId),
    listed: Vec<Listed>,
    mirrored: Vec<(AlarmId, usize)>,
) -> Vec<RelayContent> {
    let mut parts = Vec::new();
    let mut part = Part::new(from);
    let mut mirrored = mirrored.into_iter().peekable();
    for (of, alarm) in listed {
        while let Some((id, bytes)) = mirrored.next_if(|(id, _)| *id < of) {
            part.cut_before(id, at, (0, 2 * bytes), &mut parts);
            part.lost += 1;
        }
        mirrored.next_if(|(id, _)| *id == of);
        let bytes = alarm.as_ref().map_or(UNREAD_BYTES, |alarm| alarm_bytes(alarm));
        part.cut_before(of, at, (bytes, 0), &mut parts);
        match alarm {
            Some(alarm) => part.alarms.push(alarm),
            None => part.unread.push(of),
        }
    }
    for (id, bytes) in mirrored {
        part.cut_before(id, at, (0, 2 * bytes), &mut parts);
        part.lost += 1;
    }
    parts.push(part.ended(at, to));
    parts
}

/// A part that is being put together.
struct Part {
    first: AlarmId,
    alarms: Vec<Arc<Alarm>>,
    unread: Vec<AlarmId>,
    bytes: usize,
    lost: usize,
    lost_bytes: usize,
}

impl Part {
    fn new(first: AlarmId) -> Self {
        Self { first, alarms: Vec::new(), unread: Vec::new(), bytes: 0, lost: 0, lost_bytes: 0 }
    }

    fn ended(self, at: Position, to: AlarmId) -> RelayContent {
        let Self { first: from, alarms, unread, .. } = self;
        RelayContent::Alignment { at, from, to, alarms, unread }
    }

    /// Makes room for one alarm more, sent or lost: if there is none the part ends before it.
    fn cut_before(&mut self, id: AlarmId, at: Position, (bytes, lost_bytes): (usize, usize), parts: &mut Vec<RelayContent>) {
        let has_some = !self.alarms.is_empty() || !self.unread.is_empty() || self.lost > 0;
        let is_full = self.bytes + bytes > PART_BYTES
            || self.lost_bytes + lost_bytes > PART_LOST_BYTES
            || (lost_bytes > 0 && self.lost >= PART_LOST_MAX);
        if has_some && is_full {
            let before = AlarmId(Uuid::from_u128(id.0.as_u128() - 1));
            parts.push(std::mem::replace(self, Self::new(id)).ended(at, before));
        }
        self.bytes += bytes;
        self.lost_bytes += lost_bytes;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn alarm(id: u128, text: &str) -> Arc<Alarm> {
        let form = json!({
            "id": Uuid::from_u128(id), "site": "cell-1", "resource": "host=a", "alarm_type": "fan.failed", "catalogued": true,
            "severity": "major", "cleared": false, "text": text, "raise_seq": 1, "first_raised_at": "2026-11-22T03:12:00Z",
            "raised_at": "2026-11-22T03:12:00Z", "changed_at": "2026-11-22T03:12:00Z",
            "last_change": { "epoch": 1, "seq": 1 }, "count": 1, "last_reported_at": "2026-11-22T03:12:00Z",
            "acknowledged": null, "assigned": null, "shelved": null, "stale": null, "notes": [],
        });
        let form: v1::Alarm = serde_json::from_value(form).expect("is an alarm");
        Arc::new(form.try_into().expect("is an alarm"))
    }

    fn relay(form: v1::RelayContent, live_at: Option<Position>) -> Result<Step, Malformed> {
        let (child, here) = (ChildName::new("cell-1").expect("valid"), Site::new("centre").expect("valid"));
        let is_other = |name: &str| name == "cell-2";
        let mirrored = |_, _| Vec::new();
        let voice = Voice {
            child: &child,
            epoch: Epoch(7),
            is_region: false,
            here: &here,
            is_shared: false,
            is_other: &is_other,
            mirrored: &mirrored,
        };
        voice.relay(form, usize::MAX, live_at)
    }

    #[test]
    fn a_large_alignment_is_cut_into_parts_that_leave_no_id_out() {
        let alarms: Vec<_> = (1..400_u128).map(|n| alarm(n << 64, &"x".repeat(4_000))).collect();
        let (first, last) = (AlarmId(Uuid::from_u128(0)), AlarmId(Uuid::from_u128(u128::MAX >> 8)));
        let content =
            RelayContent::Alignment { at: Position(9), from: first, to: last, alarms: alarms.clone(), unread: Vec::new() };
        let step = relay(v1::RelayContent::from(&content), None).expect("is sound");
        assert_eq!((step.count, step.live_at), (399, None));
        let mut next = first.0.as_u128();
        let mut seen = 0;
        for items in &step.items {
            let [Item::Relay(relay)] = &items[..] else { panic!("one relay each") };
            let RelayContent::Alignment { at, from, to, alarms, .. } = &relay.content else { panic!("an alignment") };
            assert_eq!((*at, from.0.as_u128()), (Position(9), next));
            assert!(serde_json::to_vec(&v1::Relay::from(&**relay)).expect("serializes").len() < RELAY_BYTES_MAX);
            assert!(alarms.iter().all(|alarm| (*from..=*to).contains(&alarm.id)));
            seen += alarms.len();
            next = to.0.as_u128() + 1;
        }
        assert_eq!((seen, next), (399, (u128::MAX >> 8) + 1));
        assert!(step.items.len() > 4, "{}", step.items.len());
    }

    #[test]
    fn an_alignment_is_cut_by_what_is_lost_with_it_as_well() {
        let edge = |id: u128| AlarmId(Uuid::from_u128(id));
        let sent = vec![alarm(1_000, "a"), alarm(90_000, "b")];
        let mirrored = (1..=5_000).map(|id| (edge(id), 800)).collect();
        let mut next = 0;
        let mut lost = 0;
        let parts = parts(Position(9), (edge(0), edge(100_000)), listed(sent, vec![edge(2_000)]), mirrored);
        for part in &parts {
            let RelayContent::Alignment { from, to, alarms, .. } = part else { panic!("an alignment") };
            let (from, to) = (from.0.as_u128(), to.0.as_u128());
            assert_eq!(from, next);
            let known =
                (from.max(1)..=to.min(5_000)).count() - [1_000, 2_000].iter().filter(|id| (from..=to).contains(id)).count();
            assert!(known <= PART_LOST_MAX && known * 2 * 800 <= PART_LOST_BYTES, "{known}");
            assert!(alarms.iter().all(|alarm| (from..=to).contains(&alarm.id.0.as_u128())));
            lost += known;
            next = to + 1;
        }
        assert_eq!((lost, next), (4_998, 100_001));
        assert!(parts.len() > 4, "{}", parts.len());
    }

    #[test]
    fn what_is_out_of_order_or_out_of_place_is_named() {
        let (one, other) = (alarm(1, "a"), alarm(2, "b"));
        let edge = |id: u128| AlarmId(Uuid::from_u128(id));
        let part = |alarms: &[&Arc<Alarm>], to: u128| {
            let alarms = alarms.iter().map(|alarm| Arc::clone(alarm)).collect();
            v1::RelayContent::from(&RelayContent::Alignment {
                at: Position(9),
                from: edge(0),
                to: edge(to),
                alarms,
                unread: Vec::new(),
            })
        };
        assert!(relay(part(&[&one, &other], 2), None).is_ok());
        for wrong in [part(&[&other, &one], 2), part(&[&one, &other], 1), part(&[&one, &one], 2)] {
            assert!(relay(wrong, None).is_err_and(|error| error.0.starts_with("alarms: ")));
        }
        let live =
            |after, upto| v1::RelayContent::Live { after: Position(after), upto: Position(upto), changes: Vec::new().into() };
        assert!(relay(live(5, 9), None).is_err(), "nothing is live before it is aligned");
        assert_eq!(relay(live(5, 9), Some(Position(7))).map(|step| step.live_at), Ok(Some(Position(9))));
        assert_eq!(relay(live(1, 2), Some(Position(7))).map(|step| step.live_at), Ok(Some(Position(7))));
        assert!(relay(live(8, 9), Some(Position(7))).is_err_and(|error| error.0.contains("has come in up to 7")));
    }

    #[test]
    fn a_region_that_names_a_site_which_is_enrolled_here_too_is_heard() {
        let (child, here) = (ChildName::new("region").expect("valid"), Site::new("centre").expect("valid"));
        let mirrored = |_, _| Vec::new();
        let voice = |is_region| Voice {
            child: &child,
            epoch: Epoch(7),
            is_region,
            here: &here,
            is_shared: false,
            is_other: &|_| true,
            mirrored: &mirrored,
        };
        let mut of_another = Alarm::clone(&alarm(1, "a"));
        of_another.owner = Some(Site::new("cell-2").expect("valid"));
        of_another.key.site = Site::new("cell-2").expect("valid");
        let (from, to) = (of_another.id, of_another.id);
        let part =
            RelayContent::Alignment { at: Position(9), from, to, alarms: vec![Arc::new(of_another)], unread: Vec::new() };
        let heard = voice(true).relay(v1::RelayContent::from(&part), 0, None).expect("is heard");
        assert_eq!((heard.count, heard.left_out), (1, 0));
        assert!(voice(false).relay(v1::RelayContent::from(&part), 0, None).is_err());
    }

    fn change(seq: u64, site: &str, text: &str) -> Arc<Change> {
        let mut alarm = Alarm::clone(&alarm(u128::from(seq), text));
        alarm.key.site = Site::new(site).expect("valid");
        Arc::new(Change {
            site: Site::new("cell-1").expect("valid"),
            number: klaxon_schemas::alarm::ChangeNumber { epoch: Epoch(7), seq: klaxon_schemas::ids::Seq(seq) },
            at: alarm.raised_at,
            past: false,
            kind: klaxon_schemas::change::ChangeKind::Raised,
            reasons: Vec::new(),
            actor: None,
            from: None,
            note: None,
            subject: Subject::Alarm { alarm: Arc::new(alarm), previous_severity: None },
            place: None,
        })
    }

    fn relays(step: &Step) -> Vec<&RelayContent> {
        fn content(item: &Item) -> &RelayContent {
            match item {
                Item::Relay(relay) => &relay.content,
                _ => panic!("a relay"),
            }
        }
        step.items.iter().flatten().map(content).collect()
    }

    #[test]
    fn what_a_site_says_of_another_is_left_out_and_what_it_says_else_is_heard() {
        let all = [change(1, "cell-1", "a"), change(2, "cell-9", "a"), change(3, "cell-2", "a"), change(4, "centre", "a")];
        let live = |changes: &[Arc<Change>]| {
            let content = RelayContent::Live { after: Position(5), upto: Position(9), unread: 0, changes: changes.to_vec() };
            relay(v1::RelayContent::from(&content), Some(Position(5))).expect("is sound")
        };
        let step = live(&all);
        assert_eq!((step.count, step.left_out, step.live_at), (4, 2, Some(Position(9))));
        assert!(step.left_out_for.as_ref().is_some_and(|reason| reason.starts_with("site: cell-1 has an alarm of cell-2")));
        let [RelayContent::Live { changes, unread, .. }] = relays(&step)[..] else { panic!("what is heard") };
        assert_eq!(changes.iter().map(|change| change.number.seq.0).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(*unread, 2, "nothing is said of what the last change was");
        let part = RelayContent::Alignment {
            at: Position(9),
            from: AlarmId(Uuid::from_u128(0)),
            to: AlarmId(Uuid::from_u128(9)),
            alarms: all
                .iter()
                .map(|change| if let Subject::Alarm { alarm, .. } = &change.subject { alarm.clone() } else { panic!() })
                .collect(),
            unread: Vec::new(),
        };
        let step = relay(v1::RelayContent::from(&part), None).expect("is sound");
        assert_eq!((step.count, step.left_out), (4, 2));
        let [RelayContent::Alignment { alarms, .. }] = relays(&step)[..] else { panic!("one part") };
        assert_eq!(alarms.len(), 2);
    }

    #[test]
    fn what_is_too_large_for_the_journal_holds_nothing_up() {
        let mut large = Change::clone(&change(2, "cell-1", "a"));
        let Subject::Alarm { alarm, .. } = &mut large.subject else { panic!("an alarm") };
        let mut of_notes = Alarm::clone(alarm);
        let note = klaxon_schemas::alarm::Note {
            at: of_notes.raised_at,
            by: klaxon_schemas::names::Actor::new("anna").expect("valid"),
            text: klaxon_schemas::names::Text::new(&"x".repeat(4_000)).expect("valid"),
        };
        of_notes.notes = vec![note; 300];
        *alarm = Arc::new(of_notes);
        let large = Arc::new(large);
        let fits = |step: &Step| {
            relays(step).iter().all(|content| {
                let relay =
                    Relay { child: ChildName::new("cell-1").expect("valid"), epoch: Epoch(7), content: (*content).clone() };
                serde_json::to_vec(&v1::Relay::from(&relay)).expect("serializes").len() <= RELAY_BYTES_MAX
            })
        };
        let changes = vec![change(1, "cell-1", "a"), Arc::clone(&large), change(3, "cell-1", "a")];
        let content = RelayContent::Live { after: Position(5), upto: Position(9), unread: 0, changes };
        let step = relay(v1::RelayContent::from(&content), Some(Position(5))).expect("is sound");
        let [RelayContent::Live { changes, .. }] = relays(&step)[..] else { panic!("one step") };
        assert!(fits(&step) && changes.len() == 3 && step.left_out == 1, "it comes without its notes");
        let Subject::Alarm { alarm, .. } = &large.subject else { panic!("an alarm") };
        let part = RelayContent::Alignment {
            at: Position(9),
            from: alarm.id,
            to: alarm.id,
            alarms: vec![Arc::clone(alarm)],
            unread: Vec::new(),
        };
        let step = relay(v1::RelayContent::from(&part), None).expect("is sound");
        assert!(fits(&step) && step.left_out == 1);
        // Many that are together too much.
        let changes: Vec<_> = (1..=400).map(|seq| change(seq, "cell-1", &"x".repeat(4_000))).collect();
        let content = RelayContent::History { after: Position(5), upto: Position(9), unread: 0, changes: changes.clone() };
        let step = relay(v1::RelayContent::from(&content), None).expect("is sound");
        assert!(fits(&step) && (1..400).contains(&step.left_out), "{}", step.left_out);
        let content = RelayContent::Live { after: Position(5), upto: Position(9), unread: 0, changes };
        let step = relay(v1::RelayContent::from(&content), Some(Position(5))).expect("is sound");
        let [RelayContent::Live { changes, unread, .. }] = relays(&step)[..] else { panic!("one step") };
        assert!(fits(&step) && changes.len() as u64 + unread == 400 && *unread == step.left_out);
        let content = RelayContent::Live { after: Position(5), upto: Position(9), unread: 1_000_000, changes: Vec::new() };
        let step = relay(v1::RelayContent::from(&content), Some(Position(5))).expect("is sound");
        assert!(fits(&step) && step.left_out == 1_000_000);
        let actions = vec![klaxon_schemas::ids::ActionId(Uuid::from_u128(1)); 60_000];
        let step = relay(v1::RelayContent::Acted { actions }, None).expect("is sound");
        assert!(fits(&step) && step.items.len() == 6);
    }
}
