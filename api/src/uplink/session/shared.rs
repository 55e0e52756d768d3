//! What a session looks after where several nodes share a journal, whenever the other side has said that it is there.

use klaxon_schemas::child::{ChildEvent, ChildFact, ChildKind};
use klaxon_schemas::wire::v1::uplink::Refusal;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::super::rejection;
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

    /// Two copies of a node, each connected to another node of this site: the connection that is older stays. Each claims the node
    /// when it has heard it here. The younger ends when the older has claimed it once more behind that: a claim that was on its way,
    /// or of a connection that is dead, does not come twice.
    pub(super) async fn look_elsewhere(&mut self, talk: &mut Talk) -> Result<(), End> {
        let Some(ours) = self.uplinks.connection(talk.seat.since) else { return Ok(()) };
        let Some(child) = self.uplinks.child(&self.name) else { return Ok(()) };
        let heartbeat = self.uplinks.config().heartbeat;
        let Some(theirs) = self.uplinks.theirs(&child) else {
            // What this one sent under numbers that the younger had used is missing here: a new numbering brings all of it.
            let is_over = talk.twin.take_if(|twin| twin.seen.elapsed() >= 2 * heartbeat);
            let is_wanted = is_over.is_some_and(|twin| twin.is_younger && twin.is_claimed) && talk.kind.owns();
            return if is_wanted { Err(End::Anew { beyond: talk.epoch }) } else { Ok(()) };
        };
        let twin = talk.twin.get_or_insert_default();
        (twin.seen, twin.is_younger) = (Instant::now(), ours < *theirs);
        if let Some(claim) = twin.claim.take_if(|claim| claim.is_finished()) {
            twin.is_claimed |= claim.await.unwrap_or(false);
            if twin.is_claimed && !twin.is_younger {
                return Err(self.doubled(&format!("to {}, another node of this site,", theirs.node)).await);
            }
        }
        if twin.claim.is_none() {
            let version = child.version.clone().unwrap_or_default();
            let what = ChildEvent::Connected { node: talk.node, version, connection: Some(ours) };
            let fact = ChildFact { child: self.name.clone(), actor: None, what };
            let uplinks = self.uplinks.clone();
            // The session goes on meanwhile.
            twin.claim =
                Some(tokio::spawn(async move { uplinks.tell(vec![fact]).await.is_ok_and(|told| rejection(&told).is_none()) }));
        }
        Ok(())
    }
}

/// Another connection of the same node to another node of this site.
pub(super) struct Twin {
    /// When it was seen last.
    seen: Instant,
    is_younger: bool,
    /// The claim that is on its way; whether it took effect.
    claim: Option<JoinHandle<bool>>,
    /// Whether one has.
    is_claimed: bool,
}

impl Default for Twin {
    fn default() -> Self {
        Self { seen: Instant::now(), is_younger: false, claim: None, is_claimed: false }
    }
}
