//! A node and the sites below it, each with an engine of its own; what a site sends is made of what its engine put out.
//!
//! A site's journal is its changes: the place of a change is its number among them, from 1.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use klaxon_correlate::Disposition;
use klaxon_schemas::alarm::{Alarm, EngineMarks};
use klaxon_schemas::change::{Change, Reason, Subject};
use klaxon_schemas::child::{ChildEvent, ChildFact, ChildKind, Digests, Relay, RelayContent, bucket_bounds};
use klaxon_schemas::entry::{EntryKind, Started};
use klaxon_schemas::ids::{AlarmId, Epoch, Position};
use klaxon_schemas::names::{Actor, ChildName, Site, Text};
use klaxon_schemas::state::{StateKey, StateRecord};
use uuid::Uuid;

use super::{Node, action_id, duration_us, name, parse};

pub(crate) fn child(name: &str) -> ChildName {
    ChildName::new(name).expect("valid")
}

/// What is sent goes through its wire form, so that only what that holds comes in.
fn over_the_wire(relay: &Relay) -> Relay {
    use klaxon_schemas::wire::v1;
    let json = serde_json::to_string(&v1::Relay::from(relay)).expect("serializes");
    serde_json::from_str::<v1::Relay>(&json).expect("reads").try_into().expect("is one")
}

/// A site below.
pub(crate) struct Below {
    pub(crate) node: Node,
    pub(crate) epoch: Epoch,
    /// Behind which place each numbering but the first began.
    epochs: Vec<(Epoch, u64)>,
    /// All that was sent, in its order.
    pub(crate) sent: Vec<Relay>,
}

/// How a site was at some time.
pub(crate) struct Backup {
    alarms: BTreeMap<AlarmId, Arc<Alarm>>,
    records: BTreeMap<StateKey, StateRecord>,
    changes: usize,
}

impl Below {
    pub(crate) fn new(name: &str) -> Self {
        let mut node = Node::at(Site::new(name).expect("valid"), false);
        node.changes.clear();
        Self { node, epoch: Epoch(1), epochs: Vec::new(), sent: Vec::new() }
    }

    pub(crate) fn last(&self) -> u64 {
        self.node.changes.len() as u64
    }

    pub(crate) fn backup(&self) -> Backup {
        Backup { alarms: self.node.alarms.clone(), records: self.node.records.clone(), changes: self.node.changes.len() }
    }

    /// Goes back to how it was, and numbers anew.
    pub(crate) fn restore(&mut self, backup: &Backup) {
        self.node.alarms = backup.alarms.clone();
        self.node.records = backup.records.clone();
        self.node.changes.truncate(backup.changes);
        self.epoch = Epoch(self.epoch.0 + 1);
        self.epochs.push((self.epoch, backup.changes as u64));
        self.node.reload();
        let started = Started { version: "test".into(), epoch: self.epoch, new_epoch: None, boot: None };
        self.node.apply(EntryKind::Started(started));
    }
}

/// A node and the sites below it.
pub(crate) struct Fleet {
    pub(crate) parent: Node,
    pub(crate) below: BTreeMap<String, Below>,
}

impl Fleet {
    pub(crate) fn new(reload_each: bool) -> Self {
        Self { parent: Node::new(reload_each), below: BTreeMap::new() }
    }

    pub(crate) fn fact(&mut self, name: &str, what: ChildEvent) -> (Vec<Arc<Change>>, Disposition) {
        let actor = Some(Actor::new("ann").expect("valid"));
        let (changes, _, disposition) =
            self.parent.apply(EntryKind::Child(Arc::new(ChildFact { child: child(name), actor, what })));
        (changes, disposition)
    }

    /// Enrols a site and lets it connect.
    pub(crate) fn add(&mut self, name: &str, kind: ChildKind) {
        self.fact(name, ChildEvent::Enrolled { kind, join: None, needs_approval: false });
        self.fact(name, ChildEvent::Connected { node: Uuid::from_u128(7), version: "1".into(), connection: None });
        self.below.insert(name.to_owned(), Below::new(name));
    }

    pub(crate) fn record(&self, name: &str) -> Option<&klaxon_schemas::child::Child> {
        match self.parent.records.get(&StateKey::Child(child(name)))? {
            StateRecord::Child(child) => Some(child),
            _ => None,
        }
    }

    /// How far what the site sent has come in, in the numbering it has now.
    pub(crate) fn position(&self, name: &str) -> Option<u64> {
        let reached = self.record(name)?.reached.as_ref()?;
        (reached.epoch == self.below[name].epoch).then_some(reached.position.0)
    }

