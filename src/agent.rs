//! The SNMP agent as a part of the node: it has its port or tells that it has not, and is built anew when other people may ask.
//!
//! ```text
//! plan ─▶ engine, port ─▶ answers ──── another plan: stopped, then built anew
//!             └─ cannot be had: klaxon.agent-unavailable, tried again every ten seconds
//! ```

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use klaxon_ingest::own::OwnAlarm;
use klaxon_schemas::error::chain;
use klaxon_schemas::event::Report;
use klaxon_schemas::severity::Severity;
use klaxon_snmp::{Agent, AgentCounts, AgentError, EngineError, EngineHome, Objects, Refusals};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::AgentPlan;

/// The alarm that stands while it does not answer, and should.
pub(crate) const AGENT_UNAVAILABLE: &str = "klaxon.agent-unavailable";
/// How often it is tried to have the port.
const RETRY_EVERY: Duration = Duration::from_secs(10);
/// How long it is until what stands and is over is cleared again, after the journal did not take that.
const CLEAR_EVERY: Duration = Duration::from_secs(2);
/// How often refused requests are told of in the log, at most.
const REFUSALS_EVERY: Duration = Duration::from_secs(60);

/// What the agent is to be; nothing, if there is to be none.
type Plan = Option<Arc<AgentPlan>>;

/// Tells the agent what it is to be.
#[derive(Debug)]
pub(crate) struct AgentControl(watch::Sender<Plan>);

impl AgentControl {
    /// What it is to be from here on; whether that is another thing. If not, it goes on undisturbed.
    pub(crate) fn apply(&self, plan: Option<AgentPlan>) -> bool {
        self.0.send_if_modified(|now| {
            let fingerprint = |plan: Option<&AgentPlan>| plan.map(|plan| plan.fingerprint);
            let is_other = fingerprint(now.as_deref()) != fingerprint(plan.as_ref());
            if is_other {
                *now = plan.map(Arc::new);
            }
            is_other
        })
    }
}

/// The agent.
pub(crate) struct AgentPart {
    home: Arc<EngineHome>,
    objects: Vec<Arc<dyn Objects>>,
    counts: Arc<AgentCounts>,
    plans: watch::Receiver<Plan>,
    /// What came of the first attempt, if there was to be one, and of which plan it was one.
    first: Option<(Arc<AgentPlan>, Result<Bound, Unavailable>)>,
}

/// An agent that has its port.
struct Bound {
    agent: Agent,
    stop: CancellationToken,
}

/// Why nobody is answered.
#[derive(Debug, thiserror::Error)]
enum Unavailable {
    #[error("the identity of the SNMP engine cannot be kept")]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Agent(#[from] AgentError),
    #[error("the engine's start broke")]
    Broken(#[from] tokio::task::JoinError),
}

impl AgentPart {
    /// The agent as it is planned, with its port if that can be had. If it cannot, [`AgentPart::run`] tells and tries again.
    pub(crate) async fn new(
        plan: Option<AgentPlan>,
        home: Arc<EngineHome>,
        objects: Vec<Arc<dyn Objects>>,
        refusals: Refusals,
    ) -> (Self, AgentControl) {
        let counts = Arc::new(AgentCounts::new(refusals));
        let (control, plans) = watch::channel(plan.map(Arc::new));
        let mut part = Self { home, objects, counts, plans, first: None };
        let plan = part.plans.borrow_and_update().clone();
        if let Some(plan) = plan {
            let bound = part.bind(&plan).await;
            part.first = Some((plan, bound));
        }
        (part, AgentControl(control))
    }

    /// Where it listens, if it has its port.
    pub(crate) fn local_addr(&self) -> Option<SocketAddr> {
        let (_, bound) = self.first.as_ref()?;
        Some(bound.as_ref().ok()?.agent.local_addr())
    }

    /// What it counts.
    pub(crate) fn counts(&self) -> Arc<AgentCounts> {
        Arc::clone(&self.counts)
    }

    async fn bind(&self, plan: &AgentPlan) -> Result<Bound, Unavailable> {
        let home = Arc::clone(&self.home);
        let engine = tokio::task::spawn_blocking(move || home.engine()).await??;
        let stop = CancellationToken::new();
        let agent = Agent::bind(&plan.config, &engine, &self.objects, &self.counts, stop.clone()).await?;
        tracing::info!(
            listen = %agent.local_addr(), asking = plan.config.access.len(), engine_boots = engine.boots(),
            "SNMP requests are answered"
        );
        Ok(Bound { agent, stop })
    }

