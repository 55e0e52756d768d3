//! The settings of a node: read from one TOML file, checked once, and refused with file, line and key where they are wrong.
//! `klaxon.default.toml` holds every key with its comment and is the reference; tests keep it true.

mod access;
mod agent;
mod alertmanager;
mod brokers;
pub(crate) mod catalogue;
mod collect;
mod engine;
mod fm;
mod journal;
mod listeners;
mod loopback;
mod receivers;
mod sites;
mod snmp;
mod tables;
mod text;
mod traps;
mod units;
mod uplink;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use klaxon_api::agent::TablesConfig;
use klaxon_api::http::{AccessConfig, Trust};
use klaxon_api::notify::ReceiverConfig;
use klaxon_schemas::names::Site;
use klaxon_snmp::User;
use serde::{Deserialize, Serialize};

pub use access::AccessSection;
pub use agent::{AgentPlan, AgentSection};
pub use alertmanager::AlertmanagerSection;
pub use catalogue::CatalogueSection;
pub use collect::CollectSection;
pub use engine::EngineConfig;
pub use fm::FmSection;
pub use journal::{JournalConfig, JournalKind};
pub use listeners::{ListenerPlan, ListenersSection};
pub use loopback::Loopback;
pub use receivers::ReceiversSection;
pub use sites::SitesSection;
pub use snmp::SnmpConfig;
pub use tables::{TablesSection, Wrs};
pub use text::ConfigError;
pub use traps::TrapsConfig;
pub use units::{Size, Span};
pub use uplink::UplinkConfig;

use text::{key_at, line_of, line_of_key, reason};

/// The reference: every setting, its default and what it is for.
pub const DEFAULT_FILE: &str = include_str!("../klaxon.default.toml");

/// The most events in one request, whatever is configured: the journal's queue takes no more at once.
const BATCH_EVENTS_LIMIT: usize = 4096;
/// The longest path a Unix socket may have (`sun_path` without its final zero).
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Keys, or sections with a final dot, that may change while the node runs.
const RELOADABLE: [&str; 29] = [
    "access.",
    "catalogue.",
    "collect.",
    "engine.",
    "log.level",
    "receivers.",
    "sites.",
    "snmp.agent.",
    "snmp.allow_weak",
    "snmp.users.",
    "store.history_max_age",
    "store.history_max_bytes",
    "traps.devices.",
    "traps.mappings",
    "traps.sites.",
    "traps.source_burst_max",
    "traps.source_rate_max",
    "traps.users",
    "uplink.bandwidth",
    "uplink.ca_file",
    "uplink.client_certificate",
    "uplink.client_key",
    "uplink.connect_timeout",
    "uplink.down_after",
    "uplink.insecure",
    "uplink.join_token_file",
    "uplink.retry_max",
    "uplink.retry_min",
    "uplink.url",
];

/// All settings.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Who the node is.
    pub node: NodeConfig,
    /// The door.
    pub http: HttpConfig,
    /// Where else it is reached.
    pub listeners: ListenersSection,
    /// Who may do what.
    pub access: AccessSection,
    /// The door of Prometheus.
    pub alertmanager: AlertmanagerSection,
    /// Which types of alarms are known.
    pub catalogue: CatalogueSection,
    /// The nodes below.
    pub sites: SitesSection,
    /// The door of devices.
    pub traps: TrapsConfig,
    /// The door of StarlingX's programs.
    pub fm: FmSection,
    /// Who speaks SNMP with the node.
    pub snmp: SnmpConfig,
    /// Where the journal is.
    pub journal: JournalConfig,
    /// The disk.
    pub store: StoreConfig,
    /// The engine's limits.
    pub engine: EngineConfig,
    /// What looks at this machine.
    pub collect: CollectSection,
    /// Who is told.
    pub receivers: ReceiversSection,
    /// The node above.
    pub uplink: UplinkConfig,
    /// What it says of itself.
    pub log: LogConfig,
}

/// Who the node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NodeConfig {
    /// The site whose alarms it owns.
    pub site: Site,
}

