//! How a receiver stands, for whoever asks.

use klaxon_schemas::ids::Epoch;
use klaxon_schemas::names::Follower;
use klaxon_schemas::time::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

/// One receiver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ReceiverShown {
    /// Its name.
    pub name: Follower,
    /// `webhook` or `snmp`.
    pub kind: &'static str,
    /// Where it is, without secrets.
    pub target: String,
    /// Whether it can be reached.
    pub state: ReceiverState,
    /// Since when it is so.
    pub since: Timestamp,
    /// What went wrong last; kept when it is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// When that was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error_at: Option<Timestamp>,
    /// When it was reached last, since the start of the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_reached_at: Option<Timestamp>,
    /// How many changes it has yet to be told of, or to be found not to be told of.
    pub lag_changes: u64,
    /// How old the oldest of what it has yet to be told is, in seconds.
    pub lag_s: u64,
    /// Whose numbering it is.
    pub epoch: Epoch,
    /// The last number that was given to a notification.
    pub assigned: u64,
    /// All up to this number are settled.
    pub confirmed: u64,
    /// The oldest number that can be sent again; absent if none can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_kept: Option<u64>,
    /// Of how many alarms it was told and not of their end.
    pub told: u64,
    /// How the alarms stand is being told to it.
    pub realigning: bool,
    /// What was counted since the start of the node.
    pub counters: Counters,
}

/// Whether a receiver can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ReceiverState {
    /// Nothing was sent yet.
    Starting,
    /// The last delivery was confirmed.
    Ok,
    /// The last delivery failed; it is tried again.
    Retrying,
    /// It was not reached for so long that it is an alarm.
    Unreachable,
}

impl ReceiverState {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ok => "ok",
            Self::Retrying => "retrying",
            Self::Unreachable => "unreachable",
        }
    }
}

/// What is counted of one receiver since the start of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, ToSchema)]
pub struct Counters {
    /// Notifications that were handed to the sink, each try.
    pub sent: u64,
    /// Notifications that were confirmed.
    pub confirmed: u64,
    /// Notifications that were handed to the sink again after a failure.
    pub retried: u64,
    /// Notifications that were given up because the receiver refuses them for good.
    pub refused: u64,
    /// Backlogs that were folded.
    pub folded: u64,
    /// Changes that are told of in digests only.
    pub folded_changes: u64,
    /// Gaps that were told of.
    pub gaps: u64,
    /// Notifications that were sent again because somebody asked.
    pub resent: u64,
    /// Heartbeats that were confirmed.
    pub heartbeats: u64,
}

/// Why nothing is sent again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResendError {
    /// There is no such receiver.
    #[error("there is no such receiver")]
    NoSuchReceiver,
    /// It is kept no more.
    #[error("number {from} is kept no more; the oldest that is kept is {oldest}")]
    TooOld {
        /// What was asked for.
        from: u64,
        /// The oldest that can be sent again.
        oldest: u64,
    },
    /// It was not given out yet.
    #[error("number {from} was not given out yet; the last one is {last}")]
    Ahead {
        /// What was asked for.
        from: u64,
        /// The last number that was given out.
        last: u64,
    },
    /// The receiver is being stopped.
    #[error("the receiver is stopping")]
    Stopping,
}
