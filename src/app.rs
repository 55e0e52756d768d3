//! The life of a node: build, run, drain.
//!
//! ```text
//! build   store ─▶ follow (journals the start) ─▶ listeners ─▶ ready
//! run     doors ─▶ publisher ─▶ follow, on a thread of its own; signals
//! drain   doors finish what they have ─▶ the queue closes ─▶ follow answers what is in it ─▶ the store closes
//! ```

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use klaxon_api::agent::{Indexes, Parts as TablesParts, Tables, TablesControl};
use klaxon_api::http::{
    AccessConfig, Api, CollectorsShown, Listening as Served, MetricKind, MetricsText, Parts as ApiParts, Serves, Tls, serve,
    serve_unix,
};
use klaxon_api::notify::{ReceiverConfig, Receivers, SinkBuilder, SinkTools, TOLD_MAX};
use klaxon_api::trust::Authorities;
use klaxon_api::uplink::Uplinks;
use klaxon_ingest::collect::{CollectConfig, Collectors, Host};
use klaxon_ingest::fm::{FmCounts, FmDoor, FmParts};
use klaxon_ingest::metric::Metric;
use klaxon_ingest::own::OwnAlarm;
use klaxon_ingest::trap::{self, TrapControl, TrapCounts, TrapDoors, TrapReceiver, TrapRules};
use klaxon_schemas::catalogue::Catalogue;
use klaxon_schemas::child::ChildKind;
use klaxon_snmp::{AgentCounts, EngineHome, User, Users};
use klaxon_store::door::Door;
use klaxon_store::publish::{self, Publisher};
use klaxon_store::{OpenReport, Store};
use sd_notify::NotifyState;
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::agent::{AGENT_UNAVAILABLE, AgentControl, AgentPart};
use crate::cli::run::{Listening, Settings, greeting};
use crate::config::{AgentPlan, Config, ListenerPlan};
use crate::follow::{Control, Parts};
use crate::log::LogHandle;
use crate::loops::{self, LoopStatus, Share, Started, TellReceivers};
use crate::uplink::{Kept, KeptError, UPLINK_DOWN, Uplink, UplinkControl, UplinkNeeds};

/// Who may use the socket: its owner and its group.
const SOCKET_MODE: u32 = 0o660;
/// How long the node waits before it tries again to clear what collectors told that are off.
const SETTLE_WAIT: Duration = Duration::from_secs(10);
/// How long a node that stops goes on answering before its connections are cut.
const DRAIN: Duration = Duration::from_secs(5);

