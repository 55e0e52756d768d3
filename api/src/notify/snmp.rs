//! The sink that speaks SNMP: a notification becomes a trap or an inform of one of three families.
//!
//! | profile | is | says |
//! |---|---|---|
//! | `klaxon` | KLAXON-ALARM-MIB | everything inline, with the number by which a loss is seen |
//! | `rfc3877` | ALARM-MIB | alarmActiveState and alarmClearState |
//! | `wrs` | WRS-ALARM-MIB | what StarlingX sends |
//!
//! An inform is delivered when the receiver has answered. A trap is delivered when it is sent: nobody says whether it arrived, so
//! traps are paced. What would not fit into one datagram is cut ([`draft`]), because fragments are what networks lose first.

mod draft;
mod klaxon;
mod rfc3877;
mod wrs;

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use klaxon_schemas::catalogue::{Catalogue, Digest};
use klaxon_schemas::change::{Change, Subject};
use klaxon_schemas::event::{Event, Report};
use klaxon_schemas::severity::Severity;
use klaxon_snmp::{
    Credentials, DATAGRAM_BYTES_MAX, DATAGRAM_BYTES_MIN, OriginateError, Originator, OriginatorConfig, Value, Varbind,
};

use self::draft::Draft;
use super::pace::Pace;
use super::sink::{Delivered, SEND_TIME_MAX, SendError, Sink, SinkLimits, SinkTools};
use super::{Notification, What};
use crate::agent::WrsProfile;
use crate::agent::oids::Root;
use crate::agent::snapshot::Models;

pub use crate::agent::Wrs;

/// The most informs to one receiver that wait for an answer.
const WINDOW_MAX: usize = 1000;
/// The most times that an inform is sent again before it counts as not answered.
const RETRIES_MAX: u32 = 10;

/// snmpTrapAddress.0: the device that the alarm is about (RFC 3584 section 3.1).
const SNMP_TRAP_ADDRESS: &[u32] = &[1, 3, 6, 1, 6, 3, 18, 1, 3, 0];

/// Where an SNMP manager is, and what it understands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnmpConfig {
    /// Host and port.
    pub address: String,
    /// As whom, and so in which version.
    pub credentials: Credentials,
    /// Whether it answers (informs) or not (traps). v1 has traps only.
    pub confirm: bool,
    /// In which words.
    pub profile: SnmpProfile,
    /// Where KLAXON-ALARM-MIB stands.
    pub root: Root,
    /// The address to send from.
    pub source: Option<IpAddr>,
    /// How many informs wait for an answer at a time.
    pub window: usize,
    /// How long an answer is waited for.
    pub timeout: Duration,
    /// How often an inform is sent again meanwhile.
    pub retries: u32,
    /// The largest datagram.
    pub datagram_bytes_max: usize,
    /// The most traps a second.
    pub trap_rate: NonZeroU32,
}

/// In which words an SNMP manager is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnmpProfile {
    /// KLAXON-ALARM-MIB.
    Klaxon,
    /// ALARM-MIB of RFC 3877.
    Rfc3877,
    /// WRS-ALARM-MIB of StarlingX.
    Wrs(Wrs),
}

impl SnmpConfig {
    /// The defaults for a manager at `address`.
    pub fn new(address: String, credentials: Credentials) -> Self {
        Self {
            address,
            confirm: !matches!(credentials, Credentials::V1(_)),
            credentials,
            profile: SnmpProfile::Klaxon,
            root: Root::default(),
            source: None,
            window: 32,
            timeout: Duration::from_secs(5),
            retries: 2,
            datagram_bytes_max: 1472,
            trap_rate: NonZeroU32::new(200).expect("is not zero"),
        }
    }