/// The door.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// Where TCP is listened on.
    pub listen: Loopback,
    /// The Unix socket; relative to the store's folder. [`Config::socket_path`] is the whole path.
    pub socket: PathBuf,
    /// The largest body, after decompression.
    pub body_bytes_max: Size,
    /// The most events in one request.
    pub batch_events_max: usize,
    /// How long a request may take.
    pub request_timeout: Span,
    /// The most requests at work at one time.
    pub requests_max: usize,
    /// The most streams at one time.
    pub stream_subscribers_max: usize,
    /// The most connections to one listener.
    pub connections_max: usize,
    /// The most of them from one other host.
    pub client_connections_max: usize,
    /// The most requests of one client at work at one time.
    pub client_requests_max: usize,
    /// The most requests of one client in a second.
    pub client_rate_max: u32,
    /// The most streams of one client.
    pub client_streams_max: usize,
    /// Whether whoever is on this host may read and report without a token.
    pub trust_loopback: bool,
    /// Origins of pages that may use the API besides the node's own.
    pub origins: Vec<String>,
}

/// The disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreConfig {
    /// The folder.
    pub dir: PathBuf,
    /// When a new segment is begun.
    pub segment_bytes: Size,
    /// How large the journal may grow.
    pub history_max_bytes: Size,
    /// How old history may grow.
    pub history_max_age: Span,
    /// Below this much free space intake is refused.
    pub free_space_watermark: Size,
    /// The engine of the view.
    pub view: ViewEngine,
}

/// What the view is kept in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ViewEngine {
    /// fjall, an LSM tree.
    Fjall,
    /// sled 0.34.7, a tree of pages; only in a build with the feature `sled`.
    Sled,
}

impl ViewEngine {
    /// As the store takes it.
    fn of_store(self) -> klaxon_store::ViewEngine {
        match self {
            Self::Fjall => klaxon_store::ViewEngine::Fjall,
            Self::Sled => klaxon_store::ViewEngine::Sled,
        }
    }
}

/// What the program says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// For whom.
    pub format: LogFormat,
    /// How much.
    pub level: Level,
}

/// For whom log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// People.
    Text,
    /// Collectors.
    Json,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Something is lost, or a person is needed.
    Error,
    /// Odd, but nothing is lost.
    Warn,
    /// The life of the process.
    Info,
    /// What each part does.
    Debug,
    /// Everything.
    Trace,
}

impl Level {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self { site: Site::new("local").expect("a site may be called so") }
    }
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: Loopback(SocketAddr::from((Ipv4Addr::LOCALHOST, 7780))),
            socket: PathBuf::from("klaxon.sock"),
            body_bytes_max: Size::mib(8),
            batch_events_max: BATCH_EVENTS_LIMIT,
            request_timeout: Span::seconds(30),
            requests_max: 256,
            stream_subscribers_max: 256,
            connections_max: 1024,
            client_connections_max: 128,
            client_requests_max: 64,
            client_rate_max: 500,
            client_streams_max: 64,
            trust_loopback: true,
            origins: Vec::new(),
        }
    }
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            dir: PathBuf::from("./klaxon-data"),
            segment_bytes: Size::mib(64),
            history_max_bytes: Size::mib(8192),
            history_max_age: Span::days(90),
            free_space_watermark: Size::mib(256),
            view: ViewEngine::Fjall,
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: Level::Info }
    }
}

/// Which settings differ between two configurations; all of them can change while the node runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// The keys with their sections, in order.
    pub keys: Vec<String>,
}

/// These settings differ and cannot change while the node runs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} cannot change while the node runs; start it anew for that", keys.join(", "))]
pub struct NotReloadable {
    /// The keys with their sections, in order.
    pub keys: Vec<String>,
}