/// Runs a node until it is told to stop.
pub(crate) fn run(config: Config, settings: Settings, log: LogHandle) -> anyhow::Result<()> {
    // What of a newer program lies beside the journal is met before that is touched; what is damaged there stops nothing.
    if let Err(error @ KeptError::Newer { .. }) = Kept::read(&config.store.dir) {
        return Err(error.into());
    }
    let (store, writer, report) = Store::open(config.store_config()).with_context(|| cannot_open(&config.store.dir))?;
    tell(&report);
    let (publisher, intake) = publish::queue();
    let (control, asked) = mpsc::channel();
    let parts = Parts {
        site: config.node.site.clone(),
        is_agent: config.uplink.kind == ChildKind::Agent,
        store: store.clone(),
        writer,
        report,
        intake,
        control: asked,
        status: Arc::default(),
    };
    let stop = CancellationToken::new();
    let (over, last) = (stop.clone(), publisher.clone());
    let mut wanted = Wanted::of(&config).map_err(contradiction)?;
    let Started { loops, status, share } = loops::start(&config, &wanted.catalogue, parts, &publisher, &stop)?;
    let snmp = Arc::new(EngineHome::new(&config.store.dir));
    let catalogue = Arc::new(ArcSwap::new(Arc::clone(&wanted.catalogue)));
    let trap_users = Users::new(std::mem::take(&mut wanted.trap_users));
    let node = Node {
        config,
        settings,
        log,
        store,
        publisher,
        control,
        traps: None,
        status,
        snmp,
        stop,
        trap_users,
        share,
        catalogue,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("klaxon").build()?;
    let served = runtime.block_on(node.serve(wanted));
    // Whatever still runs holds a publisher; with the last one gone the loop ends. Loops that wake each other hold one as well.
    runtime.shutdown_timeout(DRAIN);
    over.cancel();
    last.close();
    loops.join()?;
    served
}

fn contradiction((key, reason): (String, String)) -> anyhow::Error {
    anyhow::anyhow!("{key}: {reason}")
}

fn cannot_open(dir: &Path) -> String {
    format!("cannot open the store {}", dir.display())
}

fn tell(report: &OpenReport) {
    if let Some(torn) = &report.torn_tail {
        tracing::warn!(
            segment = %torn.segment.display(), offset = torn.offset, bytes = torn.bytes,
            "a torn frame at the end of the journal was cut off; nobody had been told of it"
        );
    }
    if let Some(missing) = report.tail_missing {
        tracing::error!(
            from = %missing.from, to = %missing.to, epoch = %report.epoch,
            "records are missing from the end of the journal; a new epoch begins"
        );
    }
    if let Some(reason) = &report.view_rebuilt {
        tracing::warn!(reason = %reason, "the view was built anew from the journal");
    }
    for note in &report.notes {
        tracing::warn!(note = %note, "found when the store was opened");
    }
}

/// What is asked by SNMP, and who is told.
struct Asked {
    agent: AgentControl,
    tables: TablesControl,
    receivers: Receivers,
    uplink: UplinkControl,
    uplinks: Uplinks,
    /// What listeners show of the node, by their names.
    tls: Vec<(String, Tls)>,
}

/// What a running node is made of.
struct Node {
    config: Config,
    settings: Settings,
    log: LogHandle,
    store: Store,
    publisher: Publisher,
    control: mpsc::Sender<Control>,
    /// Of the trap receiver, if there is one.
    traps: Option<TrapControl>,
    status: LoopStatus,
    /// Who the node is in SNMP: the same for the agent, for what receives and for what sends.
    snmp: Arc<EngineHome>,
    stop: CancellationToken,
    /// Whose notifications of SNMPv3 are taken.
    trap_users: Users,
    /// How the receivers are shared, if other nodes have some of them.
    share: Option<Share>,
    /// Which types of alarms are known.
    catalogue: Arc<ArcSwap<Catalogue>>,
}

impl Node {
    async fn serve(mut self, wanted: Wanted) -> anyhow::Result<()> {
        let listen = self.config.http.listen.address();
        let tcp = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
        let listen = tcp.local_addr()?;
        let http =
            Served { name: "http".to_owned(), tcp, trust: self.config.local_trust(), tls: None, serves: Serves::Everything };
        let listeners = Self::listen(self.config.listeners().map_err(contradiction)?).await?;
        let reached =
            listeners.iter().map(|one| Ok((one.tls.is_some(), one.tcp.local_addr()?))).collect::<anyhow::Result<_>>()?;
        let socket = self.config.socket_path();
        let unix = bind_unix(&socket)?;
        self.start_engine();
        let traps = self.config.traps.build().map_err(contradiction)?;
        let traps = traps.map(|traps| TrapReceiver::new(traps, Arc::clone(&self.snmp), self.trap_users.clone()));
        self.traps = traps.as_ref().map(TrapReceiver::control);
        let traps_listen = traps.as_ref().and_then(TrapReceiver::local_addr);
        let trap_doors = TrapDoors { traps: self.door("trap"), own: self.door("node") };
        let (fm, fm_door) = (self.fm().await?, self.door("fm"));
        let fm_listen = fm.as_ref().map(FmDoor::local_addr);
        let sets = self.door("snmp");
        let indexes = klaxon_api::agent::indexes(&self.store, &self.config.store.dir);
        let (receivers, shared) = self.receivers(Arc::clone(&indexes));
        let uplinks = self.uplinks();
        let (tables, tables_control) = self.tables(sets.clone(), indexes, &receivers, &uplinks).await?;
        let (agent, agent_control) =
            AgentPart::new(wanted.agent, Arc::clone(&self.snmp), tables.objects(), self.log.refusals()).await;
        let agent_listen = agent.local_addr();
        let collect = self.door("collect");
        let mut collectors = Collectors::new(collect.clone(), self.config.node.site.clone(), wanted.host);
        let board = collectors.board();
        let mut others = vec![collect, sets, uplinks.door().clone()];
        others.extend(traps.as_ref().map(|_| trap_doors.traps.clone()));
        others.extend(fm.as_ref().map(|_| fm_door.clone()));
        let trap_counts = traps.as_ref().map(TrapReceiver::counts);
        let (uplink, uplink_control) = self.uplink();
        let asked = Asked {
            agent: agent_control,
            tables: tables_control,
            receivers: receivers.clone(),
            uplink: uplink_control,
            uplinks: uplinks.clone(),
            tls: listeners.iter().filter_map(|one| Some((one.name.clone(), one.tls.clone()?))).collect(),
        };
        let counts = DoorCounts { traps: trap_counts, agent: agent.counts(), fm: fm.as_ref().map(FmDoor::counts) };
        let api = self.api(others, counts, Box::new(move || board.show()), &asked)?;
        Self::grant(&api, wanted.access).await?;
        let mut doors = JoinSet::<anyhow::Result<()>>::new();
        for one in std::iter::once(http).chain(listeners) {
            let serving = serve(one, api.clone());
            doors.spawn(async { Ok(serving.await?) });
        }
        let unix = serve_unix(unix, api.clone());
        doors.spawn(async { Ok(unix.await?) });
        let reporting = api.clone();
        doors.spawn(async move {
            reporting.report_denials().await;
            Ok(())
        });
        let watching = uplinks.run();
        doors.spawn(async {
            watching.await;
            Ok(())
        });
        let (site, stop) = (self.config.node.site.clone(), self.stop.clone());
        let showing = tables.run(stop.clone());
        doors.spawn(async {
            showing.await;
            Ok(())
        });
        let answering = agent.run(OwnAlarm::new(self.door("node"), site.clone(), AGENT_UNAVAILABLE), stop.clone());
        doors.spawn(async {
            answering.await;
            Ok(())
        });
        let climbing = uplink.run(OwnAlarm::new(self.door("node"), site.clone(), UPLINK_DOWN));
        doors.spawn(async {
            climbing.await;
            Ok(())
        });
        if let Some(fm) = fm {
            let parts = FmParts {
                door: fm_door,
                site: self.config.fm.site.clone().unwrap_or_else(|| site.clone()),
                is_behind: self.config.journal.shared_as().is_some(),
            };
            let serving = fm.run(parts, stop.clone());
            doors.spawn(async {
                serving.await;
                Ok(())
            });
        }
        if let Some(traps) = traps {
            let receiving = traps.run(trap_doors, site, stop);
            doors.spawn(async { Ok(receiving.await?) });
        } else {
            let over = trap::turned_off(trap_doors.own, site, stop);
            doors.spawn(async {
                over.await;
                Ok(())
            });
        }
        // Whoever is told that the node is ready may signal it.
        let signals = Signals::new()?;
        api.started();
        notify(&[NotifyState::Ready]);
        tracing::info!(site = %self.config.node.site, epoch = %self.store.epoch(), "the node is ready");
        let listening = Listening {
            http: listen,
            others: reached,
            socket: &socket,
            traps: traps_listen,
            agent: agent_listen,
            fm: fm_listen,
        };
        say(&greeting(&self.config, &listening));
        collectors.apply(&wanted.collect).await;
        receivers.apply(wanted.receivers).await;
        if let Some(shared) = shared {
            shared(receivers.clone());
        }
        warn_of_told(&self.config);
        let outcome = self.watch(signals, &mut doors, &mut collectors, (&asked, &api)).await;
        notify(&[NotifyState::Stopping]);
        tracing::info!("the node stops");
        self.stop.cancel();
        while doors.join_next().await.is_some() {}
        collectors.stop().await;
        receivers.stop().await;
        self.publisher.close();
        let _ = std::fs::remove_file(&socket);
        outcome
    }

    /// What SNMP shows: read before anybody can ask, because a table without alarms says that all is well.
    async fn tables(
        &self,
        door: Door,
        indexes: Arc<Indexes>,
        receivers: &Receivers,
        uplinks: &Uplinks,
    ) -> anyhow::Result<(Tables, TablesControl)> {
        let (shown, resent, below) = (receivers.clone(), receivers.clone(), uplinks.clone());
        let (config, is_on) = (self.config.tables(), self.config.snmp.agent.enabled);
        let parts = TablesParts {
            door,
            site: self.config.node.site.clone(),
            indexes,
            engine: Arc::clone(&self.snmp),
            address: self.config.agent_address(),
            receivers: Some(Arc::new(move || shown.list())),
            sites: Some(Arc::new(move || below.sites())),
            resend: Some(Arc::new(move |name, from| {
                let resent = resent.clone();
                Box::pin(async move { resent.resend(&name, from).await.map(drop).map_err(|error| error.to_string()) })
            })),
        };
        Ok(tokio::task::spawn_blocking(move || Tables::new(config, parts, is_on)).await?)
    }

    /// Who is told of alarms: nobody yet. And who is to know of them once they are set.
    fn receivers(&mut self, indexes: Arc<Indexes>) -> (Receivers, Option<TellReceivers>) {
        let (engine, catalogue) = (Arc::clone(&self.snmp), Arc::clone(&self.catalogue));
        let tools = SinkTools { engine, catalogue, indexes, authorities: Authorities::default() };
        let build: SinkBuilder = Box::new(move |one| one.sink.build(&tools));
        let (door, site) = (self.door("node"), self.config.node.site.clone());
        match self.share.take() {
            Some(Share { is_ours, told }) => (Receivers::shared(door, site, build, is_ours), told),
            None => (Receivers::new(door, site, build), None),
        }
    }

    /// The way in for the nodes below: nobody is connected yet.
    fn uplinks(&self) -> Uplinks {
        let (config, site) = (self.config.sites_config(), self.config.node.site.clone());
        Uplinks::new(config, self.door("uplink"), site, self.config.journal.shared_as(), self.stop.clone())
    }

    /// Where the node is reached beside its own host.
    async fn listen(planned: Vec<ListenerPlan>) -> anyhow::Result<Vec<Served>> {
        let mut listeners = Vec::with_capacity(planned.len());
        for ListenerPlan { name, listen, trust, tls, serves } in planned {
            let tls = match tls {
                Some(files) => {
                    let loaded = tokio::task::spawn_blocking(move || Tls::load(files)).await?;
                    Some(loaded.with_context(|| format!("listeners.{name}"))?)
                }
                None => None,
            };
            let tcp = TcpListener::bind(listen).await;
            let tcp = tcp.with_context(|| format!("cannot listen on {listen} (listeners.{name}.listen)"))?;
            listeners.push(Served { name, tcp, trust, tls, serves });
        }
        Ok(listeners)
    }

    /// The door of StarlingX's programs, if there is to be one.
    async fn fm(&self) -> anyhow::Result<Option<FmDoor>> {
        let Some(config) = self.config.fm.build() else { return Ok(None) };
        Ok(Some(FmDoor::new(&config).await?))
    }

    /// Who the node is in SNMP. Until it can be kept, the node is no party to SNMPv3, and the rest goes on.
    fn start_engine(&self) {
        if let Err(error) = self.snmp.engine() {
            tracing::error!(error = %format!("{:#}", anyhow::Error::from(error)), "the node is no SNMP engine");
        }
    }

    /// The node above, as it is planned and kept.
    fn uplink(&self) -> (Uplink, UplinkControl) {
        let needs = UplinkNeeds {
            door: self.door("uplink"),
            site: self.config.node.site.clone(),
            control: self.control.clone(),
            dir: self.config.store.dir.clone(),
            stop: self.stop.clone(),
        };
        Uplink::new(self.config.uplink.plan(), needs)
    }

    fn door(&self, name: &str) -> Door {
        Door::new(name.parse().expect("is a word"), self.publisher.clone(), self.store.clone())
    }

    fn api(
        &self,
        other_doors: Vec<Door>,
        counts: DoorCounts,
        collectors: CollectorsShown,
        asked: &Asked,
    ) -> anyhow::Result<Api> {
        let status = self.status.clone();
        let uplink = asked.uplink.clone();
        let parts = ApiParts {
            door: self.door("http"),
            own: self.door("node"),
            other_doors,
            site: self.config.node.site.clone(),
            stop: self.stop.clone(),
            collectors: Some(collectors),
            receivers: Some(asked.receivers.clone()),
            uplink: Some(asked.uplink.parts()),
            uplinks: asked.uplinks.clone(),
            more_metrics: Some(Box::new(move |text| {
                status.metrics(text);
                door_metrics(&counts, text);
                uplink.metrics(text);
            })),
        };
        Ok(Api::new(self.config.http_config(DRAIN), parts)?)
    }

    /// Says who may do what, beside the tokens that are journalled. Files are read for it.
    async fn grant(api: &Api, access: AccessConfig) -> anyhow::Result<()> {
        let api = api.clone();
        let granted = tokio::task::spawn_blocking(move || api.grant(access)).await?;
        granted.map_err(anyhow::Error::msg).context("access.keystone")
    }

    /// Takes up what the files of TLS say now; whether that is something else. Files that cannot be used change nothing.
    async fn reload_tls(tls: Tls) -> bool {
        match tokio::task::spawn_blocking(move || tls.reload()).await {
            Ok(Ok(changed)) => changed,
            Ok(Err(error)) => {
                let error = format!("{:#}", anyhow::Error::from(error));
                tracing::error!(%error, "the files of TLS cannot be used; the old certificate stays");
                false
            }
            Err(_) => false,
        }
    }

    /// Waits until something ends the node, and reloads the settings when asked to.
    async fn watch(
        &mut self,
        mut signals: Signals,
        doors: &mut JoinSet<anyhow::Result<()>>,
        collectors: &mut Collectors,
        asked: (&Asked, &Api),
    ) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return Ok(()),
                _ = signals.terminate.recv() => return Ok(()),
                _ = signals.interrupt.recv() => return Ok(()),
                Some(()) = signals.hang_up.recv() => self.reload(collectors, asked).await,
                () = tokio::time::sleep(SETTLE_WAIT), if collectors.is_unsettled() => collectors.settle().await,
                Some(door) = doors.join_next() => {
                    door??;
                    anyhow::bail!("a listener ended");
                }
            }
        }
    }

    /// Takes up the settings that can change while the node runs. A file that is wrong changes nothing.
    async fn reload(&mut self, collectors: &mut Collectors, asked: (&Asked, &Api)) {
        notify(&reloading());
        match self.reloaded(collectors, asked).await {
            Ok(changed) if changed.is_empty() => tracing::info!("the settings are as they were"),
            Ok(changed) => tracing::info!(changed = %changed.join(", "), "new settings are in force"),
            Err(error) => tracing::error!(error = %format!("{error:#}"), "the new settings are refused; the old ones stay"),
        }
        notify(&[NotifyState::Ready]);
    }

    async fn reloaded(&mut self, collectors: &mut Collectors, (asked, api): (&Asked, &Api)) -> anyhow::Result<Vec<String>> {
        let (settings, old) = (self.settings.clone(), self.config.clone());
        // Files are read and keys are made.
        let load = move || {
            let new = settings.load()?;
            let changes = Config::reloadable_from(&old, &new)?;
            let wanted = Wanted::of(&new).map_err(contradiction)?;
            anyhow::Ok((new, changes, wanted))
        };
        let (new, mut changes, wanted) = tokio::task::spawn_blocking(load).await??;
        // First, because it must be written: if it cannot be, nothing is taken up.
        let (uplink, plan) = (asked.uplink.clone(), new.uplink.plan());
        tokio::task::spawn_blocking(move || uplink.apply(plan)).await??;
        let is_on = wanted.agent.is_some();
        if is_on {
            asked.tables.turn(true).await;
        }
        asked.tables.reached_at(new.agent_address());
        if asked.agent.apply(wanted.agent) && !changes.keys.iter().any(|key| key.starts_with("snmp.")) {
            changes.keys.push("what the files hold that snmp names".to_owned());
        }
        if !is_on {
            asked.tables.turn(false).await;
        }
        if let Some(traps) = &self.traps {
            if traps.rules().mappings != wanted.trap_rules.mappings && !changes.keys.iter().any(|key| key == "traps.mappings") {
                changes.keys.push("the files of traps.mappings".to_owned());
            }
            traps.set(wanted.trap_rules);
        }
        self.trap_users.set(wanted.trap_users);
        asked.uplinks.apply(new.sites_config());
        for (name, tls) in &asked.tls {
            if Self::reload_tls(tls.clone()).await {
                changes.keys.push(format!("the certificate of listeners.{name}"));
            }
        }
        Self::grant(api, wanted.access).await?;
        self.log.set_level(new.log.level);
        // The loop is gone only when the node stops.
        let _ = self.control.send(Control::Settings(new.engine.settings()));
        let _ = self.control.send(Control::Retention(new.retention()));
        if self.catalogue.load().digest() != wanted.catalogue.digest() {
            if !changes.keys.iter().any(|key| key == "catalogue.files") {
                changes.keys.push("the files of catalogue.files".to_owned());
            }
            self.catalogue.store(Arc::clone(&wanted.catalogue));
            let _ = self.control.send(Control::Catalogue(wanted.catalogue));
        }
        collectors.set_host(wanted.host);
        collectors.apply(&wanted.collect).await;
        for name in asked.receivers.apply(wanted.receivers).await {
            let (key, section) = (format!("receivers.{name}"), format!("receivers.{name}."));
            if !changes.keys.iter().any(|changed| *changed == key || changed.starts_with(&section)) {
                changes.keys.push(format!("a secret or file of {key}"));
            }
        }
        if changes.keys.iter().any(|key| key.starts_with("receivers.") || key == "engine.active_alarms_max") {
            warn_of_told(&new);
        }
        self.config = new;
        Ok(changes.keys)
    }
}

