//! What the store keeps of children, as this door reads it.

use std::sync::Arc;

use klaxon_schemas::alarm::Alarm;
use klaxon_schemas::child::{Child, Digests, PendingAction};
use klaxon_schemas::ids::AlarmId;
use klaxon_schemas::names::ChildName;
use klaxon_store::Store;

/// The child `name`; also one that was retired, while its alarms are being forgotten.
pub(super) fn child(store: &Store, name: &ChildName) -> Option<Arc<Child>> {
    store.read().state().children().get(name).cloned()
}

/// All children that were not retired, by name.
pub(super) fn children(store: &Store) -> Vec<(ChildName, Arc<Child>)> {
    let state = store.read();
    let present = state.state().children().iter().filter(|(_, child)| child.retired.is_none());
    present.map(|(name, child)| (name.clone(), Arc::clone(child))).collect()
}

/// Whether `name` is that of a site below: of a child that owns alarms, or of one that a region names.
pub(super) fn is_owner(store: &Store, name: &str) -> bool {
    let Ok(name) = ChildName::new(name) else { return false };
    let state = store.read();
    let children = state.state().children();
    let is_child = children.get(&name).is_some_and(|child| child.kind.owns() && child.retired.is_none());
    let is_named = |child: &Child| {
        let place = child.below.binary_search_by(|below| below.name.cmp(&name));
        child.retired.is_none() && place.is_ok_and(|place| child.below[place].kind.owns())
    };
    is_child || children.values().any(|child| is_named(child))
}

/// How many actions are on their way to each child to which some are.
pub(super) fn pending(store: &Store) -> Vec<(ChildName, usize)> {
    let read = store.read();
    let state = read.state();
    let counted = state.children().keys().map(|name| (name.clone(), state.pending(name).count()));
    counted.filter(|(_, count)| *count > 0).collect()
}

/// The actions on their way to `name`, the oldest first.
pub(super) fn pending_of(store: &Store, name: &ChildName) -> Vec<Arc<PendingAction>> {
    let mut all: Vec<_> = store.read().state().pending(name).map(|(_, pending)| Arc::clone(pending)).collect();
    all.sort_by_key(|pending| (pending.ordered_by, pending.ordered_at, pending.action.id));
    all
}

/// What is mirrored through `name`, in one number for each range of ids.
pub(super) fn digests(store: &Store, name: &ChildName) -> Digests {
    store.read().state().digests_via(name)
}

/// The alarms mirrored through `name` with ids from one to another, by id, each with about how large it is.
pub(super) fn mirrored(store: &Store, name: &ChildName, from: AlarmId, to: AlarmId) -> Vec<(AlarmId, usize)> {
    let read = store.read();
    let between = read.state().alarms_via_between(name, from, to);
    between.map(|alarm| (alarm.id, rough_bytes(alarm))).collect()
}

/// About how large an alarm is in the journal, without escapes.
fn rough_bytes(alarm: &Alarm) -> usize {
    const FIELDS: usize = 700;
    let attributes: usize = alarm.details.attributes.iter().map(|(name, value)| name.len() + value.len() + 8).sum();
    let notes: usize = alarm.notes.iter().map(|note| 100 + note.text.len()).sum();
    let labels = alarm.details.labels.len();
    FIELDS + alarm.key.resource.as_str().len() + alarm.text.len() + attributes + labels + notes
}
