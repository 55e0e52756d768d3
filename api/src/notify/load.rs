//! What is kept of a receiver, read when it starts and found when it goes.

use std::collections::BTreeMap;
use std::sync::Arc;

use klaxon_schemas::ids::Epoch;
use klaxon_schemas::names::{Follower, Site};
use klaxon_schemas::notify::{GapReason, Realign, Told};
use klaxon_store::Store;
use klaxon_store::publish::Keep;

use super::ledger::Ledger;
use super::places::Places;
use super::plan::Rules;
use super::planner::{Planner, Reached, copied};
use super::{ReceiverConfig, Start};

/// How many records are read while the state is held still.
const LOAD_STEP: usize = 1024;
/// How many of each kind are deleted together.
const FORGET_STEP: usize = 256;

/// The planner and the numbers as they were kept, or new ones; with the old numbers if they are of another epoch.
/// `shared`: the journal is kept elsewhere, and other nodes go on with the receiver.
pub(super) fn load(config: &ReceiverConfig, site: &Site, store: &Store, shared: bool) -> (Planner, Ledger, Option<Ledger>) {
    let rules = Rules::from(config);
    let followed = store.read().state().followers().get(&config.name).cloned();
    let delivery = followed.and_then(|followed| followed.delivery);
    // Where nodes share the receivers, a numbering goes on over all of them.
    let epoch = match &delivery {
        _ if !shared => store.epoch(),
        Some(delivery) => delivery.epoch,
        None => new_epoch(),
    };
    let Some(delivery) = delivery else {
        return (new_planner(config, rules, site, store, shared), Ledger::new(epoch, config.replay_max), None);
    };
    let mut told = BTreeMap::<_, Arc<Told>>::new();
    loop {
        let after = told.last_key_value().map(|(id, _)| *id);
        let piece = store.read().state().told_behind(&config.name, after, LOAD_STEP);
        if piece.is_empty() {
            break;
        }
        told.extend(piece);
    }
    let mut records = BTreeMap::new();
    loop {
        let from = records.last_key_value().map_or(0, |(first, _)| first + 1);
        let piece = store.read().state().outbox_from(&config.name, from, LOAD_STEP);
        if piece.is_empty() {
            break;
        }
        records.extend(piece);
    }
    let reached = Reached {
        position: delivery.read,
        seq: delivery.read_seq,
        mirrored: delivery.read_mirrored,
        realign: delivery.realign,
    };
    let places = shared.then(|| Places::new(delivery.places.clone()));
    let mut planner = Planner::new(rules, (site.clone(), config.fold_after), places, told, reached, store);
    let ledger = Ledger::load(&delivery, records, config.replay_max);
    if delivery.epoch != epoch {
        planner.gap(store, GapReason::NewEpoch);
        return (planner, Ledger::new(epoch, config.replay_max), Some(ledger));
    }
    if delivery.realign == Some(Realign::Lost) {
        planner.gap(store, GapReason::Retention);
    }
    if delivery.filter != config.filter.digest() && delivery.realign.is_none() {
        planner.realign(store, Realign::Standing);
    }
    (planner, ledger, None)
}

fn new_planner(config: &ReceiverConfig, rules: Rules, site: &Site, store: &Store, shared: bool) -> Planner {
    let mut position = *store.committed().borrow();
    let state = store.read();
    let mut places = shared.then(Places::default);
    if let Some(places) = &mut places {
        position = state.position();
        places.jump(position, copied(&state));
    }
    let reached = Reached::at(position, &state);
    drop(state);
    let mut planner = Planner::new(rules, (site.clone(), config.fold_after), places, BTreeMap::new(), reached, store);
    if config.start == Start::Active {
        planner.realign(store, Realign::Whole);
    }
    planner
}

/// A numbering that no other of this receiver has.
fn new_epoch() -> Epoch {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Epoch(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The next of what is kept under this name, to be deleted: the cursor with the first piece, so that whoever begins anew under
/// the name finds that it has to.
pub(super) fn leftovers(store: &Store, name: &Follower) -> Option<Keep> {
    let state = store.read();
    let told = state.state().told_behind(name, None, FORGET_STEP);
    let outbox = state.state().outbox_from(name, 0, FORGET_STEP);
    let followed = state.state().followers().contains_key(name);
    drop(state);
    if told.is_empty() && outbox.is_empty() && !followed {
        return None;
    }
    let told = told.into_iter().map(|(id, _)| (id, None)).collect();
    let outbox = outbox.into_iter().map(|(first, _)| (first, None)).collect();
    Some(Keep { follower: name.clone(), followed: None, told, outbox })
}