    pub(crate) fn send(&mut self, name: &str, content: RelayContent) -> (Vec<Arc<Change>>, Disposition) {
        let below = self.below.get_mut(name).expect("is there");
        let relay = Relay { child: child(name), epoch: below.epoch, content };
        below.sent.push(relay.clone());
        self.bring(&relay)
    }

    pub(crate) fn bring(&mut self, relay: &Relay) -> (Vec<Arc<Change>>, Disposition) {
        let screened = self.parent.engine.screen_relay(relay);
        let (changes, _, disposition) = self.parent.apply(EntryKind::Relay(Arc::new(over_the_wire(relay))));
        match screened {
            Ok(true) => assert!(disposition != Disposition::Duplicate, "{relay:?}"),
            Ok(false) => assert_eq!(disposition, Disposition::Duplicate, "{relay:?}"),
            Err(why) => assert_eq!(disposition, Disposition::NotTaken(why), "{relay:?}"),
        }
        (changes, disposition)
    }

    /// The changes of a site behind one place, up to another.
    fn stretch(&self, name: &str, after: u64, upto: u64) -> Vec<Arc<Change>> {
        self.below[name].node.changes[after as usize..upto as usize].to_vec()
    }

    /// What has come since, as it happened. Tells what came of it, if something was to be sent.
    pub(crate) fn live(&mut self, name: &str) -> Option<(Vec<Arc<Change>>, Disposition)> {
        let (after, upto) = (self.position(name)?, self.below[name].last());
        let changes = self.stretch(name, after, upto);
        (after < upto)
            .then(|| self.send(name, RelayContent::Live { after: Position(after), upto: Position(upto), changes, unread: 0 }))
    }

    /// The oldest of what is missing, at most so many changes.
    pub(crate) fn history(&mut self, name: &str, most: u64) -> Option<(Vec<Arc<Change>>, Disposition)> {
        self.position(name)?;
        let span = *self.record(name)?.reached.as_ref()?.missing.first()?;
        let upto = span.upto.0.min(span.after.0.saturating_add(most));
        let changes = self.stretch(name, span.after.0, upto);
        Some(self.send(name, RelayContent::History { after: span.after, upto: Position(upto), changes, unread: 0 }))
    }

    /// The site comes again: how its alarms stand where that is not known, and that it stands so. Behind `gone`, in the middle of
    /// it, the connection ends.
    pub(crate) fn align(&mut self, name: &str, gone: usize) -> Vec<Arc<Change>> {
        let below = &self.below[name];
        let at = Position(below.last());
        let mirrored = self.parent.alarms.values().filter(|alarm| alarm.via.as_deref() == Some(name));
        let differing = Digests::of(below.node.alarms.values()).differing(&Digests::of(mirrored));
        let parts: Vec<_> = differing
            .into_iter()
            .map(|bucket| {
                let (from, to) = bucket_bounds(bucket);
                let alarms = below.node.alarms.range(from..=to).map(|(_, alarm)| Arc::clone(alarm)).collect();
                RelayContent::Alignment { at, from, to, alarms, unread: Vec::new() }
            })
            .collect();
        let known = self.record(name).and_then(|child| child.reached.as_ref());
        // What is behind the beginning of the first numbering that is not known here is not known either.
        let after = known.map_or(0, |known| {
            let newer = below.epochs.iter().filter(|(epoch, _)| *epoch > known.epoch).map(|(_, after)| *after);
            newer.chain([known.position.0]).min().unwrap_or_default()
        });
        let aligned = RelayContent::Aligned { at, after: Position(after), fingerprint: 0, below: Vec::new() };
        let mut changes = Vec::new();
        for content in parts.into_iter().chain([aligned]).take(gone) {
            let (more, disposition) = self.send(name, content);
            assert_eq!(disposition, Disposition::Applied);
            changes.extend(more);
        }
        changes
    }

    /// The alarms of a site that hold, as the node above shows them, and as the site does.
    pub(crate) fn both(&self, name: &str) -> (Vec<Alarm>, Vec<Alarm>) {
        let there = self.below[name].node.alarms.values().filter(|alarm| alarm.is_active());
        let here = self.parent.alarms.values().filter(|alarm| alarm.is_active() && alarm.via.as_deref() == Some(name));
        // How often it was reported since its last change is not told.
        let bare = |alarm: &Arc<Alarm>| Alarm {
            owner: None,
            via: None,
            count: 0,
            last_reported_at: alarm.changed_at,
            last_event_time: None,
            engine: EngineMarks::default(),
            ..Alarm::clone(alarm)
        };
        (here.map(bare).collect(), there.map(bare).collect())
    }
}

