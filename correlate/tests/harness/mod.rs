//! Scenarios as text: a timeline on virtual time, and what follows from each step.
//!
//! A line `TIME VERB WORDS…` is a step; the lines under it that begin with `=>` are the changes it leads to, and with `~` the
//! alarms that were only counted. Deadlines that pass between two steps show up under a line `TIME deadline`. `alarms` lists
//! what is there, `heartbeats` who has promised to be heard from. [`check`] plays the timeline and compares it whole; then it plays it once more and builds the engine anew
//! from what was put out after every single entry, as after a kill, and the same must come of it.

#![allow(dead_code, reason = "each test uses its part of the harness")]

pub(crate) mod fleet;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use klaxon_correlate::{Disposition, Engine, Output};
use klaxon_schemas::access::{Role, TokenOrder};
use klaxon_schemas::action::{Action, AlarmVerb, Matcher, ShelfOrder, Target, Verb};
use klaxon_schemas::alarm::Alarm;
use klaxon_schemas::catalogue::Catalogue;
use klaxon_schemas::change::{Change, ChangeKind, Reason, Subject};
use klaxon_schemas::child::NotTaken;
use klaxon_schemas::entry::{Entry, EntryKind, Started};
use klaxon_schemas::event::{AlarmKey, Details, Event, Lease, Origin, Report, SpanRule};
use klaxon_schemas::ids::{ActionId, AlarmId, Epoch, Position, Sequence};
use klaxon_schemas::labels::{LabelSet, Labels};
use klaxon_schemas::names::{Actor, AlarmType, Door, EventId, Producer, Qualifier, Site, Text};
use klaxon_schemas::resource::Resource;
use klaxon_schemas::severity::Severity;
use klaxon_schemas::state::{Cursor, Heartbeat, Settings, StateKey, StateRecord};
use klaxon_schemas::time::{JournalTime, Timestamp};

/// The moment at which every scenario begins.
const START_US: i64 = 1_800_000_000_000_000;

/// A node without a disk: the engine, and what it put out, folded as a store would.
pub(crate) struct Node {
    pub(crate) site: Site,
    pub(crate) engine: Engine,
    pub(crate) alarms: BTreeMap<AlarmId, Arc<Alarm>>,
    pub(crate) records: BTreeMap<StateKey, StateRecord>,
    pub(crate) changes: Vec<Arc<Change>>,
    pub(crate) now_us: i64,
    pub(crate) wall_ahead_us: i64,
    pub(crate) position: u64,
    reload_each: bool,
}

pub(crate) fn site() -> Site {
    Site::new("here").expect("valid")
}

impl Node {
    pub(crate) fn new(reload_each: bool) -> Self {
        Self::at(site(), reload_each)
    }

    /// A node of another site.
    pub(crate) fn at(site: Site, reload_each: bool) -> Self {
        let mut node = Self {
            engine: Engine::load(site.clone(), [], [], Cursor::default()),
            site,
            alarms: BTreeMap::new(),
            records: BTreeMap::new(),
            changes: Vec::new(),
            now_us: 0,
            wall_ahead_us: 0,
            position: 0,
            reload_each,
        };
        node.apply(EntryKind::Started(Started { version: "test".into(), epoch: Epoch(1), new_epoch: None, boot: None }));
        let catalogue = Arc::new(Catalogue::parse(CATALOGUE).expect("valid"));
        node.apply(EntryKind::Bundle { digest: catalogue.digest().clone(), catalogue });
        node
    }

    pub(crate) fn wall(&self) -> Timestamp {
        Timestamp::from_micros(START_US + self.now_us + self.wall_ahead_us).expect("in range")
    }

    /// Applies one entry, folds what it puts out, and compares the two.
    pub(crate) fn apply(&mut self, kind: EntryKind) -> (Vec<Arc<Change>>, Vec<Arc<Alarm>>, Disposition) {
        let outcome = self.apply_quick(kind);
        if self.reload_each {
            self.reload();
        }
        assert_eq!(self.engine.alarms(), self.alarms.values().cloned().collect::<Vec<_>>(), "what was put out is the state");
        assert_eq!(self.engine.heartbeats(), self.heartbeats().count(), "what was put out is the state");
        outcome
    }

