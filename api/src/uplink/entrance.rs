//! Who is it? A request for an uplink, before it becomes one.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::WebSocketUpgrade;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::response::Response;
use klaxon_schemas::child::Child;
use klaxon_schemas::names::ChildName;
use klaxon_schemas::wire::v1::uplink::MESSAGE_BYTES_MAX;

use super::session::Session;
use super::{Uplinks, now, read};
use crate::token;

/// How long somebody with a wrong token waits for the answer.
const DENIAL_WAIT: Duration = Duration::from_secs(1);
/// How much is read at a time: a thousand quiet connections are to cost little.
const READ_BUFFER_BYTES: usize = 4 * 1024;
/// The largest message that is read to its end, so that its sender can be told that it is too large.
const READ_BYTES_MAX: usize = 2 * MESSAGE_BYTES_MAX;
/// How much may wait to be written.
const WRITE_BUFFER_BYTES_MAX: usize = 2 * MESSAGE_BYTES_MAX;

/// The other side of a request for an uplink.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// From where.
    pub(crate) address: Arc<str>,
    /// The names in the certificate that it showed and that was found to be good.
    pub(crate) names: Arc<[String]>,
}

/// Why there is no uplink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// It proves nothing.
    #[error("no node is enrolled here under the token or the certificate of this request")]
    Unknown,
    /// Too many are being denied at the moment.
    #[error("too many requests with a wrong token at one time")]
    Busy,
    /// As many are connected as may be.
    #[error("as many nodes are connected as may be (sites.connections_max)")]
    Full,
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopping,
}

/// With what it was proven who it is.
#[derive(Clone)]
pub(super) enum Proof {
    /// A join token, by its hash.
    Join(String),
    /// A credential, by its hash.
    Credential(String),
    /// A certificate.
    Certificate,
}

impl Proof {
    /// In a word.
    pub(super) fn as_str(&self) -> &'static str {
        match self {
            Self::Join(_) => "join-token",
            Self::Credential(_) => "token",
            Self::Certificate => "certificate",
        }
    }
}

impl Uplinks {
    /// Makes an uplink of the request, if it may be one.
    pub(crate) async fn admit(
        &self,
        caller: Caller,
        headers: &HeaderMap,
        upgrade: WebSocketUpgrade,
    ) -> Result<Response, Denied> {
        if self.stop().is_cancelled() {
            return Err(Denied::Stopping);
        }
        let Some((name, proof)) = self.identify(&caller, headers) else {
            self.counts().denied();
            let Ok(_place) = self.0.denials.try_acquire() else { return Err(Denied::Busy) };
            tracing::warn!(address = %caller.address, "a request for an uplink proves nothing; it is denied");
            tokio::time::sleep(DENIAL_WAIT).await;
            return Err(Denied::Unknown);
        };
        // Those that have not said who they are count as well.
        if self.0.sessions.len() >= self.config().connections_max {
            return Err(Denied::Full);
        }
        let token = self.0.sessions.token();
        let uplinks = self.clone();
        let upgrade = upgrade
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX)
            .max_message_size(READ_BYTES_MAX)
            .max_frame_size(READ_BYTES_MAX);
        Ok(upgrade.on_upgrade(move |socket| async move {
            let _counted = token;
            Box::pin(Session::new(uplinks, name, proof, caller.address, socket).run()).await;
        }))
    }

    /// Which child it is, and how that is known. What is compared is compared whole, with all that is kept.
    fn identify(&self, caller: &Caller, headers: &HeaderMap) -> Option<(ChildName, Proof)> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => {
                let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
                let hash = token::hash_of(token.trim()).filter(|_| scheme.eq_ignore_ascii_case("bearer"))?;
                self.of_token(&hash)
            }
            (Some(_), Some(_)) => None,
            (None, _) => {
                let named = caller.names.iter().filter_map(|name| ChildName::new(name).ok());
                let name = named.into_iter().find(|name| self.child(name).is_some_and(|child| child.retired.is_none()))?;
                Some((name, Proof::Certificate))
            }
        }
    }

    fn of_token(&self, hash: &str) -> Option<(ChildName, Proof)> {
        let now = now();
        let mut found = None;
        for (name, child) in read::children(self.store()) {
            let is_credential = child
                .credentials
                .iter()
                .filter(|credential| credential.until.is_none_or(|until| until > now))
                .fold(false, |is_one, credential| token::is_same(&credential.hash, hash) | is_one);
            let is_join = is_join_token(&child, hash, now);
            if is_credential {
                found = Some((name, Proof::Credential(hash.to_owned())));
            } else if is_join {
                found = Some((name, Proof::Join(hash.to_owned())));
            }
        }
        found
    }
}

fn is_join_token(child: &Child, hash: &str, now: klaxon_schemas::time::Timestamp) -> bool {
    child.join.as_ref().is_some_and(|join| token::is_same(&join.hash, hash) & (join.expires_at > now))
}
