//! The agent, RFC 3411's command responder: what it is asked is answered by objects, of which it knows no more than this trait.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;

use crate::{Oid, Value, Varbind};

/// A future that can be kept.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A part of the tree of objects, under one root. It is asked for every variable of every request, so it answers from a snapshot:
/// at once, without a lock and without making more than the answer.
pub trait Objects: Send + Sync + 'static {
    /// The subtree that it owns. No other's root lies in it.
    fn root(&self) -> Oid;

    /// What the instance `oid` is. It is within the root.
    fn get(&self, oid: &[u32]) -> Found;

    /// The first instance behind `after` that is within the root, if there is one. `after` may lie before the root or anywhere in
    /// it, and need not be an instance.
    fn next(&self, after: &[u32]) -> Option<(Oid, Value)>;

    /// Subtrees of the root with nothing but Counter64, as columns: a manager that speaks SNMPv1 is led past them, because it has
    /// no such type (RFC 3584 section 4.2.2.1). Asked once.
    fn counter64(&self) -> Vec<Oid> {
        Vec::new()
    }

    /// Whether this variable could be set, looked at by itself: what is wrong with it, if anything.
    fn check(&self, _varbind: &Varbind) -> Result<(), SetError> {
        Err(SetError::NotWritable)
    }

    /// Sets all the variables of one request that are within the root, each of which [`Self::check`] has let pass: all of them,
    /// and then it stands, or none. Sets come one at a time. What a manager does not hear of in time it may send again.
    fn set(&self, _request: Set) -> BoxFuture<'_, Result<(), SetFailed>> {
        Box::pin(std::future::ready(Err(SetFailed)))
    }
}

/// What an instance is.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// It is there.
    Value(Value),
    /// There is no such object (RFC 3416 section 4.2.1).
    NoSuchObject,
    /// The object is there, this instance of it is not.
    NoSuchInstance,
}

/// What is to be set, by whom.
#[derive(Debug, Clone, PartialEq)]
pub struct Set {
    /// The name of the user. It came authenticated and hidden.
    pub user: String,
    /// Where from.
    pub source: SocketAddr,
    /// The request's id: what comes again from there with the same may be the same request.
    pub request_id: i32,
    /// The variables, in their order.
    pub varbinds: Vec<Varbind>,
}

/// Why a variable cannot be set (RFC 3416 section 4.2.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// There is no such variable, and none can be made.
    #[error("noCreation")]
    NoCreation,
    /// It cannot be set, ever.
    #[error("notWritable")]
    NotWritable,
    /// The value is of another type.
    #[error("wrongType")]
    WrongType,
    /// The value is too long or too short.
    #[error("wrongLength")]
    WrongLength,
    /// The value can never be this.
    #[error("wrongValue")]
    WrongValue,
    /// The value could be this, but not as things stand.
    #[error("inconsistentValue")]
    InconsistentValue,
    /// The variable could be made, but not as things stand.
    #[error("inconsistentName")]
    InconsistentName,
    /// There is no room.
    #[error("resourceUnavailable")]
    ResourceUnavailable,
}

/// It was let pass, and then could not be set: commitFailed. Nothing was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("commitFailed")]
pub struct SetFailed;
