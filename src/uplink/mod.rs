//! The uplink: this node as one below another. It connects to the node above, and again when it must, and tells it what becomes of
//! this node's alarms, or as an agent what is reported to it; and takes the actions that operators order there.
//!
//! ```text
//! address, token (kept, desk) ─▶ connect (link) ─▶ who am I, what is above (session, lineage) ─▶ batches under a budget
//!        ▲                            │ not reached: again after 1 s … 60 s, by chance
//!        └─ settings, join, rehome    └─ for `down_after`: the alarm klaxon.uplink.down
//! ```
//!
//! It reads the store and brings actions in by a door; it knows nothing of how alarms come about.

mod address;
mod batch;
mod budget;
mod desk;
mod kept;
mod lineage;
mod link;
mod part;
mod rehome;
mod session;
mod stood;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use klaxon_api::http::{MetricKind, MetricsText, UplinkOrder, UplinkParts, UplinkShown, UplinkState};
use klaxon_ingest::own::OwnAlarm;
use klaxon_schemas::child::ChildKind;
use klaxon_schemas::event::Report;
use klaxon_schemas::names::{Follower, Site};
use klaxon_schemas::severity::Severity;
use klaxon_schemas::time::Timestamp;
use klaxon_schemas::wire::v1::uplink::{Refusal, Up};
use klaxon_store::door::Door;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use address::Address;
pub(crate) use kept::give_to_owner;
pub use kept::{FILE as KEPT_FILE, Kept, KeptError, Token};

use crate::follow::Control;
use budget::Budget;
use desk::{Desk, Target};
use klaxon_api::trust::ClientTls;
use link::{LineCounts, Link, LinkError, Proof};
use part::{Board, Part};
use session::{End, Failure};

/// The alarm that stands while the node above is out of reach.
pub(crate) const UPLINK_DOWN: &str = "klaxon.uplink.down";
/// Under which name it is kept how far the node above has come. No receiver may be called so.
pub(crate) const FOLLOWER: &str = "uplink";
/// How often it is kept at most.
const KEEP_EVERY: Duration = Duration::from_secs(5);
/// For how long a node that is left is told so as often as one that is joined is tried; from then on it is tried seldom.
const LEAVING_TOLD_FOR: Duration = Duration::from_secs(7 * 24 * 3600);
/// How seldom.
const LEAVING_SELDOM: Duration = Duration::from_secs(3600);
/// How long it is until what could not be kept is tried again.
const KEEP_AGAIN: Duration = Duration::from_secs(10);
/// How long the connection that lives has to tell it, before another one is made for that.
const LEAVING_WAIT: Duration = Duration::from_secs(5);
/// How often in succession a new numbering may begin at once.
const ANEW_MAX: u32 = 3;
/// How long a connection has lived that counts as none that failed.
const LIVED: Duration = Duration::from_secs(60);
/// How often the alarm is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the settings say of the node above.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Where it is.
    pub configured: Option<Address>,
    /// What this node is to it.
    pub kind: ChildKind,
    /// The file with the token with which it joins.
    pub join_token_file: Option<PathBuf>,
    /// Certificates.
    pub tls: ClientTls,
    /// Whether it may be spoken to without TLS over a network.
    pub insecure: bool,
    /// How many bytes a second are sent at most.
    pub bandwidth: Option<u64>,
    /// How long an attempt may take.
    pub connect_timeout: Duration,
    /// How long until the next one.
    pub backoff: Backoff,
    /// How long it may be out of reach until that is an alarm.
    pub down_after: Duration,
}

/// How long it is until the next attempt: after each that failed up to twice as long, by chance between nothing and that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The first bound.
    pub min: Duration,
    /// The last.
    pub max: Duration,
}

impl Backoff {
    /// How long to wait after `failures` in succession; `chance` is between 0 and 1.
    fn wait(self, failures: u32, chance: f64) -> Duration {
        let bound = self.min.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX)).min(self.max);
        // Never at once: a node above that ends each connection must not be called without a pause.
        bound.mul_f64(chance).max(self.min / 10)
    }
}

impl Default for Plan {
    fn default() -> Self {
        crate::config::Config::default().uplink.plan()
    }
}

/// The uplink, before it runs.
pub struct Uplink(Arc<Part>);

/// What is asked of the uplink while it runs. Cloning shares it.
#[derive(Clone)]
pub struct UplinkControl(Arc<Part>);

/// What the uplink is made of.
pub struct UplinkNeeds {
    /// By which actions come in.
    pub door: Door,
    /// The site that the node is, or is part of.
    pub site: Site,
    /// Where a new numbering is asked for.
    pub control: mpsc::Sender<Control>,
    /// The store's folder.
    pub dir: PathBuf,
    /// Cancelled when the node is to stop.
    pub stop: CancellationToken,
}