impl Config {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::load_amended(path, |_| {})
    }

    /// Reads a file and checks what `amend` has made of it.
    pub fn load_amended(path: &Path, amend: impl FnOnce(&mut Self)) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse_amended(&text, path, amend)
    }

    /// Checks the text of a file; `path` is for the messages.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        Self::parse_amended(text, path, |_| {})
    }

    fn parse_amended(text: &str, path: &Path, amend: impl FnOnce(&mut Self)) -> Result<Self, ConfigError> {
        let wrong = |line, key, reason| ConfigError::Wrong { path: path.to_owned(), line, key, reason };
        let mut config: Self = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| line_of(text, span.start));
            wrong(line, key_at(text, line), reason(error.message()))
        })?;
        amend(&mut config);
        match config.mistake() {
            None => Ok(config),
            Some((key, reason)) => {
                // What is missing is missing in its section.
                let mut sections = std::iter::successors(Some(&*key), |key| Some(key.rsplit_once('.')?.0));
                let line = sections.find_map(|key| line_of_key(text, key)).unwrap_or(1);
                Err(wrong(line, Some(key), reason))
            }
        }
    }

    /// Checks what was put together elsewhere than in one file.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.mistake().map_or(Ok(()), |(key, reason)| Err(ConfigError::Contradiction { key, reason }))
    }

    /// The Unix socket.
    pub fn socket_path(&self) -> PathBuf {
        self.store.dir.join(&self.http.socket)
    }

    /// As the store takes it.
    pub fn store_config(&self) -> klaxon_store::StoreConfig {
        klaxon_store::StoreConfig {
            segment_bytes: self.store.segment_bytes.0,
            retention: self.retention(),
            free_space_watermark_bytes: self.store.free_space_watermark.0,
            view: klaxon_store::ViewConfig { engine: self.store.view.of_store(), ..Default::default() },
            ..klaxon_store::StoreConfig::new(&self.store.dir)
        }
    }

    /// The users of SNMPv3 with their keys, or the setting that is wrong and why. Reads the files that hold passwords. It is done once
    /// for all who need them: each takes some milliseconds.
    pub fn users(&self) -> Result<BTreeMap<String, User>, (String, String)> {
        self.snmp.users()
    }

    /// Those of `users` whose notifications are taken.
    pub fn trap_users(&self, users: &BTreeMap<String, User>) -> Vec<User> {
        users.iter().filter(|(name, _)| self.traps.takes(name)).map(|(_, user)| user.clone()).collect()
    }

    /// Who may read and report on a loopback address without being known by name.
    pub fn local_trust(&self) -> Trust {
        if self.http.trust_loopback { Trust::Local } else { Trust::Nobody }
    }

    /// Where else the node is reached; or the setting that is wrong, and why.
    pub fn listeners(&self) -> Result<Vec<ListenerPlan>, (String, String)> {
        self.listeners.build(self.local_trust())
    }

    /// Who may do what; or the setting that is wrong, and why.
    pub fn access(&self) -> Result<AccessConfig, (String, String)> {
        self.access.build()
    }

    /// As the door of the nodes below takes it.
    pub fn sites_config(&self) -> klaxon_api::uplink::SitesConfig {
        self.sites.build()
    }

    /// How much history is kept.
    pub fn retention(&self) -> klaxon_store::Retention {
        klaxon_store::Retention {
            history_max_bytes: self.store.history_max_bytes.0,
            history_max_age: self.store.history_max_age.0,
            kept_for: crate::uplink::kept_for(self.uplink.kind),
        }
    }

    /// As the front end takes it; when the node stops, it waits so long for running requests.
    pub fn http_config(&self, drain: Duration) -> klaxon_api::http::HttpConfig {
        klaxon_api::http::HttpConfig {
            body_bytes_max: usize::try_from(self.http.body_bytes_max.0).unwrap_or(usize::MAX),
            batch_events_max: self.http.batch_events_max,
            request_timeout: self.http.request_timeout.0,
            requests_max: self.http.requests_max,
            stream_subscribers_max: self.http.stream_subscribers_max,
            connections_max: self.http.connections_max,
            client_connections_max: self.http.client_connections_max,
            client_requests_max: self.http.client_requests_max,
            client_rate_max: self.http.client_rate_max,
            client_streams_max: self.http.client_streams_max,
            drain,
            origins: self.http.origins.clone(),
            alertmanager: self.alertmanager.build().expect("was checked when it was read"),
        }
    }

    /// As the notifier takes the receivers, or the setting that is wrong, and why. Reads the files that hold communities.
    pub fn receivers(&self, users: &BTreeMap<String, User>) -> Result<Vec<ReceiverConfig>, (String, String)> {
        self.receivers.build(users, &self.snmp.root_oid)
    }

    /// Where the SNMP agent is reached, if that is one address.
    pub fn agent_address(&self) -> Option<IpAddr> {
        Some(self.snmp.agent.listen.ip()).filter(|address| !address.is_unspecified())
    }

    /// Of how many alarms the receivers could have been told altogether.
    pub fn told_most(&self) -> u64 {
        (self.receivers.len() as u64).saturating_mul(self.engine.active_alarms_max as u64)
    }

    /// What SNMP shows.
    pub fn tables(&self) -> TablesConfig {
        self.snmp.tables.build(&self.snmp.root_oid)
    }

    /// As the SNMP agent takes it, if there is to be one; or the setting that is wrong, and why. Reads the files that hold
    /// communities.
    pub fn agent(&self, users: &BTreeMap<String, User>) -> Result<Option<AgentPlan>, (String, String)> {
        self.snmp.agent.build(&self.snmp, users, &self.node.site)
    }

    /// Which settings change from `old` to `new`, if all of them may while the node runs.
    pub fn reloadable_from(old: &Self, new: &Self) -> Result<Changes, NotReloadable> {
        let (old, new) = (old.flat(), new.flat());
        let set = new.iter().filter(|setting| !old.contains(setting));
        let unset = old.iter().filter(|(key, _)| !new.iter().any(|(other, _)| other == key));
        let mut changed: Vec<String> = set.chain(unset).map(|(key, _)| key.clone()).collect();
        changed.sort();
        let (reloadable, fixed): (Vec<_>, Vec<_>) = changed.into_iter().partition(|key| is_reloadable(key));
        if fixed.is_empty() { Ok(Changes { keys: reloadable }) } else { Err(NotReloadable { keys: fixed }) }
    }

    /// Every key with its section, and its value.
    fn flat(&self) -> Vec<(String, toml::Value)> {
        let table = toml::Table::try_from(self).expect("every setting has a TOML form");
        let mut settings = Vec::new();
        let mut open = vec![(String::new(), table)];
        while let Some((section, keys)) = open.pop() {
            for (key, value) in keys {
                let name = if section.is_empty() { key } else { format!("{section}.{key}") };
                match value {
                    toml::Value::Table(keys) => open.push((name, keys)),
                    value => settings.push((name, value)),
                }
            }
        }
        settings.sort_by(|(one, _), (other, _)| one.cmp(other));
        settings
    }

    /// The first setting that is outside its bounds or contradicts another, and why. Makes no keys.
    fn mistake(&self) -> Option<(String, String)> {
        let own = self.own_mistake().map(|(key, reason)| (key.to_owned(), reason));
        own.or_else(|| self.listeners().err())
            .or_else(|| self.access().err())
            .or_else(|| self.alertmanager.build().err())
            .or_else(|| self.catalogue.build().err())
            .or_else(|| self.traps.mistake())
            .or_else(|| self.fm.mistake())
            .or_else(|| self.snmp.tables.check(&self.snmp.root_oid).err())
            .or_else(|| self.snmp.levels().and_then(|levels| self.snmp.agent.check(&levels)).err())
            .or_else(|| self.snmp.ambiguity())
            .or_else(|| self.snmp.foreigner())
            .or_else(|| self.traps.stranger(&self.snmp))
            .or_else(|| self.collect.host().err())
            .or_else(|| self.collect.build().err())
            .or_else(|| self.receivers(&self.snmp.names()).err())
            .or_else(|| self.uplink.mistake())
            .or_else(|| self.journal.mistake())
    }

    fn own_mistake(&self) -> Option<(&'static str, String)> {
        let (http, store, engine) = (&self.http, &self.store, &self.engine);
        let at_least_one = [
            ("http.requests_max", http.requests_max),
            ("http.stream_subscribers_max", http.stream_subscribers_max),
            ("http.connections_max", http.connections_max),
            ("http.client_connections_max", http.client_connections_max),
            ("http.client_requests_max", http.client_requests_max),
            ("http.client_rate_max", http.client_rate_max as usize),
            ("http.client_streams_max", http.client_streams_max),
            ("engine.active_alarms_max", engine.active_alarms_max),
            ("engine.producers_max", engine.producers_max),
            ("engine.heartbeats_max", engine.heartbeats_max),
            ("engine.children_max", engine.children_max),
            ("engine.pending_actions_max", engine.pending_actions_max),
        ];
        if let Some((key, _)) = at_least_one.into_iter().find(|(_, value)| *value == 0) {
            return Some((key, "must be at least 1".to_owned()));
        }
        if !(1..=BATCH_EVENTS_LIMIT).contains(&http.batch_events_max) {
            return Some(("http.batch_events_max", format!("must be between 1 and {BATCH_EVENTS_LIMIT}")));
        }
        if !(Size(64 << 10)..=Size::mib(64)).contains(&http.body_bytes_max) {
            return Some(("http.body_bytes_max", "must be between 64KiB and 64MiB".to_owned()));
        }
        let is_origin = |origin: &String| {
            let host = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
            host.is_some_and(|host| !host.is_empty() && !host.contains(['/', '?', '#', '@', ' ']))
        };
        if let Some(origin) = http.origins.iter().find(|origin| !is_origin(origin)) {
            return Some(("http.origins", format!("{origin:?} is no origin such as https://noc.example")));
        }
        if http.request_timeout < Span::seconds(1) {
            return Some(("http.request_timeout", "must be at least 1s".to_owned()));
        }
        let socket = self.socket_path();
        if socket.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
            let why =
                format!("{} is longer than the {SOCKET_PATH_BYTES_MAX} bytes a Unix socket's path may have", socket.display());
            return Some(("http.socket", why));
        }
        if !(Size::mib(1)..=Size::mib(1024)).contains(&store.segment_bytes) {
            return Some(("store.segment_bytes", "must be between 1MiB and 1GiB".to_owned()));
        }
        if store.history_max_bytes.0 / 2 < store.segment_bytes.0 {
            return Some(("store.history_max_bytes", "must be at least twice store.segment_bytes".to_owned()));
        }
        if !store.view.of_store().is_built() {
            return Some(("store.view", "this build has no sled; build with `--features sled`, or set \"fjall\"".to_owned()));
        }
        if let Some(mistake) = self.sites.mistake() {
            return Some(mistake);
        }
        let at_least_a_second = [
            ("store.history_max_age", store.history_max_age),
            ("engine.tombstone_lifetime", engine.tombstone_lifetime),
            ("engine.event_id_lifetime", engine.event_id_lifetime),
        ];
        let short = at_least_a_second.into_iter().find(|(_, span)| *span < Span::seconds(1));
        short.map(|(key, _)| (key, "must be at least 1s".to_owned()))
    }
}

