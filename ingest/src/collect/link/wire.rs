//! What the kernel says of links by rtnetlink, taken from its messages.
//!
//! ```text
//! nlmsghdr: length u32, type u16, flags u16, sequence u32, port u32
//!   RTM_NEWLINK, RTM_DELLINK: ifinfomsg: family u8, pad u8, device type u16, index i32, flags u32, change u32
//!                             attributes: length u16, kind u16, value, padded to 4
//!   NLMSG_ERROR, NLMSG_DONE:  error i32 (negative errno, or 0)
//! ```
//!
//! Only what is asked of a link is read, and an attribute that is not is passed over whatever is in it: a newer kernel's
//! message must not be a link that is lost.

use std::io;

use netlink_packet_core::{
    Emitable as _, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, NlasIterator,
};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_OVERRUN: u16 = 4;
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;

const NLMSG_HEADER_BYTES: usize = 16;
const IFINFOMSG_BYTES: usize = 16;
/// Bridges tell of their ports in messages that look alike; they are not about the link.
const AF_UNSPEC: u8 = 0;

const IFF_UP: u32 = 1;
const IFF_LOOPBACK: u32 = 1 << 3;
const IFF_RUNNING: u32 = 1 << 6;
const IFF_LOWER_UP: u32 = 1 << 16;

const IFLA_IFNAME: u16 = 3;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_WIRELESS: u16 = 11;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_CARRIER_CHANGES: u16 = 35;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_CARRIER_UP_COUNT: u16 = 47;
const IFLA_CARRIER_DOWN_COUNT: u16 = 48;
const IFLA_PARENT_DEV_NAME: u16 = 56;
/// Without counters of packets: they are most of a message and nobody looks at them.
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;

/// How a link is, seen from above (RFC 2863 ifAdminStatus and ifOperStatus).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Administratively down.
    Off,
    /// Meant to be up, and it is not.
    Down,
    /// It works.
    Up,
}

/// A link as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    /// What made it (`bond`, `vlan`, `veth` …); hardware mostly has none.
    pub(super) kind: Option<String>,
    pub(super) flags: u32,
    pub(super) operstate: u8,
    /// The bond, team or bridge that it is part of.
    pub(super) master: Option<u32>,
    /// What it runs on, if that is in the same namespace: the port of a vlan.
    pub(super) lower: Option<u32>,
    /// Whether a device of a bus is behind it; kernels before 5.14 do not say so.
    pub(super) has_parent: bool,
    pub(super) carrier_ups: Option<u32>,
    pub(super) carrier_downs: Option<u32>,
    pub(super) carrier_changes: Option<u32>,
}

impl Link {
    pub(super) fn state(&self) -> State {
        if self.flags & IFF_UP == 0 {
            State::Off
        } else if self.flags & IFF_RUNNING != 0 && self.flags & IFF_LOWER_UP != 0 {
            State::Up
        } else {
            State::Down
        }
    }

    pub(super) fn is_loopback(&self) -> bool {
        self.flags & IFF_LOOPBACK != 0
    }

    /// Why it does not work, in words.
    pub(super) fn trouble(&self) -> &'static str {
        match self.operstate {
            1 => "a part of it is not there",
            3 => "what it runs on is down",
            4 => "it is being tested",
            5 => "it waits for an event, such as its authentication",
            _ if self.flags & IFF_LOWER_UP == 0 => "no carrier",
            _ => "its state is down",
        }
    }

    /// Whether it has had no carrier since it was made, as far as the kernel counts that.
    pub(super) fn never_had_carrier(&self) -> bool {
        match (self.carrier_ups, self.carrier_changes) {
            (Some(ups), _) => ups == 0,
            (None, Some(changes)) => changes <= 1,
            (None, None) => false,
        }
    }

    #[cfg(test)]
    pub(super) fn test(index: u32, name: &str, kind: Option<&str>, state: State) -> Self {
        let flags = match state {
            State::Off => 0,
            State::Down => IFF_UP,
            State::Up => IFF_UP | IFF_RUNNING | IFF_LOWER_UP,
        };
        let (name, kind) = (name.to_owned(), kind.map(str::to_owned));
        let has_parent = kind.is_none();
        Self { index, name, kind, flags, has_parent, carrier_ups: Some(1), carrier_downs: Some(0), ..Self::default() }
    }
}

