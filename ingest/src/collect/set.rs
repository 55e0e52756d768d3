//! All collectors of a node: which there are, what starts them, and what becomes of those that are turned off.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use klaxon_schemas::names::Site;
use klaxon_schemas::resource::Resource;
use klaxon_schemas::wire::v1;
use klaxon_store::door::Door;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::cpu::{Cpu, CpuConfig};
use super::desk::{self, Desk};
use super::link::{LinkConfig, Links};
use super::memory::{Memory, MemoryConfig};
use super::run::{self, Health, Runner};
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

    /// `host=NAME.element=value`; a value that is too long for a resource is cut.
    pub fn part(&self, element: &str, value: &str) -> Resource {
        let mut text = format!("{}.{element}={value}", self.0);
        text.retain(|character| !character.is_control());
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
}

impl Spec {
    /// Its name: each is there once.
    pub fn name(&self) -> String {
        match self {
            Self::Cpu(_) => "cpu".to_owned(),
            Self::Link(_) => "link".to_owned(),
            Self::Memory(_) => "memory".to_owned(),
        }
    }

    /// How often it looks.
    pub fn interval(&self) -> Duration {
        match self {
            Self::Cpu(config) => config.interval,
            Self::Link(config) => config.interval,
            Self::Memory(config) => config.interval,
        }
    }

    /// The collector itself, for one who looks with it on their own.
    pub fn make(&self, host: &Host) -> Box<dyn Collector> {
        match self {
            Self::Cpu(config) => Box::new(Cpu::new(config, host)),
            Self::Link(config) => Box::new(Links::new(config, host)),
            Self::Memory(config) => Box::new(Memory::new(config, host)),
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
    is_first: bool,
}

impl Collectors {
    /// None at work yet. They report by `door`, for `site`, about `host`.
    pub fn new(door: Door, site: Site, host: Host) -> Self {
        Self { door, site, host, board: Board::default(), running: BTreeMap::new(), is_first: true }
    }

    /// How they are.
    pub fn board(&self) -> Board {
        self.board.clone()
    }

    /// Makes it so that those of `config` are at work and no others. What one that is off had told is cleared.
    pub async fn apply(&mut self, config: &CollectConfig) {
        let wanted: BTreeMap<String, &Spec> = config.specs.iter().map(|spec| (spec.name(), spec)).collect();
        let ended: Vec<String> = self
            .running
            .iter()
            .filter(|(name, running)| wanted.get(*name).is_none_or(|spec| **spec != running.spec))
            .map(|(name, _)| name.clone())
            .collect();
        let mut off: Vec<String> = Vec::new();
        if std::mem::take(&mut self.is_first) {
            off = desk::names_in(&self.door, &self.site);
        }
        for name in ended {
            if let Some(running) = self.running.remove(&name) {
                running.stop.cancel();
                let _ = running.task.await;
            }
            self.board.remove(&name);
            off.push(name);
        }
        off.retain(|name| !wanted.contains_key(name));
        for name in off {
            let mut desk = Desk::open(self.door.clone(), self.site.clone(), &name);
            match desk.close().await {
                Ok(()) => tracing::info!(collector = %name, "a collector was turned off"),
                Err(error) => tracing::warn!(collector = %name, %error, "what a collector told could not be cleared"),
            }
        }
        for (name, spec) in wanted {
            if !self.running.contains_key(&name) {
                self.start(name, spec.clone());
            }
        }
    }

    fn start(&mut self, name: String, spec: Spec) {
        let health = Arc::new(Health::new(&spec));
        self.board.put(name.clone(), Arc::clone(&health));
        let desk = Desk::open(self.door.clone(), self.site.clone(), &name);
        let stop = CancellationToken::new();
        let runner = Runner { spec: spec.clone(), host: self.host.clone(), desk, health, stop: stop.clone() };
        let task = tokio::spawn(runner.run());
        self.running.insert(name, Running { spec, stop, task });
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