    /// What is wrong with it: the setting, and why.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let most = SEND_TIME_MAX.as_secs();
        if self.confirm && matches!(self.credentials, Credentials::V1(_)) {
            return Err(("confirm", "version 1 has no informs".to_owned()));
        }
        if !(1..=WINDOW_MAX).contains(&self.window) {
            return Err(("window", format!("is not between 1 and {WINDOW_MAX}")));
        }
        if self.retries > RETRIES_MAX {
            return Err(("retries", format!("is more than {RETRIES_MAX}")));
        }
        if self.timeout < Duration::from_millis(100) {
            return Err(("timeout", "is shorter than 100 ms".to_owned()));
        }
        if self.timeout.saturating_mul(self.retries + 1) > SEND_TIME_MAX {
            return Err(("timeout", format!("with the retries it is longer than the {most} s that a delivery may take")));
        }
        // The last of those that are under way, and a heartbeat, with what the look-up of the address takes.
        let wait = Duration::from_secs_f64((self.window + 1) as f64 / f64::from(self.trap_rate.get()));
        if !self.confirm && wait + self.timeout > SEND_TIME_MAX {
            let (window, wait) = (self.window, wait.as_secs());
            return Err((
                "trap_rate",
                format!(
                    "is too low for window: the last of {window} traps would wait {wait} s, and a delivery may take {most} s"
                ),
            ));
        }
        if !(DATAGRAM_BYTES_MIN..=DATAGRAM_BYTES_MAX).contains(&self.datagram_bytes_max) {
            return Err(("datagram_bytes_max", format!("is not between {DATAGRAM_BYTES_MIN} and {DATAGRAM_BYTES_MAX}")));
        }
        Ok(())
    }

    /// Where it is, and in which version, without secrets.
    pub fn target(&self) -> String {
        let (version, user) = match &self.credentials {
            Credentials::V1(_) => ("1", None),
            Credentials::V2c(_) => ("2c", None),
            Credentials::V3(user) => ("3", Some(user.name())),
        };
        let kind = if self.confirm { "informs" } else { "traps" };
        let user = user.map_or(String::new(), |user| format!(" as {user}"));
        format!("{} (v{version} {kind}{user})", self.address)
    }
}

/// What tells one SNMP manager.
pub struct SnmpSink {
    config: SnmpConfig,
    tools: SinkTools,
    modelled: ArcSwap<Modelled>,
    originator: Originator,
    pace: Pace,
}

/// The models of a catalogue's types.
struct Modelled {
    of: Digest,
    models: Models,
}

impl Modelled {
    fn of(catalogue: &Catalogue) -> Self {
        Self { of: catalogue.digest().clone(), models: Models::of(catalogue) }
    }
}

impl SnmpSink {
    /// The sink of `config`.
    pub fn new(config: &SnmpConfig, tools: &SinkTools) -> Result<Self, String> {
        config.check().map_err(|(key, reason)| format!("{key} {reason}"))?;
        let engine = tools.engine.engine().map_err(|error| format!("the node has no SNMP engine: {error}"))?;
        let originator = OriginatorConfig {
            target: config.address.clone(),
            credentials: config.credentials.clone(),
            source: config.source,
            timeout: config.timeout,
            retries: config.retries,
            datagram_bytes_max: config.datagram_bytes_max,
        };
        let originator = Originator::new(originator, engine);
        let pace = Pace::new(config.trap_rate);
        let modelled = ArcSwap::from_pointee(Modelled::of(&tools.catalogue.load()));
        Ok(Self { config: config.clone(), tools: tools.clone(), modelled, originator, pace })
    }

    async fn tell(&self, notification: &Notification) -> Result<Delivered, SendError> {
        let Some(mut draft) = self.draft(notification) else {
            // The profile has no words for it.
            return Ok(Delivered::Nothing);
        };
        self.add_address(notification, &mut draft).await?;
        // Once: of what is too large nothing was sent.
        if !self.config.confirm {
            self.pace.wait().await;
        }
        loop {
            let sent = if self.config.confirm {
                self.originator.inform(&draft.outgoing).await
            } else {
                self.originator.trap(&draft.outgoing).await
            };
            match sent {
                Ok(()) => return Ok(Delivered::Confirmed),
                Err(OriginateError::TooLarge { bytes, max }) if draft.shrink(bytes - max) => {}
                Err(error @ (OriginateError::Unanswered(_) | OriginateError::Failed(_) | OriginateError::Busy(_))) => {
                    return Err(SendError::Unreachable(error.to_string()));
                }
                Err(error @ (OriginateError::TooLarge { .. } | OriginateError::Refused(_) | OriginateError::Unfit(_))) => {
                    return Err(SendError::Refused(error.to_string()));
                }
            }
        }
    }

