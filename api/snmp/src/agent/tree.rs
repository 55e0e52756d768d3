//! All objects as one handler of the library: each question goes to the one part that it concerns, and what the asker does not see
//! is passed in one step. The library would go through it instance by instance, and give up after a thousand.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use async_snmp::handler::{
    BoxFuture, GetNextResult, GetResult, HandlerResult, MibHandler, PreparedSet, RequestContext, SetCommitError,
    SetCommitResult, SetTestError, SetTestResult, SetUndoError, SetUndoResult,
};
use async_snmp::{Oid as WireOid, Value as WireValue, VarBind, Version};
use bytes::Bytes;
use tokio::time::Instant;

use super::counts::AgentCounts;
use super::view::{Sight, View};
use super::{Found, Objects, Set, SetError};
use crate::{Oid, Value, Varbind};

/// All objects.
pub(super) struct Tree {
    /// With their roots, in order.
    parts: Vec<(Oid, Arc<dyn Objects>)>,
    /// What is seen by the name of a view.
    views: BTreeMap<Bytes, Seen>,
    counts: Arc<AgentCounts>,
    /// The set request that is looked at. The library brings its variables one by one, and one request after the other.
    sets: Mutex<Option<Arc<Pending>>>,
}

/// What is seen.
struct Seen {
    view: View,
    /// By who speaks SNMPv1.
    in_v1: View,
}

/// Two parts own the same objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Nested {
    pub(super) outer: Box<Oid>,
    pub(super) inner: Box<Oid>,
}

impl Tree {
    pub(super) fn new(
        objects: Vec<Arc<dyn Objects>>,
        views: impl IntoIterator<Item = (Bytes, View)>,
        counts: Arc<AgentCounts>,
    ) -> Result<Self, Nested> {
        let counter64: Vec<Oid> = objects.iter().flat_map(|part| part.counter64()).collect();
        let mut parts: Vec<_> = objects.into_iter().map(|part| (part.root(), part)).collect();
        parts.sort_by(|(one, _), (other, _)| one.cmp(other));
        let nested = parts.windows(2).find(|pair| pair[1].0.arcs().starts_with(pair[0].0.arcs()));
        if let Some(pair) = nested {
            return Err(Nested { outer: Box::new(pair[0].0.clone()), inner: Box::new(pair[1].0.clone()) });
        }
        let seen = |(name, view): (Bytes, View)| (name, Seen { in_v1: view.without(&counter64), view });
        Ok(Self { parts, views: views.into_iter().map(seen).collect(), counts, sets: Mutex::new(None) })
    }

    /// The number of the part that `oid` is in.
    fn part_of(&self, oid: &[u32]) -> Option<usize> {
        let number = self.parts.partition_point(|(root, _)| root.arcs() <= oid).checked_sub(1)?;
        oid.starts_with(self.parts[number].0.arcs()).then_some(number)
    }

    /// The first instance behind `after`, seen or not.
    fn first_behind(&self, after: &[u32]) -> Option<(Oid, Value)> {
        let from = self.parts.partition_point(|(root, _)| root.arcs() <= after).saturating_sub(1);
        self.parts[from..].iter().find_map(|(_, part)| part.next(after))
    }

    fn find_next(&self, view: &View, after: &[u32]) -> Option<(Oid, Value)> {
        let mut found = self.first_behind(after)?;
        loop {
            match view.sight(found.0.arcs()) {
                Sight::Seen => return Some(found),
                Sight::HiddenTo(place) => found = self.first_behind(place.arcs())?,
                Sight::End => return None,
            }
        }
    }

    fn check(&self, ctx: &RequestContext, oid: &WireOid, value: &WireValue) -> Result<Box<dyn PreparedSet>, SetError> {
        let part = self.part_of(oid.arcs()).ok_or(SetError::NotWritable)?;
        let varbind = Varbind { oid: Oid(oid.clone()), value: Value::from(value) };
        let request = RequestKey { source: ctx.source(), request_id: ctx.request_id(), received_at: ctx.received_at() };
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        let pending = match &*sets {
            Some(pending) if pending.request == request => Arc::clone(pending),
            _ => {
                let user = String::from_utf8_lossy(ctx.security_name().as_bytes()).into_owned();
                let pending = Arc::new(Pending { request, user, work: Mutex::default() });
                *sets = Some(Arc::clone(&pending));
                pending
            }
        };
        drop(sets);
        let mut work = pending.work();
        let before = &mut work.parts.entry(part).or_default().varbinds;
        self.parts[part].1.check(&varbind, before)?;
        before.push(varbind);
        drop(work);
        let objects = Arc::clone(&self.parts[part].1);
        Ok(Box::new(Prepared { pending, part, objects }))
    }
}

