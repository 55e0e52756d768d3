//! Looks over all children, once a second: who is silent, who is no double any more, whose credential is old, who was retired;
//! and wakes the sessions of those for whom something waits.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use klaxon_schemas::child::{Child, ChildEvent, ChildFact, Connection};
use klaxon_schemas::ids::Position;
use klaxon_schemas::names::ChildName;
use klaxon_schemas::wire::v1::uplink::Hello;
use tokio::time::{Instant, MissedTickBehavior};

use super::table::{Live, Order, mark};
use super::{Uplinks, later, now, read, rejection};

/// How often all children are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long commits are gathered before it is looked whether an action waits.
const GATHER: Duration = Duration::from_millis(20);
/// How long no other node may have claimed a name until that is over.
const DOUBLED_QUIET: Duration = Duration::from_secs(600);
/// How often a round trip is measured.
const PING_EVERY: Duration = Duration::from_secs(600);
/// The alarm that stands while two nodes claim one name.
const DOUBLED_ALARM: &str = "klaxon.site.doubled";
/// So much later than it was heard here it may be journalled.
const HEARD_MICROS: i64 = 1_000_000;
/// A node that others have is heard there within so many heartbeats.
const ELSEWHERE_HEARTBEATS: u32 = 4;
/// Who was said to be connected elsewhere within so many heartbeats counts as connected there.
const HEARD_HEARTBEATS: u32 = 3;
/// How long sessions may take to end when the node stops.
const DRAIN: Duration = Duration::from_secs(5);

impl Uplinks {
    /// Watches until the node stops; then the sessions have ended.
    pub async fn run(self) {
        let begun = Instant::now();
        self.recall_doubled();
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut committed = self.store().committed();
        let mut pinged = Instant::now();
        let mut seen = Position::default();
        let stop = self.stop().clone();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = ticks.tick() => {
                    let is_ping = pinged.elapsed() >= PING_EVERY;
                    if is_ping {
                        pinged = Instant::now();
                    }
                    // What it tells may be long on its way; who takes this up later sees it again.
                    let _ = stop.run_until_cancelled(self.look(begun, is_ping)).await;
                }
                changed = committed.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    seen = self.wake(seen);
                    tokio::time::sleep(GATHER).await;
                }
            }
        }
        self.0.sessions.close();
        if tokio::time::timeout(DRAIN, self.0.sessions.wait()).await.is_err() {
            tracing::warn!(sessions = self.0.sessions.len(), "uplinks are cut because the time to drain is over");
        }
    }

    /// Two nodes claimed one name before the restart: it will be seen whether they still do.
    fn recall_doubled(&self) {
        for name in self.doubles() {
            self.table().doubled(&name);
        }
    }

    /// Of whom an alarm says that two nodes claim to be it.
    pub(super) fn doubles(&self) -> Vec<ChildName> {
        let state = self.store().read();
        let standing = state.alarms().filter(|alarm| alarm.is_active() && &*alarm.key.alarm_type == DOUBLED_ALARM);
        let names = standing.filter_map(|alarm| ChildName::new(alarm.key.resource.as_str().split_once('=')?.1).ok());
        names.collect()
    }

    /// Wakes the sessions whose actions wait.
    fn wake(&self, seen: Position) -> Position {
        let position = *self.store().committed().borrow();
        if position > seen && self.table().len() > 0 {
            for (name, _) in read::pending(self.store()) {
                if let Some(live) = self.table().live(&name) {
                    live.order(Order::Look);
                }
            }
        }
        position
    }

    async fn look(&self, begun: Instant, is_ping: bool) {
        let children: BTreeMap<_, _> = read::children(self.store()).into_iter().collect();
        self.table().keep(|name| children.contains_key(name));
        let live = self.table().all();
        let config = self.config();
        for (name, live) in &live {
            let Some(child) = children.get(name) else {
                tracing::info!(child = %name, "the connection of a node ends that was retired");
                live.cut();
                continue;
            };
            if is_ping {
                live.order(Order::Ping);
            }
            if child.reached.as_ref().map_or(0, mark) != live.pulse.told.load(Ordering::Relaxed) {
                live.order(Order::Look);
            }
            let newest = child.credentials.last();
            if newest.is_some_and(|newest| later(newest.since, config.credential_lifetime) <= now()) {
                live.order(Order::Rotate);
            }
        }
        let mut facts = Vec::new();
        let (begun, is_fresh) = match self.store().original() {
            None => (begun, true),
            // What was journalled meanwhile may not be here yet.
            Some(original) => original.reached_since.map_or((begun, false), |since| (begun.max(since.into()), true)),
        };
        for (name, child) in &children {
            let heard = self.table().heard(name).map_or(begun, |heard| heard.at.max(begun));
            let silent_for = self.heard_elsewhere(child).map_or(heard.elapsed(), |ago| ago.min(heard.elapsed()));
            // What was heard here is told to others, however old what is shown here was meanwhile.
            let heard_here = self.table().heard(name).map(|heard| heard.at);
            let is_news = |ago| ago >= config.heartbeat && heard_here.is_some_and(|at| at.elapsed() < ago);
            // Of two connections the session of the younger ends.
            let is_older_elsewhere = |live: &Live| {
                let ours = self.connection(live.since);
                self.theirs(child).zip(ours.as_ref()).is_some_and(|(theirs, ours)| theirs < ours)
            };
            // To one that is not read nobody listens: what it says waits.
            let is_listening = live.get(name).is_none_or(|live| live.pulse.is_listening());
            if is_fresh && is_listening && silent_for >= config.silent_after && may_fall_silent(child) {
                let ago = i64::try_from(silent_for.as_micros()).unwrap_or(i64::MAX);
                let since = now().saturating_add_micros(-ago);
                // Where others may have heard it since, that must be seen by whoever takes this up later.
                let known = child.last_heard_at.filter(|_| self.store().original().is_some());
                let since = known.map_or(since, |known| since.max(known));
                facts.push(ChildFact { child: name.clone(), actor: None, what: ChildEvent::Silent { since } });
                if let Some(live) = live.get(name) {
                    // Nothing comes over it: it must come by another.
                    live.cut();
                }
            } else if let Some(live) = live.get(name)
                && (child.silent_since.is_some()
                    || self.heard_elsewhere(child).is_some_and(is_news) && !is_older_elsewhere(live))
                && child.moved.is_none()
            {
                // That it is silent was journalled behind that it is connected; or other nodes must know that it is heard here.
                let version = child.version.clone().unwrap_or_default();
                let what = ChildEvent::Connected { node: live.node, version, connection: self.connection(live.since) };
                facts.push(ChildFact { child: name.clone(), actor: None, what });
            }
        }
        let single = self.table().single(DOUBLED_QUIET);
        facts.extend(single.iter().map(|name| ChildFact { child: name.clone(), actor: None, what: ChildEvent::Single }));
        for facts in facts.chunks(klaxon_store::publish::SUBMISSION_ENTRIES_MAX) {
            match self.tell(facts.to_vec()).await {
                Ok(published) => {
                    if let Some(reason) = rejection(&published) {
                        tracing::error!(%reason, "that a node is silent, or no double, cannot be journalled");
                    }
                    for fact in facts {
                        match &fact.what {
                            ChildEvent::Single => self.table().told_single(&fact.child),
                            what @ ChildEvent::Silent { .. } => {
                                tracing::warn!(child = %fact.child, ?what, "a node below is silent");
                            }
                            what => tracing::info!(child = %fact.child, ?what, "a node below is heard"),
                        }
                    }
                }
                // It is seen again in a second.
                Err(error) => tracing::warn!(%error, "that nodes are silent cannot be journalled yet"),
            }
        }
    }
}

