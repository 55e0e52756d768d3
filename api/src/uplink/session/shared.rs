//! What a session looks after where several nodes share a journal, whenever the other side has said that it is there.

use klaxon_schemas::child::{ChildEvent, ChildKind};
use klaxon_schemas::wire::v1::uplink::Refusal;
use tokio::time::Instant;

use super::{End, Session, Talk};

impl Session {
    /// What a journal has taken that is shared with other nodes may be lost there before it is applied; then what is behind it does
    /// not come in. An agent that comes again sends it again.
    pub(super) fn look_behind(&self, talk: &mut Talk) -> Result<(), End> {
        let is_all_taken =
            talk.kind == ChildKind::Agent && talk.submitted.is_empty() && self.uplinks.store().original().is_some();
        let child = self.uplinks.child(&self.name);
        let reached = child.and_then(|child| child.reached.clone()).filter(|reached| reached.epoch == talk.epoch);
        let reached = reached.map(|reached| reached.position).unwrap_or_default();
        talk.behind = match talk.behind {
            _ if !is_all_taken || talk.live_at.is_none_or(|live_at| live_at <= reached) => None,
            Some((since, at)) if at == reached => Some((since, at)),
            _ => Some((Instant::now(), reached)),
        };
        match talk.behind {
            Some((since, _)) if since.elapsed() >= self.uplinks.config().silent_after => {
                let reason = "what it sent was taken and has not come in; it is to send it again";
                Err(End::refused(Refusal::Busy, reason))
            }
            _ => Ok(()),
        }
    }

    /// Two copies of a node, each connected to another node of this site: the connection that is older stays. That both live is
    /// known from what is heard over this one after the other was known.
    pub(super) async fn look_elsewhere(&mut self, talk: &mut Talk) -> Result<(), End> {
        let Some(ours) = self.uplinks.connection(talk.seat.since) else { return Ok(()) };
        let Some(child) = self.uplinks.child(&self.name) else { return Ok(()) };
        let Some(theirs) = self.uplinks.theirs(&child) else {
            talk.elsewhere = None;
            return Ok(());
        };
        let since = *talk.elsewhere.get_or_insert_with(Instant::now);
        if since.elapsed() < self.uplinks.config().heartbeat / 2 {
            return Ok(());
        }
        if *theirs < ours {
            return Err(self.doubled(&format!("to {}, another node of this site,", theirs.node)).await);
        }
        talk.elsewhere = None;
        let version = child.version.clone().unwrap_or_default();
        self.tell(ChildEvent::Connected { node: talk.node, version, connection: Some(ours) }).await
    }
}