impl MibHandler for Tree {
    fn get<'a>(&'a self, _: &'a RequestContext, oid: &'a WireOid) -> BoxFuture<'a, HandlerResult<GetResult>> {
        self.counts.got();
        let found = self.part_of(oid.arcs()).map_or(Found::NoSuchObject, |part| self.parts[part].1.get(oid.arcs()));
        let result = match found {
            Found::Value(value) => GetResult::Value(value.into()),
            Found::NoSuchObject => GetResult::NoSuchObject,
            Found::NoSuchInstance => GetResult::NoSuchInstance,
        };
        Box::pin(std::future::ready(Ok(result)))
    }

    fn get_next<'a>(&'a self, ctx: &'a RequestContext, oid: &'a WireOid) -> BoxFuture<'a, HandlerResult<GetNextResult>> {
        self.counts.walked();
        let seen = ctx.read_view().and_then(|name| self.views.get(name));
        let view = seen.map(|seen| if ctx.version() == Version::V1 { &seen.in_v1 } else { &seen.view });
        let next = view.and_then(|view| self.find_next(view, oid.arcs()));
        let result = next.map_or(GetNextResult::EndOfMibView, |(oid, value)| {
            GetNextResult::Value(VarBind::new(oid.0, WireValue::from(value)))
        });
        Box::pin(std::future::ready(Ok(result)))
    }

    fn test_set<'a>(&'a self, ctx: &'a RequestContext, oid: &'a WireOid, value: &'a WireValue) -> BoxFuture<'a, SetTestResult> {
        self.counts.set();
        Box::pin(std::future::ready(self.check(ctx, oid, value).map_err(|error| match error {
            SetError::NoCreation => SetTestError::NoCreation,
            SetError::NotWritable => SetTestError::NotWritable,
            SetError::WrongType => SetTestError::WrongType,
            SetError::WrongLength => SetTestError::WrongLength,
            SetError::WrongValue => SetTestError::WrongValue,
            SetError::InconsistentValue => SetTestError::InconsistentValue,
            SetError::InconsistentName => SetTestError::InconsistentName,
            SetError::ResourceUnavailable => SetTestError::ResourceUnavailable,
        })))
    }
}

/// A set request all of whose variables so far may be set.
struct Pending {
    request: RequestKey,
    user: String,
    work: Mutex<Work>,
}

/// Which request it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RequestKey {
    source: SocketAddr,
    request_id: i32,
    received_at: Instant,
}

#[derive(Default)]
struct Work {
    /// By the number of the part.
    parts: HashMap<usize, PartWork>,
}

#[derive(Default)]
struct PartWork {
    varbinds: Vec<Varbind>,
    is_done: bool,
}

impl Pending {
    fn work(&self) -> std::sync::MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One variable of such a request. The first of a part does what is to be done for all of that part.
struct Prepared {
    pending: Arc<Pending>,
    part: usize,
    objects: Arc<dyn Objects>,
}

impl PreparedSet for Prepared {
    fn commit<'a>(&'a mut self, _: &'a RequestContext, _: &'a WireOid, _: &'a WireValue) -> BoxFuture<'a, SetCommitResult> {
        let varbinds = self.pending.work().parts.get_mut(&self.part).map(|work| std::mem::take(&mut work.varbinds));
        let Some(varbinds) = varbinds.filter(|varbinds| !varbinds.is_empty()) else {
            return Box::pin(std::future::ready(Ok(())));
        };
        let RequestKey { source, request_id, .. } = self.pending.request;
        let set = Set { user: self.pending.user.clone(), source, request_id, varbinds };
        Box::pin(async move {
            self.objects.set(set).await.map_err(|_| SetCommitError::Failed)?;
            if let Some(work) = self.pending.work().parts.get_mut(&self.part) {
                work.is_done = true;
            }
            Ok(())
        })
    }

    /// What was done stands, and the manager hears that it does: undoFailed.
    fn undo<'a>(&'a mut self, _: &'a RequestContext, _: &'a WireOid, _: &'a WireValue) -> BoxFuture<'a, SetUndoResult> {
        let is_done = self.pending.work().parts.get(&self.part).is_some_and(|work| work.is_done);
        Box::pin(std::future::ready(if is_done { Err(SetUndoError::Failed) } else { Ok(()) }))
    }
}