/// Says so if receivers could have been told of more alarms than the store is made to keep for them. Most are told of few: it is
/// no reason to refuse the settings.
fn warn_of_told(config: &Config) {
    let most = config.told_most();
    if most > TOLD_MAX {
        tracing::warn!(
            most,
            limit = TOLD_MAX,
            "receivers could be told of more alarms than are kept well; lower engine.active_alarms_max, or have fewer receivers"
        );
    }
}

/// What settings come to for the parts of a node. All of it is worked out before any of it takes effect: the files that settings
/// name may be wrong or gone, and keys are costly.
struct Wanted {
    agent: Option<AgentPlan>,
    trap_rules: TrapRules,
    trap_users: Vec<User>,
    host: Host,
    collect: CollectConfig,
    receivers: Vec<ReceiverConfig>,
    access: AccessConfig,
    catalogue: Arc<Catalogue>,
}

impl Wanted {
    fn of(config: &Config) -> Result<Self, (String, String)> {
        let users = config.users()?;
        Ok(Self {
            agent: config.agent(&users)?,
            trap_rules: config.traps.rules()?,
            trap_users: config.trap_users(&users),
            host: config.collect.host()?,
            collect: config.collect.build()?,
            receivers: config.receivers(&users)?,
            access: config.access()?,
            catalogue: config.catalogue.build()?,
        })
    }
}

