//! What the store keeps of children, as this door reads it.

use std::sync::Arc;

use klaxon_schemas::alarm::Alarm;
use klaxon_schemas::child::{Child, Digests, PendingAction};
use klaxon_schemas::names::ChildName;
use klaxon_schemas::state::{StateKey, StateRecord};
use klaxon_store::Store;

/// The child `name`.
pub(super) fn child(store: &Store, name: &ChildName) -> Option<Arc<Child>> {
    match store.read().record(&StateKey::Child(name.clone()))? {
        StateRecord::Child(child) => Some(Arc::clone(child)),
        _ => None,
    }
}

/// All children, by name.
pub(super) fn children(store: &Store) -> Vec<(ChildName, Arc<Child>)> {
    let state = store.read();
    let mut all: Vec<_> = state
        .records()
        .filter_map(|(key, record)| match (key, record) {
            (StateKey::Child(name), StateRecord::Child(child)) => Some((name.clone(), Arc::clone(child))),
            _ => None,
        })
        .collect();
    all.sort_by(|(one, _), (other, _)| one.cmp(other));
    all
}

/// The actions on their way to each child, the oldest first.
pub(super) fn pending(store: &Store) -> Vec<(ChildName, Arc<PendingAction>)> {
    let state = store.read();
    let mut all: Vec<_> = state
        .records()
        .filter_map(|(key, record)| match (key, record) {
            (StateKey::Pending(name, _), StateRecord::Pending(pending)) => Some((name.clone(), Arc::clone(pending))),
            _ => None,
        })
        .collect();
    all.sort_by(|(_, one), (_, other)| (one.ordered_at, one.action.id).cmp(&(other.ordered_at, other.action.id)));
    all
}

/// The actions on their way to `name`, the oldest first.
pub(super) fn pending_of(store: &Store, name: &ChildName) -> Vec<Arc<PendingAction>> {
    pending(store).into_iter().filter(|(whose, _)| whose == name).map(|(_, pending)| pending).collect()
}

/// What is mirrored through `name`, in one number for each range of ids.
pub(super) fn digests(store: &Store, name: &ChildName) -> Digests {
    let state = store.read();
    Digests::of(state.alarms().filter(|alarm: &&Arc<Alarm>| alarm.via.as_ref() == Some(name) && alarm.owner.is_some()))
}
