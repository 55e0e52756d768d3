//! What a node and the one above it say to each other over an uplink.
//!
//! An uplink is one WebSocket (RFC 6455) on `/api/v1/uplink`, opened by the node below, which proves who it is in the request
//! (`Authorization: Bearer`, or a client certificate). A message is one binary message: JSON, compressed with zstd
//! (RFC 8878). Ping and pong carry the sender's wall clock, eight bytes of microseconds since 1970, big-endian; the pong
//! repeats them.
//!
//! ```text
//! below                                    above
//!   Hello  ─────────────────────────────▶           who I am, how far my journal is
//!          ◀─────────────────────────────  Welcome  how far I have you        (or Refused, or BeginEpoch)
//!   a site:                                          (an agent goes on with Events)
//!   Compare (digests as of S) ──────────▶
//!          ◀─────────────────────────────  Differ   in these ranges of ids
//!   Relay(Alignment) … Relay(Aligned) ──▶
//!   Relay(Live) ────────────────────────▶           as it happens
//!   Relay(History) ─────────────────────▶           what is missing, at most one on its way
//!          ◀─────────────────────────────  Reached  all of this is durable here
//!          ◀─────────────────────────────  Action   for alarms of yours
//!   Relay(Acted) ───────────────────────▶
//! ```
//!
//! A reader ignores messages and fields it does not know within a protocol; a node that speaks only another protocol is
//! refused, and says so.

use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

use super::{Action, Event, RelayContent};
use crate::child::{ChildKind, Reached};
use crate::ids::{Epoch, Position, Seq};
use crate::names::{ChildName, Site};
use crate::time::Timestamp;

/// The protocol that is spoken here.
pub const PROTOCOL: u32 = 1;
/// The path of the uplink.
pub const PATH: &str = "/api/v1/uplink";
/// The most bytes of a message, compressed.
pub const MESSAGE_BYTES_MAX: usize = 2 * 1024 * 1024;
/// The most bytes of a message behind compression.
pub const MESSAGE_JSON_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What the node below says.
pub type Up = UpOf<Event>;

/// What the node below says, with its events in the form `E`: who receives it reads them one by one, so that one that cannot be
/// read does not take the others with it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "m", rename_all = "kebab-case")]
pub enum UpOf<E> {
    /// Who it is: the first message.
    Hello(Hello),
    /// What its alarms are, in one number for each range of ids, as of a position of its journal.
    Compare {
        /// As of which.
        at: Position,
        /// [`crate::child::Digests`] in hexadecimal digits.
        digests: String,
    },
    /// A step of what a site sends. It becomes one entry of the journal above, of at most [`crate::entry::RELAY_BYTES_MAX`] bytes; only an
    /// alignment may be larger, because it can be cut.
    Relay(#[serde(deserialize_with = "relayed")] RelayContent),
    /// Events of an agent's journal.
    Events {
        /// All events of its journal behind this,
        after: Position,
        /// up to this.
        upto: Position,
        /// How many records behind `after` the agent keeps no longer, so that events among them will never come.
        #[serde(default, skip_serializing_if = "is_zero")]
        lost: u64,
        /// The events, each with its place.
        events: Vec<PlacedEventOf<E>>,
    },
    /// It goes to another node above it.
    Moved {
        /// The address.
        to: String,
    },
    /// Its new credential is on its disk.
    Rotated,
    /// Something newer.
    #[serde(other)]
    Unknown,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What is relayed, whatever else a newer node says beside it.
fn relayed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<RelayContent, D::Error> {
    #[derive(Deserialize)]
    struct Relayed {
        #[serde(flatten)]
        content: RelayContent,
    }
    Ok(Relayed::deserialize(deserializer)?.content)
}

/// Who a node is.
#[derive(Debug, Serialize, Deserialize)]
pub struct Hello {
    /// The protocols it speaks, the best first.
    pub protocols: Vec<u32>,
    /// What it means to be.
    pub kind: ChildKind,
    /// The site it is, or is part of.
    pub site: Site,
    /// Its store's id.
    pub node: Uuid,
    /// Its numbering.
    pub epoch: Epoch,
    /// Behind which position of its journal that numbering began.
    pub epoch_after: Position,
    /// The last position of its journal.
    pub last: Position,
    /// The number of its last change.
    pub last_seq: Seq,
    /// The version of its program.
    pub version: String,
    /// Its wall clock.
    pub wall: Timestamp,
}

/// An event at its place in an agent's journal.
pub type PlacedEvent = PlacedEventOf<Event>;

/// An event at its place in an agent's journal, in the form `E`.
#[derive(Debug, Serialize, Deserialize)]
pub struct PlacedEventOf<E> {
    /// The place.
    pub position: Position,
    /// When the agent received it; it is the event's time if its reporter claims none.
    pub received_at: Timestamp,
    /// The event.
    pub event: E,
}

/// What the node above says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "m", rename_all = "kebab-case")]
pub enum Down {
    /// The answer to [`Up::Hello`].
    Welcome(Welcome),
    /// Nothing will come of this; the connection ends.
    Refused {
        /// Why, in words for a person.
        reason: String,
        /// What kind of refusal it is.
        code: Refusal,
        /// When to try again, in seconds.
        retry_after_s: u32,
    },
    /// The numbers it uses are used: it is to begin a new numbering, and come again.
    BeginEpoch {
        /// A numbering beyond which the new one must be.
        beyond: Epoch,
    },
    /// The ranges of ids in which the alarms differ.
    Differ {
        /// The first byte of the ids.
        buckets: Vec<u8>,
    },
    /// What is durable here.
    Reached(Reached),
    /// An action on alarms of the node below, or a further way down.
    Action(Action),
    /// A new credential; the old one is good until the node below says that it has this.
    Credential {
        /// The token.
        token: String,
    },
    /// Something newer.
    #[serde(other)]
    Unknown,
}

/// The answer to a node that may come in.
#[derive(Debug, Serialize, Deserialize)]
pub struct Welcome {
    /// The protocol that is spoken from here on.
    pub protocol: u32,
    /// The name by which the node is known here.
    pub child: ChildName,
    /// Its site, as it is known here.
    pub site: Site,
    /// The site above.
    pub parent: Site,
    /// The version of the program above.
    pub version: String,
    /// How far what it sent has come in; nothing if nothing has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reached: Option<Reached>,
    /// How often it is to be heard from, in seconds, if it has nothing to say.
    pub heartbeat_s: u32,
    /// The wall clock above.
    pub wall: Timestamp,
    /// A credential, if it joins now; it must be on its disk before anything else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
}

/// Why a node is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// It speaks only other protocols.
    Protocol,
    /// It says that it is something else than it was enrolled as.
    Mismatch,
    /// A person must approve it first.
    AwaitsApproval,
    /// Another node with the same name is connected.
    Doubled,
    /// It was retired, or went to another node above it.
    Gone,
    /// It sent what cannot be understood.
    Malformed,
    /// There is no room, now.
    Busy,
    /// Something newer.
    #[serde(other)]
    Other,
}