impl Uplink {
    /// The uplink as it is planned and kept.
    pub fn new(plan: Plan, needs: UplinkNeeds) -> (Self, UplinkControl) {
        let UplinkNeeds { door, site, control, dir, stop } = needs;
        let part = Arc::new(Part {
            door,
            site,
            control,
            desk: Arc::new(Desk::open(dir, plan)),
            board: Board::default(),
            line: Arc::new(LineCounts::default()),
            stop,
            budget: Mutex::new(Budget::default()),
            turn: tokio::sync::Mutex::new(()),
            current: Mutex::new(None),
        });
        (Self(Arc::clone(&part)), UplinkControl(part))
    }

    /// Connects, and again when it must, until the node stops.
    pub async fn run(self, alarm: OwnAlarm) {
        let part = &*self.0;
        // A connection that lives says how far it has come, and that it ends: that is the one that is waited for.
        tokio::select! {
            () = watch(part, &alarm) => {}
            () = take_leave(part) => {}
            () = stay_connected(part) => {}
        }
    }
}

/// Connects again and again.
async fn stay_connected(part: &Part) {
    let mut changed = part.desk.changed();
    let (mut failures, mut anew) = (0_u32, 0);
    let mut last: Option<Address> = None;
    while !part.stop.is_cancelled() {
        changed.borrow_and_update();
        if part.desk.is_held() {
            tokio::select! {
                () = part.stop.cancelled() => {}
                _ = changed.changed() => {}
            }
            continue;
        }
        // Before it is looked up: what is ordered meanwhile is another one.
        part.take_up();
        let target = match part.target().await {
            Ok(Some(target)) => {
                if last.as_ref().is_some_and(|last| *last != target.url) {
                    part.forget_standing();
                }
                last = Some(target.url.clone());
                Ok(target)
            }
            Ok(None) => {
                part.forget_standing();
                {
                    let mut board = part.board.lock();
                    (board.disconnected_since, board.last_error, board.next_try_at) = (None, None, None);
                }
                let is_forgotten = part.forget_cursor().await;
                tokio::select! {
                    () = part.stop.cancelled() => {}
                    _ = changed.changed() => {}
                    () = tokio::time::sleep(KEEP_AGAIN), if !is_forgotten => {}
                }
                continue;
            }
            Err(reason) => Err(reason),
        };
        part.board.lock().disconnected_since.get_or_insert_with(now);
        let mut least = Duration::ZERO;
        let reason = match target {
            Err(reason) => reason,
            Ok(target) => {
                let (before, begun) = (part.board.lock().advances, Instant::now());
                let connections = part.board.lock().connections;
                let end = {
                    let _turn = part.turn.lock().await;
                    attempt(part, &target, changed.clone()).await
                };
                {
                    // One that is only welcome, again and again, is not what it takes.
                    let board = part.board.lock();
                    let has_lived = board.connections > connections && begun.elapsed() >= LIVED;
                    if has_lived || board.advances > before {
                        failures = 0;
                    }
                }
                part.board.lock().disconnected_since.get_or_insert_with(now);
                match end {
                    End::Wanted => continue,
                    End::Anew if anew < ANEW_MAX => {
                        anew += 1;
                        continue;
                    }
                    End::Anew => "a new numbering is asked for again and again".to_owned(),
                    End::Refused { code, reason, retry_after } => {
                        least = retry_after.min(part.plan().backoff.max);
                        refused(code, &reason)
                    }
                    End::Failed(failure) => klaxon_schemas::error::chain(&failure),
                }
            }
        };
        anew = 0;
        failures = failures.saturating_add(1);
        let chance = (Uuid::new_v4().as_u128() >> 96) as f64 / f64::from(u32::MAX);
        let wait = part.plan().backoff.wait(failures, chance).max(least.mul_f64(1.0 + chance));
        let is_new = part.board.lock().last_error.as_ref().is_none_or(|(last, _)| *last != reason) || failures == 1;
        if is_new {
            tracing::warn!(%reason, retry_ms = wait.as_millis(), "the node above is not reached");
        }
        {
            let mut board = part.board.lock();
            board.last_error = Some((reason, now()));
            board.next_try_at = Some(now().saturating_add_micros(i64::try_from(wait.as_micros()).unwrap_or(i64::MAX)));
        }
        tokio::select! {
            () = part.stop.cancelled() => {}
            _ = changed.changed() => failures = 0,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// One connection, from its beginning to its end.
async fn attempt(part: &Part, target: &Target, wanted: watch::Receiver<u64>) -> End {
    let plan = part.plan();
    if let Some(refusal) = target.url.refusal(plan.insecure) {
        return End::Failed(LinkError::File(format!("{} {refusal}", target.url)).into());
    }
    let opening = open(part, &plan, target);
    let opened = tokio::select! {
        () = part.stop.cancelled() => return End::Wanted,
        () = part.replanned(wanted.clone()) => return End::Wanted,
        opened = opening => opened,
    };
    let (link, target) = match opened {
        Ok(opened) => opened,
        Err(failure) => return End::Failed(failure),
    };
    match session::speak(part, link, &target, wanted).await {
        // Such as a token that is another node's.
        End::Refused { code: Refusal::Mismatch, reason, .. } if target.previous.is_some() => {
            match fall_back(part, &target, refused(Refusal::Mismatch, &reason)).await {
                Ok(true) => End::Wanted,
                Ok(false) => End::Refused { code: Refusal::Mismatch, reason, retry_after: Duration::ZERO },
                Err(failure) => End::Failed(failure),
            }
        }
        end => end,
    }
}

/// The node above does not take what it was shown, for `reason`, and there is something that it took before. Whether a token is forgotten
/// for that.
async fn fall_back(part: &Part, target: &Target, reason: String) -> Result<bool, Failure> {
    tracing::warn!(%reason, "the node above does not take what is newest; what proved this node before is tried");
    part.board.lock().last_error = Some((reason, now()));
    let is_forgotten = part.desk.not_taken(target.clone()).await?;
    if is_forgotten {
        part.let_in();
    }
    Ok(is_forgotten)
}

/// Connects with what proves who this node is; if that is not taken, with what did before. Tells with which.
async fn open(part: &Part, plan: &Plan, target: &Target) -> Result<(Link, Target), Failure> {
    let with = async |token: Option<&Token>| {
        let proof = Proof { tls: &plan.tls, token };
        Link::open(&target.url, &proof, plan.connect_timeout, &part.line).await
    };
    let denied = match with(target.token.as_ref()).await {
        Ok(link) => return Ok((link, target.clone())),
        Err(error @ LinkError::Denied { .. }) if target.previous.is_some() => error,
        Err(error) => return Err(error.into()),
    };
    match with(target.previous.as_ref()).await {
        Ok(link) => {
            fall_back(part, target, denied.to_string()).await?;
            Ok((link, Target { token: target.previous.clone(), ..target.clone() }))
        }
        Err(LinkError::Denied { .. }) => Err(denied.into()),
        Err(error) => Err(error.into()),
    }
}

fn refused(code: Refusal, reason: &str) -> String {
    let what = match code {
        Refusal::AwaitsApproval => "a person must approve this node there first",
        Refusal::Doubled => "another node with this name is connected there",
        Refusal::Gone => "it was retired there, or went elsewhere",
        Refusal::Protocol | Refusal::Mismatch | Refusal::Malformed | Refusal::Busy | Refusal::Other => "it refuses this node",
    };
    format!("{what}: {reason}")
}

/// Raises the alarm when the node above is out of reach for too long, and clears it when it is reached.
async fn watch(part: &Part, alarm: &OwnAlarm) {
    let mut since: Option<Instant> = None;
    let mut told = false;
    // It may stand since before the start.
    let mut is_clear = false;
    loop {
        let (connected, has_target) = (part.board.lock().connected, part.desk.has_target());
        if connected || !has_target {
            since = None;
            if told || !is_clear {
                let text = if connected { "The node above is reached again." } else { "There is no node above any more." };
                is_clear = alarm.clear(text).await;
                told &= !is_clear;
            }
        } else {
            let begun = *since.get_or_insert_with(Instant::now);
            // Which one it is will not be known by waiting.
            let down_after = part.desk.broken().map_or(part.plan().down_after, |_| Duration::ZERO);
            if begun.elapsed() >= down_after && (!told || alarm.standing().is_none()) {
                let reason = part.last_error().map(|(reason, _)| reason);
                let text = format!(
                    "The node above has not been reached for {}: {}. What happens here is kept and told when it is reached.",
                    humantime::format_duration(Duration::from_secs(begun.elapsed().as_secs())),
                    reason.as_deref().unwrap_or("it is not known why")
                );
                told = alarm.tell(Report::Raise(Severity::Major), &text).await;
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Tells a node above that it is left, if the connection to it was not there to do that.
async fn take_leave(part: &Part) {
    let mut changed = part.desk.changed();
    loop {
        let Some((leaving, to)) = part.desk.leaving() else {
            if changed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(LEAVING_WAIT).await;
            continue;
        };
        let is_over = now().micros_since(leaving.since) > i64::try_from(LEAVING_TOLD_FOR.as_micros()).unwrap_or(i64::MAX);
        let plan = part.plan();
        let proof = Proof { tls: &plan.tls, token: leaving.credential.as_ref() };
        let told = async {
            let mut link = Link::open(&leaving.url, &proof, plan.connect_timeout, &part.line).await?;
            session::greet(part, &mut link, false).await?;
            link.send(&Up::Moved { to }).await?;
            link.close().await;
            Ok::<(), End>(())
        };
        match told.await {
            // Who wants other numbers of this node has forgotten it, and no numbering begins for that under the node that is above.
            Ok(()) | Err(End::Refused { code: Refusal::Gone, .. } | End::Anew) => {
                part.desk.told_of_leaving(&leaving.url).await;
            }
            Err(end) => {
                tracing::debug!(?end, url = %leaving.url, "the node above that is left cannot be told yet");
                let wait = if is_over { LEAVING_SELDOM } else { plan.backoff.max };
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    _ = changed.changed() => {}
                }
            }
        }
    }
}

impl UplinkControl {
    /// Takes up other settings; whether anything is another. Blocks.
    pub(crate) fn apply(&self, plan: Plan) -> Result<bool, KeptError> {
        self.0.desk.apply(plan)
    }

    /// How things stand.
    pub(crate) fn shown(&self) -> UplinkShown {
        self.0.shown()
    }

    /// As the front end takes it.
    pub(crate) fn parts(&self) -> UplinkParts {
        let (shown, ordered) = (self.clone(), self.clone());
        UplinkParts { shown: Box::new(move || shown.shown()), order: Box::new(move |order| ordered.order(order)) }
    }

    /// Joins a node, goes to another one, or to none. Blocks.
    fn order(&self, order: UplinkOrder) -> Result<(), String> {
        let runtime = tokio::runtime::Handle::current;
        let (url, token, is_rehome) = match order {
            UplinkOrder::Join { url, token } => (url, token, false),
            UplinkOrder::Rehome { url, token: Some(token) } => (url, token, true),
            UplinkOrder::Rehome { url, token: None } => {
                return runtime().block_on(rehome::same_node(&self.0, &url.parse()?));
            }
            UplinkOrder::Leave => return self.0.desk.leave(),
        };
        let url: Address = url.parse()?;
        let token = token.trim();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("token: is none".to_owned());
        }
        let token = Token(token.to_owned());
        match self.0.desk.left_for(&url).filter(|_| is_rehome) {
            None => self.0.desk.join(url, token),
            Some(old) => {
                let rehomed = runtime().block_on(rehome::other_node(&self.0, &url, &token));
                rehomed.map_err(|reason| format!("{old} stays above this node: {reason}"))
            }
        }
    }

    /// Writes what is counted.
    pub(crate) fn metrics(&self, text: &mut MetricsText) {
        let shown = self.0.shown();
        if shown.state == UplinkState::Off {
            return;
        }
        let gauge = |text: &mut MetricsText, name: &str, help: &str, value: u64| {
            text.family(name, MetricKind::Gauge, help);
            text.sample(name, &[], value);
        };
        let connected = u64::from(shown.state == UplinkState::Connected);
        gauge(text, "klaxon_uplink_connected", "Whether the node above is reached.", connected);
        let lag = shown.lag_records.unwrap_or(0);
        gauge(text, "klaxon_uplink_lag_records", "Journal records that the node above has not yet said to have.", lag);
        let missing = shown.history_missing_records.unwrap_or(0);
        gauge(text, "klaxon_uplink_history_missing_records", "Journal records of history that it lacks.", missing);
        let counters = [
            ("klaxon_uplink_connections_total", "Connections to the node above.", shown.connections),
            ("klaxon_uplink_sent_bytes_total", "Bytes sent to the node above.", shown.sent_bytes),
            ("klaxon_uplink_received_bytes_total", "Bytes received from the node above.", shown.received_bytes),
            ("klaxon_uplink_changes_sent_total", "Changes or events sent as they came.", shown.changes_sent),
            ("klaxon_uplink_history_sent_total", "Changes sent as history.", shown.history_sent),
        ];
        for (name, help, value) in counters {
            text.family(name, MetricKind::Counter, help);
            text.sample(name, &[], value);
        }
    }
}

/// For whom an agent's journal is kept whole.
pub(crate) fn kept_for(kind: ChildKind) -> Option<Follower> {
    (kind == ChildKind::Agent).then(part::follower)
}

/// The wall clock.
pub(crate) fn now() -> Timestamp {
    crate::clock::wall()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_come_further_apart_and_by_chance() {
        let backoff = Backoff { min: Duration::from_secs(1), max: Duration::from_secs(60) };
        assert_eq!(backoff.wait(1, 1.0), Duration::from_secs(1));
        assert_eq!(backoff.wait(4, 0.5), Duration::from_secs(4));
        assert_eq!(backoff.wait(40, 1.0), Duration::from_secs(60));
        assert_eq!(backoff.wait(9, 0.0), Duration::from_millis(100));
    }
}
