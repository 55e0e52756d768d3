//! The alarms that come through nodes below this one, by node; and the nodes themselves.
//!
//! That a node below is silent is one fact on its record, and is not written to each of its alarms: whether an alarm is stale
//! for that is found when it is read, as it is with suppression.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use klaxon_schemas::action::Verb;
use klaxon_schemas::alarm::{Alarm, Stale};
use klaxon_schemas::child::{Below, Child, Digests, PendingAction, silent_among};
use klaxon_schemas::ids::{ActionId, AlarmId};
use klaxon_schemas::names::{ChildName, Site};
use klaxon_schemas::severity::Severity;
use klaxon_schemas::state::{StateKey, StateRecord};
use klaxon_schemas::time::Timestamp;

use super::State;
use super::indexes::SiteCounts;

/// The nodes below, and what is on its way to them.
#[derive(Debug, Default)]
pub(super) struct Children {
    by_name: BTreeMap<ChildName, Arc<Child>>,
    /// What they say of nodes further below, which their records do not hold.
    below: BTreeMap<ChildName, Arc<Vec<Below>>>,
    pending: BTreeMap<ChildName, BTreeMap<ActionId, Arc<PendingAction>>>,
    /// The same by alarm, in the order in which they came.
    pending_on: HashMap<AlarmId, Vec<ActionId>>,
}

impl Children {
    /// The record under `key` is this, or is gone.
    pub(super) fn note(&mut self, key: &StateKey, record: Option<&StateRecord>) {
        match (key, record) {
            (StateKey::Child(name), Some(StateRecord::Child(child))) => {
                let below = self.below.get(name).cloned().unwrap_or_default();
                self.by_name.insert(name.clone(), Arc::new(Child { below, ..Child::clone(child) }));
            }
            (StateKey::Child(name), _) => {
                self.by_name.remove(name);
            }
            (StateKey::Below(name), record) => {
                let below = match record {
                    Some(StateRecord::Below(below)) => Arc::clone(below),
                    _ => Arc::default(),
                };
                if let Some(child) = self.by_name.get_mut(name) {
                    Arc::make_mut(child).below = Arc::clone(&below);
                }
                if below.is_empty() {
                    self.below.remove(name);
                } else {
                    self.below.insert(name.clone(), below);
                }
            }
            (StateKey::Pending(name, id), Some(StateRecord::Pending(pending))) => {
                let before = self.pending.entry(name.clone()).or_default().insert(*id, Arc::clone(pending));
                self.unmark(*id, before.as_deref());
                for alarm in targets(pending) {
                    self.pending_on.entry(alarm).or_default().push(*id);
                }
            }
            (StateKey::Pending(name, id), _) => {
                let Some(pending) = self.pending.get_mut(name) else { return };
                let before = pending.remove(id);
                if pending.is_empty() {
                    self.pending.remove(name);
                }
                self.unmark(*id, before.as_deref());
            }
            _ => {}
        }
    }

    /// The action is not on its way to its alarms any more.
    fn unmark(&mut self, id: ActionId, pending: Option<&PendingAction>) {
        for alarm in pending.into_iter().flat_map(targets) {
            let Some(ids) = self.pending_on.get_mut(&alarm) else { continue };
            ids.retain(|marked| *marked != id);
            if ids.is_empty() {
                self.pending_on.remove(&alarm);
            }
        }
    }
}

/// The alarms that an action on its way is about.
fn targets(pending: &PendingAction) -> impl Iterator<Item = AlarmId> {
    let targets = match &pending.action.verb {
        Verb::OnAlarms(targets, _) => targets.as_slice(),
        _ => &[],
    };
    targets.iter().map(|target| target.id)
}

/// Of each site and severity: how many alarms there are, and how many of them are stale by themselves.
type BySite = BTreeMap<Site, [(u64, u64); 5]>;

