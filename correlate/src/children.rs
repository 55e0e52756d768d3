//! What becomes of the nodes below this one: they are enrolled, join, fall silent, are heard from again, move away, are retired.
//!
//! Silence is one fact on a child's record and one alarm of this node; the child's alarms are stale by it and are not touched.
//! What a retired child leaves behind is forgotten in bounded steps, which a restart goes on with.

use std::sync::Arc;

use klaxon_schemas::alarm::{Alarm, ClearedBy};
use klaxon_schemas::change::{ChangeKind, Subject};
use klaxon_schemas::child::{
    CREDENTIALS_MAX, Child, ChildEvent, ChildFact, ChildKind, ChildNote, ChildStep, Meanwhile, Moved, NotTaken, Reached,
    site_of,
};
use klaxon_schemas::event::{AlarmKey, Event, RelayMark, Report};
use klaxon_schemas::ids::{AlarmId, Position};
use klaxon_schemas::names::{Actor, AlarmType, ChildName, Producer, Qualifier, Text};
use klaxon_schemas::resource::Resource;
use klaxon_schemas::severity::Severity;
use klaxon_schemas::state::StateKey;
use klaxon_schemas::time::Timestamp;

use crate::engine::{Cause, Engine, Moment};
use crate::output::{Disposition, Output};

/// Who enrolled a child if nobody is named.
const NOBODY: &str = "klaxon";

/// What this node itself says of a child.
#[derive(Clone, Copy)]
enum About {
    Silence,
    Doubled,
}

impl Engine {
    /// Something became of a child.
    pub(crate) fn child(&mut self, moment: &Moment<'_>, fact: &Arc<ChildFact>, out: &mut Output) -> Disposition {
        self.take_fact(moment, fact, out).unwrap_or_else(Disposition::NotTaken)
    }

    fn take_fact(&mut self, moment: &Moment<'_>, fact: &ChildFact, out: &mut Output) -> Result<Disposition, NotTaken> {
        let name = &fact.child;
        let known = self.children.get(name).filter(|child| child.retired.is_none()).cloned();
        if matches!(fact.what, ChildEvent::Enrolled { .. }) {
            return self.enrol(moment, fact, known, out);
        }
        let Some(known) = known else { return Err(NotTaken::UnknownChild { child: name.clone() }) };
        let kind = known.kind;
        let mut child = Child::clone(&known);
        let step = match &fact.what {
            ChildEvent::Enrolled { .. } => None,
            ChildEvent::Joined { credential } => {
                child.join = None;
                add_credential(&mut child, credential.clone());
                Some(ChildStep::Joined)
            }
            ChildEvent::Approved if !child.awaits_approval => return Ok(Disposition::Duplicate),
            ChildEvent::Approved => {
                child.awaits_approval = false;
                Some(ChildStep::Approved)
            }
            ChildEvent::Rotated { credential, others_until } => {
                for other in &mut child.credentials {
                    other.until = Some(other.until.map_or(*others_until, |until| until.min(*others_until)));
                }
                child.credentials.retain(|other| other.until.is_none_or(|until| until > moment.wall));
                add_credential(&mut child, credential.clone());
                None
            }
            ChildEvent::Connected { node, version, connection } => {
                child.node = Some(*node);
                child.connection.clone_from(connection);
                child.version = Some(version.clone());
                child.last_heard_at = Some(moment.wall);
                child.moved = None;
                let was_silent = child.silent_since.take().is_some();
                if was_silent {
                    self.withdraw(moment, name, kind, About::Silence, "It is heard from again.", out);
                }
                was_silent.then_some(ChildStep::Heard)
            }
            // One that was never there, or went elsewhere, is missed by nobody.
            ChildEvent::Silent { .. } if child.silent_since.is_some() || child.node.is_none() => {
                return Ok(Disposition::Duplicate);
            }
            ChildEvent::Silent { since } => {
                child.silent_since = Some(*since);
                let text = format!("Nothing has been heard of {name} since {since}.");
                self.declare(moment, name, kind, About::Silence, &text, out);
                Some(ChildStep::Silent)
            }
            ChildEvent::Doubled { from } => {
                let text = format!("Another node says that it is {name}, from {from}; it is refused.");
                self.declare(moment, name, kind, About::Doubled, &text, out);
                None
            }
            ChildEvent::Single => {
                self.withdraw(moment, name, kind, About::Doubled, "No other node says so any more.", out);
                None
            }
            ChildEvent::Moved { to } => {
                child.moved = Some(Moved { to: to.clone(), at: moment.wall, may_return: false });
                child.silent_since = child.silent_since.or(Some(moment.wall));
                self.withdraw_all(moment, name, kind, "It has another node above it now.", out);
                Some(ChildStep::Moved)
            }
            ChildEvent::Passed { lost, .. } => {
                if let Some(mark) = fact.passed()
                    && self.note_relayed(moment, &mark, out)?
                {
                    return Ok(Disposition::Duplicate);
                }
                if *lost > 0 {
                    let lost = Meanwhile { from: moment.wall, until: moment.wall, lost: *lost, ..Meanwhile::default() };
                    self.note_child(moment, name, kind, ChildStep::CaughtUp(lost), None, out);
                }
                return Ok(Disposition::Applied);
            }
            ChildEvent::Retired => {
                child.retired = Some(moment.wall);
                (child.join, child.credentials) = (None, Vec::new());
                self.withdraw_all(moment, name, kind, "It was retired.", out);
                Some(ChildStep::Retired)
            }
        };
        if child != *known {
            self.put_child(name, child, out);
        }
        if let Some(step) = step {
            self.note_child(moment, name, kind, step, fact.actor.clone(), out);
        }
        Ok(Disposition::Applied)
    }

