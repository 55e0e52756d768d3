//! A view, as RFC 3415 has it: which part of the tree somebody sees. And how to get past what is not seen: a table of a hundred
//! thousand cells that is hidden is one step, not as many as it has cells.

use async_snmp::agent::View as WireView;

use crate::Oid;
use crate::value::ARCS_MAX;

/// Which part of the tree somebody sees: of the subtrees that an object lies in, the one with the longest name says whether it is
/// seen. What lies in none is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View(Vec<Subtree>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Subtree {
    root: Oid,
    is_included: bool,
}

/// What a view says of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sight {
    /// It is seen.
    Seen,
    /// It is not; nothing is, up to and with this.
    HiddenTo(Place),
    /// It is not, nor is anything behind it.
    End,
}

/// A place between instances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place(Vec<u32>);

impl Place {
    pub(super) fn arcs(&self) -> &[u32] {
        &self.0
    }

    /// Behind all that is in `subtree`.
    fn behind(subtree: &[u32]) -> Self {
        let mut arcs = subtree.to_vec();
        arcs.resize(ARCS_MAX.max(subtree.len()), u32::MAX);
        Self(arcs)
    }

    /// Before all that is in `subtree`, and behind all that comes before it.
    fn before(subtree: &[u32]) -> Self {
        match subtree.split_last() {
            None | Some((0, [])) => Self(Vec::new()),
            Some((0, parent)) => Self(parent.to_vec()),
            Some((last, parent)) => Self::behind(&[parent, &[last - 1]].concat()),
        }
    }
}

impl View {
    /// The view of these subtrees. One that is both included and excluded is excluded.
    pub fn new(included: &[Oid], excluded: &[Oid]) -> Self {
        let subtree = |root: &Oid, is_included| Subtree { root: root.clone(), is_included };
        let included = included.iter().filter(|root| !excluded.contains(root)).map(|root| subtree(root, true));
        let mut subtrees: Vec<_> = included.chain(excluded.iter().map(|root| subtree(root, false))).collect();
        subtrees.sort_by(|one, other| one.root.cmp(&other.root));
        subtrees.dedup();
        Self(subtrees)
    }

    /// All there is.
    pub fn everything() -> Self {
        Self::new(&[Oid::new(&[1])], &[])
    }

    /// The same without some subtrees.
    pub(super) fn without(&self, excluded: &[Oid]) -> Self {
        let all = |is_included| self.0.iter().filter(move |subtree| subtree.is_included == is_included);
        let included: Vec<_> = all(true).map(|subtree| subtree.root.clone()).collect();
        let excluded: Vec<_> = all(false).map(|subtree| &subtree.root).chain(excluded).cloned().collect();
        Self::new(&included, &excluded)
    }

    /// Whether `oid` is seen, and else where to go on.
    pub(super) fn sight(&self, oid: &[u32]) -> Sight {
        let covers = |subtree: &&Subtree| oid.starts_with(subtree.root.arcs());
        // The roots that `oid` lies in are prefixes of it, and the longer one is the later.
        let behind = self.0.partition_point(|subtree| subtree.root.arcs() <= oid);
        let cover = self.0[..behind].iter().rev().find(covers);
        if cover.is_some_and(|cover| cover.is_included) {
            return Sight::Seen;
        }
        let next = self.0[behind..].iter().find(|subtree| subtree.is_included).map(|subtree| subtree.root.arcs());
        match (cover.map(|cover| cover.root.arcs()), next) {
            (Some(cover), Some(next)) if next.starts_with(cover) => Sight::HiddenTo(Place::before(next)),
            (Some(cover), _) => Sight::HiddenTo(Place::behind(cover)),
            (None, Some(next)) => Sight::HiddenTo(Place::before(next)),
            (None, None) => Sight::End,
        }
    }

    /// As the library takes it.
    pub(super) fn wire(&self) -> WireView {
        self.0.iter().fold(WireView::new(), |view, subtree| {
            let root = subtree.root.0.clone();
            if subtree.is_included { view.include(root) } else { view.exclude(root) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn oids(texts: &[&str]) -> Vec<Oid> {
        texts.iter().map(|text| text.parse().expect("is an object identifier")).collect()
    }

    #[test]
    fn the_longest_name_says_what_is_seen() {
        let view = View::new(&oids(&["1.3.6", "1.3.6.1.4.5"]), &oids(&["1.3.6.1.4", "1.3.6.1.4.5.9"]));
        let seen = |text: &str| view.sight(oids(&[text])[0].arcs()) == Sight::Seen;
        let all = ["1.3.6", "1.3.6.1", "1.3.6.1.4", "1.3.6.1.4.5.1", "1.3.6.1.4.5.9.1", "1.3.6.1.5", "1.3.7", "1.3"];
        assert_eq!(all.map(seen), [true, true, false, true, false, true, false, false]);
    }

    #[test]
    fn what_is_hidden_is_passed_in_one_step() {
        let view = View::new(&oids(&["1.3.6.1", "1.3.6.1.4.5", "1.3.9.0"]), &oids(&["1.3.6.1.4"]));
        let to = |text: &str| match view.sight(oids(&[text])[0].arcs()) {
            Sight::HiddenTo(place) => place.arcs().iter().take(9).map(u32::to_string).collect::<Vec<_>>().join("."),
            other => format!("{other:?}"),
        };
        let max = u32::MAX;
        // The part of a hidden table that is shown; behind the hidden table; the first that is shown at all; the next that is.
        assert_eq!(to("1.3.6.1.4.2.8"), format!("1.3.6.1.4.4.{max}.{max}.{max}"));
        assert_eq!(to("1.3.6.1.4.6.1"), format!("1.3.6.1.4.{max}.{max}.{max}.{max}"));
        assert_eq!(to("1.2"), format!("1.3.6.0.{max}.{max}.{max}.{max}.{max}"));
        assert_eq!(to("1.3.7"), "1.3.9");
        assert_eq!(to("1.4"), "End");
    }

    /// The step is as far as it can be and no farther: against a look at every place.
    #[test]
    fn no_step_goes_past_what_is_seen() {
        let views = [
            View::everything(),
            View::new(&[], &[]),
            View::new(&oids(&["1.1"]), &oids(&["1.1.1"])),
            View::new(&oids(&["1", "1.1.2", "1.0.0"]), &oids(&["1.1", "1.0", "1.1.2.1"])),
            View::new(&oids(&["1.2", "1.1.0"]), &oids(&["1.2.0"])),
            View::new(&oids(&["1.0.0.1"]), &oids(&["1.0.0.1"])),
        ];
        let mut places = vec![vec![1]];
        for depth in 0..3 {
            let deeper = places.iter().filter(|arcs| arcs.len() == depth + 1);
            let deeper: Vec<_> = deeper.flat_map(|arcs| (0..3).map(|arc| [&arcs[..], &[arc]].concat())).collect();
            places.extend(deeper);
        }
        places.sort();
        for view in &views {
            for (number, place) in places.iter().enumerate() {
                let wanted = places[number..].iter().find(|place| view.wire().contains(&Oid::new(place).0));
                let mut at = number;
                let found = loop {
                    match places.get(at).map(|place| view.sight(place)) {
                        None | Some(Sight::End) => break None,
                        Some(Sight::Seen) => break places.get(at),
                        Some(Sight::HiddenTo(place)) => {
                            let next = places.partition_point(|other| other[..] <= *place.arcs());
                            assert!(next > at, "{view:?} stands still at {:?}", places[at]);
                            at = next;
                        }
                    }
                };
                assert_eq!(found, wanted, "{view:?} from {place:?}");
            }
        }
    }
}
