//! All collectors of a node: which there are, what starts them, and what becomes of those that are turned off.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use klaxon_schemas::names::Site;
use klaxon_schemas::resource::Resource;
use klaxon_schemas::wire::v1;
use klaxon_store::door::Door;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::certificates::{Certificates, CertificatesConfig};
use super::check::{Check, CheckConfig};
use super::cpu::{Cpu, CpuConfig};
use super::desk::{self, Desk};
use super::filesystem::{Filesystem, FilesystemConfig};
use super::heartbeat::{HeartbeatConfig, OwnHeartbeat};
use super::link::{LinkConfig, Links};
use super::memory::{Memory, MemoryConfig};
use super::run::{self, Health, Runner};
use super::time::{Time, TimeConfig};
use super::units::{Units, UnitsConfig};
use super::{Collector, Look, LookError};

/// The machine that is looked at, by the name it has in resources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host(Resource);

/// A name that cannot stand in a resource.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} cannot be the name of a host in a resource")]
pub struct HostError(String);

impl Host {
    /// The host `name`.
    pub fn new(name: &str) -> Result<Self, HostError> {
        let wrong = || HostError(name.to_owned());
        let resource = Resource::new(&format!("host={name}")).map_err(|_| wrong())?;
        if name.is_empty() || resource.elements().count() != 1 {
            return Err(wrong());
        }
        Ok(Self(resource))
    }

    /// What the system calls itself.
    pub fn of_system() -> Result<Self, HostError> {
        Self::new(&rustix::system::uname().nodename().to_string_lossy())
    }

    /// `host=NAME`.
    pub fn resource(&self) -> Resource {
        self.0.clone()
    }

    /// `host=NAME.element=value`. What would begin another element in the value, or cannot stand in a resource, is written as
    /// `%` and two hexadecimal digits; a value that is too long is cut.
    pub fn part(&self, element: &str, value: &str) -> Resource {
        use std::fmt::Write as _;
        let opens_element = value.contains('.') && value.contains('=');
        let mut text = format!("{}.{element}=", self.0);
        for character in value.chars() {
            if character.is_control() || (opens_element && character == '=') {
                let mut bytes = [0; 4];
                for byte in character.encode_utf8(&mut bytes).bytes() {
                    let _ = write!(text, "%{byte:02X}");
                }
            } else {
                text.push(character);
            }
        }
        while text.len() > klaxon_schemas::resource::RESOURCE_BYTES_MAX {
            text.pop();
        }
        Resource::new(&text).unwrap_or_else(|_| self.resource())
    }
}

/// Which collectors there are; those that are absent are off.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CollectConfig {
    /// All that are on, each name once.
    pub specs: Vec<Spec>,
}

/// One collector: what it is and what it is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Spec {
    /// How busy the processors are.
    Cpu(CpuConfig),
    /// Whether the network's links work.
    Link(LinkConfig),
    /// How much memory is taken.
    Memory(MemoryConfig),
    /// How full file systems are, and whether they became read-only.
    Filesystem(FilesystemConfig),
    /// Which units of systemd have failed.
    Units(UnitsConfig),
    /// Whether the clock is synchronised.
    Time(TimeConfig),
    /// Whether certificates are still valid.
    Certificates(CertificatesConfig),
    /// The node's own heartbeat.
    Heartbeat(HeartbeatConfig),
    /// A check of one's own; there may be several.
    Check(CheckConfig),
    /// One that does what a test tells it.
    #[cfg(test)]
    Scripted(super::tests::Script),
}

impl Spec {
    /// Its name: each is there once.
    pub fn name(&self) -> String {
        match self {
            Self::Cpu(_) => "cpu".to_owned(),
            Self::Link(_) => "link".to_owned(),
            Self::Memory(_) => "memory".to_owned(),
            Self::Filesystem(_) => "filesystem".to_owned(),
            Self::Units(_) => "units".to_owned(),
            Self::Time(_) => "time".to_owned(),
            Self::Certificates(_) => "certificates".to_owned(),
            Self::Heartbeat(_) => "heartbeat".to_owned(),
            Self::Check(config) => format!("check/{}", config.name()),
            #[cfg(test)]
            Self::Scripted(script) => script.name.clone(),
        }
    }

    /// How often it looks.
    pub fn interval(&self) -> Duration {
        match self {
            Self::Cpu(config) => config.interval,
            Self::Link(config) => config.interval,
            Self::Memory(config) => config.interval,
            Self::Filesystem(config) => config.interval,
            Self::Units(config) => config.interval,
            Self::Time(config) => config.interval,
            Self::Certificates(config) => config.interval,
            Self::Heartbeat(config) => config.interval,
            Self::Check(config) => config.interval,
            #[cfg(test)]
            Self::Scripted(script) => script.interval,
        }
    }