    fn enrol(
        &mut self,
        moment: &Moment<'_>,
        fact: &ChildFact,
        known: Option<Arc<Child>>,
        out: &mut Output,
    ) -> Result<Disposition, NotTaken> {
        let ChildEvent::Enrolled { kind, join, needs_approval } = &fact.what else { return Ok(Disposition::Applied) };
        let name = &fact.child;
        if kind.owns() && site_of(name) == self.site {
            return Err(NotTaken::OwnName { child: name.clone() });
        }
        let enrolled_by = fact.actor.clone().unwrap_or_else(|| Actor::new(NOBODY).expect("is a name"));
        let child = match known {
            // What it owns, or reports, cannot become another's; and what it relays would be nobody's.
            Some(known) if known.kind != *kind && (known.kind, *kind) != (ChildKind::Site, ChildKind::Region) => {
                return Err(NotTaken::OtherKind { child: name.clone() });
            }
            Some(known) => Child {
                kind: *kind,
                enrolled_by,
                enrolled_at: moment.wall,
                join: join.clone(),
                awaits_approval: *needs_approval,
                credentials: Vec::new(),
                moved: known.moved.clone().map(|moved| Moved { may_return: true, ..moved }),
                ..Child::clone(&known)
            },
            // The name of one that is being forgotten is free when that is done.
            None if self.children.contains_key(name) => return Err(NotTaken::UnknownChild { child: name.clone() }),
            None if self.children.len() >= self.settings.children_max => {
                return Err(NotTaken::ChildLimit { limit: self.settings.children_max });
            }
            None => Child {
                kind: *kind,
                enrolled_by,
                enrolled_at: moment.wall,
                join: join.clone(),
                awaits_approval: *needs_approval,
                credentials: Vec::new(),
                node: None,
                version: None,
                connection: None,
                reached: None,
                meanwhile: None,
                last_heard_at: None,
                silent_since: None,
                moved: None,
                retired: None,
                below: Arc::default(),
            },
        };
        self.put_child(name, child, out);
        self.note_child(moment, name, *kind, ChildStep::Enrolled, fact.actor.clone(), out);
        Ok(Disposition::Applied)
    }

