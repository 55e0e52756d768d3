//! A rule, and the event that it makes of a trap.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;
use klaxon_schemas::event::Report;
use klaxon_schemas::names::{AlarmType, AttributeName, ProbableCause, Qualifier, Text};
use klaxon_schemas::resource::Resource;
use klaxon_schemas::severity::{EventType, Perceived};

use super::matcher::{Condition, Miss, Pattern};
use super::template::{Choice, Missing, Purpose, Scene, Template};

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Raise,
    Clear,
    Log,
}

/// One for all, or by the value of a field.
#[derive(Debug, Clone)]
pub(super) enum Choose<T> {
    Fixed(T),
    By(Arc<Table<T>>),
}

/// What it is for which value.
#[derive(Debug)]
pub(super) struct Table<T> {
    pub(super) field: Choice,
    pub(super) rows: BTreeMap<String, T>,
    pub(super) otherwise: Option<T>,
}

/// A rule of a file.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) name: String,
    /// The line on which it begins.
    pub(super) line: usize,
    pub(super) patterns: Vec<Pattern>,
    pub(super) from: Vec<IpNet>,
    pub(super) when: Vec<Condition>,
    pub(super) action: Action,
    /// Of what is raised and of what is logged.
    pub(super) severity: Choose<Perceived>,
    pub(super) key: Key,
    /// The rule whose alarm it clears.
    pub(super) clears: Option<String>,
    pub(super) text: Template,
    pub(super) attributes: Vec<(AttributeName, Template)>,
    /// Variables that have no attribute by their OID, whatever their instance.
    pub(super) leave_out: Vec<Box<[u32]>>,
    pub(super) event_type: Option<EventType>,
    pub(super) probable_cause: Option<ProbableCause>,
    pub(super) repair_action: Option<Text>,
}

/// What an alarm is known by. A rule that clears has the key of the one that raises.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) resource: Arc<Template>,
    pub(super) alarm_type: Choose<AlarmType>,
    pub(super) qualifier: Arc<Template>,
}

/// What a rule makes of a trap.
#[derive(Debug)]
pub(in crate::trap) struct Mapped<'r> {
    pub(in crate::trap) resource: Resource,
    pub(in crate::trap) alarm_type: AlarmType,
    pub(in crate::trap) qualifier: Qualifier,
    pub(in crate::trap) report: Report,
    pub(in crate::trap) text: Text,
    pub(in crate::trap) attributes: Vec<(&'r AttributeName, String)>,
    pub(in crate::trap) leave_out: &'r [Box<[u32]>],
    pub(in crate::trap) event_type: Option<EventType>,
    pub(in crate::trap) probable_cause: Option<&'r ProbableCause>,
    pub(in crate::trap) repair_action: Option<&'r Text>,
}

impl Rule {
    /// What it makes of a trap that one of its patterns is for, or why it does not take it.
    pub(super) fn apply<'r>(&'r self, scene: &Scene<'r>) -> Result<Mapped<'r>, Miss<'r>> {
        if !self.from.is_empty() && !self.from.iter().any(|network| network.contains(&scene.subject.address)) {
            return Err(Miss::From(&self.from));
        }
        self.when.iter().try_for_each(|condition| condition.check(scene))?;
        let missing = |what: &'static str| move |Missing(field): Missing<'r>| Miss::Missing { what, field };
        let resource = self.key.resource.fill(scene, Purpose::Resource).map_err(missing("resource"))?;
        let resource = Resource::new(&resource).map_err(|error| unsound("resource", &error))?;
        let qualifier = self.key.qualifier.fill(scene, Purpose::Key).map_err(missing("qualifier"))?;
        // An OID may be longer than a qualifier; its first arcs say most.
        let qualifier = Qualifier::new(whole_arcs(&qualifier)).map_err(|error| unsound("qualifier", &error))?;
        let alarm_type = self.key.alarm_type.get("alarm_type", scene)?.clone();
        let report = match (self.action, &self.severity) {
            (Action::Clear, _) => Report::Clear,
            (action, severity) => match (severity.get("severity", scene)?, action) {
                (Perceived::Cleared, _) => Report::Clear,
                (Perceived::Raised(severity), Action::Log) => Report::Log(*severity),
                (Perceived::Raised(severity), _) => Report::Raise(*severity),
            },
        };
        let text = self.text.fill(scene, Purpose::Text).unwrap_or_default();
        let attribute = |(name, template): &'r (AttributeName, Template)| {
            // What is not there has no attribute, and neither has what is empty.
            Some((name, template.fill(scene, Purpose::Attribute).ok()?))
        };
        Ok(Mapped {
            resource,
            alarm_type,
            qualifier,
            report,
            text: Text::lossy(&text).expect("may be empty"),
            attributes: self.attributes.iter().filter_map(attribute).collect(),
            leave_out: &self.leave_out,
            event_type: self.event_type,
            probable_cause: self.probable_cause.as_ref(),
            repair_action: self.repair_action.as_ref(),
        })
    }
}

impl<T> Choose<T> {
    fn get<'r>(&'r self, what: &'static str, scene: &Scene<'r>) -> Result<&'r T, Miss<'r>> {
        let table = match self {
            Self::Fixed(value) => return Ok(value),
            Self::By(table) => table,
        };
        let all = table.field.all(scene);
        let row = all.iter().find_map(|value| table.rows.get(&**value)).or(table.otherwise.as_ref());
        let found = || all.first().map(|value| value.clone().into_owned());
        row.ok_or_else(|| Miss::NoRow { what, field: &table.field.text, found: found() })
    }
}

fn unsound<'r>(what: &'static str, error: &dyn std::error::Error) -> Miss<'r> {
    Miss::Unsound { what, reason: error.to_string() }
}

/// As much of an OID as fits into a qualifier, in whole arcs; anything else as it is.
pub(in crate::trap) fn whole_arcs(text: &str) -> &str {
    use klaxon_schemas::names::{QualifierRule, Rule as _};
    let is_oid = || text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    match text.get(..=QualifierRule::BYTES_MAX) {
        Some(too_long) if is_oid() => &text[..too_long.rfind('.').unwrap_or(0)],
        _ => text,
    }
}
