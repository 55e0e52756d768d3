//! The life of one collector: look, tell, wait; and what becomes of it when a look fails.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use klaxon_schemas::error::chain;
use klaxon_schemas::severity::Severity;
use klaxon_schemas::time::Timestamp;
use klaxon_schemas::wire::v1::{self, CollectorState};
use klaxon_store::publish::PublishError;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::desk::Desk;
use super::{Collector, Finding, Host, Look, LookError, Spec, Subject, Told};

/// How long a look may take before it counts as hung.
pub(super) const LOOK_TIME_MAX: Duration = Duration::from_secs(30);
/// After so many failed looks in a row the collector counts as failed.
const FAILURES_MAX: u32 = 3;
/// How long a collector waits whose look failed, until it counts as failed, if it does not look more often anyway.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// How long it waits at most after that.
const FAILED_LOOK_AGAIN: Duration = Duration::from_secs(60);
/// The shortest time between two looks.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// The shortest time from the begin of a look to the next if it is woken: in a storm each look sees all that came meanwhile.
const WOKEN_APART: Duration = Duration::from_millis(50);
/// How long to wait until what could not be reported is reported again: at first, and at most.
const REPORT_AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How long a collector that is stopped is waited for until it has killed the programs that it ran.
const KILL_TIME_MAX: Duration = Duration::from_secs(1);
/// The most readings that are shown.
const READINGS_MAX: usize = 256;

/// How a collector is, for those who ask.
#[derive(Debug)]
pub(super) struct Health(Mutex<v1::Collector>);

impl Health {
    pub(super) fn new(spec: &Spec) -> Self {
        Self(Mutex::new(v1::Collector {
            name: spec.name(),
            state: CollectorState::Starting,
            reason: None,
            interval_s: spec.interval().as_secs(),
            looked_at: None,
            look_us: 0,
            looks: 0,
            failures: 0,
            holds: 0,
            readings: Vec::new(),
        }))
    }

    pub(super) fn show(&self) -> v1::Collector {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, change: impl FnOnce(&mut v1::Collector)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn looked(&self, look: &Look, took: Duration) {
        self.note(|health| {
            health.state = if look.not_applicable.is_some() { CollectorState::NotApplicable } else { CollectorState::Running };
            health.reason.clone_from(&look.not_applicable);
            health.looked_at = Some(wall());
            health.look_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            health.looks += 1;
            health.holds = look.findings.len();
            health.readings = look.readings.iter().take(READINGS_MAX).cloned().collect();
        });
    }

    fn stumbled(&self) {
        self.note(|health| {
            health.looks += 1;
            health.failures += 1;
        });
    }

    fn failed(&self, reason: &str) {
        self.note(|health| {
            health.state = CollectorState::Failed;
            health.reason = Some(reason.to_owned());
        });
    }
}

/// What a look came to.
enum Outcome {
    Done(Box<dyn Collector>, Result<Look, LookError>),
    Panicked,
    Hung,
    Stopped,
}

/// What could not be reported: the store is full or busy.
#[derive(Debug, Default)]
struct Backlog {
    /// The last look, until it is reported.
    look: Option<Look>,
    /// How long was waited for another try, if reporting does not work now, and when that is.
    again: Option<(Duration, Instant)>,
}

/// One collector at work.
pub(super) struct Runner {
    pub(super) spec: Spec,
    pub(super) host: Host,
    pub(super) desk: Desk,
    pub(super) health: Arc<Health>,
    pub(super) stop: CancellationToken,
    /// How long a look may take.
    pub(super) look_time_max: Duration,
}

impl Runner {
    /// Looks and tells until it is stopped; then gives back the desk.
    pub(super) async fn run(mut self) -> Desk {
        let mut collector = self.spec.make(&self.host);
        let mut failures = 0;
        let mut backlog = Backlog::default();
        while !self.stop.is_cancelled() {
            let wakes = collector.wakes();
            let begun = Instant::now();
            let pause = match self.look(collector, &mut backlog).await {
                Outcome::Stopped => break,
                Outcome::Done(same, Ok(look)) => {
                    collector = same;
                    failures = 0;
                    self.health.looked(&look, begun.elapsed());
                    let pause = look.again_in.map_or(self.spec.interval(), |sooner| sooner.min(self.spec.interval()));
                    self.tell(look, &mut backlog).await;
                    pause
                }
                Outcome::Done(same, Err(error)) => {
                    collector = same;
                    failures += 1;
                    self.health.stumbled();
                    if failures >= FAILURES_MAX {
                        let reason = chain(&error);
                        self.fail(&reason, &mut backlog).await;
                        FAILED_LOOK_AGAIN.min(self.spec.interval())
                    } else {
                        tracing::warn!(collector = %self.spec.name(), error = chain(&error), "a look failed");
                        LOOK_AGAIN.min(self.spec.interval())
                    }
                }
                Outcome::Panicked => {
                    self.health.stumbled();
                    self.fail("it broke; the log says where", &mut backlog).await;
                    collector = self.spec.make(&self.host);
                    FAILED_LOOK_AGAIN.min(self.spec.interval())
                }
                Outcome::Hung => {
                    // Its thread is lost until the system lets go of it; a new one begins.
                    collector = self.spec.make(&self.host);
                    PAUSE_MIN
                }
            };
            let due = Instant::now() + pause.max(PAUSE_MIN);
            let woken = async {
                match wakes {
                    Some(wakes) => {
                        wakes.notified().await;
                        tokio::time::sleep_until((begun + WOKEN_APART).into()).await;
                    }
                    None => std::future::pending().await,
                }
            };
            self.rest(due, woken, &mut backlog).await;
        }
        self.desk
    }