    /// Puts a step in a child's life into history.
    pub(crate) fn note_child(
        &mut self,
        moment: &Moment<'_>,
        name: &ChildName,
        kind: ChildKind,
        what: ChildStep,
        actor: Option<Actor>,
        out: &mut Output,
    ) {
        let cause = Cause { actor, ..Cause::new(ChangeKind::Child, &[moment.reason()]) };
        let note = ChildNote { name: name.clone(), kind, what };
        self.emit(moment, cause, Subject::Child(Arc::new(note)), out);
    }

    /// Raises what this node says of a child.
    fn declare(&mut self, moment: &Moment<'_>, name: &ChildName, kind: ChildKind, about: About, text: &str, out: &mut Output) {
        let severity = about.severity(kind);
        let event = self.own_event(name, kind, about, Report::Raise(severity), text);
        let key = self.canonical(&event.key);
        self.raise(moment, key, &event, severity, out);
    }

    /// Ends what this node says of a child, if it says so.
    fn withdraw(&mut self, moment: &Moment<'_>, name: &ChildName, kind: ChildKind, about: About, text: &str, out: &mut Output) {
        let event = self.own_event(name, kind, about, Report::Clear, text);
        let key = self.canonical(&event.key);
        if let Some(alarm) = self.find(&key).filter(|alarm| alarm.is_active()).cloned() {
            self.clear_reported(moment, &alarm, &event, out);
        }
    }

    fn withdraw_all(&mut self, moment: &Moment<'_>, name: &ChildName, kind: ChildKind, text: &str, out: &mut Output) {
        for about in [About::Silence, About::Doubled] {
            self.withdraw(moment, name, kind, about, text, out);
        }
    }

    fn own_event(&self, name: &ChildName, kind: ChildKind, about: About, report: Report, text: &str) -> Event {
        let key = AlarmKey {
            site: if kind.owns() { site_of(name) } else { self.site.clone() },
            resource: resource_of(name, kind),
            alarm_type: AlarmType::new(about.alarm_type(kind)).expect("is a type"),
            qualifier: Qualifier::new("").expect("may be empty"),
        };
        let text = Text::lossy(text).unwrap_or_else(|_| Text::new("").expect("may be empty"));
        Event::new(key, report, text).of(Producer::new("klaxon").expect("is a name"))
    }

    /// Takes note that what an agent relays has come in up to a place; whether it had come before.
    pub(crate) fn note_relayed(&mut self, moment: &Moment<'_>, mark: &RelayMark, out: &mut Output) -> Result<bool, NotTaken> {
        let Some(before) = self.relayed_behind(mark)? else { return Ok(true) };
        let missing = before.reached.as_ref().map(|reached| reached.missing.clone()).unwrap_or_default();
        let reached = Reached { epoch: mark.epoch, position: mark.position, fingerprint: 0, missing };
        let child = Child { reached: Some(reached), last_heard_at: Some(moment.wall), ..Child::clone(&before) };
        self.put_child(&mark.child, child, out);
        Ok(false)
    }

    /// The agent that relays an event which has not come before.
    pub(crate) fn relayed_behind(&self, mark: &RelayMark) -> Result<Option<Arc<Child>>, NotTaken> {
        let name = || mark.child.clone();
        let known = self.children.get(&mark.child).filter(|child| child.retired.is_none());
        let known = known.ok_or_else(|| NotTaken::UnknownChild { child: name() })?;
        if known.kind.owns() {
            return Err(NotTaken::OtherKind { child: name() });
        }
        if known.awaits_approval {
            return Err(NotTaken::AwaitsApproval { child: name() });
        }
        match &known.reached {
            Some(reached) if reached.epoch > mark.epoch => Err(NotTaken::OtherEpoch { is: mark.epoch, known: reached.epoch }),
            Some(reached) if reached.epoch == mark.epoch && mark.position <= reached.position => Ok(None),
            known_up_to => {
                let of_this = known_up_to.as_ref().filter(|reached| reached.epoch == mark.epoch);
                let reached = of_this.map(|reached| reached.position).unwrap_or_default();
                match mark.after {
                    Some(after) if mark.is_out_of_place(reached) => Err(NotTaken::OutOfPlace { after, reached }),
                    _ => Ok(Some(Arc::clone(known))),
                }
            }
        }
    }