fn is_reloadable(key: &str) -> bool {
    RELOADABLE.iter().any(|allowed| if allowed.ends_with('.') { key.starts_with(allowed) } else { key == *allowed })
}

#[cfg(test)]
mod tests {
    use klaxon_schemas::state::Settings;

    use super::*;

    /// The reference with the `#` taken from before every setting.
    fn uncommented() -> String {
        let is_setting = |rest: &str| rest.starts_with(|first: char| first.is_ascii_lowercase());
        let line = |line: &'static str| line.strip_prefix('#').filter(|rest| is_setting(rest)).unwrap_or(line);
        DEFAULT_FILE.lines().map(line).collect::<Vec<_>>().join("\n")
    }

    fn error(text: &str) -> String {
        Config::parse(text, Path::new("k.toml")).expect_err("is wrong").to_string()
    }

    #[test]
    fn the_reference_holds_every_setting_with_its_default() {
        let path = Path::new("klaxon.default.toml");
        assert_eq!(Config::parse(DEFAULT_FILE, path).expect("is right"), Config::default());
        let text = uncommented();
        assert_eq!(Config::parse(&text, path).expect("is right"), Config::default());
        for (key, _) in Config::default().flat() {
            assert!(line_of_key(&text, &key).is_some(), "klaxon.default.toml lacks {key}");
        }
    }