    /// Waits until the next look is due, and reports meanwhile what could not be reported.
    async fn rest(&mut self, due: Instant, woken: impl Future<Output = ()>, backlog: &mut Backlog) {
        tokio::pin!(woken);
        let stop = self.stop.clone();
        loop {
            let again_at = backlog.again.filter(|_| backlog.look.is_some()).map(|(_, at)| at);
            tokio::select! {
                () = stop.cancelled() => return,
                () = &mut woken => return,
                () = tokio::time::sleep_until(due.into()) => return,
                () = tokio::time::sleep_until(again_at.unwrap_or(due).into()), if again_at.is_some() => {
                    if let Some(look) = backlog.look.take() {
                        self.tell(look, backlog).await;
                    }
                }
            }
        }
    }

    /// One look on a thread of its own. If it takes too long, the collector has failed; it is waited for all the same, so that
    /// it never runs twice. The thread is none of the runtime's: one that hangs does not keep the process from ending.
    async fn look(&mut self, mut collector: Box<dyn Collector>, backlog: &mut Backlog) -> Outcome {
        let told = self.desk.told();
        let programs = collector.programs();
        let (done, mut looking) = oneshot::channel();
        let name = self.spec.name();
        let spawned = std::thread::Builder::new().name(format!("look {name}")).spawn(move || {
            let look = collector.look(boottime(), &told);
            // Nobody may wait any more.
            let _ = done.send((collector, look));
        });
        if let Err(error) = spawned {
            return Outcome::Done(self.spec.make(&self.host), Err(LookError::new("begin a thread", error)));
        }
        let stop = self.stop.clone();
        let mut hung = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => {
                    if let Some(programs) = programs {
                        programs.cancel();
                        let _ = tokio::time::timeout(KILL_TIME_MAX, looking).await;
                    }
                    return Outcome::Stopped;
                }
                done = &mut looking => return match done {
                    // What it saw so long ago is not worth telling.
                    Ok(_) if hung => Outcome::Hung,
                    Ok((collector, look)) => Outcome::Done(collector, look),
                    Err(_) => Outcome::Panicked,
                },
                // Told again and again, because it could not be told, or somebody cleared it.
                () = tokio::time::sleep(self.look_time_max) => {
                    if !hung {
                        self.health.stumbled();
                    }
                    hung = true;
                    self.fail(&format!("it has not answered for {} s", self.look_time_max.as_secs_f64()), backlog).await;
                }
            }
        }
    }

    /// Reports what was found. If that does not work now, or did not just before, it is kept.
    async fn tell(&mut self, look: Look, backlog: &mut Backlog) {
        backlog.look = None;
        if backlog.again.is_none_or(|(_, at)| at <= Instant::now()) {
            let reported = self.desk.tell(&look).await;
            if self.note(reported, backlog) {
                return;
            }
        }
        backlog.look = Some(look);
    }

    /// Notes whether reporting works; says so.
    fn note(&self, reported: Result<(), PublishError>, backlog: &mut Backlog) -> bool {
        let collector = self.spec.name();
        let before = backlog.again.take();
        let Err(error) = reported else {
            if before.is_some() {
                tracing::info!(%collector, "a collector can report again");
            }
            return true;
        };
        if before.is_none() {
            tracing::warn!(%collector, %error, "what a collector found has to wait");
        }
        let wait = before.map_or(REPORT_AGAIN.0, |(wait, _)| (wait * 2).min(REPORT_AGAIN.1));
        backlog.again = Some((wait, Instant::now() + wait));
        false
    }

    async fn fail(&mut self, reason: &str, backlog: &mut Backlog) {
        // What was seen before would take the failure back.
        backlog.look = None;
        let name = self.spec.name();
        let before = self.health.show().state;
        self.health.failed(reason);
        if before != CollectorState::Failed {
            tracing::error!(collector = %name, reason, "a collector has failed");
        }
        let text = format!("The collector {name} does not work: {reason}. What it told is not looked at any more.");
        let finding =
            Finding::new(Subject::new(self.host.part("collector", &name), "klaxon.collector-failed"), Severity::Major, &text);
        let reported = self.desk.went_blind(finding).await;
        self.note(reported, backlog);
    }
}

/// Time by CLOCK_BOOTTIME: it runs on while the machine sleeps, and nobody sets it.
pub(super) fn boottime() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// What the wall clock says.
fn wall() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::default().saturating_add_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// Looks once, as a person asks for it; a share of time is that of one second.
pub(super) fn once(spec: &Spec, host: &Host) -> Result<Look, LookError> {
    let mut collector = spec.make(host);
    let mut look = collector.look(boottime(), &Told::default())?;
    if spec.needs_two_looks() {
        std::thread::sleep(Duration::from_secs(1));
        look = collector.look(boottime(), &Told::default())?;
    }
    Ok(look)
}