    /// A child is like this from now on.
    pub(crate) fn note_record(&mut self, name: &ChildName, child: Arc<Child>) {
        if child.retired.is_some() {
            self.retired.insert(name.clone());
        } else {
            self.retired.remove(name);
        }
        self.children.insert(name.clone(), child);
    }

    /// Forgets up to `bound` of what retired children left behind.
    pub(crate) fn sweep_retired(&mut self, moment: &Moment<'_>, bound: usize, out: &mut Output) {
        let mut left = bound;
        while left > 0 {
            let Some(name) = self.retired.first().cloned() else { return };
            let Some(kind) = self.children.get(&name).map(|child| child.kind) else {
                self.retired.remove(&name);
                continue;
            };
            left -= self.give_up_pending(moment, &name, left, out);
            let ids = if kind.owns() { self.mirror.some_of(&name, left) } else { self.reported_via(&name, left) };
            left -= ids.len();
            for id in ids {
                let cause = Cause::new(ChangeKind::Retired, &[moment.reason()]);
                match self.alarms.get(&id).cloned() {
                    None => self.retire_mirrored(moment, id, cause, out),
                    Some(alarm) => self.retire(moment, Alarm::clone(&alarm), ClearedBy::Realignment, cause, out),
                }
            }
            if left > 0 {
                self.retired.remove(&name);
                if self.children.remove(&name).is_some_and(|child| !child.below.is_empty()) {
                    out.delete(StateKey::Below(name.clone()));
                }
                out.delete(StateKey::Child(name));
            }
        }
    }

    /// The engine broke on forgetting what a retired child left behind: it is kept as one that is silent, and can be retired anew.
    pub(crate) fn keep_retired(&mut self, moment: &Moment<'_>, out: &mut Output) {
        let Some(name) = self.retired.first().cloned() else { return };
        let Some(child) = self.children.get(&name).map(|child| Child::clone(child)) else { return };
        let silent_since = child.silent_since.or(Some(moment.wall));
        self.put_child(&name, Child { retired: None, silent_since, ..child }, out);
    }

    /// At most `limit` of this node's own alarms that an agent was the last to report, in a fixed order.
    fn reported_via(&self, agent: &ChildName, limit: usize) -> Vec<AlarmId> {
        let via = self.alarms.values().filter(|alarm| alarm.via.as_ref() == Some(agent));
        let mut ids: Vec<_> = via.map(|alarm| alarm.id).collect();
        ids.sort_unstable();
        ids.truncate(limit);
        ids
    }

    /// When a node below was heard last.
    pub fn child_heard_at(&self, name: &ChildName) -> Option<Timestamp> {
        self.children.get(name)?.last_heard_at
    }

    /// How far what an agent sent has come in.
    pub fn child_reached(&self, child: &ChildName) -> Option<Position> {
        self.children.get(child)?.reached.as_ref().map(|reached| reached.position)
    }
}

impl About {
    fn alarm_type(self, kind: ChildKind) -> &'static str {
        match self {
            Self::Doubled => "klaxon.site.doubled",
            Self::Silence if kind.owns() => "klaxon.site.silent",
            Self::Silence => "klaxon.agent.silent",
        }
    }

    fn severity(self, kind: ChildKind) -> Severity {
        match self {
            Self::Silence if kind.owns() => Severity::Critical,
            Self::Silence | Self::Doubled => Severity::Major,
        }
    }
}

fn resource_of(name: &ChildName, kind: ChildKind) -> Resource {
    let class = if kind.owns() { "site" } else { "host" };
    Resource::new(&format!("{class}={name}")).unwrap_or_else(|_| Resource::new(class).expect("is a resource"))
}

fn add_credential(child: &mut Child, credential: klaxon_schemas::child::Credential) {
    child.credentials.retain(|other| other.hash != credential.hash);
    child.credentials.push(credential);
    let over = child.credentials.len().saturating_sub(CREDENTIALS_MAX);
    child.credentials.drain(..over);
}
