//! `[receivers.NAME]`: who is told of alarms, of which, and how.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use klaxon_api::notify::{
    FILTER_LIST_MAX, Filter, HEARTBEAT_MIN, RECEIVERS_MAX, REPLAY_MAX, ReceiverConfig, SinkConfig, SnmpConfig, Start,
    TypePattern,
};
use klaxon_schemas::names::{Follower, Site};
use klaxon_schemas::resource::Resource;
use klaxon_schemas::severity::Severity;
use serde::{Deserialize, Serialize};

use super::Span;
use super::collect::Mistake;
use super::webhook::WebhookForm;

/// The shortest time after which a receiver that is not reached is an alarm.
const UNREACHABLE_MIN: Span = Span::seconds(1);

/// The receivers, by name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReceiversSection(pub BTreeMap<Follower, ReceiverForm>);

/// One receiver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReceiverForm {
    /// It is told by HTTP POST.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook: Option<WebhookForm>,
    /// It is told by SNMP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snmp: Option<SnmpForm>,
    /// At least this urgent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub severity_min: Option<Severity>,
    /// Of these sites.
    pub sites: Vec<Site>,
    /// At or under these resources.
    pub resources: Vec<Resource>,
    /// Not at or under these.
    pub not_resources: Vec<Resource>,
    /// Of these types.
    pub alarm_types: Vec<TypePattern>,
    /// Not of these.
    pub not_alarm_types: Vec<TypePattern>,
    /// Also what is shelved.
    pub shelved: bool,
    /// Also what is of a suppressed type.
    pub suppressed: bool,
    /// Whether acknowledgements and the like are told; by the kind of receiver, if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updates: Option<bool>,
    /// Whether log events are told.
    pub log_events: bool,
    /// What a new receiver is told of first.
    pub start: StartForm,
    /// From which age on a backlog is folded; never, if zero.
    pub fold_after: Span,
    /// Notifications a second; as many as it takes, if zero.
    pub rate: u32,
    /// How often it hears that it can be reached; never, if zero.
    pub heartbeat: Span,
    /// Not reached for so long, it is an alarm.
    pub unreachable_after: Span,
    /// How many are kept for sending them again.
    pub replay_max: u64,
}

/// Where an SNMP manager is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnmpForm {
    /// Host and port.
    pub target: String,
}

/// What a new receiver is told of first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StartForm {
    /// What changes from then on.
    #[default]
    Now,
    /// What stands.
    Active,
}

impl Default for ReceiverForm {
    fn default() -> Self {
        Self {
            webhook: None,
            snmp: None,
            severity_min: None,
            sites: Vec::new(),
            resources: Vec::new(),
            not_resources: Vec::new(),
            alarm_types: Vec::new(),
            not_alarm_types: Vec::new(),
            shelved: false,
            suppressed: false,
            updates: None,
            log_events: false,
            start: StartForm::Now,
            fold_after: Span::seconds(60),
            rate: 0,
            heartbeat: Span::seconds(0),
            unreachable_after: Span::seconds(300),
            replay_max: 4096,
        }
    }
}

impl ReceiversSection {
    /// As the receivers take it.
    pub fn build(&self) -> Result<Vec<ReceiverConfig>, Mistake> {
        if self.0.len() > RECEIVERS_MAX {
            let reason = format!("there are {}, at most {RECEIVERS_MAX} are allowed", self.0.len());
            return Err(("receivers".to_owned(), reason));
        }
        self.0.iter().map(|(name, form)| form.build(name)).collect()
    }
}

impl ReceiverForm {
    /// Where it is told; or what is wrong, and with which key of the receiver.
    fn sink(&self) -> Result<SinkConfig, Mistake> {
        let wrong = |reason: &str| Err((String::new(), reason.to_owned()));
        match (&self.webhook, &self.snmp) {
            (Some(webhook), None) => match webhook.build() {
                Ok(webhook) => Ok(SinkConfig::Webhook(Box::new(webhook))),
                Err((key, reason)) => Err((format!(".webhook.{key}"), reason)),
            },
            (None, Some(snmp)) => Ok(SinkConfig::Snmp(SnmpConfig { target: snmp.target.clone() })),
            (None, None) => wrong("says neither webhook nor snmp"),
            (Some(_), Some(_)) => wrong("says both webhook and snmp; two receivers are needed for that"),
        }
    }