    /// Who has promised to be heard from.
    pub(crate) fn heartbeats(&self) -> impl Iterator<Item = (&AlarmKey, &Heartbeat)> {
        self.records.iter().filter_map(|(key, record)| match (key, record) {
            (StateKey::Heartbeat(key), StateRecord::Heartbeat(heartbeat)) => Some((key, &**heartbeat)),
            _ => None,
        })
    }

    fn entry(&mut self, kind: EntryKind) -> Entry {
        self.position += 1;
        let at = JournalTime(u64::try_from(START_US + self.now_us).expect("positive"));
        let door = Door::new("test").expect("valid");
        Entry { position: Position(self.position), at, wall: self.wall(), door, kind }
    }

    /// Puts one entry aside, as if the engine had broken on it.
    pub(crate) fn quarantine(&mut self, kind: EntryKind) -> Option<NotTaken> {
        let entry = self.entry(kind);
        let mut out = Output::default();
        let broke = self.engine.quarantine(&entry, Text::new("broken").expect("valid"), &mut out);
        self.fold(&mut out);
        broke
    }

    /// Applies one entry, and folds what it puts out.
    pub(crate) fn apply_quick(&mut self, kind: EntryKind) -> (Vec<Arc<Change>>, Vec<Arc<Alarm>>, Disposition) {
        let entry = self.entry(kind);
        let mut out = Output::default();
        let disposition = self.engine.apply(&entry, &mut out);
        let (changes, touched) = self.fold(&mut out);
        (changes, touched, disposition)
    }

    /// Applies one entry; tells all that it put out, and what it itself led to.
    pub(crate) fn apply_telling(&mut self, kind: EntryKind) -> (Vec<Arc<Change>>, Vec<Arc<Change>>) {
        let entry = self.entry(kind);
        let mut out = Output::default();
        self.engine.apply(&entry, &mut out);
        let own = out.own_changes().to_vec();
        (self.fold(&mut out).0, own)
    }

    fn fold(&mut self, out: &mut Output) -> (Vec<Arc<Change>>, Vec<Arc<Alarm>>) {
        let results = out.take(&self.engine);
        for change in results.changes.iter().filter(|change| !change.past) {
            if let Subject::Alarm { alarm, .. } = &change.subject {
                if matches!(change.kind, ChangeKind::Retired | ChangeKind::Purged) {
                    self.alarms.remove(&alarm.id);
                } else {
                    self.alarms.insert(alarm.id, Arc::clone(alarm));
                }
            }
        }
        for alarm in &results.touched {
            self.alarms.insert(alarm.id, Arc::clone(alarm));
        }
        for (key, record) in results.puts {
            match record {
                Some(record) => self.records.insert(key, record),
                None => self.records.remove(&key),
            };
        }
        self.changes.extend(results.changes.iter().cloned());
        (results.changes, results.touched)
    }

    pub(crate) fn reload(&mut self) {
        let records = self.records.clone();
        self.engine = Engine::load(self.site.clone(), self.alarms.values().cloned(), records, self.engine.cursor().clone());
    }

    /// Lets time pass up to `to_us`; each deadline is an entry at its own time, as on a node that is awake.
    pub(crate) fn pass(&mut self, to_us: i64, mut each: impl FnMut(&mut Self, Vec<Arc<Change>>)) {
        let end = JournalTime(u64::try_from(START_US + to_us).expect("positive"));
        while let Some(due) = self.engine.next_deadline().filter(|due| *due <= end) {
            self.now_us = self.now_us.max(i64::try_from(due.0).expect("in range") - START_US);
            let (changes, ..) = self.apply(EntryKind::Deadline);
            each(self, changes);
        }
        self.now_us = to_us;
    }
}