/// The alarms that come through one node.
#[derive(Debug, Default)]
pub(super) struct ViaIndex {
    ids: BTreeSet<AlarmId>,
    /// Those that are not cleared, by whose they are (nobody: this node's own) and by the site they are about: of each severity
    /// how many there are, and how many of them their owner says are stale.
    active: BTreeMap<Option<Site>, BySite>,
}

impl ViaIndex {
    /// An alarm came, or went.
    pub(super) fn note(&mut self, alarm: &Alarm, present: bool) {
        if present {
            self.ids.insert(alarm.id);
        } else {
            self.ids.remove(&alarm.id);
        }
    }

    /// An alarm that is not cleared is counted, or is not any more.
    pub(super) fn count(&mut self, alarm: &Alarm, severity: Severity, stale: bool, present: bool) {
        let step = |number: &mut u64| *number = if present { *number + 1 } else { number.saturating_sub(1) };
        let sites = self.active.entry(alarm.owner.clone()).or_default();
        let by_severity = sites.entry(alarm.key.site.clone()).or_default();
        let (total, stales) = &mut by_severity[severity as usize];
        step(total);
        if stale {
            step(stales);
        }
        if by_severity.iter().all(|(total, _)| *total == 0) {
            sites.remove(&alarm.key.site);
            if sites.is_empty() {
                self.active.remove(&alarm.owner);
            }
        }
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Counts as stale what is so for its node's, or its owner's, silence.
    fn silence(&self, child: &Child, counts: &mut BTreeMap<Site, SiteCounts>) {
        for (_, sites) in self.active.iter().filter(|(owner, _)| child.silent_for(owner.as_ref()).is_some()) {
            for (site, by_severity) in sites {
                let Some(counts) = counts.get_mut(site) else { continue };
                for (counts, (total, stale)) in counts.by_severity.iter_mut().zip(by_severity) {
                    counts.stale += total - stale;
                }
            }
        }
    }
}

/// Which nodes below are silent, or have such below them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Silences(BTreeMap<ChildName, Silence>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Silence {
    since: Option<Timestamp>,
    below: Arc<Vec<Below>>,
}

impl Silences {
    /// Since when nothing is heard of an alarm for that.
    pub fn since(&self, alarm: &Alarm) -> Option<Timestamp> {
        let silence = self.0.get(alarm.via.as_ref()?).filter(|_| alarm.is_active())?;
        silence.since.or_else(|| silent_among(&silence.below, alarm.owner.as_deref()?)?.silent_since)
    }

    /// The nodes of whose alarms these and the others may say different things.
    pub fn differing<'a>(&'a self, others: &'a Self) -> BTreeSet<&'a ChildName> {
        let names = self.0.keys().chain(others.0.keys());
        names.filter(|name| self.0.get(*name) != others.0.get(*name)).collect()
    }
}

impl State {
    /// Which nodes below are silent.
    pub fn silences(&self) -> Silences {
        let silent = self.children.by_name.iter().filter(|(_, child)| child.is_anything_silent());
        let silence = |child: &Child| Silence { since: child.silent_since, below: Arc::clone(&child.below) };
        Silences(silent.map(|(name, child)| (name.clone(), silence(child))).collect())
    }

    /// The nodes below, by name.
    pub fn children(&self) -> &BTreeMap<ChildName, Arc<Child>> {
        &self.children.by_name
    }

    /// What was ordered here for alarms of the node `child` and is on its way to it, by the action's id.
    pub fn pending(&self, child: &ChildName) -> impl Iterator<Item = (&ActionId, &Arc<PendingAction>)> {
        self.children.pending.get(child).into_iter().flatten()
    }

    /// The action `id`, on its way to whichever nodes.
    pub fn pending_action(&self, id: ActionId) -> impl Iterator<Item = (&ChildName, &Arc<PendingAction>)> {
        self.children.pending.iter().filter_map(move |(child, pending)| Some((child, pending.get(&id)?)))
    }

    /// The actions that are on their way to the owner of the alarm `id`, the first ordered first.
    pub fn pending_on(&self, id: AlarmId) -> &[ActionId] {
        self.children.pending_on.get(&id).map_or(&[], Vec::as_slice)
    }

