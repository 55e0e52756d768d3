//! How a connection begins: who the other side is, whether it may come in, and how far it has come.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::Message;
use klaxon_schemas::child::{Child, ChildEvent, ChildFact, Credential, site_of};
use klaxon_schemas::ids::Epoch;
use klaxon_schemas::names::Text;
use klaxon_schemas::wire::v1::uplink::{Down, Hello, PROTOCOL, Refusal, Welcome};
use klaxon_store::publish::Lane;
use tokio::time::{Instant, timeout};

use super::{End, HELLO_WAIT, Heard, Session, Talk, broken, decode, present};
use crate::uplink::entrance::Proof;
use crate::uplink::steps::kept_version;
use crate::uplink::table::{Asked, Candidate, NoSeat, Order, Pulse, Seat, mark};
use crate::uplink::watch::Elsewhere;
use crate::uplink::{new_token, now};

/// How long a connection that may be dead has to show that it is not, while it is read.
const PROBE_WAIT: Duration = Duration::from_secs(5);
/// How long it is waited for that; whoever wants its seat comes again if it was not read for so long.
const PROBE_WAIT_MAX: Duration = Duration::from_secs(10);
/// How often it is looked whether it has.
const PROBE_LOOK: Duration = Duration::from_millis(50);
/// When somebody whose name another node has is to come again.
const DOUBLED_RETRY_S: u32 = 60;
/// When somebody who waits for approval is to come again.
const APPROVAL_RETRY_S: u32 = 30;

impl Session {
    /// Has the other side say who it is, and lets it in if it may.
    pub(super) async fn begin(&mut self) -> Result<Talk, End> {
        let hello = self.hello().await?;
        let child = present(self.uplinks.child(&self.name))?;
        self.check(&hello, &child)?;
        match self.uplinks.elsewhere(&self.name, &child, &hello) {
            Elsewhere::No => {}
            Elsewhere::Perhaps => {
                let reason = format!("{} was connected to another node of this site a moment ago", self.name);
                return Err(End::refused(Refusal::Busy, reason));
            }
            Elsewhere::Yes => return Err(self.doubled("to another node of this site").await),
        }
        self.uplinks.table().knocked(&self.name);
        let seat = self.seat(&hello).await?;
        match self.welcome(&hello, &seat).await {
            Ok((child, joining)) => {
                // In another numbering nothing is live before it is aligned.
                let reached = child.reached.as_ref().filter(|reached| reached.epoch == hello.epoch);
                let live_at = reached.map(|reached| reached.position);
                let mut talk = Talk {
                    seat,
                    node: hello.node,
                    kind: child.kind,
                    epoch: hello.epoch,
                    lane: Lane::default(),
                    submitted: VecDeque::new(),
                    held: None,
                    again: None,
                    refused_since: None,
                    told: child.reached.as_ref().map_or(0, mark),
                    untold: 0,
                    live_at,
                    behind: None,
                    twin: None,
                    looked: Instant::now(),
                    compare: None,
                    unlisted: super::Unlisted::default(),
                    sent: HashSet::new(),
                    asked: None,
                    joining,
                    offered: None,
                };
                talk.seat.pulse.told.store(talk.told, std::sync::atomic::Ordering::Relaxed);
                talk.seat.pulse.clock(hello.wall.as_micros(), now().as_micros());
                match self.begun(&mut talk, &child).await {
                    Ok(()) => Ok(talk),
                    Err(end) => {
                        self.uplinks.table().leave(&talk.seat);
                        Err(end)
                    }
                }
            }
            Err(end) => {
                self.uplinks.table().leave(&seat);
                Err(end)
            }
        }
    }

    /// What the other side is told first.
    async fn begun(&mut self, talk: &mut Talk, child: &Child) -> Result<(), End> {
        self.send_actions(talk).await?;
        // It was given a newer one that did not come to its disk.
        let newest = child.credentials.last();
        if let Proof::Credential(hash) = &self.proof
            && newest.is_some_and(|newest| newest.hash != *hash)
        {
            self.rotate(talk).await?;
        }
        self.ping(talk).await
    }