/// What one message says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// A link is so.
    Link(Link),
    /// The link with this index is gone.
    Gone(u32),
    /// A dump has ended, with the error number if it failed.
    End(Result<(), i32>),
    /// Messages were lost.
    Lost,
    /// Something about something else.
    Other,
}

/// One message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// What it says.
    pub(super) said: Said,
    /// Which request it answers, if any: sequence and port of who asked.
    pub(super) answers: (u32, u32),
    /// Whether links came and went while the dump ran, so that one may be missing.
    pub(super) is_interrupted: bool,
}

/// The request for all links.
pub(super) fn dump_request(sequence: u32) -> Vec<u8> {
    let mut body = vec![0; IFINFOMSG_BYTES];
    body.extend(8u16.to_ne_bytes());
    body.extend(IFLA_EXT_MASK.to_ne_bytes());
    body.extend(RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
    let mut header = NetlinkHeader::default();
    header.length = u32::try_from(NLMSG_HEADER_BYTES + body.len()).expect("is small");
    header.message_type = RTM_GETLINK;
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    header.sequence_number = sequence;
    let mut request = vec![0; NLMSG_HEADER_BYTES];
    header.emit(&mut request);
    request.extend(body);
    request
}

/// Takes a datagram apart.
pub(super) fn read(mut datagram: &[u8]) -> io::Result<Vec<Message>> {
    let mut messages = Vec::new();
    while datagram.len() >= NLMSG_HEADER_BYTES {
        let buffer = NetlinkBuffer::new_checked(datagram).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let said = match buffer.message_type() {
            RTM_NEWLINK => link(buffer.payload()).unwrap_or(Said::Other),
            RTM_DELLINK => match head(buffer.payload()) {
                Some((AF_UNSPEC, index, _)) => Said::Gone(index),
                _ => Said::Other,
            },
            NLMSG_ERROR | NLMSG_DONE => match buffer.payload().first_chunk().map_or(0, |error| i32::from_ne_bytes(*error)) {
                0 => Said::End(Ok(())),
                error => Said::End(Err(error.saturating_neg())),
            },
            NLMSG_OVERRUN => Said::Lost,
            _ => Said::Other,
        };
        messages.push(Message {
            said,
            answers: (buffer.sequence_number(), buffer.port_number()),
            is_interrupted: buffer.flags() & NLM_F_DUMP_INTR != 0,
        });
        let length = usize::try_from(buffer.length()).unwrap_or(usize::MAX).next_multiple_of(4);
        datagram = datagram.get(length..).unwrap_or_default();
    }
    Ok(messages)
}

/// Family, index and flags of a link's message.
fn head(payload: &[u8]) -> Option<(u8, u32, u32)> {
    let number = |at: usize| payload.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
    Some((*payload.first()?, number(4)?, number(8)?))
}

fn link(payload: &[u8]) -> Option<Said> {
    let (family, index, flags) = head(payload)?;
    if family != AF_UNSPEC {
        return None;
    }
    let mut link = Link { index, flags, ..Link::default() };
    let mut is_elsewhere = false;
    for attribute in NlasIterator::new(payload.get(IFINFOMSG_BYTES..)?) {
        let Ok(attribute) = attribute else { break };
        let value = attribute.value();
        let number = value.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
        match attribute.kind() {
            IFLA_IFNAME => link.name = text(value),
            IFLA_LINK => link.lower = number.filter(|lower| *lower != 0),
            IFLA_MASTER => link.master = number.filter(|master| *master != 0),
            // A radio's event says the name and no more: it must not be taken for the whole link.
            IFLA_WIRELESS => return None,
            IFLA_OPERSTATE => link.operstate = value.first().copied().unwrap_or(0),
            IFLA_LINKINFO => link.kind = kind(value),
            IFLA_CARRIER_CHANGES => link.carrier_changes = number,
            IFLA_LINK_NETNSID => is_elsewhere = true,
            IFLA_CARRIER_UP_COUNT => link.carrier_ups = number,
            IFLA_CARRIER_DOWN_COUNT => link.carrier_downs = number,
            IFLA_PARENT_DEV_NAME => link.has_parent = true,
            _ => {}
        }
    }
    if is_elsewhere {
        link.lower = None;
    }
    (!link.name.is_empty()).then_some(Said::Link(link))
}

fn kind(info: &[u8]) -> Option<String> {
    let mut attributes = NlasIterator::new(info).map_while(Result::ok);
    attributes.find(|attribute| attribute.kind() == IFLA_INFO_KIND).map(|attribute| text(attribute.value()))
}

fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = u16::try_from(value.len() + 4).expect("short").to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(message_type: u16, family: u8, attributes: &[Vec<u8>]) -> Vec<u8> {
        let mut body = vec![family, 0, 1, 0];
        body.extend(7u32.to_ne_bytes());
        body.extend((IFF_UP | IFF_LOWER_UP).to_ne_bytes());
        body.extend(0u32.to_ne_bytes());
        body.extend(attributes.concat());
        let mut bytes = u32::try_from(16 + body.len()).expect("short").to_ne_bytes().to_vec();
        bytes.extend(message_type.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(body);
        bytes
    }

    fn said(bytes: &[u8]) -> Vec<Said> {
        read(bytes).expect("reads").into_iter().map(|message| message.said).collect()
    }

    #[test]
    fn a_link_is_read_past_what_is_not_known() {
        let info = attribute(IFLA_INFO_KIND, b"vlan\0");
        let attributes = [
            attribute(IFLA_IFNAME, b"eth0.7\0"),
            attribute(999, &[1, 2, 3]),
            attribute(IFLA_LINK, &2u32.to_ne_bytes()),
            attribute(IFLA_LINKINFO | 0x8000, &info),
            attribute(IFLA_OPERSTATE, &[5]),
            attribute(IFLA_CARRIER_DOWN_COUNT, &3u32.to_ne_bytes()),
        ];
        let two = [message(RTM_NEWLINK, AF_UNSPEC, &attributes), message(RTM_DELLINK, AF_UNSPEC, &[])].concat();
        let said = said(&two);
        let [Said::Link(link), Said::Gone(7)] = said.as_slice() else { panic!("{said:?}") };
        assert_eq!((link.index, link.name.as_str(), link.kind.as_deref(), link.lower), (7, "eth0.7", Some("vlan"), Some(2)));
        assert_eq!((link.state(), link.carrier_downs, link.has_parent), (State::Down, Some(3), false));
        assert_eq!(link.trouble(), "it waits for an event, such as its authentication");
    }

    #[test]
    fn what_bridges_and_radios_tell_is_not_about_the_link() {
        let name = attribute(IFLA_IFNAME, b"eth0\0");
        assert_eq!(said(&message(RTM_DELLINK, 7, std::slice::from_ref(&name))), [Said::Other]);
        assert_eq!(said(&message(RTM_NEWLINK, 7, std::slice::from_ref(&name))), [Said::Other]);
        assert_eq!(said(&message(RTM_NEWLINK, AF_UNSPEC, &[name, attribute(IFLA_WIRELESS, &[0; 8])])), [Said::Other]);
    }

    #[test]
    fn a_port_on_something_in_another_namespace_has_nothing_below_it() {
        let attributes = [
            attribute(IFLA_IFNAME, b"v\0"),
            attribute(IFLA_LINK_NETNSID, &0u32.to_ne_bytes()),
            attribute(IFLA_LINK, &2u32.to_ne_bytes()),
        ];
        let said = said(&message(RTM_NEWLINK, AF_UNSPEC, &attributes));
        assert!(matches!(&said[..], [Said::Link(link)] if link.lower.is_none()), "{said:?}");
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0u16..60, cut in 0usize..200) {
            let _ = read(&bytes);
            let mut whole = message(RTM_NEWLINK, AF_UNSPEC, &[attribute(IFLA_IFNAME, b"a\0"), attribute(kind, &bytes)]);
            let _ = read(&whole);
            whole.truncate(cut);
            let _ = read(&whole);
        }
    }
}