impl Uplinks {
    /// Its connection to another node of this site, if it is heard there.
    pub(super) fn connected_elsewhere(&self, child: &Child) -> Option<Connection> {
        let is_heard = |ago| ago < HEARD_HEARTBEATS * self.config().heartbeat;
        let theirs = self.theirs(child).filter(|_| self.heard_elsewhere(child).is_some_and(is_heard))?;
        Some(theirs.clone())
    }

    /// Its connection to another node of this site, as that was journalled last.
    pub(super) fn theirs<'a>(&self, child: &'a Child) -> Option<&'a Connection> {
        child.connection.as_ref().filter(|theirs| self.connection(theirs.since).is_some_and(|ours| ours.node != theirs.node))
    }

    /// Where several nodes share the journal: how long ago any of them said that they hear from it.
    fn heard_elsewhere(&self, child: &Child) -> Option<Duration> {
        let at = child.last_heard_at.filter(|_| self.store().original().is_some())?;
        Some(Duration::from_micros(u64::try_from(now().micros_since(at)).unwrap_or(0)))
    }

    /// Whether another of the nodes that share the journal has it, now that it wants to come in here as another store, or in another
    /// numbering. The same in the same one lost its connection there.
    pub(super) fn elsewhere(&self, name: &ChildName, child: &Child, hello: &Hello) -> Elsewhere {
        let is_same_numbering = child.reached.as_ref().is_none_or(|reached| reached.epoch == hello.epoch);
        let is_late = self.heard_elsewhere(child).is_none_or(|ago| ago >= self.config().silent_after);
        let Some(heard) = child.last_heard_at else { return Elsewhere::No };
        let here = self.table().heard(name).map(|here| here.wall.saturating_add_micros(HEARD_MICROS));
        if is_late || !may_fall_silent(child) || here >= Some(heard) || child.node == Some(hello.node) && is_same_numbering {
            return Elsewhere::No;
        }
        let (before, since) = self.table().waits(name, heard);
        if heard > before {
            Elsewhere::Yes
        } else if since.elapsed() < ELSEWHERE_HEARTBEATS * self.config().heartbeat {
            Elsewhere::Perhaps
        } else {
            Elsewhere::No
        }
    }
}

/// Whether another node has a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Elsewhere {
    /// None has.
    No,
    /// It is not known yet.
    Perhaps,
    /// One has heard it since it wanted to come in here.
    Yes,
}

/// Whether it is news that nothing is heard of it.
fn may_fall_silent(child: &Child) -> bool {
    child.node.is_some() && child.silent_since.is_none() && child.moved.is_none()
}