    /// The collector itself, for one who looks with it on their own.
    pub fn make(&self, host: &Host) -> Box<dyn Collector> {
        match self {
            Self::Cpu(config) => Box::new(Cpu::new(config, host)),
            Self::Link(config) => Box::new(Links::new(config, host)),
            Self::Memory(config) => Box::new(Memory::new(config, host)),
            Self::Filesystem(config) => Box::new(Filesystem::new(config, host)),
            Self::Units(config) => Box::new(Units::new(config, host)),
            Self::Time(config) => Box::new(Time::new(config, host)),
            Self::Certificates(config) => Box::new(Certificates::new(config, host)),
            Self::Heartbeat(config) => Box::new(OwnHeartbeat::new(config, host)),
            Self::Check(config) => Box::new(Check::new(config, host)),
            #[cfg(test)]
            Self::Scripted(script) => script.make(),
        }
    }

    /// Whether one look tells nothing, because it is about the time between two.
    pub(super) fn needs_two_looks(&self) -> bool {
        matches!(self, Self::Cpu(_))
    }
}

/// Looks once with the collector `spec`, without hysteresis and debounce, and tells nobody.
pub fn once(spec: &Spec, host: &Host) -> Result<Look, LookError> {
    run::once(spec, host)
}

/// How all collectors are, for those who ask; cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Board(Arc<Mutex<BTreeMap<String, Arc<Health>>>>);

impl Board {
    /// Each collector, by name.
    pub fn show(&self) -> Vec<v1::Collector> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().map(|health| health.show()).collect()
    }

    fn put(&self, name: String, health: Arc<Health>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name, health);
    }

    fn remove(&self, name: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}

struct Running {
    spec: Spec,
    host: Host,
    stop: CancellationToken,
    task: JoinHandle<Desk>,
}

/// The collectors of a node, at work.
pub struct Collectors {
    door: Door,
    site: Site,
    host: Host,
    board: Board,
    running: BTreeMap<String, Running>,
    /// Those that are off, and whose alarms could not be cleared yet.
    unsettled: BTreeSet<String>,
    look_time_max: Duration,
}

impl Collectors {
    /// None at work yet. They report by `door`, for `site`, about `host`.
    pub fn new(door: Door, site: Site, host: Host) -> Self {
        Self {
            door,
            site,
            host,
            board: Board::default(),
            running: BTreeMap::new(),
            unsettled: BTreeSet::new(),
            look_time_max: run::LOOK_TIME_MAX,
        }
    }

    /// The same, with another time after which a look counts as hung.
    #[cfg(test)]
    pub(super) fn hanging_after(self, look_time_max: Duration) -> Self {
        Self { look_time_max, ..self }
    }

    /// How they are.
    pub fn board(&self) -> Board {
        self.board.clone()
    }

    /// From the next [`Collectors::apply`] on they look at this machine by another name.
    pub fn set_host(&mut self, host: Host) {
        self.host = host;
    }

    /// Makes it so that those of `config` are at work and no others. What one that is off had told is cleared.
    pub async fn apply(&mut self, config: &CollectConfig) {
        let wanted: BTreeMap<String, &Spec> = config.specs.iter().map(|spec| (spec.name(), spec)).collect();
        let ended: Vec<String> = self
            .running
            .iter()
            .filter(|(name, running)| wanted.get(*name).is_none_or(|spec| **spec != running.spec || running.host != self.host))
            .map(|(name, _)| name.clone())
            .collect();
        for name in ended {
            if let Some(running) = self.running.remove(&name) {
                running.stop.cancel();
                let _ = running.task.await;
            }
            self.board.remove(&name);
        }
        for (name, spec) in wanted {
            if !self.running.contains_key(&name) {
                self.start(name, spec.clone());
            }
        }
        self.settle().await;
    }

    /// Whether something that collectors told which are off has still to be cleared.
    pub fn is_unsettled(&self) -> bool {
        !self.unsettled.is_empty()
    }

    /// Clears what those have told that are off.
    pub async fn settle(&mut self) {
        let off = desk::names_in(&self.door, &self.site).into_iter().filter(|name| !self.running.contains_key(name));
        for name in off.collect::<Vec<_>>() {
            let mut desk = Desk::open(self.door.clone(), self.site.clone(), &name);
            match desk.close().await {
                Ok(()) => {
                    self.unsettled.remove(&name);
                    tracing::info!(collector = %name, "a collector was turned off");
                }
                Err(error) => {
                    if self.unsettled.insert(name.clone()) {
                        tracing::warn!(collector = %name, %error, "what a collector told is cleared as soon as it can be");
                    }
                }
            }
        }
    }

    fn start(&mut self, name: String, spec: Spec) {
        let health = Arc::new(Health::new(&spec));
        self.board.put(name.clone(), Arc::clone(&health));
        let desk = Desk::open(self.door.clone(), self.site.clone(), &name);
        let stop = CancellationToken::new();
        let runner = Runner {
            spec: spec.clone(),
            host: self.host.clone(),
            desk,
            health,
            stop: stop.clone(),
            look_time_max: self.look_time_max,
        };
        let task = tokio::spawn(runner.run());
        self.running.insert(name, Running { spec, host: self.host.clone(), stop, task });
    }

    /// Ends all of them; what they told stands.
    pub async fn stop(self) {
        for running in self.running.values() {
            running.stop.cancel();
        }
        for running in self.running.into_values() {
            let _ = running.task.await;
        }
    }
}