pub(crate) const CATALOGUE: &str = r#"
[[alarm_type]]
id = "disk.full"
starlingx_id = "100.104"
title = "t"
event_type = "processing-error"
probable_cause = "x"
severities = ["major"]
text = "t"
repair_action = "r"

[[alarm_type]]
id = "boot"
title = "t"
event_type = "equipment"
probable_cause = "x"
severities = ["warning"]
will_clear = false
text = "t"
repair_action = "r"

[[alarm_type]]
id = "intrusion"
title = "t"
event_type = "other"
probable_cause = "x"
severities = ["warning"]
will_clear = false
lifetime_s = 60
text = "t"
repair_action = "r"
"#;

/// Plays a timeline and compares what comes of it.
pub(crate) fn check(timeline: &str) {
    let wanted: String = timeline.lines().map(|line| line.trim().to_owned() + "\n").collect::<String>().trim().to_owned();
    for reload_each in [false, true] {
        let got = play(&wanted, reload_each);
        assert!(got.trim() == wanted, "with reload_each {reload_each} came:\n{got}\n\nwanted:\n{wanted}");
    }
}

fn play(timeline: &str, reload_each: bool) -> String {
    let mut node = Node::new(reload_each);
    let mut told = String::new();
    let mut is_away = false;
    for line in timeline.lines() {
        if line.starts_with("=>") || line.starts_with(['~', '-', '!', '+']) {
            continue;
        }
        if line.is_empty() || line.starts_with('#') {
            writeln!(told, "{line}").expect("writes");
            continue;
        }
        if line == "alarms" {
            writeln!(told, "{line}").expect("writes");
            list(&node, &mut told);
            continue;
        }
        if line == "heartbeats" {
            writeln!(told, "{line}").expect("writes");
            for (key, heartbeat) in node.heartbeats() {
                let state = if heartbeat.lost_at.is_some() { "lost" } else { "kept" };
                writeln!(told, "+ {} every {} {} {state}", name(key), heartbeat.every_s, heartbeat.severity).expect("writes");
            }
            continue;
        }
        let (time, command) = line.split_once(' ').unwrap_or((line, "pass"));
        if let Some(away) = command.strip_prefix("away ") {
            // The node is down: time passes, and nothing fires.
            node.now_us = duration_us(time) + duration_us(away);
            is_away = true;
            writeln!(told, "{line}").expect("writes");
            continue;
        }
        // A node that was away begins with its start, whatever is due.
        if !std::mem::take(&mut is_away) {
            node.pass(duration_us(time), |node, changes| {
                if !changes.is_empty() {
                    writeln!(told, "{} deadline", seconds(node.now_us)).expect("writes");
                    render(&changes, &[], &mut told);
                }
            });
        }
        if command == "deadline" {
            continue;
        }
        writeln!(told, "{line}").expect("writes");
        let Some(kind) = parse(&mut node, command) else { continue };
        let (changes, touched, disposition) = node.apply(kind);
        render(&changes, &touched, &mut told);
        if disposition != Disposition::Applied {
            writeln!(told, "! {disposition:?}").expect("writes");
        }
    }
    told
}

fn list(node: &Node, told: &mut String) {
    let mut alarms: Vec<_> = node.alarms.values().collect();
    alarms.sort_by(|left, right| left.key.cmp(&right.key));
    for alarm in alarms {
        let mut line = format!("- {} {} x{} episode {}", name(&alarm.key), alarm.severity, alarm.count, alarm.raise_seq);
        for (word, is_so) in [
            (" cleared", !alarm.is_active()),
            (" acknowledged", alarm.acknowledged.is_some()),
            (" shelved", alarm.shelved.is_some()),
            (" stale", alarm.stale.is_some()),
        ] {
            if is_so {
                line.push_str(word);
            }
        }
        writeln!(told, "{line}").expect("writes");
    }
}

