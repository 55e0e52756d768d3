//! Walking: the objects of a part of the tree, in the order of their identifiers, over whatever snapshot they are asked of.
//!
//! Every object is taken for a column; a scalar is one whose only row is `0`. An object answers by its rows in order, so the next
//! variable is found by two binary searches: for the object, and for the row.

use std::cmp::Ordering;

use klaxon_snmp::{Found, Oid, Value};

use super::sorted::Sorted;

/// The most arcs of an index: a zero-length name, a time with its length, and a number.
const INDEX_ARCS_MAX: usize = 16;

/// The part of an identifier behind its object: which row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Index {
    arcs: [u32; INDEX_ARCS_MAX],
    len: usize,
}

impl Index {
    /// Of these arcs.
    pub(super) fn new(arcs: &[u32]) -> Self {
        let mut index = Self { arcs: [0; INDEX_ARCS_MAX], len: 0 };
        index.extend(arcs);
        index
    }

    /// Puts more arcs behind it.
    pub(super) fn extend(&mut self, arcs: &[u32]) {
        self.arcs[self.len..self.len + arcs.len()].copy_from_slice(arcs);
        self.len += arcs.len();
    }

    pub(super) fn arcs(&self) -> &[u32] {
        &self.arcs[..self.len]
    }
}

/// What rows are sorted by: its order is that of its arcs.
pub(super) trait Key: Ord + Copy {
    /// Its arcs, as they stand in identifiers; [`INDEX_ARCS_MAX`] of them at most.
    fn arcs(&self) -> impl Iterator<Item = u32>;

    /// All of them.
    fn index(&self) -> Index {
        let mut index = Index::new(&[]);
        self.arcs().for_each(|arc| index.extend(&[arc]));
        index
    }

    /// Where it stands beside others: what a search asks of one row after the other, so nothing is made for it.
    fn compare(&self, arcs: &[u32]) -> Ordering {
        self.arcs().cmp(arcs.iter().copied())
    }
}

impl Key for u32 {
    fn arcs(&self) -> impl Iterator<Item = u32> {
        std::iter::once(*self)
    }
}

/// Which row is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ask<'a> {
    /// This one.
    At(&'a [u32]),
    /// The first behind this.
    After(&'a [u32]),
    /// The first of all.
    First,
}

impl Ask<'_> {
    /// The row of a map.
    pub(super) fn of<'m, K: Key, V: Clone>(&self, rows: &'m Sorted<K, V>) -> Option<(Index, K, &'m V)> {
        let (key, value) = match self {
            Ask::At(arcs) => rows.first_not(|key| key.compare(arcs).is_lt()),
            Ask::After(arcs) => rows.first_not(|key| key.compare(arcs).is_le()),
            Ask::First => rows.first_not(|_| false),
        }?;
        self.checked(key.index()).map(|index| (index, *key, value))
    }

    /// The row of a slice that is sorted by what `key` gives.
    pub(super) fn of_slice<'m, K: Key, V>(&self, rows: &'m [V], key: impl Fn(&V) -> K) -> Option<(Index, &'m V)> {
        let at = match self {
            Ask::At(arcs) => rows.partition_point(|row| key(row).compare(arcs).is_lt()),
            Ask::After(arcs) => rows.partition_point(|row| key(row).compare(arcs).is_le()),
            Ask::First => 0,
        };
        let row = rows.get(at)?;
        self.checked(key(row).index()).map(|index| (index, row))
    }

    /// The only row there is.
    pub(super) fn only(&self, only: &[u32]) -> Option<Index> {
        match self {
            Ask::At(arcs) => (*arcs == only).then(|| Index::new(only)),
            Ask::After(arcs) => (*arcs < only).then(|| Index::new(only)),
            Ask::First => Some(Index::new(only)),
        }
    }

    fn checked(&self, index: Index) -> Option<Index> {
        match self {
            Ask::At(arcs) if index.arcs() != *arcs => None,
            _ => Some(index),
        }
    }
}

/// The objects under a root.
pub(super) struct Tree<O> {
    root: Oid,
    /// By what stands between the root and the index, sorted.
    objects: Vec<(Vec<u32>, O)>,
}

impl<O: Copy> Tree<O> {
    /// Of these objects.
    pub(super) fn new(root: Oid, mut objects: Vec<(Vec<u32>, O)>) -> Self {
        objects.sort_by(|one, other| one.0.cmp(&other.0));
        Self { root, objects }
    }

    /// What they are under.
    pub(super) fn root(&self) -> &Oid {
        &self.root
    }

    /// The object of `oid`, and what stands behind it.
    pub(super) fn object<'a>(&self, oid: &'a [u32]) -> Option<(O, &'a [u32])> {
        let rest = oid.strip_prefix(self.root.arcs())?;
        let behind = self.objects.partition_point(|(prefix, _)| prefix.as_slice() <= rest);
        let (prefix, object) = self.objects.get(behind.checked_sub(1)?)?;
        Some((*object, rest.strip_prefix(prefix.as_slice())?))
    }

    /// What `oid` is; `find` gives the row of an object.
    pub(super) fn get(&self, oid: &[u32], find: impl Fn(O, Ask<'_>) -> Option<(Index, Value)>) -> Found {
        match self.object(oid) {
            None => Found::NoSuchObject,
            Some((object, index)) => {
                find(object, Ask::At(index)).map_or(Found::NoSuchInstance, |(_, value)| Found::Value(value))
            }
        }
    }

    /// The first variable behind `after`.
    pub(super) fn next(&self, after: &[u32], find: impl Fn(O, Ask<'_>) -> Option<(Index, Value)>) -> Option<(Oid, Value)> {
        let root = self.root.arcs();
        let (mut at, mut ask) = match after.strip_prefix(root) {
            None if after > root => return None,
            None => (0, Ask::First),
            Some(rest) => {
                let behind = self.objects.partition_point(|(prefix, _)| prefix.as_slice() <= rest);
                let before = behind.checked_sub(1).and_then(|at| Some((at, rest.strip_prefix(self.objects[at].0.as_slice())?)));
                before.map_or((behind, Ask::First), |(at, index)| (at, Ask::After(index)))
            }
        };
        while let Some((prefix, object)) = self.objects.get(at) {
            if let Some((index, value)) = find(*object, ask) {
                let mut arcs = [0; 128];
                let mut len = 0;
                for part in [root, prefix, index.arcs()] {
                    arcs[len..len + part.len()].copy_from_slice(part);
                    len += part.len();
                }
                return Some((Oid::new(&arcs[..len]), value));
            }
            (at, ask) = (at + 1, Ask::First);
        }
        None
    }
}