    #[test]
    fn the_reference_says_what_can_be_reloaded() {
        let lines: Vec<&str> = DEFAULT_FILE.lines().collect();
        for (key, _) in Config::default().flat() {
            let line = line_of_key(&uncommented(), &key).expect("is in it");
            let comment: String = lines[..line - 1].iter().rev().take_while(|line| line.starts_with("# ")).copied().collect();
            assert_eq!(comment.contains("[reload]"), is_reloadable(&key), "{key}");
        }
    }

    #[test]
    fn a_mistake_is_named_with_file_line_and_key() {
        let unknown = error("[http]\nlistn = \"127.0.0.1:1\"\n");
        assert!(unknown.starts_with("k.toml:2: http.listn: is no setting; expected one of listen, socket"), "{unknown}");
        let section = error("\n[htp]\nlisten = \"127.0.0.1:1\"\n");
        assert!(section.starts_with("k.toml:2: htp: is no setting"), "{section}");
        let site = error("[node]\nsite = \"a b\"\n");
        assert!(site.starts_with("k.toml:2: node.site: has the character ' '"), "{site}");
        let open = error("[http]\n\nlisten = \"0.0.0.0:7780\"\n");
        assert!(open.starts_with("k.toml:3: http.listen: 0.0.0.0:7780 can be reached from other hosts"), "{open}");
        let history = error("[store]\nsegment_bytes = \"64MiB\"\nhistory_max_bytes = \"65MiB\"\n");
        assert_eq!(history, "k.toml:3: store.history_max_bytes: must be at least twice store.segment_bytes");
        let batch = error("[http]\nbatch_events_max = 5000\n");
        assert_eq!(batch, "k.toml:2: http.batch_events_max: must be between 1 and 4096");
        let form = error("[http\n");
        assert!(form.starts_with("k.toml:1: "), "{form}");
        let age = error("[store]\nhistory_max_age = \"90\"\n");
        assert_eq!(age, "k.toml:2: store.history_max_age: \"90\" is no length of time such as 90s, 24h or 7d");
        let socket = error(&format!("[store]\ndir = \"/{}\"\n", "x".repeat(120)));
        assert!(socket.contains("longer than the 107 bytes"), "{socket}");
    }

