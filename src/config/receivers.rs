//! `[receivers.NAME]`: who is told of alarms, of which, and how.

mod kafka;
mod snmp;
mod syslog;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use hyper::header::HeaderName;
use klaxon_api::agent::oids::Root;
use klaxon_api::notify::webhook::{BATCH_MAX, Secret, Shape, Word};
use klaxon_api::notify::{
    FILTER_LIST_MAX, Filter, GROUP_LABELS_MAX, GROUP_WAIT_MAX, GroupLabel, GroupLabelError, Grouping, HEARTBEAT_MIN,
    RECEIVERS_MAX, REPLAY_MAX, ReceiverConfig, SPAN_MAX, SinkConfig, Start, TypePattern, WebhookConfig,
};
use klaxon_schemas::names::{Follower, Site};
use klaxon_schemas::resource::Resource;
use klaxon_schemas::severity::Severity;
use klaxon_snmp::User;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use self::kafka::KafkaSection;
use self::snmp::SnmpSection;
use self::syslog::SyslogSection;
use super::units::Span;

/// A key with its section, and what is wrong with it.
type Mistake = (String, String);

/// Who is told.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReceiversSection(BTreeMap<Follower, ReceiverSection>);

/// One receiver. What is absent is as [`ReceiverConfig::new`] has it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ReceiverSection {
    filter: FilterSection,
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<StartWord>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fold_after: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    heartbeat: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unreachable_after: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replay_max: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    updates: Option<bool>,
    log_events: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<GroupSection>,
    #[serde(skip_serializing_if = "Option::is_none")]
    webhook: Option<WebhookSection>,
    #[serde(skip_serializing_if = "Option::is_none")]
    snmp: Option<SnmpSection>,
    #[serde(skip_serializing_if = "Option::is_none")]
    syslog: Option<SyslogSection>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kafka: Option<KafkaSection>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum StartWord {
    Now,
    Active,
}

/// Of what it is told.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FilterSection {
    #[serde(skip_serializing_if = "Option::is_none")]
    severity_min: Option<Severity>,
    sites: Vec<Site>,
    resources: Vec<Resource>,
    not_resources: Vec<Resource>,
    alarm_types: Vec<TypePattern>,
    not_alarm_types: Vec<TypePattern>,
    shelved: bool,
    suppressed: bool,
}

/// What is sent together.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct GroupSection {
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wait: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    interval: Option<Span>,
}

/// A webhook.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WebhookSection {
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "shown_address")]
    url: Option<Hidden>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    form: Option<Form>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<Hidden>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bearer: Option<Hidden>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bearer_file: Option<PathBuf>,
    headers: BTreeMap<String, Hidden>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    batch_max: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    external_url: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Form {
    Klaxon,
    Alertmanager,
}

/// A text that is read and never written.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hidden(Secret);

impl<'de> Deserialize<'de> for Hidden {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        klaxon_snmp::Secret::deserialize(deserializer).map(|text| Self(Secret(text.0)))
    }
}