/// A report about a host of the site `s`, or an order for its alarm.
pub(crate) fn at_site(fleet: &mut Fleet, resource: usize, what: u8) {
    let command = match what {
        0 | 1 => format!("raise host=h{resource} x major"),
        2 => format!("raise host=h{resource} x minor"),
        3 => format!("clear host=h{resource} x"),
        4 => format!("ack host=h{resource} x by:bob"),
        _ => format!("purge host=h{resource} x by:bob"),
    };
    let node = &mut fleet.below.get_mut("s").expect("is there").node;
    node.now_us += 1;
    let kind = parse(node, &command).expect("is a step");
    node.apply(kind);
}

/// Plays a timeline over a fleet and compares what comes of it; then once more with the engine above built anew after every entry.
///
/// `in SITE COMMAND` is a step at a site, of which nothing is told; `up SITE align|live|history|gap|again|acted …` is what it
/// sends; `child SITE …` what becomes of it; anything else happens at the node above.
pub(crate) fn check_fleet(timeline: &str) {
    let wanted: String = timeline.lines().map(|line| line.trim().to_owned() + "\n").collect::<String>().trim().to_owned();
    for reload_each in [false, true] {
        let got = play(&wanted, reload_each);
        assert!(got.trim() == wanted, "with reload_each {reload_each} came:\n{got}\n\nwanted:\n{wanted}");
    }
}

fn play(timeline: &str, reload_each: bool) -> String {
    let mut fleet = Fleet::new(reload_each);
    let mut told = String::new();
    for line in timeline.lines() {
        if line.starts_with("=>") || line.starts_with(['-', '!', '~', '+']) {
            continue;
        }
        if line.is_empty() || line.starts_with('#') {
            writeln!(told, "{line}").expect("writes");
            continue;
        }
        if line == "alarms" {
            writeln!(told, "{line}").expect("writes");
            list(&fleet.parent, &mut told);
            continue;
        }
        let (time, command) = line.split_once(' ').unwrap_or((line, "pass"));
        let to_us = duration_us(time);
        for below in fleet.below.values_mut() {
            below.node.pass(to_us, |_, _| {});
        }
        fleet.parent.pass(to_us, |node, changes| {
            if !changes.is_empty() {
                writeln!(told, "{}s deadline", node.now_us / 1_000_000).expect("writes");
                render(&changes, &mut told);
            }
        });
        if command == "deadline" {
            continue;
        }
        writeln!(told, "{line}").expect("writes");
        let (changes, disposition) = step(&mut fleet, command);
        render(&changes, &mut told);
        if disposition != Disposition::Applied {
            writeln!(told, "! {disposition:?}").expect("writes");
        }
    }
    told
}

fn step(fleet: &mut Fleet, command: &str) -> (Vec<Arc<Change>>, Disposition) {
    let words: Vec<&str> = command.split_whitespace().collect();
    let nothing = || (Vec::new(), Disposition::Applied);
    match words[..] {
        ["in", name, ..] => {
            let command = command.splitn(3, ' ').nth(2).expect("a command");
            let node = &mut fleet.below.get_mut(name).expect("is there").node;
            if let Some(kind) = parse(node, command) {
                node.apply(kind);
            }
            nothing()
        }
        ["child", name, "site"] => {
            fleet.below.insert(name.to_owned(), Below::new(name));
            fleet.fact(name, enrolled(ChildKind::Site))
        }
        ["child", name, "region"] => {
            fleet.below.insert(name.to_owned(), Below::new(name));
            fleet.fact(name, enrolled(ChildKind::Region))
        }
        ["child", name, "agent"] => fleet.fact(name, enrolled(ChildKind::Agent)),
        ["child", name, "connected"] => {
            fleet.fact(name, ChildEvent::Connected { node: Uuid::from_u128(7), version: "1".into(), connection: None })
        }
        ["child", name, "silent"] => {
            let since = fleet.parent.wall();
            fleet.fact(name, ChildEvent::Silent { since })
        }
        ["child", name, "doubled"] => fleet.fact(name, ChildEvent::Doubled { from: Text::new("10.0.0.9").expect("valid") }),
        ["child", name, "single"] => fleet.fact(name, ChildEvent::Single),
        ["child", name, "moved"] => fleet.fact(name, ChildEvent::Moved { to: Text::new("https://other").expect("valid") }),
        ["child", name, "retired"] => fleet.fact(name, ChildEvent::Retired),
        ["up", name, "align"] => (fleet.align(name, usize::MAX), Disposition::Applied),
        ["up", name, "live"] => fleet.live(name).unwrap_or_else(nothing),
        ["up", name, "history"] => fleet.history(name, u64::MAX).unwrap_or_else(nothing),
        ["up", name, "history", most] => fleet.history(name, most.parse().expect("a number")).unwrap_or_else(nothing),
        ["up", name, "gap"] => {
            let reached = fleet.record(name).and_then(|child| child.reached.clone()).expect("something came");
            let span = *reached.missing.first().expect("something is missing");
            fleet.send(name, RelayContent::Gap { after: span.after, upto: span.upto })
        }
        ["up", name, "again"] => {
            let relay = fleet.below[name].sent.last().cloned().expect("something was sent");
            fleet.bring(&relay)
        }
        ["up", name, "first"] => {
            let relay = fleet.below[name].sent.first().cloned().expect("something was sent");
            fleet.bring(&relay)
        }
        ["up", name, "beyond"] => {
            let last = fleet.below[name].last();
            let content =
                RelayContent::Live { after: Position(last + 5), upto: Position(last + 6), changes: Vec::new(), unread: 0 };
            fleet.send(name, content)
        }
        ["up", name, "acted", id] => fleet.send(name, RelayContent::Acted { actions: vec![action_id(id)] }),
        ["down", name, id] => {
            // The pending action reaches the site.
            let key = StateKey::Pending(child(name), action_id(id));
            let Some(StateRecord::Pending(pending)) = fleet.parent.records.get(&key) else { panic!("{id} is not pending") };
            let action = Arc::clone(&pending.action);
            fleet.below.get_mut(name).expect("is there").node.apply(EntryKind::Action(action));
            nothing()
        }
        ["epoch", name] => {
            let below = fleet.below.get_mut(name).expect("is there");
            let backup = below.backup();
            below.restore(&backup);
            nothing()
        }
        _ => {
            let Some(kind) = parse(&mut fleet.parent, command) else { return nothing() };
            let (changes, _, disposition) = fleet.parent.apply(kind);
            (changes, disposition)
        }
    }
}