    #[test]
    fn the_defaults_are_those_of_the_parts() {
        let config = Config::default();
        assert_eq!(config.engine.settings(), Settings::default());
        assert_eq!(config.store_config(), klaxon_store::StoreConfig::new("./klaxon-data"));
        let drain = Duration::from_secs(5);
        assert_eq!(config.http_config(drain), klaxon_api::http::HttpConfig { drain, ..Default::default() });
        assert_eq!(config.traps.build(), Ok(Some(klaxon_ingest::trap::TrapConfig::default())));
        assert_eq!(BATCH_EVENTS_LIMIT, klaxon_store::publish::SUBMISSION_ENTRIES_MAX);
    }

    #[cfg(not(feature = "sled"))]
    #[test]
    fn a_build_without_sled_says_so_where_it_is_set() {
        let view = error("[store]\ndir = \"x\"\nview = \"sled\"\n");
        assert_eq!(view, "k.toml:3: store.view: this build has no sled; build with `--features sled`, or set \"fjall\"");
    }

    #[cfg(feature = "sled")]
    #[test]
    fn a_build_with_sled_takes_it() {
        let config = Config::parse("[store]\nview = \"sled\"\n", Path::new("k.toml")).expect("is right");
        assert_eq!(config.store_config().view.engine, klaxon_store::ViewEngine::Sled);
    }

    #[test]
    fn ipv6_loopback_is_an_address_too() {
        let config = Config::parse("[http]\nlisten = \"[::1]:0\"\n", Path::new("k.toml")).expect("is right");
        assert_eq!(config.http.listen.to_string(), "[::1]:0");
    }

    #[test]
    fn a_reload_changes_what_may_change_and_nothing_else() {
        let old = Config::default();
        assert_eq!(Config::reloadable_from(&old, &old), Ok(Changes::default()));
        let mut new = old.clone();
        new.log.level = Level::Debug;
        new.engine.purge_cleared_after = Span::hours(1);
        let changes = Config::reloadable_from(&old, &new).expect("may change");
        assert_eq!(changes.keys, ["engine.purge_cleared_after", "log.level"]);
        new.node.site = Site::new("other").expect("valid");
        new.store.dir = PathBuf::from("elsewhere");
        let refused = Config::reloadable_from(&old, &new).expect_err("may not change");
        assert_eq!(refused.keys, ["node.site", "store.dir"]);
    }
}