    async fn hello(&mut self) -> Result<Hello, End> {
        let stop = self.uplinks.stop().clone();
        let first = async {
            loop {
                match self.socket.recv().await {
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    other => return other,
                }
            }
        };
        let message = tokio::select! {
            () = stop.cancelled() => return Err(End::Stopping),
            message = timeout(HELLO_WAIT, first) => message,
        };
        let Ok(message) = message else {
            let reason = format!("it did not say who it is within {} s", HELLO_WAIT.as_secs());
            return Err(End::refused(Refusal::Malformed, reason));
        };
        match message {
            None => Err(End::Gone("it ended the connection before it said who it is".to_owned())),
            Some(Err(error)) => Err(broken(&error)),
            Some(Ok(Message::Binary(bytes))) => {
                self.uplinks.counts().bytes_in(bytes.len() as u64);
                match decode(bytes).await {
                    Ok((Heard::Hello(hello), _)) => Ok(hello),
                    Ok(_) => Err(End::refused(Refusal::Malformed, "the first message is no hello")),
                    Err(reason) => Err(End::refused(Refusal::Malformed, reason)),
                }
            }
            Some(Ok(_)) => Err(End::refused(Refusal::Malformed, "the first message is no hello")),
        }
    }

    /// Whether it is what it was enrolled as, and may come in.
    fn check(&self, hello: &Hello, child: &Child) -> Result<(), End> {
        if !hello.protocols.contains(&PROTOCOL) {
            let reason = format!("it speaks the protocols {:?}, here only {PROTOCOL} is spoken", hello.protocols);
            return Err(End::refused(Refusal::Protocol, reason));
        }
        if hello.epoch > Epoch::LATEST {
            let reason = format!("epoch: it says {}, at most {} is allowed", hello.epoch, Epoch::LATEST);
            return Err(End::refused(Refusal::Malformed, reason));
        }
        if hello.kind != child.kind {
            let reason = format!("kind: it says {:?}, and is enrolled as {:?}", hello.kind, child.kind);
            return Err(End::refused(Refusal::Mismatch, reason));
        }
        let site = if child.kind.owns() { site_of(&self.name) } else { self.uplinks.site().clone() };
        if hello.site != site {
            let reason = format!("site: it says {}, and should be {site}", hello.site);
            return Err(End::refused(Refusal::Mismatch, reason));
        }
        if let Some(moved) = &child.moved
            && !moved.may_return
            && !matches!(self.proof, Proof::Join(_))
        {
            return Err(End::refused(Refusal::Gone, format!("it went to {}", moved.to)));
        }
        if matches!(self.proof, Proof::Certificate) && child.join.is_some() {
            let reason =
                "it was given a join token and is to come with that; for its certificate alone it is enrolled without one";
            return Err(End::refused(Refusal::Mismatch, reason));
        }
        if matches!(self.proof, Proof::Join(_)) && !child.credentials.is_empty() && child.node != Some(hello.node) {
            return Err(End::refused(Refusal::Mismatch, "node: its join token was used by another node"));
        }
        if child.awaits_approval {
            let asked =
                Asked { node: hello.node, address: self.address.clone(), version: kept_version(&hello.version), at: now() };
            self.uplinks.table().ask(self.name.clone(), asked);
            let reason = format!("a person must approve it first: klaxon site approve {}", self.name);
            return Err(End::Refused { code: Refusal::AwaitsApproval, reason, retry_after_s: APPROVAL_RETRY_S });
        }
        match &child.reached {
            Some(reached) if reached.epoch > hello.epoch => Err(End::Anew { beyond: reached.epoch }),
            Some(reached) if reached.epoch == hello.epoch && reached.position > hello.last => {
                Err(End::Anew { beyond: reached.epoch })
            }
            _ => Ok(()),
        }
    }

    /// A seat. A dead connection of the same node gives up its own; a living one keeps it.
    async fn seat(&mut self, hello: &Hello) -> Result<Seat, End> {
        let candidate =
            Candidate { name: self.name.clone(), node: hello.node, address: self.address.clone(), proof: self.proof.as_str() };
        let begun = Instant::now();
        let (mut probed, mut listened) = (None::<(Arc<Pulse>, Instant)>, Duration::ZERO);
        loop {
            let first = match self.uplinks.table().sit(&candidate, self.uplinks.config().connections_max) {
                Ok(seat) => return Ok(seat),
                Err(NoSeat::Full) => return Err(End::refused(Refusal::Busy, "as many nodes are connected as may be")),
                Err(NoSeat::Taken(first)) => first,
            };
            if first.node != hello.node {
                return Err(self.doubled(&format!("from {}", first.address)).await);
            }
            // Another one may have come in its place.
            let known = probed.as_ref().filter(|(pulse, _)| Arc::ptr_eq(pulse, &first.pulse));
            let since = known.map_or_else(Instant::now, |(_, since)| *since);
            if known.is_none() {
                first.order(Order::Ping);
                (probed, listened) = (Some((Arc::clone(&first.pulse), since)), Duration::ZERO);
            }
            if first.pulse.has_answered(since) {
                return Err(self.doubled(&format!("from {}", first.address)).await);
            }
            if listened >= PROBE_WAIT {
                tracing::info!(child = %self.name, address = %first.address, "a dead connection of a node gives way to its new one");
                self.uplinks.table().unseat(&self.name, &first);
                continue;
            }
            if begun.elapsed() >= PROBE_WAIT_MAX {
                let reason = format!("{} is connected from {} and not read now, dead or not", self.name, first.address);
                return Err(End::refused(Refusal::Busy, reason));
            }
            // Its answer may lie where nobody reads it now.
            let (is_listening, looked) = (first.pulse.is_listening(), Instant::now());
            tokio::time::sleep(PROBE_LOOK).await;
            if is_listening && first.pulse.is_listening() {
                listened += looked.elapsed();
            }
        }
    }

