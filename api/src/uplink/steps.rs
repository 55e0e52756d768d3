//! What a message from below becomes: items for the journal, checked and cut to size.
//!
//! A child speaks only for itself. What the engine checks again is checked here too where a mistake would otherwise only be
//! told by silence: that what is sent goes on where the last left off.

use std::sync::Arc;

use klaxon_schemas::alarm::Alarm;
use klaxon_schemas::change::{Change, Subject};
use klaxon_schemas::child::{ALIGNMENT_LOST_MAX, BELOW_MAX, ChildEvent, ChildFact, Relay, RelayContent, site_of};
use klaxon_schemas::entry::RELAY_BYTES_MAX;
use klaxon_schemas::event::{Event, RelayMark};
use klaxon_schemas::ids::{AlarmId, Epoch, Position};
use klaxon_schemas::names::{ChildName, Site};
use klaxon_schemas::time::Timestamp;
use klaxon_schemas::wire::v1;
use klaxon_schemas::wire::v1::uplink::PlacedEvent;
use klaxon_store::publish::{Item, SUBMISSION_ENTRIES_MAX};
use uuid::Uuid;

/// About how large a part of an alignment is that is cut out of a larger one.
const PART_BYTES: usize = RELAY_BYTES_MAX / 4;
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
    /// When the newest change in it happened, by its owner's clock.
    pub(super) newest: Option<Timestamp>,
    /// Up to where what is live has come when all of it is durable, if it says.
    pub(super) live_at: Option<Position>,
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

    /// What `form` becomes, if what is live has come in up to `live_at` with all that is on its way.
    pub(super) fn relay(&self, form: v1::RelayContent, live_at: Option<Position>) -> Result<Step, Malformed> {
        let content = RelayContent::try_from(form).map_err(|error| malformed(format!("relay: {error}")))?;
        let mut step = Step::default();
        let upward = |after: Position, upto: Position| {
            if after <= upto { Ok(()) } else { Err(malformed(format!("upto: {upto} is before {after}"))) }
        };
        match &content {
            RelayContent::Alignment { from, to, alarms, .. } => {
                let is_sorted = alarms.is_sorted_by(|one, other| one.id < other.id);
                let is_within = alarms.iter().all(|alarm| (*from..=*to).contains(&alarm.id));
                if from > to || !is_sorted || !is_within {
                    return Err(malformed("alarms: are not in the order of their ids, or not between from and to"));
                }
                alarms.iter().try_for_each(|alarm| self.check_alarm(alarm))?;
                step.count = alarms.len() as u64;
            }
            RelayContent::Aligned { at, after, below, .. } => {
                upward(*after, *at)?;
                if below.len() > BELOW_MAX {
                    return Err(malformed(format!("below: has {} nodes, at most {BELOW_MAX} are allowed", below.len())));
                }
                step.live_at = Some(*at);
            }
            RelayContent::Live { after, upto, changes, .. } => {
                upward(*after, *upto)?;
                if live_at.is_none_or(|live_at| *after > live_at) {
                    let reached = live_at.unwrap_or_default();
                    return Err(malformed(format!("after: is {after}, and what is live has come in up to {reached}")));
                }
                step.newest = self.check_changes(changes)?;
                step.count = changes.len() as u64;
                step.live_at = live_at.max(Some(*upto));
            }
            RelayContent::History { after, upto, changes, .. } => {
                upward(*after, *upto)?;
                self.check_changes(changes)?;
                step.count = changes.len() as u64;
            }
            RelayContent::Gap { after, upto } => upward(*after, *upto)?,
            RelayContent::Acted { .. } => {}
        }
        let parts = match content {
            RelayContent::Alignment { at, from, to, alarms } => parts(at, (from, to), alarms, (self.mirrored)(from, to)),
            other => vec![other],
        };
        let relay = |content| Relay { child: self.child.clone(), epoch: self.epoch, content };
        step.items = parts.into_iter().map(|content| vec![Item::Relay(Arc::new(relay(content)))]).collect();
        Ok(step)
    }

    /// What the events of an agent become, that are all of its journal up to `upto`. What cannot be read is left out and
    /// counted: an agent that waited for it would send nothing any more.
    pub(super) fn events(&self, events: Vec<PlacedEvent>, upto: Position, lost: u64) -> Result<Step, Malformed> {
        let mut step = Step { count: events.len() as u64, ..Step::default() };
        let mut items = Vec::with_capacity(events.len() + 1);
        let mut last = Position::default();
        let mut taken = Position::default();
        if lost > 0 {
            let behind = events.first().map_or(upto, |first| Position(first.position.0.saturating_sub(1)));
            items.push(self.passed(behind, lost));
        }
        for placed in events {
            let at = placed.position;
            if at <= last {
                return Err(malformed(format!("position: {at} is not behind {last}")));
            }
            last = at;
            step.newest = Some(placed.received_at);
            match self.event(placed) {
                Ok(event) => {
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
            items.push(self.passed(upto, 0));
        }
        while !items.is_empty() {
            let rest = items.split_off(items.len().min(SUBMISSION_ENTRIES_MAX));
            step.items.push(std::mem::replace(&mut items, rest));
        }
        Ok(step)
    }

    /// That nothing is left to come up to `position`.
    pub(super) fn passed(&self, position: Position, lost: u64) -> Item {
        let what = ChildEvent::Passed { epoch: self.epoch, position, lost };
        Item::Child(Arc::new(ChildFact { child: self.child.clone(), actor: None, what }))
    }

    fn event(&self, placed: PlacedEvent) -> Result<Event, String> {
        let mut event = placed.event.into_event(self.here).map_err(|error| error.to_string())?;
        if (self.is_other)(&event.key.site) {
            return Err(format!("site: {} owns its alarms itself", event.key.site));
        }
        event.event_time = event.event_time.or(Some(placed.received_at));
        event.origin.relay = Some(RelayMark { child: self.child.clone(), epoch: self.epoch, position: placed.position });
        Ok(event)
    }
}

/// An alignment in parts that the journal takes, which together are about all ids between two. What is mirrored there and not
/// sent is lost with the part in whose range it is.
fn parts(
    at: Position,
    (from, to): (AlarmId, AlarmId),
    alarms: Vec<Arc<Alarm>>,
    mirrored: Vec<(AlarmId, usize)>,
) -> Vec<RelayContent> {
    let mut parts = Vec::new();
    let mut part = Part::new(from);
    let mut mirrored = mirrored.into_iter().peekable();
    for alarm in alarms {
        while let Some((id, bytes)) = mirrored.next_if(|(id, _)| *id < alarm.id) {
            part.cut_before(id, at, (0, 2 * bytes), &mut parts);
            part.lost += 1;
        }
        mirrored.next_if(|(id, _)| *id == alarm.id);
        let bytes = serde_json::to_vec(&v1::Alarm::shown(&alarm, false)).map_or(0, |json| json.len());
        part.cut_before(alarm.id, at, (bytes, 0), &mut parts);
        part.alarms.push(alarm);
    }
    for (id, bytes) in mirrored {
        part.cut_before(id, at, (0, 2 * bytes), &mut parts);
        part.lost += 1;
    }
    parts.push(RelayContent::Alignment { at, from: part.first, to, alarms: part.alarms });
    parts
}

/// A part that is being put together.
struct Part {
    first: AlarmId,
    alarms: Vec<Arc<Alarm>>,
    bytes: usize,
    lost: usize,
    lost_bytes: usize,
}

impl Part {
    fn new(first: AlarmId) -> Self {
        Self { first, alarms: Vec::new(), bytes: 0, lost: 0, lost_bytes: 0 }
    }

    /// Makes room for one alarm more, sent or lost: if there is none the part ends before it.
    fn cut_before(&mut self, id: AlarmId, at: Position, (bytes, lost_bytes): (usize, usize), parts: &mut Vec<RelayContent>) {
        let has_some = !self.alarms.is_empty() || self.lost > 0;
        let is_full = self.bytes + bytes > PART_BYTES
            || self.lost_bytes + lost_bytes > PART_LOST_BYTES
            || (lost_bytes > 0 && self.lost >= PART_LOST_MAX);
        if has_some && is_full {
            let before = AlarmId(Uuid::from_u128(id.0.as_u128() - 1));
            let Self { first, alarms, .. } = std::mem::replace(self, Self::new(id));
            parts.push(RelayContent::Alignment { at, from: first, to: before, alarms });
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
        let voice =
            Voice { child: &child, epoch: Epoch(7), is_region: false, here: &here, is_other: &is_other, mirrored: &mirrored };
        voice.relay(form, live_at)
    }

    #[test]
    fn a_large_alignment_is_cut_into_parts_that_leave_no_id_out() {
        let alarms: Vec<_> = (1..400_u128).map(|n| alarm(n << 64, &"x".repeat(4_000))).collect();
        let (first, last) = (AlarmId(Uuid::from_u128(0)), AlarmId(Uuid::from_u128(u128::MAX >> 8)));
        let content = RelayContent::Alignment { at: Position(9), from: first, to: last, alarms: alarms.clone() };
        let step = relay(v1::RelayContent::from(&content), None).expect("is sound");
        assert_eq!((step.count, step.live_at), (399, None));
        let mut next = first.0.as_u128();
        let mut seen = 0;
        for items in &step.items {
            let [Item::Relay(relay)] = &items[..] else { panic!("one relay each") };
            let RelayContent::Alignment { at, from, to, alarms } = &relay.content else { panic!("an alignment") };
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
        let parts = parts(Position(9), (edge(0), edge(100_000)), sent, mirrored);
        for part in &parts {
            let RelayContent::Alignment { from, to, alarms, .. } = part else { panic!("an alignment") };
            let (from, to) = (from.0.as_u128(), to.0.as_u128());
            assert_eq!(from, next);
            let known = (from.max(1)..=to.min(5_000)).count() - usize::from((from..=to).contains(&1_000));
            assert!(known <= PART_LOST_MAX && known * 2 * 800 <= PART_LOST_BYTES, "{known}");
            assert!(alarms.iter().all(|alarm| (from..=to).contains(&alarm.id.0.as_u128())));
            lost += known;
            next = to + 1;
        }
        assert_eq!((lost, next), (4_999, 100_001));
        assert!(parts.len() > 4, "{}", parts.len());
    }

    #[test]
    fn what_is_out_of_order_or_out_of_place_is_named() {
        let (one, other) = (alarm(1, "a"), alarm(2, "b"));
        let edge = |id: u128| AlarmId(Uuid::from_u128(id));
        let part = |alarms: &[&Arc<Alarm>], to: u128| {
            let alarms = alarms.iter().map(|alarm| Arc::clone(alarm)).collect();
            v1::RelayContent::from(&RelayContent::Alignment { at: Position(9), from: edge(0), to: edge(to), alarms })
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
            is_other: &|_| true,
            mirrored: &mirrored,
        };
        let mut of_another = Alarm::clone(&alarm(1, "a"));
        of_another.owner = Some(Site::new("cell-2").expect("valid"));
        let (from, to) = (of_another.id, of_another.id);
        let part = RelayContent::Alignment { at: Position(9), from, to, alarms: vec![Arc::new(of_another)] };
        assert!(voice(true).relay(v1::RelayContent::from(&part), None).is_ok());
        assert!(voice(false).relay(v1::RelayContent::from(&part), None).is_err());
    }
}