    /// Answers, as planned each time, until `stop`.
    pub(crate) async fn run(mut self, alarm: OwnAlarm, stop: CancellationToken) {
        let mut told = String::new();
        let mut is_warned = false;
        while !stop.is_cancelled() {
            let plan = self.plans.borrow_and_update().clone();
            // What came of the first plan is of the first plan: if it is another by now, that gives its port back, here.
            let first = self.first.take().filter(|(of, _)| plan.as_ref().is_some_and(|plan| Arc::ptr_eq(of, plan)));
            let Some(plan) = plan else {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = changed(&mut self.plans) => {}
                    () = clear(&alarm, "SNMP requests are not answered by this node any more.") => {}
                }
                continue;
            };
            let bound = match first {
                Some((_, bound)) => bound,
                None => self.bind(&plan).await,
            };
            let error = match bound {
                Err(error) => error,
                Ok(bound) => {
                    (told, is_warned) = (String::new(), false);
                    match self.serve(bound, &alarm, &stop).await {
                        Ok(()) => continue,
                        Err(error) => error.into(),
                    }
                }
            };
            let reason = chain(&error);
            if !is_warned {
                tracing::warn!(
                    listen = %plan.config.listen, %reason, retry_s = RETRY_EVERY.as_secs(),
                    "no SNMP requests are answered; free the address, set snmp.agent.listen to another one, or snmp.agent.enabled = false"
                );
                is_warned = true;
            }
            let text =
                format!("No SNMP requests are answered: {reason}. It is tried again every {} seconds.", RETRY_EVERY.as_secs());
            let is_told = told == text && alarm.standing().is_some();
            tokio::select! {
                () = stop.cancelled() => {}
                () = changed(&mut self.plans) => {}
                () = async {
                    if !is_told && alarm.tell(Report::Raise(Severity::Major), &text).await {
                        told = text;
                    }
                    tokio::time::sleep(RETRY_EVERY).await;
                } => {}
            }
        }
    }

    /// Answers until `stop`, until there is another plan, or until the socket breaks.
    async fn serve(&mut self, bound: Bound, alarm: &OwnAlarm, stop: &CancellationToken) -> Result<(), AgentError> {
        let mut serving = tokio::spawn(bound.agent.run());
        let ended = |ended: Result<Result<(), AgentError>, tokio::task::JoinError>| match ended {
            Ok(ended) => ended,
            Err(error) => Err(AgentError::Refused(error.to_string())),
        };
        let listen = async {
            tokio::join!(clear(alarm, "SNMP requests are answered."), tell_refusals(&self.counts));
        };
        tokio::select! {
            outcome = &mut serving => return ended(outcome),
            () = stop.cancelled() => {}
            () = changed(&mut self.plans) => {}
            () = listen => {}
        }
        bound.stop.cancel();
        ended(serving.await)
    }
}

/// Waits for another plan; for ever, if nobody makes any more.
async fn changed(plans: &mut watch::Receiver<Plan>) {
    if plans.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Clears `alarm`, and does not give up while the journal takes nothing. Then it has nothing to do.
async fn clear(alarm: &OwnAlarm, text: &str) {
    while !alarm.clear(text).await {
        tokio::time::sleep(CLEAR_EVERY).await;
    }
    std::future::pending::<()>().await;
}

/// Says from time to time that requests were refused: a line for each would let a stranger fill the log.
async fn tell_refusals(counts: &AgentCounts) {
    let mut told = (counts.strangers(), counts.malformed());
    loop {
        tokio::time::sleep(REFUSALS_EVERY).await;
        let now = (counts.strangers(), counts.malformed());
        if now != told {
            let (refused, malformed) = (now.0 - told.0, now.1 - told.1);
            tracing::warn!(
                refused,
                malformed,
                "SNMP requests were refused; the metric klaxon_snmp_agent_requests_rejected_total says why"
            );
            told = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::path::Path;

    use klaxon_schemas::names::Site;
    use klaxon_store::door::Door;
    use klaxon_store::{Store, StoreConfig, publish};

    use super::*;
    use crate::config::Config;

    /// A plan, and the port in it, which was free a moment ago.
    fn plan() -> (AgentPlan, SocketAddr) {
        let address = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port is free");
        let config = Config::parse(&format!("[snmp.agent]\nlisten = \"{address}\"\n"), Path::new("k.toml"));
        (config.expect("is right").agent(&Default::default()).expect("is right").expect("is wanted"), address)
    }

    async fn until(what: &str, is_so: impl Fn() -> bool) {
        let end = tokio::time::Instant::now() + Duration::from_secs(20);
        while !is_so() {
            assert!(tokio::time::Instant::now() < end, "{what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn a_plan_that_is_over_before_it_begins_leaves_nobody_at_its_port() {
        let dir = tempfile::tempdir().expect("can be made");
        let (store, _writer, _) = Store::open(StoreConfig::new(dir.path())).expect("opens");
        let (publisher, _intake) = publish::queue();
        let door = Door::new("node".parse().expect("is a word"), publisher, store);
        let alarm = OwnAlarm::new(door, Site::new("here").expect("valid"), AGENT_UNAVAILABLE);
        let ((first, old), (second, new)) = (plan(), plan());
        let home = Arc::new(EngineHome::new(dir.path()));
        let (part, control) = AgentPart::new(Some(first), home, Vec::new(), Refusals::default()).await;
        assert_eq!(part.local_addr(), Some(old));
        assert!(control.apply(Some(second)));
        let stop = CancellationToken::new();
        let running = tokio::spawn(part.run(alarm, stop.clone()));
        let is_free = |address: SocketAddr| UdpSocket::bind(address).is_ok();
        until("the new port is taken", || !is_free(new)).await;
        until("the old port is free", || is_free(old)).await;
        stop.cancel();
        running.await.expect("ends");
    }
}