fn render(changes: &[Arc<Change>], touched: &[Arc<Alarm>], told: &mut String) {
    for change in changes {
        let kind = serde_json::to_value(change.kind).expect("a word");
        let kind = kind.as_str().expect("a word");
        let mut line = match &change.subject {
            Subject::Alarm { alarm, previous_severity } => {
                let before = previous_severity.map(|severity| format!(" from {severity}")).unwrap_or_default();
                format!("=> {kind} {} {}{before}", name(&alarm.key), alarm.severity)
            }
            Subject::Event { event, without_effect, .. } => {
                let why = without_effect.map(|why| format!(" {why:?}")).unwrap_or_default();
                format!("=> {kind} {}{why}", name(&event.key))
            }
            Subject::Shelf(shelf) => format!("=> {kind} {:?}", shelf.phase),
            Subject::Suppression { alarm_type, .. } => format!("=> {kind} {alarm_type}"),
            Subject::Refusal(refusal) => format!("=> {kind} {:?}", refusal.reason),
            Subject::Child(note) => format!("=> {kind} {} {:?}", note.name, note.what),
            Subject::Token(note) => format!("=> {kind} {} {}", note.name, note.role),
            Subject::Quarantine { entry, .. } => format!("=> {kind} {entry}"),
        };
        for reason in &change.reasons {
            match reason {
                Reason::Timer(timer) => write!(line, " [{timer:?}]").expect("writes"),
                Reason::Shelf(_) => line.push_str(" [shelf]"),
                Reason::Entry(_) | Reason::Action(_) => {}
            }
        }
        if let Some(actor) = &change.actor {
            write!(line, " by {actor}").expect("writes");
        }
        writeln!(told, "{line}").expect("writes");
    }
    for alarm in touched {
        writeln!(told, "~ {} x{}", name(&alarm.key), alarm.count).expect("writes");
    }
}

pub(crate) fn name(key: &AlarmKey) -> String {
    let qualifier = if key.qualifier.is_empty() { String::new() } else { format!("/{}", key.qualifier) };
    format!("{} {}{qualifier}", key.resource, key.alarm_type)
}

fn seconds(us: i64) -> String {
    format!("{}s", us / 1_000_000)
}

/// `90s`, `5m`, `24h`, `365d`, with a sign.
pub(crate) fn duration_us(text: &str) -> i64 {
    let (number, unit) = text.split_at(text.len() - 1);
    let number: i64 = number.parse().unwrap_or_else(|_| panic!("no time: {text}"));
    number
        * 1_000_000
        * match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 24 * 3600,
            _ => panic!("no unit of time: {text}"),
        }
}

/// The words of a command: what stands in its order, and what is named.
struct Words<'a> {
    plain: Vec<&'a str>,
    named: BTreeMap<&'a str, &'a str>,
}

const NAMES: [&str; 27] = [
    "span",
    "labels",
    "starts",
    "amends",
    "reason",
    "producer",
    "seq",
    "id",
    "lease",
    "ends",
    "time",
    "qualifier",
    "text",
    "by",
    "until",
    "episode",
    "expires",
    "to",
    "match",
    "type",
    "purge",
    "cleared",
    "active",
    "every",
    "heartbeats",
    "ordered",
    "site",
];

fn words(command: &str) -> Words<'_> {
    let mut words = Words { plain: Vec::new(), named: BTreeMap::new() };
    for word in command.split_whitespace() {
        match word.split_once(':') {
            Some((name, value)) if NAMES.contains(&name) => {
                words.named.insert(name, value);
            }
            _ => words.plain.push(word),
        }
    }
    words
}