    pub(super) async fn doubled(&mut self, first: &str) -> End {
        // Another node may have taken the alarm back, which has seen nothing of it for long.
        if self.uplinks.table().doubled(&self.name) || !self.uplinks.doubles().contains(&self.name) {
            let from = Text::lossy(&self.address).expect("an address is no longer than a text");
            let fact = ChildFact { child: self.name.clone(), actor: None, what: ChildEvent::Doubled { from } };
            if let Err(error) = self.uplinks.tell(vec![fact]).await {
                tracing::warn!(child = %self.name, %error, "that two nodes claim one name cannot be journalled");
                self.uplinks.table().told_single(&self.name);
            }
        }
        let reason = format!("{} is connected {first} already", self.name);
        End::Refused { code: Refusal::Doubled, reason, retry_after_s: DOUBLED_RETRY_S }
    }

    /// Journals that it is here, and tells it that it is welcome. What it was given for its join token comes back.
    async fn welcome(&mut self, hello: &Hello, seat: &Seat) -> Result<(Arc<Child>, Option<Credential>), End> {
        seat.pulse.heard();
        let mut facts = Vec::new();
        let (mut credential, mut joining) = (None, None);
        match &self.proof {
            Proof::Join(hash) => {
                let child = self.uplinks.child(&self.name);
                // Used up by another connection since.
                let child = child
                    .filter(|child| child.join.as_ref().is_some_and(|join| join.hash == *hash))
                    .filter(|child| child.credentials.is_empty() || child.node == Some(hello.node))
                    .ok_or_else(|| End::refused(Refusal::Mismatch, "its join token is used up"))?;
                let given = self.uplinks.table().given(&self.name);
                let known = given.and_then(|token| {
                    let kept = child.credentials.iter().find(|credential| credential.hash == token.hash)?;
                    Some((kept.clone(), token))
                });
                // The token is good until this has come to its disk. What was given before a restart is not known any more, and
                // did not come there.
                let (kept, token) = known.unwrap_or_else(|| {
                    let (token, since) = (new_token(), now());
                    let kept = Credential { hash: token.hash.clone(), since, until: None };
                    facts.push(ChildEvent::Rotated { credential: kept.clone(), others_until: since });
                    self.uplinks.table().give(self.name.clone(), token.clone());
                    (kept, token)
                });
                (credential, joining) = (Some(token.text), Some(kept));
            }
            Proof::Credential(hash) => {
                // It has it: its join token is good for nothing any more.
                let child = self.uplinks.child(&self.name).filter(|child| child.join.is_some());
                let used = child.and_then(|child| child.credentials.iter().find(|used| used.hash == *hash).cloned());
                facts.extend(used.map(|credential| ChildEvent::Joined { credential }));
                self.uplinks.table().used(&self.name);
            }
            Proof::Certificate => {}
        }
        let (version, connection) = (kept_version(&hello.version), self.uplinks.connection(seat.since));
        facts.push(ChildEvent::Connected { node: hello.node, version, connection });
        self.tell_all(facts).await?;
        let child = present(self.uplinks.child(&self.name))?;
        let welcome = Welcome {
            protocol: PROTOCOL,
            child: self.name.clone(),
            site: if child.kind.owns() { site_of(&self.name) } else { self.uplinks.site().clone() },
            parent: self.uplinks.site().clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            reached: child.reached.clone(),
            heartbeat_s: u32::try_from(self.uplinks.config().heartbeat.as_secs()).unwrap_or(u32::MAX).max(1),
            wall: now(),
            credential,
        };
        self.send(None, &Down::Welcome(welcome)).await?;
        self.uplinks.counts().connected();
        tracing::info!(
            child = %self.name, address = %self.address, proof = self.proof.as_str(), version = %kept_version(&hello.version),
            epoch = %hello.epoch, last = %hello.last, "a node below is connected"
        );
        Ok((child, joining))
    }
}
