//! Whether what the node above has is of this node's journal, and from where on it lacks something.

use klaxon_schemas::child::{Reached, fingerprint};
use klaxon_schemas::entry::NewEpoch;
use klaxon_schemas::ids::{Epoch, Position};
use klaxon_store::{HistoryQuery, NodeIdentity, Numbering, Order, ReadError, Store};

/// What there is here.
#[derive(Debug, Clone)]
pub(super) struct Mine {
    pub(super) epoch: Epoch,
    /// The numberings of which the journal is, as far as they are known; the present one is the last.
    numberings: Vec<Numbering>,
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
        let parted = mine.parted_beyond(reached.epoch);
        return Lineage::Anew(parted.unwrap_or_else(|| mine.after(reached.epoch).min(reached.position)));
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
        Self { epoch: node.epoch, numberings: node.numberings().collect(), last }
    }

    /// Behind which position the journal is not of `epoch` any more, nor of one before it.
    fn after(&self, epoch: Epoch) -> Position {
        self.numberings.iter().find(|numbering| numbering.epoch > epoch).map_or(self.last, |numbering| numbering.after)
    }

    /// Behind which position the last numbering beyond `epoch` began that began because the two had parted.
    pub(super) fn parted_beyond(&self, epoch: Epoch) -> Option<Position> {
        let is_parted = |numbering: &&Numbering| numbering.epoch > epoch && numbering.reason == NewEpoch::Diverged;
        self.numberings.iter().rev().find(is_parted).map(|numbering| numbering.after)
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

    fn mine(numberings: &[(u64, u64, NewEpoch)]) -> Mine {
        let numbering = |&(epoch, after, reason)| Numbering { epoch: Epoch(epoch), after: Position(after), reason };
        let numberings: Vec<_> = numberings.iter().map(numbering).collect();
        Mine { epoch: numberings.last().expect("there is one").epoch, numberings, last: Position(100) }
    }

    fn judge(mine: &Mine, (epoch, position): (u64, u64), here: Option<u64>) -> Lineage {
        let reached = Reached { epoch: Epoch(epoch), position: Position(position), fingerprint: 7, missing: Vec::new() };
        super::judge(mine, Some(&reached), |_| here)
    }

    fn anew(after: u64) -> Lineage {
        Lineage::Anew(Position(after))
    }

    #[test]
    fn what_is_above_is_taken_up_or_a_new_numbering_begins() {
        let restored = mine(&[(5, 40, NewEpoch::Restored)]);
        assert_eq!(super::judge(&restored, None, |_| None), anew(0));
        assert_eq!(judge(&restored, (5, 60), Some(7)), Lineage::Behind(Position(60)));
        assert_eq!(judge(&restored, (5, 60), Some(8)), Lineage::Diverged(Epoch(5)), "another change");
        assert_eq!(judge(&restored, (5, 101), Some(7)), Lineage::Diverged(Epoch(5)), "more than there is");
        assert_eq!(judge(&restored, (6, 60), Some(7)), Lineage::Diverged(Epoch(6)), "of the future");
        assert_eq!(judge(&restored, (4, 30), Some(7)), anew(30), "before the restore");
        assert_eq!(judge(&restored, (4, 70), Some(7)), anew(40), "behind the backup");
        let parted = mine(&[(5, 40, NewEpoch::Diverged)]);
        assert_eq!(judge(&parted, (4, 30), Some(7)), anew(40));
        assert_eq!(judge(&parted, (5, 60), None), Lineage::Behind(Position(60)), "not kept any more");
    }

    #[test]
    fn what_came_between_two_restores_is_sent_where_nothing_of_it_is_known() {
        let twice = mine(&[(1, 0, NewEpoch::FirstStart), (4, 40, NewEpoch::Restored), (6, 80, NewEpoch::Restored)]);
        assert_eq!(judge(&twice, (1, 60), None), anew(40), "it has other changes under the numbers 41 to 60");
        assert_eq!(judge(&twice, (3, 60), None), anew(40), "of a restore of which this one knows nothing");
        assert_eq!(judge(&twice, (1, 30), None), anew(30));
        assert_eq!(judge(&twice, (4, 60), None), anew(60), "there was contact between the two");
        assert_eq!(judge(&twice, (4, 90), None), anew(80));
        // What was numbered twice is sent in no case.
        let (first, second) = ((4, 50, NewEpoch::Diverged), (6, 80, NewEpoch::Restored));
        assert_eq!(judge(&mine(&[(1, 0, NewEpoch::FirstStart), first, second]), (1, 30), None), anew(50));
        assert_eq!(judge(&mine(&[(1, 0, NewEpoch::FirstStart), first, second]), (4, 60), None), anew(60));
        let (first, second) = ((4, 40, NewEpoch::Restored), (6, 80, NewEpoch::Diverged));
        assert_eq!(judge(&mine(&[(1, 0, NewEpoch::FirstStart), first, second]), (1, 60), None), anew(80));
    }
}