pub(crate) fn parse(node: &mut Node, command: &str) -> Option<EntryKind> {
    let words = words(command);
    Some(match words.plain[..] {
        ["pass"] => return None,
        ["restart"] => {
            node.reload();
            EntryKind::Started(Started { version: "test".into(), epoch: Epoch(1), new_epoch: None, boot: None })
        }
        ["clock", by] => {
            node.wall_ahead_us += duration_us(by);
            EntryKind::ClockStep { micros: duration_us(by) }
        }
        ["settings"] => {
            let mut settings = Settings::default();
            for (name, value) in &words.named {
                match *name {
                    "purge" => {
                        settings.purge_cleared_after_s = u64::try_from(duration_us(value) / 1_000_000).expect("positive");
                    }
                    "cleared" => settings.cleared_max = value.parse().expect("a number"),
                    "active" => settings.active_alarms_max = value.parse().expect("a number"),
                    "heartbeats" => settings.heartbeats_max = value.parse().expect("a number"),
                    other => panic!("no setting: {other}"),
                }
            }
            EntryKind::Settings(settings)
        }
        ["raise", resource, alarm_type, severity] => {
            event(node, &words, resource, alarm_type, Report::Raise(severity.parse().expect("a severity")))
        }
        ["clear", resource, alarm_type] if !words.named.contains_key("by") => {
            event(node, &words, resource, alarm_type, Report::Clear)
        }
        ["beat", resource, alarm_type] => beat(node, &words, resource, alarm_type, Severity::Major),
        ["beat", resource, alarm_type, severity] => {
            beat(node, &words, resource, alarm_type, severity.parse().expect("a severity"))
        }
        ["log", resource, alarm_type] => event(node, &words, resource, alarm_type, Report::Log(Severity::Warning)),
        _ => EntryKind::Action(Arc::new(action(node, &words))),
    })
}

fn later(node: &Node, text: &str) -> Timestamp {
    node.wall().saturating_add_micros(duration_us(text))
}

pub(crate) fn lease(text: &str) -> Lease {
    Lease::new(u32::try_from(duration_us(text) / 1_000_000).expect("positive")).expect("in bounds")
}

fn beat(node: &Node, words: &Words<'_>, resource: &str, alarm_type: &str, severity: Severity) -> EntryKind {
    let every = lease(words.named.get("every").expect("every"));
    event(node, words, resource, alarm_type, Report::Heartbeat { every, severity })
}

/// `labels:a=1,b=2`.
fn labels(words: &Words<'_>) -> Labels {
    let given = words.named.get("labels").into_iter().flat_map(|labels| labels.split(','));
    let pairs = given.map(|pair| pair.split_once('=').expect("name=value")).map(|(name, value)| (name.into(), value.into()));
    Labels::new(&LabelSet::new(pairs.collect())).expect("valid")
}

fn span(words: &Words<'_>) -> SpanRule {
    match words.named.get("span") {
        Some(&"merges") => SpanRule::Merges,
        Some(&"assumed") => SpanRule::Assumed,
        _ => SpanRule::Replaces,
    }
}

fn event(node: &Node, words: &Words<'_>, resource: &str, alarm_type: &str, report: Report) -> EntryKind {
    let named = |name: &str| words.named.get(name).copied();
    let sequence = named("seq").map(|number| {
        let (epoch, seq) = number.split_once('.').expect("epoch.seq");
        Sequence { epoch: epoch.parse().expect("a number"), seq: seq.parse().expect("a number") }
    });
    let producer = named("producer").or(sequence.map(|_| "p"));
    let event_time = named("time").map(|time| Timestamp::from_micros(START_US + duration_us(time)).expect("in range"));
    EntryKind::Event(Arc::new(Event {
        key: AlarmKey {
            site: node.site.clone(),
            resource: Resource::new(resource).expect("valid"),
            alarm_type: AlarmType::new(alarm_type).expect("valid"),
            qualifier: Qualifier::new(named("qualifier").unwrap_or("")).expect("valid"),
        },
        report,
        text: Text::new(named("text").unwrap_or("")).expect("valid"),
        details: Details { labels: labels(words), ..Details::default() },
        event_time,
        origin: Origin {
            producer: producer.map(|name| Producer::new(name).expect("valid")),
            sequence,
            event_id: named("id").map(|id| EventId::new(id).expect("valid")),
            relay: None,
        },
        lease: named("lease").map(lease),
        ends_at: named("ends").map(|time| later(node, time)),
        span: span(words),
        order_by_event_time: event_time.is_some() && !words.named.contains_key("span"),
    }))
}

pub(crate) fn action_id(text: &str) -> ActionId {
    ActionId(uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, text.as_bytes()))
}