fn enrolled(kind: ChildKind) -> ChildEvent {
    ChildEvent::Enrolled { kind, join: None, needs_approval: false }
}

fn list(node: &Node, told: &mut String) {
    let mut alarms: Vec<_> = node.alarms.values().collect();
    alarms.sort_by(|left, right| left.key.cmp(&right.key));
    for alarm in alarms {
        let mut line = format!("- {} {} episode {}", name(&alarm.key), alarm.severity, alarm.raise_seq);
        if let Some(via) = &alarm.via {
            write!(line, " via {via}").expect("writes");
        }
        for (word, is_so) in [
            (" cleared", !alarm.is_active()),
            (" acknowledged", alarm.acknowledged.is_some()),
            (" shelved", alarm.shelved.is_some()),
        ] {
            if is_so {
                line.push_str(word);
            }
        }
        writeln!(told, "{line}").expect("writes");
    }
}

/// As [`super::check`] does, with whose number a change has and whether it is past.
fn render(changes: &[Arc<Change>], told: &mut String) {
    for change in changes {
        let kind = serde_json::to_value(change.kind).expect("a word");
        let mut line = format!("=> {}", kind.as_str().expect("a word"));
        match &change.subject {
            Subject::Alarm { alarm, .. } => {
                write!(line, " {} {}", name(&alarm.key), alarm.severity).expect("writes");
                if !alarm.is_active() {
                    line.push_str(" cleared");
                }
            }
            Subject::Event { event, without_effect, .. } => {
                write!(line, " {} {without_effect:?}", name(&event.key)).expect("writes");
            }
            Subject::Refusal(refusal) => write!(line, " {:?}", refusal.reason).expect("writes"),
            Subject::Child(note) => write!(line, " {} {}", note.name, note.what.word()).expect("writes"),
            Subject::Shelf(_) | Subject::Suppression { .. } | Subject::Quarantine { .. } | Subject::Token(_) => {}
        }
        write!(line, " {}", change.site).expect("writes");
        if change.past {
            line.push_str(" past");
        }
        for reason in &change.reasons {
            if let Reason::Timer(timer) = reason {
                write!(line, " [{timer:?}]").expect("writes");
            }
        }
        if let Some(actor) = &change.actor {
            write!(line, " by {actor}").expect("writes");
        }
        writeln!(told, "{line}").expect("writes");
    }
}

/// A step as one word and its numbers.
trait Word {
    fn word(&self) -> String;
}

impl Word for klaxon_schemas::child::ChildStep {
    fn word(&self) -> String {
        match self {
            Self::CaughtUp(meanwhile) => format!(
                "caught-up {} changes {} raised {} cleared {} lost",
                meanwhile.changes, meanwhile.raised, meanwhile.cleared, meanwhile.lost
            ),
            other => serde_json::to_value(other).expect("a word").as_str().expect("a word").to_owned(),
        }
    }
}
