//! Whether what the node above has is of this node's journal, and from where on it lacks something.

use klaxon_schemas::child::{Reached, fingerprint};
use klaxon_schemas::entry::NewEpoch;
use klaxon_schemas::ids::{Epoch, Position};
use klaxon_store::{HistoryQuery, NodeIdentity, Order, ReadError, Store};

/// What there is here.
#[derive(Debug, Clone)]
pub(super) struct Mine {
    pub(super) epoch: Epoch,
    pub(super) new_epoch: NewEpoch,
    /// The numbering began behind this.
    pub(super) epoch_after: Position,
    /// The end of the journal.
    pub(super) last: Position,
}

/// How the two stand to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lineage {
    /// All up to this has come in above.
    Behind(Position),
    /// All up to this has come in above, or will never: there it is another numbering.
    Anew(Position),
    /// Other changes are known above under the same numbers: a new numbering is to begin, beyond this one.
    Diverged(Epoch),
}

/// What follows from what the node above has. `known` tells the fingerprint of the last change at or before a position, if that
/// is still kept.
pub(super) fn judge(mine: &Mine, reached: Option<&Reached>, known: impl FnOnce(Position) -> Option<u64>) -> Lineage {
    let Some(reached) = reached else { return Lineage::Anew(Position(0)) };
    if reached.epoch > mine.epoch {
        return Lineage::Diverged(reached.epoch);
    }
    if reached.epoch < mine.epoch {
        // What was numbered twice before a numbering began for that reason is better never sent than sent as something else.
        let after =
            if mine.new_epoch == NewEpoch::Diverged { mine.epoch_after } else { mine.epoch_after.min(reached.position) };
        return Lineage::Anew(after);
    }
    if reached.position > mine.last {
        return Lineage::Diverged(reached.epoch);
    }
    if reached.fingerprint != 0 && known(reached.position).is_some_and(|here| here != reached.fingerprint) {
        return Lineage::Diverged(reached.epoch);
    }
    Lineage::Behind(reached.position)
}

impl Mine {
    pub(super) fn of(node: &NodeIdentity, last: Position) -> Self {
        Self { epoch: node.epoch, new_epoch: node.new_epoch, epoch_after: node.epoch_after, last }
    }
}

/// What the last change at or before `position` is, if it is still kept. Blocks.
pub(super) fn fingerprint_at(store: &Store, position: Position) -> Result<Option<u64>, ReadError> {
    let mut before = position.plus(1);
    loop {
        let query = HistoryQuery { order: Order::Descending, cursor: Some(before), limit: 1, ..HistoryQuery::default() };
        let page = store.history(&query)?;
        if let Some((_, change)) = page.items.first() {
            return Ok(Some(fingerprint(change)));
        }
        match page.next {
            Some(next) if next < before => before = next,
            _ => return Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_above_is_taken_up_or_a_new_numbering_begins() {
        let mine = Mine { epoch: Epoch(5), new_epoch: NewEpoch::Restored, epoch_after: Position(40), last: Position(100) };
        let reached = |epoch, position| Reached {
            epoch: Epoch(epoch),
            position: Position(position),
            fingerprint: 7,
            missing: Vec::new(),
        };
        let judge = |mine: &Mine, reached: &Reached, here: u64| judge(mine, Some(reached), |_| Some(here));
        assert_eq!(super::judge(&mine, None, |_| None), Lineage::Anew(Position(0)));
        assert_eq!(judge(&mine, &reached(5, 60), 7), Lineage::Behind(Position(60)));
        assert_eq!(judge(&mine, &reached(5, 60), 8), Lineage::Diverged(Epoch(5)), "another change");
        assert_eq!(judge(&mine, &reached(5, 101), 7), Lineage::Diverged(Epoch(5)), "more than there is");
        assert_eq!(judge(&mine, &reached(6, 60), 7), Lineage::Diverged(Epoch(6)), "of the future");
        assert_eq!(judge(&mine, &reached(4, 30), 7), Lineage::Anew(Position(30)), "before the restore");
        assert_eq!(judge(&mine, &reached(4, 70), 7), Lineage::Anew(Position(40)), "behind the backup");
        let diverged = Mine { new_epoch: NewEpoch::Diverged, ..mine };
        assert_eq!(judge(&diverged, &reached(4, 30), 7), Lineage::Anew(Position(40)));
        assert_eq!(
            super::judge(&diverged, Some(&reached(5, 60)), |_| None),
            Lineage::Behind(Position(60)),
            "not kept any more"
        );
    }
}