    /// The alarms that come through the node `child`, cleared ones with them, by id.
    pub fn alarms_via(&self, child: &ChildName) -> impl Iterator<Item = &Arc<Alarm>> {
        let ids = self.indexes.via.get(child).into_iter().flat_map(|index| &index.ids);
        ids.filter_map(|id| self.alarm(*id))
    }

    /// Those with ids from one to another, both included.
    pub fn alarms_via_between(&self, child: &ChildName, from: AlarmId, to: AlarmId) -> impl Iterator<Item = &Arc<Alarm>> {
        let index = self.indexes.via.get(child).filter(|_| from <= to);
        let ids = index.into_iter().flat_map(move |index| index.ids.range(from..=to));
        ids.filter_map(|id| self.alarm(*id))
    }

    /// How many alarms come through the node `child`, cleared ones with them.
    pub fn alarms_via_len(&self, child: &ChildName) -> usize {
        self.indexes.via.get(child).map_or(0, |index| index.ids.len())
    }

    /// What is mirrored through the node `child`, range by range of ids.
    pub fn digests_via(&self, child: &ChildName) -> Digests {
        Digests::of(self.alarms_via(child))
    }

    /// What all alarms are, this node's own and those it mirrors, range by range of ids.
    pub fn digests(&self) -> Digests {
        Digests::of(self.alarms())
    }

    /// The alarms with ids from one to another, both included, cleared ones with them, by id.
    pub fn alarms_between(&self, from: AlarmId, to: AlarmId) -> impl Iterator<Item = &Arc<Alarm>> {
        let range = (from <= to).then(|| self.alarms.range(from..=to));
        range.into_iter().flatten().map(|(_, held)| &held.value)
    }

    /// Since when an alarm is stale: because its reporter is silent, or the node through which it comes, or its owner.
    pub fn stale(&self, alarm: &Alarm) -> Option<Stale> {
        if alarm.stale.is_some() || alarm.cleared.is_some() {
            return alarm.stale.clone();
        }
        let child = self.children.by_name.get(alarm.via.as_ref()?)?;
        child.silent_for(alarm.owner.as_ref()).map(|since| Stale { since })
    }

    /// An alarm as it is told: stale also where that is for the silence of a node below, unless it has changed since.
    pub fn as_told(&self, alarm: &Arc<Alarm>) -> Arc<Alarm> {
        if alarm.via.is_none() || alarm.stale.is_some() || !alarm.is_active() {
            return Arc::clone(alarm);
        }
        let is_present = self.alarm(alarm.id).is_some_and(|present| present.last_change == alarm.last_change);
        match self.stale(alarm).filter(|_| is_present) {
            Some(stale) => Arc::new(Alarm { stale: Some(stale), ..Alarm::clone(alarm) }),
            None => Arc::clone(alarm),
        }
    }

    /// The alarms that may be stale because a node below is silent.
    pub(super) fn maybe_silent(&self) -> impl Iterator<Item = AlarmId> {
        let silent = self.children.by_name.iter().filter(|(_, child)| child.is_anything_silent());
        silent.filter_map(|(name, _)| self.indexes.via.get(name)).flat_map(|index| index.ids.iter().copied())
    }

    /// How many those are at most, without a look at them.
    pub(super) fn maybe_silent_len(&self) -> usize {
        let silent = self.children.by_name.iter().filter(|(_, child)| child.is_anything_silent());
        silent.map(|(name, _)| self.alarms_via_len(name)).sum()
    }

    /// Counts as stale what is so for the silence of a node below.
    pub(super) fn count_silent(&self, counts: &mut BTreeMap<Site, SiteCounts>) {
        for (name, child) in self.children.by_name.iter().filter(|(_, child)| child.is_anything_silent()) {
            if let Some(index) = self.indexes.via.get(name) {
                index.silence(child, counts);
            }
        }
    }
}