impl Serialize for Hidden {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

fn shown_address<S: Serializer>(url: &Option<Hidden>, serializer: S) -> Result<S::Ok, S::Error> {
    let target = url.as_ref().map(|Hidden(url)| WebhookConfig::new(Word::Said(url.clone())).target());
    serializer.serialize_str(&target.unwrap_or_default())
}

impl ReceiversSection {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nobody is told.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As the notifier takes them, or the key that is wrong and why. The users of SNMP are `users`.
    pub fn build(&self, users: &BTreeMap<String, User>, root: &Root) -> Result<Vec<ReceiverConfig>, Mistake> {
        if self.0.len() > RECEIVERS_MAX {
            return Err(("receivers".to_owned(), format!("has {} receivers, at most {RECEIVERS_MAX} are told", self.0.len())));
        }
        let build = |(name, section): (&Follower, &ReceiverSection)| {
            // By that name it is kept how far the node above has come.
            if &**name == crate::uplink::FOLLOWER {
                return Err((format!("receivers.{name}"), "may not be called so: that is the node above".to_owned()));
            }
            section.build(name, users, root).map_err(|(key, reason)| (format!("receivers.{name}{key}"), reason))
        };
        self.0.iter().map(build).collect()
    }
}

impl ReceiverSection {
    fn build(&self, name: &Follower, users: &BTreeMap<String, User>, root: &Root) -> Result<ReceiverConfig, Mistake> {
        let group = self.group.as_ref().map(GroupSection::build).transpose()?;
        let sink = self.sink(name, group.as_ref(), users, root)?;
        let defaults = ReceiverConfig::new(name.clone(), sink);
        let config = ReceiverConfig {
            filter: self.filter.build()?,
            start: self.start.map_or(defaults.start, StartWord::build),
            fold_after: self.fold_after.map_or(defaults.fold_after, |span| Some(span.0).filter(|span| !span.is_zero())),
            rate: self.rate.map_or(defaults.rate, NonZeroU32::new),
            heartbeat: self.heartbeat.map(|span| span.0).filter(|span| !span.is_zero()),
            unreachable_after: self.unreachable_after.map_or(defaults.unreachable_after, |span| span.0),
            replay_max: self.replay_max.unwrap_or(defaults.replay_max),
            updates: self.updates.unwrap_or(defaults.updates),
            log_events: self.log_events,
            group,
            ..defaults
        };
        let wrong = |key: &str, reason: String| Err((format!(".{key}"), reason));
        let spans = [
            ("fold_after", config.fold_after),
            ("heartbeat", config.heartbeat),
            ("unreachable_after", Some(config.unreachable_after)),
        ];
        if let Some((key, _)) = spans.into_iter().find(|(_, span)| span.is_some_and(|span| span > SPAN_MAX)) {
            return wrong(key, format!("must be at most {}d", SPAN_MAX.as_secs() / 86_400));
        }
        if config.heartbeat.is_some_and(|every| every < HEARTBEAT_MIN) {
            return wrong("heartbeat", format!("must be \"0s\" for none, or at least {}s", HEARTBEAT_MIN.as_secs()));
        }
        if config.heartbeat.is_some() && !config.sink.has_heartbeats() {
            return wrong(
                "heartbeat",
                "is for webhooks, syslog, topics and the SNMP profile klaxon: the other profiles have no words for it"
                    .to_owned(),
            );
        }
        if config.unreachable_after.is_zero() {
            return wrong("unreachable_after", "must be longer than nothing".to_owned());
        }
        if config.replay_max > REPLAY_MAX {
            return wrong("replay_max", format!("must be at most {REPLAY_MAX}"));
        }
        Ok(config)
    }
}

impl ReceiverSection {
    fn sink(
        &self,
        name: &Follower,
        group: Option<&Grouping>,
        users: &BTreeMap<String, User>,
        root: &Root,
    ) -> Result<SinkConfig, Mistake> {
        let no = |reason: String| Err((String::new(), reason));
        let under = |kind: &'static str| move |(key, reason): Mistake| (format!(".{kind}.{key}"), reason);
        let kinds = [
            ("webhook", self.webhook.is_some()),
            ("snmp", self.snmp.is_some()),
            ("syslog", self.syslog.is_some()),
            ("kafka", self.kafka.is_some()),
        ];
        let said: Vec<&str> = kinds.into_iter().filter_map(|(kind, is_said)| is_said.then_some(kind)).collect();
        if said.len() > 1 {
            return no(format!("is told by {}; that takes a receiver for each", said.join(" and by ")));
        }
        if let Some(webhook) = &self.webhook {
            return Ok(SinkConfig::Webhook(Box::new(webhook.build(group).map_err(under("webhook"))?)));
        }
        if group.is_some() {
            return Err((
                ".group".to_owned(),
                "is for webhooks: elsewhere each notification is a message of its own".to_owned(),
            ));
        }
        if let Some(snmp) = &self.snmp {
            return Ok(SinkConfig::Snmp(Box::new(snmp.build(users, root).map_err(under("snmp"))?)));
        }
        if let Some(syslog) = &self.syslog {
            return Ok(SinkConfig::Syslog(Box::new(syslog.build(root).map_err(under("syslog"))?)));
        }
        if let Some(kafka) = &self.kafka {
            return kafka.build(name).map_err(|(key, reason)| (format!(".kafka{key}"), reason));
        }
        no("says not how it is told: it needs `webhook = { url = \"https://…\" }`, `snmp = { address = \"…:162\" }`, \
            `syslog = { address = \"…:6514\", transport = \"tls\" }` or `kafka = { brokers = [\"…:9092\"], topic = \"…\" }`"
            .to_owned())
    }
}

impl GroupSection {
    fn build(&self) -> Result<Grouping, Mistake> {
        let wrong = |key: &str, reason: String| (format!(".group.{key}"), reason);
        let labels = self
            .by
            .as_ref()
            .ok_or_else(|| wrong("by", "is missing: such as [\"site\"]; [] makes one group of all".to_owned()))?;
        let by: Vec<GroupLabel> = labels
            .iter()
            .map(|label| label.parse())
            .collect::<Result<_, _>>()
            .map_err(|error: GroupLabelError| wrong("by", error.to_string()))?;
        if by.len() > GROUP_LABELS_MAX {
            return Err(wrong("by", format!("has {} labels, at most {GROUP_LABELS_MAX} make a group", by.len())));
        }
        let span = |span: Option<Span>, default| span.map_or(Duration::from_secs(default), |span| span.0);
        let (wait, interval) = (span(self.wait, 30), span(self.interval, 300));
        if let Some((key, _)) = [("wait", wait), ("interval", interval)].into_iter().find(|(_, span)| *span > GROUP_WAIT_MAX) {
            return Err(wrong(key, format!("must be at most {}h", GROUP_WAIT_MAX.as_secs() / 3600)));
        }
        Ok(Grouping { by, wait, interval })
    }
}

impl StartWord {
    fn build(self) -> Start {
        match self {
            Self::Now => Start::Now,
            Self::Active => Start::Active,
        }
    }
}

impl FilterSection {
    fn build(&self) -> Result<Filter, Mistake> {
        let Self { severity_min, sites, resources, not_resources, alarm_types, not_alarm_types, shelved, suppressed } =
            self.clone();
        let lists = [
            ("sites", sites.len()),
            ("resources", resources.len()),
            ("not_resources", not_resources.len()),
            ("alarm_types", alarm_types.len()),
            ("not_alarm_types", not_alarm_types.len()),
        ];
        if let Some((key, count)) = lists.into_iter().find(|(_, count)| *count > FILTER_LIST_MAX) {
            return Err((format!(".filter.{key}"), format!("has {count} entries, at most {FILTER_LIST_MAX} are looked at")));
        }
        Ok(Filter { severity_min, sites, resources, not_resources, alarm_types, not_alarm_types, shelved, suppressed })
    }
}

impl WebhookSection {
    fn build(&self, group: Option<&Grouping>) -> Result<WebhookConfig, Mistake> {
        let wrong = |key: &str, reason: &str| (key.to_owned(), reason.to_owned());
        let address = word(self.url.as_ref(), self.url_file.as_ref()).map_err(|reason| wrong("url", reason))?;
        let address = address.ok_or_else(|| wrong("url", "is missing"))?;
        let mut headers = Vec::with_capacity(self.headers.len());
        for (name, Hidden(value)) in &self.headers {
            let name: HeaderName = name.parse().map_err(|_| ("headers".to_owned(), format!("{name:?} is no header's name")))?;
            headers.push((name, value.clone()));
        }
        let defaults = WebhookConfig::new(address);
        let config = WebhookConfig {
            shape: self.form.map_or(defaults.shape, |form| match form {
                Form::Klaxon => Shape::Klaxon,
                Form::Alertmanager => Shape::Alertmanager,
            }),
            secret: word(self.secret.as_ref(), self.secret_file.as_ref()).map_err(|reason| wrong("secret", reason))?,
            bearer: word(self.bearer.as_ref(), self.bearer_file.as_ref()).map_err(|reason| wrong("bearer", reason))?,
            headers,
            ca_file: self.ca_file.clone(),
            certificate_file: self.certificate_file.clone(),
            key_file: self.key_file.clone(),
            timeout: self.timeout.map_or(defaults.timeout, |span| span.0),
            window: self.window.unwrap_or(defaults.window),
            batch_max: self.batch_max.unwrap_or(if group.is_some() { BATCH_MAX } else { defaults.batch_max }),
            group_by: group.map(|group| group.by.clone()),
            external_url: self.external_url.clone(),
            ..defaults
        };
        if config.shape == Shape::Alertmanager && group.is_some_and(|group| group.by.contains(&GroupLabel::Severity)) {
            let reason = "is none that alarms can be grouped by in Alertmanager's form: it changes, and there an alarm stays in its group";
            return Err(wrong("form", &format!("severity {reason}")));
        }
        match config.mistake() {
            None => Ok(config),
            Some((key, reason)) => Err((key.to_owned(), reason)),
        }
    }
}

fn word(said: Option<&Hidden>, file: Option<&PathBuf>) -> Result<Option<Word>, &'static str> {
    match (said, file) {
        (Some(_), Some(_)) => Err("is given here and by a file; one is enough"),
        (Some(Hidden(secret)), None) => Ok(Some(Word::Said(secret.clone()))),
        (None, file) => Ok(file.cloned().map(Word::File)),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn error(text: &str) -> String {
        Config::parse(text, Path::new("k.toml")).expect_err("is wrong").to_string()
    }

    #[test]
    fn a_receiver_needs_an_address_and_no_more() {
        let text = "[receivers.noc]\nwebhook = { url = \"https://u:hush@noc.example/hook?key=hush\", secret = \"hush\" }\n";
        let config = Config::parse(text, Path::new("k.toml")).expect("is right");
        let shown = format!("{config:?} {}", serde_json::to_string(&config).expect("serializes"));
        assert!(!shown.contains("hush"), "{shown}");
        assert!(shown.contains("https://noc.example/…"), "{shown}");
        let [receiver] =
            <[_; 1]>::try_from(config.receivers(&config.users().expect("are right")).expect("is right")).expect("is one");
        assert_eq!(receiver.fold_after, Some(Duration::from_secs(60)));
        assert!(receiver.updates && !receiver.log_events && receiver.heartbeat.is_none());
        assert_eq!(receiver.sink.target(), "https://noc.example/…");
    }

    #[test]
    fn all_that_can_be_said_is_taken() {
        let text = r#"
[receivers."noc/east"]
start = "active"
fold_after = "0s"
rate = 100
heartbeat = "1m"
unreachable_after = "2m"
replay_max = 100
updates = false
log_events = true
[receivers."noc/east".filter]
severity_min = "major"
sites = ["north"]
resources = ["host=a"]
not_resources = ["host=a.fan=1"]
alarm_types = ["link.*"]
not_alarm_types = ["link.flapping"]
shelved = true
suppressed = true
[receivers."noc/east".webhook]
url_file = "/etc/klaxon/url"
form = "alertmanager"
secret_file = "/etc/klaxon/secret"
bearer_file = "/etc/klaxon/token"
headers = { X-Scope = "a" }
ca_file = "/etc/klaxon/ca.pem"
certificate_file = "/etc/klaxon/cert.pem"
key_file = "/etc/klaxon/key.pem"
timeout = "5s"
window = 8
external_url = "https://klaxon.example"
[receivers."noc/east".group]
by = ["site", "resource.host"]
interval = "2m"
"#;
        let config = Config::parse(text, Path::new("k.toml")).expect("is right");
        let receivers = config.receivers(&config.users().expect("are right")).expect("is right");
        let receiver = &receivers[0];
        assert_eq!((receiver.start, receiver.fold_after, receiver.replay_max), (Start::Active, None, 100));
        assert_eq!(receiver.rate.map(NonZeroU32::get), Some(100));
        assert_eq!(receiver.filter.alarm_types[0].to_string(), "link.*");
        let SinkConfig::Webhook(webhook) = &receiver.sink else { panic!("{receiver:?}") };
        assert_eq!((webhook.shape, webhook.window, webhook.batch_max), (Shape::Alertmanager, 8, BATCH_MAX));
        let group = receiver.group.clone().expect("is set");
        assert_eq!(
            (group.by[1].to_string().as_str(), group.wait.as_secs(), group.interval.as_secs()),
            ("resource.host", 30, 120)
        );
        assert_eq!(webhook.group_by, Some(group.by));
        assert_eq!(webhook.secret, Some(Word::File("/etc/klaxon/secret".into())));
    }

    #[test]
    fn what_cannot_be_is_named() {
        let hook = |keys: &str| format!("[receivers.noc]\n[receivers.noc.webhook]\nurl = \"http://a/\"\n{keys}\n");
        let none = error("[receivers.noc]\nrate = 1\n");
        assert!(none.starts_with("k.toml:1: receivers.noc: says not how it is told"), "{none}");
        let word = error(&hook("secret = \"a\"\nsecret_file = \"b\""));
        assert_eq!(word, "k.toml:4: receivers.noc.webhook.secret: is given here and by a file; one is enough");
        let window = error(&hook("window = 65"));
        assert_eq!(window, "k.toml:4: receivers.noc.webhook.window: must be between 1 and 64");
        let url = error("[receivers.noc.webhook]\nurl = \"noc.example\"\n");
        assert_eq!(url, "k.toml:2: receivers.noc.webhook.url: is no http:// or https:// address");
        let header = error(&hook("headers = { \"a b\" = \"c\" }"));
        assert!(header.contains("\"a b\" is no header's name"), "{header}");
        for key in ["fold_after", "heartbeat", "unreachable_after"] {
            let at = |span: &str| format!("[receivers.noc]\n{key} = \"{span}\"\nwebhook = {{ url = \"http://a/\" }}\n");
            for span in ["366d", "300000000000y"] {
                assert_eq!(error(&at(span)), format!("k.toml:2: receivers.noc.{key}: must be at most 365d"));
            }
            assert!(Config::parse(&at("365d"), Path::new("k.toml")).is_ok());
        }
        let unknown = error(&hook("urll = \"x\""));
        assert!(unknown.starts_with("k.toml:4: receivers.noc.webhook.urll: is no setting"), "{unknown}");
        let pattern = error("[receivers.noc.filter]\nalarm_types = [\"*\"]\n");
        assert!(pattern.contains("is no alarm type"), "{pattern}");
        let beat = error("[receivers.noc]\nheartbeat = \"500ms\"\nwebhook = { url = \"http://a/\" }\n");
        assert_eq!(beat, "k.toml:2: receivers.noc.heartbeat: must be \"0s\" for none, or at least 1s");
        let group = |keys: &str, form: &str| error(&format!("{}[receivers.noc.group]\n{keys}\n", hook(form)));
        for (said, expected) in [
            (group("wait = \"5s\"", ""), "receivers.noc.group.by: is missing: such as [\"site\"]"),
            (group("by = [\"host\"]", ""), "receivers.noc.group.by: \"host\" is none of site, resource, resource.NAME"),
            (group("by = []\nwait = \"25h\"", ""), "receivers.noc.group.wait: must be at most 24h"),
            (group("by = [\"severity\"]", "form = \"alertmanager\""), "receivers.noc.webhook.form: severity is none that"),
            (
                error("[receivers.noc]\ngroup = { by = [] }\nsyslog = { address = \"a:1\", transport = \"tcp\" }\n"),
                "receivers.noc.group: is for webhooks",
            ),
        ] {
            assert!(said.contains(expected), "{said}: {expected}");
        }
        let name = error("[receivers.\"a b\"]\nwebhook = { url = \"http://a/\" }\n");
        assert!(name.contains("has the character ' '"), "{name}");
    }
}