fn action(node: &Node, words: &Words<'_>) -> Action {
    let named = |name: &str| words.named.get(name).copied();
    let text = |text: &str| Text::new(text).expect("valid");
    let target = |resource: &str, alarm_type: &str| {
        let alarm = node
            .alarms
            .values()
            .find(|alarm| alarm.key.resource.as_str() == resource && alarm.key.alarm_type.as_str() == alarm_type);
        let id = alarm.map_or(AlarmId(uuid::Uuid::nil()), |alarm| alarm.id);
        vec![Target { id, raise_seq: named("episode").map(|episode| episode.parse().expect("a number")) }]
    };
    let on = |resource: &str, alarm_type: &str, verb: AlarmVerb| Verb::OnAlarms(target(resource, alarm_type), verb);
    let verb = match words.plain[..] {
        ["ack", resource, alarm_type] => on(resource, alarm_type, AlarmVerb::Acknowledge { note: None }),
        ["unack", resource, alarm_type] => on(resource, alarm_type, AlarmVerb::Unacknowledge),
        ["assign", resource, alarm_type] => {
            let to = named("to").map(|to| Actor::new(to).expect("valid"));
            on(resource, alarm_type, AlarmVerb::Assign { to })
        }
        ["note", resource, alarm_type, words] => on(resource, alarm_type, AlarmVerb::Note { text: text(words) }),
        ["shelve", resource, alarm_type] => {
            let until = later(node, named("until").expect("until"));
            on(resource, alarm_type, AlarmVerb::Shelve { until, reason: text("work") })
        }
        ["unshelve", resource, alarm_type] => on(resource, alarm_type, AlarmVerb::Unshelve),
        ["clear", resource, alarm_type] => on(resource, alarm_type, AlarmVerb::Clear { note: None }),
        ["retire", resource, alarm_type] => on(resource, alarm_type, AlarmVerb::Retire { note: None }),
        ["purge", resource, alarm_type] => on(resource, alarm_type, AlarmVerb::Purge),
        ["shelf"] => Verb::AddShelf(Box::new(ShelfOrder {
            matcher: Matcher {
                site: named("site").map(|site| Site::new(site).expect("valid")),
                resource: named("match").map(|resource| Resource::new(resource).expect("valid")),
                alarm_type: named("type").map(|alarm_type| AlarmType::new(alarm_type).expect("valid")),
                labels: named("labels")
                    .into_iter()
                    .flat_map(|all| all.split(','))
                    .map(|one| one.parse().expect("valid"))
                    .collect(),
                ..Matcher::default()
            },
            until: later(node, named("until").expect("until")),
            reason: text(named("reason").unwrap_or("work")),
            starts_at: named("starts").map(|time| later(node, time)),
            created_by: None,
            amends: named("amends").map(action_id),
        })),
        ["unshelf", shelf] => Verb::RemoveShelf(action_id(shelf)),
        ["suppress", alarm_type] => Verb::Suppress { alarm_type: AlarmType::new(alarm_type).expect("valid"), reason: None },
        ["unsuppress", alarm_type] => Verb::Unsuppress { alarm_type: AlarmType::new(alarm_type).expect("valid") },
        ["token", name] => Verb::CreateToken(TokenOrder {
            name: name.parse().expect("valid"),
            role: Role::Reader,
            sites: Vec::new(),
            hash: String::new(),
            expires_at: named("until").map(|until| later(node, until)),
            note: None,
        }),
        ["untoken", name] => Verb::RevokeToken(name.parse().expect("valid")),
        _ => panic!("no such command: {:?}", words.plain),
    };
    let fallback = format!("{} {:?} {:?}", node.now_us, words.plain, words.named);
    Action {
        id: action_id(named("id").unwrap_or(&fallback)),
        actor: Actor::new(named("by").expect("by")).expect("valid"),
        from: None,
        ordered_at: named("ordered").map(|at| Timestamp::from_micros(START_US + duration_us(at)).expect("in range")),
        expires_at: named("expires").map(|expires| later(node, expires)),
        verb,
    }
}
