//! Objects that are there once, each with a value that is asked for when somebody asks.

use super::{Found, Objects};
use crate::{Oid, Value};

/// How a value is had.
type Read = Box<dyn Fn() -> Value + Send + Sync>;

/// Objects that are there once, under one root.
pub(super) struct Scalars {
    root: Oid,
    /// The instances, in order.
    all: Vec<(Oid, Read)>,
}

impl Scalars {
    /// The objects `root`.arc with their values.
    pub(super) fn new(root: &[u32], objects: Vec<(u32, Read)>) -> Self {
        let instance = |(arc, read)| (Oid::new(&[root, &[arc, 0]].concat()), read);
        let mut all: Vec<_> = objects.into_iter().map(instance).collect();
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        Self { root: Oid::new(root), all }
    }
}

impl Objects for Scalars {
    fn root(&self) -> Oid {
        self.root.clone()
    }

    fn get(&self, oid: &[u32]) -> Found {
        let found = self.all.binary_search_by(|(instance, _)| instance.arcs().cmp(oid));
        if let Ok(at) = found {
            return Found::Value((self.all[at].1)());
        }
        let is_object = self.all.iter().any(|(instance, _)| oid.starts_with(&instance.arcs()[..instance.arcs().len() - 1]));
        if is_object { Found::NoSuchInstance } else { Found::NoSuchObject }
    }

    fn next(&self, after: &[u32]) -> Option<(Oid, Value)> {
        let at = self.all.partition_point(|(instance, _)| instance.arcs() <= after);
        self.all.get(at).map(|(instance, read)| (instance.clone(), read()))
    }
}