    fn draft(&self, notification: &Notification) -> Option<Draft> {
        let index = notification.what.alarm().map_or(0, |id| self.tools.indexes.of(id));
        let (root, catalogue) = (&self.config.root, &*self.tools.catalogue.load());
        match &self.config.profile {
            SnmpProfile::Klaxon => Some(klaxon::draft(root, catalogue, index, notification)),
            SnmpProfile::Rfc3877 => {
                if self.modelled.load().of != *catalogue.digest() {
                    self.modelled.store(Arc::new(Modelled::of(catalogue)));
                }
                let modelled = self.modelled.load();
                rfc3877::Say { root, catalogue, models: &modelled.models, index }.draft(notification)
            }
            SnmpProfile::Wrs(wrs) => wrs.draft(catalogue, index, notification),
        }
    }

    /// snmpTrapAddress.0 behind the variables that must be there, in front of those that may: the device, or this node.
    async fn add_address(&self, notification: &Notification, draft: &mut Draft) -> Result<(), SendError> {
        let is_v1 = matches!(self.config.credentials, Credentials::V1(_));
        let as_starlingx = matches!(&self.config.profile, SnmpProfile::Wrs(wrs) if wrs.form == WrsProfile::AsStarlingx);
        // StarlingX does not send it; in v1 it is a field of the message.
        if as_starlingx && !is_v1 {
            return Ok(());
        }
        let address = match device(&notification.what) {
            Some(device) => Some(device),
            None => match self.originator.own_address().await {
                Ok(IpAddr::V4(own)) => Some(own),
                Ok(IpAddr::V6(_)) => None,
                Err(error) => return Err(SendError::Unreachable(error.to_string())),
            },
        };
        if let Some(address) = address {
            draft.insert_required(Varbind { oid: klaxon_snmp::Oid::new(SNMP_TRAP_ADDRESS), value: Value::IpAddress(address) });
        }
        Ok(())
    }
}

impl Sink for SnmpSink {
    fn limits(&self) -> SinkLimits {
        SinkLimits { window: self.config.window, batch_max: 1 }
    }

    fn send(&self, batch: Vec<Notification>) -> BoxFuture<'_, Result<Delivered, SendError>> {
        Box::pin(async move {
            let mut delivered = Delivered::Nothing;
            for notification in &batch {
                if self.tell(notification).await? == Delivered::Confirmed {
                    delivered = Delivered::Confirmed;
                }
            }
            Ok(delivered)
        })
    }
}

/// The address of the device that an alarm is about, if it came from one: as its trap names it, as its resource says, or where
/// the trap came from.
fn device(what: &What) -> Option<Ipv4Addr> {
    let (key, details) = match what {
        What::Alarm { alarm, .. } => (&alarm.key, &alarm.details),
        What::Log { change } => {
            let event = event(change)?;
            (&event.key, &event.details)
        }
        What::Digest(_) | What::Gap(_) | What::Heartbeat { .. } => return None,
    };
    let attribute = |name: &str| details.attributes.get(name).and_then(|value| value.parse().ok());
    let resource = || {
        let first = key.resource.elements().next()?;
        (first.name == Some("device")).then(|| first.value.parse().ok()).flatten()
    };
    attribute("trap_address").or_else(resource).or_else(|| attribute("source_address"))
}

/// The event that a change is about, if it is about one.
fn event(change: &Change) -> Option<&Event> {
    match &change.subject {
        Subject::Event { event, .. } => Some(event),
        _ => None,
    }
}

/// The severity that an event gives itself.
fn event_severity(event: &Event) -> Option<Severity> {
    match event.report {
        Report::Raise(severity) | Report::Log(severity) | Report::Heartbeat { severity, .. } => Some(severity),
        Report::Clear => None,
    }
}