    fn build(&self, name: &Follower) -> Result<ReceiverConfig, Mistake> {
        let of = |key: &str, reason: String| (format!("receivers.{name}.{key}"), reason);
        let sink = self.sink().map_err(|(key, reason)| (format!("receivers.{name}{key}"), reason))?;
        let lists = [
            ("sites", self.sites.len()),
            ("resources", self.resources.len()),
            ("not_resources", self.not_resources.len()),
            ("alarm_types", self.alarm_types.len()),
            ("not_alarm_types", self.not_alarm_types.len()),
        ];
        if let Some((key, entries)) = lists.into_iter().find(|(_, entries)| *entries > FILTER_LIST_MAX) {
            return Err(of(key, format!("has {entries} entries, at most {FILTER_LIST_MAX} are allowed")));
        }
        if self.heartbeat != Span::seconds(0) && self.heartbeat < Span(HEARTBEAT_MIN) {
            return Err(of("heartbeat", format!("must be at least {}s, or 0s for none", HEARTBEAT_MIN.as_secs())));
        }
        if self.unreachable_after < UNREACHABLE_MIN {
            return Err(of("unreachable_after", "must be at least 1s".to_owned()));
        }
        if !(1..=REPLAY_MAX).contains(&self.replay_max) {
            return Err(of("replay_max", format!("must be between 1 and {REPLAY_MAX}")));
        }
        let unless_zero = |span: Span| (span.0 > Duration::ZERO).then_some(span.0);
        Ok(ReceiverConfig {
            filter: Filter {
                severity_min: self.severity_min,
                sites: self.sites.clone(),
                resources: self.resources.clone(),
                not_resources: self.not_resources.clone(),
                alarm_types: self.alarm_types.clone(),
                not_alarm_types: self.not_alarm_types.clone(),
                shelved: self.shelved,
                suppressed: self.suppressed,
            },
            start: match self.start {
                StartForm::Now => Start::Now,
                StartForm::Active => Start::Active,
            },
            fold_after: unless_zero(self.fold_after),
            rate: NonZeroU32::new(self.rate),
            heartbeat: unless_zero(self.heartbeat),
            unreachable_after: self.unreachable_after.0,
            replay_max: self.replay_max,
            updates: self.updates.unwrap_or_else(|| sink.updates_by_default()),
            log_events: self.log_events,
            ..ReceiverConfig::new(name.clone(), sink)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, DEFAULT_FILE};
    use std::path::Path;

    fn mistake(text: &str) -> String {
        Config::parse(text, Path::new("k.toml")).expect_err("is wrong").to_string()
    }

    #[test]
    fn the_example_in_the_reference_holds_every_setting_with_its_default() {
        let from = DEFAULT_FILE.find("# [receivers.noc]").expect("is in it");
        let example = DEFAULT_FILE[from..].lines().take_while(|line| line.starts_with("# "));
        let example: String = example.map(|line| format!("{}\n", &line[2..])).collect();
        let config = Config::parse(&example, Path::new("k.toml")).expect("is right");
        let form = &config.receivers.0[&Follower::new("noc").expect("valid")];
        let url = form.webhook.clone().expect("is a webhook");
        let told = ReceiverForm {
            webhook: Some(url),
            severity_min: Some(Severity::Major),
            updates: Some(true),
            ..ReceiverForm::default()
        };
        assert_eq!(*form, told);
        let table = toml::Table::try_from(form).expect("has a TOML form");
        assert!(table.keys().all(|key| example.contains(&format!("{key} = "))), "{table:?}");
        let built = config.receivers.build().expect("is right");
        let sink = built[0].sink.clone();
        let filter = Filter { severity_min: Some(Severity::Major), ..Filter::default() };
        assert_eq!(built, [ReceiverConfig { filter, ..ReceiverConfig::new("noc".parse().expect("valid"), sink) }]);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_file_line_and_key() {
        assert_eq!(mistake("[receivers.noc]\nrate = 1\n"), "k.toml:1: receivers.noc: says neither webhook nor snmp");
        let noc = |more: &str| format!("[receivers.noc]\nwebhook = {{ url = \"http://127.0.0.1:1/\" }}\n{more}\n");
        let beat = mistake(&noc("heartbeat = \"100ms\""));
        assert_eq!(beat, "k.toml:3: receivers.noc.heartbeat: must be at least 1s, or 0s for none");
        let kept = mistake(&noc("replay_max = 100000"));
        assert_eq!(kept, "k.toml:3: receivers.noc.replay_max: must be between 1 and 65536");
        let both = mistake(&noc("snmp = { target = \"127.0.0.1:162\" }"));
        assert_eq!(both, "k.toml:1: receivers.noc: says both webhook and snmp; two receivers are needed for that");
        assert!(mistake(&noc("severity = \"major\"")).starts_with("k.toml:3: receivers.noc.severity: is no setting"));
        assert!(mistake(&noc("alarm_types = [\"*\"]")).contains("is no alarm type"));
        assert!(mistake("[receivers.\"a b\"]\nrate = 1\n").contains("has the character ' '"));
    }
}
