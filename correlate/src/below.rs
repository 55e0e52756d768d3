//! The nodes further below, as a region says them: one row for each, and through which of the others it is heard of.
//!
//! ```text
//! this node ─ region A ─ region B ─ site      A's rows: B, and the site via B
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use klaxon_schemas::change::{Change, Subject};
use klaxon_schemas::child::{BELOW_MAX, Below, Child, ChildKind, ChildStep, DEPTH_MAX, site_of};
use klaxon_schemas::names::ChildName;

/// The nodes below a region by name, each once: one that is heard of in several ways, as the nearest says it that hears it.
pub(crate) fn rows_below(region: &ChildName, below: &[Below]) -> Vec<Below> {
    let mut rows: BTreeMap<&ChildName, &Below> = BTreeMap::new();
    let rank = |row: &Below| (row.silent_since.is_some(), row.via.is_some());
    for row in below.iter().filter(|row| row.name != *region) {
        let best = rows.entry(&row.name).or_insert(row);
        if rank(row) < rank(best) {
            *best = row;
        }
    }
    rows.into_values().take(BELOW_MAX).cloned().collect()
}

/// A region says what became of a node below it, or below one of those.
pub(crate) fn note_below(child: &mut Child, region: &ChildName, change: &Change) {
    let Subject::Child(note) = &change.subject else { return };
    if change.past || child.kind != ChildKind::Region || !note.kind.owns() || note.name == *region {
        return;
    }
    let via = if change.site == site_of(region) { None } else { ChildName::new(&change.site).ok() };
    let place = child.below.binary_search_by(|below| below.name.cmp(&note.name));
    // One that went from one node to another is heard of through the new one: what the old one misses is no news.
    let is_other_way = place.is_ok_and(|place| child.below[place].via != via);
    let is_there = matches!(note.what, ChildStep::Joined | ChildStep::Heard);
    if is_other_way && !is_there {
        return;
    }
    if note.what == ChildStep::Retired {
        if place.is_ok() {
            forget_below(Arc::make_mut(&mut child.below), &note.name);
        }
        return;
    }
    if place.is_err() && child.below.len() >= BELOW_MAX {
        return;
    }
    let rows = Arc::make_mut(&mut child.below);
    let place = place.unwrap_or_else(|place| {
        let below = Below { name: note.name.clone(), kind: note.kind, version: None, silent_since: None, via: None };
        rows.insert(place, below);
        place
    });
    let below = &mut rows[place];
    below.via = via;
    match note.what {
        ChildStep::Silent | ChildStep::Moved => below.silent_since = below.silent_since.or(Some(change.at)),
        ChildStep::Heard => below.silent_since = None,
        _ if is_other_way => below.silent_since = None,
        _ => {}
    }
}

/// A node further below is there no more, and with it those that are heard of through it.
fn forget_below(rows: &mut Vec<Below>, name: &ChildName) {
    let mut gone = BTreeSet::from([name.clone()]);
    for _ in 0..DEPTH_MAX {
        let known = gone.len();
        let through = rows.iter().filter(|row| row.via.as_ref().is_some_and(|via| gone.contains(via)));
        let through: Vec<_> = through.map(|row| row.name.clone()).collect();
        gone.extend(through);
        if gone.len() == known {
            break;
        }
    }
    rows.retain(|row| !gone.contains(&row.name));
}