/// What the node is told from outside.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }
}

/// Binds the socket. Whatever lies there is left by a node that is gone: the store's lock says so.
fn bind_unix(path: &Path) -> anyhow::Result<UnixListener> {
    let what = || format!("cannot listen on {}", path.display());
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error).with_context(what),
        _ => {}
    }
    let listener = UnixListener::bind(path).with_context(what)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE)).with_context(what)?;
    Ok(listener)
}

/// That the settings are being read anew. Newer service managers want to know since when.
fn reloading() -> Vec<NotifyState<'static>> {
    [Some(NotifyState::Reloading), NotifyState::monotonic_usec_now().ok()].into_iter().flatten().collect()
}

/// Tells the service manager, if there is one.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager cannot be told");
    }
}

/// Tells the person who started the node. Nobody may be listening.
fn say(words: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(words.as_bytes()).and_then(|()| out.flush());
}

/// What the parts that speak with others count, beside what every door does.
struct DoorCounts {
    traps: Option<Arc<TrapCounts>>,
    fm: Option<Arc<FmCounts>>,
    agent: Arc<AgentCounts>,
}

fn door_metrics(counts: &DoorCounts, text: &mut MetricsText) {
    let of_traps = counts.traps.iter().flat_map(|counts| counts.rows());
    let of_fm = counts.fm.iter().flat_map(|counts| counts.rows());
    let of_agent = counts.agent.rows().into_iter().map(|row| (row.name, row.help, row.is_counter, row.label, row.value));
    let ingested =
        of_traps.chain(of_fm).map(|Metric { name, help, is_counter, label, value }| (name, help, is_counter, label, value));
    let mut family = "";
    for (name, help, is_counter, label, value) in ingested.chain(of_agent) {
        if name != family {
            text.family(name, if is_counter { MetricKind::Counter } else { MetricKind::Gauge }, help);
            family = name;
        }
        text.sample(name, label.as_slice(), value);
    }
}
