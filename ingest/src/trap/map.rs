//! What a notification says, as an event.
//!
//! linkDown and linkUp raise and clear `link.down` of an interface; everything else is a log event of type `snmp.trap` with
//! the trap's OID as qualifier. All variables are kept as attributes. As many as fit have one each, by OID; the others follow
//! as JSON lines in `varbinds.1`, `varbinds.2` …, to be read as one text; `varbinds_cut` says how many did not fit even there.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use klaxon_schemas::event::{ATTRIBUTES_MAX, AlarmKey, Attributes, Details, Event, Report};
use klaxon_schemas::names::{AlarmType, AttributeName, AttributeValue, Producer, Qualifier, Rule, Site, Text};
use klaxon_schemas::names::{AttributeNameRule, AttributeValueRule, QualifierRule};
use klaxon_schemas::resource::Resource;
use klaxon_schemas::severity::Severity;

use klaxon_snmp::{Notification, Oid, Value, Varbind};

/// snmpTrapAddress.0: the device, where another sends for it (RFC 3584).
const SNMP_TRAP_ADDRESS: &[u32] = &[1, 3, 6, 1, 6, 3, 18, 1, 3, 0];
/// snmpTrapCommunity.0: a secret that is not kept.
const SNMP_TRAP_COMMUNITY: &[u32] = &[1, 3, 6, 1, 6, 3, 18, 1, 4, 0];
/// ifEntry: its columns are below, and the interface's index below each.
const IF_ENTRY: &[u32] = &[1, 3, 6, 1, 2, 1, 2, 2, 1];
/// ifXEntry, likewise.
const IF_X_ENTRY: &[u32] = &[1, 3, 6, 1, 2, 1, 31, 1, 1, 1];
const LINK_DOWN: &[u32] = &[1, 3, 6, 1, 6, 3, 1, 1, 5, 3];
const LINK_UP: &[u32] = &[1, 3, 6, 1, 6, 3, 1, 1, 5, 4];

/// The standard traps of RFC 3418 and RFC 1215.
const STANDARD: [(&[u32], &str, Severity); 6] = [
    (&[1, 3, 6, 1, 6, 3, 1, 1, 5, 1], "coldStart", Severity::Warning),
    (&[1, 3, 6, 1, 6, 3, 1, 1, 5, 2], "warmStart", Severity::Warning),
    (LINK_DOWN, "linkDown", Severity::Warning),
    (LINK_UP, "linkUp", Severity::Indeterminate),
    (&[1, 3, 6, 1, 6, 3, 1, 1, 5, 5], "authenticationFailure", Severity::Warning),
    (&[1, 3, 6, 1, 6, 3, 1, 1, 5, 6], "egpNeighborLoss", Severity::Warning),
];

/// What variables of an interface are called, by table and column.
const IF_COLUMNS: [(&[u32], u32, &str); 6] = [
    (IF_ENTRY, 1, "if_index"),
    (IF_ENTRY, 2, "if_descr"),
    (IF_X_ENTRY, 1, "if_name"),
    (IF_X_ENTRY, 18, "if_alias"),
    (IF_ENTRY, 7, "if_admin_status"),
    (IF_ENTRY, 8, "if_oper_status"),
];

/// ifAdminStatus and ifOperStatus (RFC 2863).
const IF_STATUS: [&str; 7] = ["up", "down", "testing", "unknown", "dormant", "notPresent", "lowerLayerDown"];

/// Makes events of notifications.
#[derive(Debug, Clone)]
pub(super) struct Mapper {
    /// Of devices that are in no network of `sites`.
    pub(super) site: Site,
    /// By the network of the device.
    pub(super) sites: Vec<(IpNet, Site)>,
}

/// What linkDown and linkUp say of an interface.
#[derive(Debug, Default)]
struct Interface<'a> {
    index: Option<u32>,
    /// By the names of [`IF_COLUMNS`].
    columns: Vec<(&'static str, &'a Value)>,
}

impl Mapper {
    /// The event that `notification` from `source` is.
    pub(super) fn event(&self, source: SocketAddr, notification: &Notification) -> Event {
        let source_address = source.ip().to_canonical();
        let trap_address = trap_address(notification);
        let device = trap_address.unwrap_or(source_address);
        let link = match notification.trap_oid.arcs() {
            LINK_DOWN => Some(true),
            LINK_UP => Some(false),
            _ => None,
        };
        let interface = Interface::of(&notification.varbinds);
        let (key, report, text) = match (link, interface.index) {
            (Some(is_down), Some(index)) => self.link(device, index, is_down, &interface),
            _ => self.other(device, notification),
        };
        let mut attributes = Vec::new();
        let mut attribute = |name: &str, value: String| attributes.push((name.to_owned(), value));
        attribute("source_address", source_address.to_string());
        if let Some(address) = trap_address {
            attribute("trap_address", address.to_string());
        }
        attribute("snmp_version", notification.version.as_str().to_owned());
        super::v3::attributes(notification).for_each(|(name, value)| attribute(name, value));
        attribute("trap_oid", notification.trap_oid.to_string());
        if let Some(enterprise) = &notification.enterprise {
            attribute("enterprise", enterprise.to_string());
        }
        if let Some(ticks) = notification.up_time {
            attribute("sys_up_time", ticks.to_string());
        }
        if !notification.oddities.is_empty() {
            attribute("encoding", notification.oddities.join("; "));
        }
        if link.is_some() {
            for (name, value) in &interface.columns {
                attribute(name, status(name, value).map_or_else(|| shown(value), str::to_owned));
            }
        }
        let producer = Producer::new(&format!("trap/{source_address}")).expect("an address is a token");
        // A plain trap has nothing that tells a second delivery from a second event: two that are equal byte for byte may be two
        // failures within one tick of the device's clock, and no device sends a trap again that nobody acknowledges. What comes
        // again is an inform, and its id depends on when it came: super::inform.
        let details = Details { attributes: pack(attributes, &notification.varbinds), ..Details::default() };
        Event { details, ..Event::new(key, report, text).of(producer) }
    }

    fn link(&self, device: IpAddr, index: u32, is_down: bool, interface: &Interface<'_>) -> (AlarmKey, Report, Text) {
        let key = self.key(device, &format!(".ifindex={index}"), "link.down", "");
        // Its operator turned it off: worth knowing, and nothing to get up for.
        let is_off = interface.status("if_admin_status") == Some("down");
        let report = match (is_down, is_off) {
            (true, false) => Report::Raise(Severity::Major),
            (true, true) => Report::Raise(Severity::Warning),
            (false, _) => Report::Clear,
        };
        let mut text = format!("Link {} on {device}: interface {index}", if is_down { "down" } else { "up" });
        for name in ["if_descr", "if_name", "if_alias"] {
            if let Some(value) = interface.get(name).map(shown).filter(|value| !value.is_empty() && !text.contains(value)) {
                let _ = write!(text, ", {value}");
            }
        }
        for (name, words) in [("if_admin_status", "configured"), ("if_oper_status", "is")] {
            if let Some(status) = interface.status(name) {
                let _ = write!(text, ", {words} {status}");
            }
        }
        (key, report, Text::lossy(&text).expect("may be empty"))
    }

    fn other(&self, device: IpAddr, notification: &Notification) -> (AlarmKey, Report, Text) {
        let oid = notification.trap_oid.to_string();
        let standard = STANDARD.iter().find(|(arcs, ..)| *arcs == notification.trap_oid.arcs());
        let (name, severity) = standard.map_or((&*oid, Severity::Indeterminate), |(_, name, severity)| (*name, *severity));
        let mut text = format!("{name} from {device}");
        if matches!(name, "linkDown" | "linkUp") {
            text.push_str(", which does not say of which interface");
        }
        let key = self.key(device, "", "snmp.trap", whole_arcs(&oid, QualifierRule::BYTES_MAX));
        (key, Report::Log(severity), Text::lossy(&text).expect("may be empty"))
    }

    fn key(&self, device: IpAddr, below: &str, alarm_type: &str, qualifier: &str) -> AlarmKey {
        AlarmKey {
            site: self.site_of(device).clone(),
            resource: Resource::new(&format!("device={device}{below}")).expect("is short and printable"),
            alarm_type: AlarmType::new(alarm_type).expect("is a word"),
            qualifier: Qualifier::new(qualifier).expect("is digits and dots"),
        }
    }

    /// The site of the smallest network that has the device.
    fn site_of(&self, device: IpAddr) -> &Site {
        let having = self.sites.iter().filter(|(network, _)| network.contains(&device));
        having.max_by_key(|(network, _)| network.prefix_len()).map_or(&self.site, |(_, site)| site)
    }
}

impl<'a> Interface<'a> {
    fn of(varbinds: &'a [Varbind]) -> Self {
        let mut interface = Self::default();
        for varbind in varbinds {
            let Some((table, column, instance)) = if_cell(&varbind.oid) else { continue };
            let named = match (instance, &varbind.value) {
                // The value of ifIndex is its instance; there are devices that leave the instance out.
                (_, Value::Integer(index)) if table == IF_ENTRY && column == 1 => u32::try_from(*index).ok(),
                ([index], _) => Some(*index),
                _ => None,
            };
            interface.index = interface.index.or(named.filter(|index| *index > 0));
            if let Some((.., name)) = IF_COLUMNS.iter().find(|(t, c, _)| (*t, *c) == (table, column))
                && interface.get(name).is_none()
            {
                interface.columns.push((name, &varbind.value));
            }
        }
        interface
    }

    fn get(&self, name: &str) -> Option<&'a Value> {
        self.columns.iter().find(|(this, _)| *this == name).map(|(_, value)| *value)
    }

    fn status(&self, name: &str) -> Option<&'static str> {
        status(name, self.get(name)?)
    }
}

/// Table, column and instance, if this is a cell of ifTable or ifXTable.
fn if_cell(oid: &Oid) -> Option<(&'static [u32], u32, &[u32])> {
    [IF_ENTRY, IF_X_ENTRY].into_iter().find_map(|table| {
        let (column, instance) = oid.arcs().strip_prefix(table)?.split_first()?;
        Some((table, *column, instance))
    })
}

/// The word for a status, if the variable is one.
fn status(name: &str, value: &Value) -> Option<&'static str> {
    let Value::Integer(number) = value else { return None };
    if !name.ends_with("_status") {
        return None;
    }
    IF_STATUS.get(usize::try_from(*number).ok()?.checked_sub(1)?).copied()
}

fn trap_address(notification: &Notification) -> Option<IpAddr> {
    let stated = notification.varbinds.iter().find_map(|varbind| match (varbind.oid.arcs(), &varbind.value) {
        (SNMP_TRAP_ADDRESS, Value::IpAddress(address)) if !address.is_unspecified() => Some(*address),
        _ => None,
    });
    stated.or(notification.agent_address).map(IpAddr::from)
}

/// As much of an OID as fits into `bytes_max`, in whole arcs.
fn whole_arcs(oid: &str, bytes_max: usize) -> &str {
    match oid.get(..=bytes_max) {
        None => oid,
        Some(too_long) => &oid[..too_long.rfind('.').unwrap_or(0)],
    }
}

/// A value as text. Times are not guessed at: an OCTET STRING with a date in it is bytes like any other.
fn shown(value: &Value) -> String {
    match value {
        Value::Integer(number) => number.to_string(),
        Value::OctetString(bytes) => octets(bytes),
        Value::Null => "NULL".to_owned(),
        Value::Oid(oid) => oid.to_string(),
        Value::IpAddress(address) => address.to_string(),
        Value::Counter32(number) | Value::Gauge32(number) | Value::TimeTicks(number) => number.to_string(),
        Value::Counter64(number) => number.to_string(),
        Value::Opaque(bytes) | Value::Other(_, bytes) => hex(bytes),
        Value::Float(number) => number.to_string(),
        Value::Exception(name) => (*name).to_owned(),
    }
}

/// Text where it is text, without the zeros and line ends that C programs leave behind it; else hexadecimal.
fn octets(bytes: &[u8]) -> String {
    let text = std::str::from_utf8(bytes).ok().map(|text| text.trim_end_matches('\0').replace("\r\n", "\n"));
    match text {
        Some(text) if text.chars().all(AttributeValueRule::allows) && (bytes.is_empty() || !text.is_empty()) => text,
        _ => hex(bytes),
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 + 2 * bytes.len());
    text.push_str("0x");
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Integer(_) => "INTEGER",
        Value::OctetString(_) => "OCTET STRING",
        Value::Null => "NULL",
        Value::Oid(_) => "OBJECT IDENTIFIER",
        Value::IpAddress(_) => "IpAddress",
        Value::Counter32(_) => "Counter32",
        Value::Gauge32(_) => "Gauge32",
        Value::TimeTicks(_) => "TimeTicks",
        Value::Counter64(_) => "Counter64",
        Value::Opaque(_) | Value::Float(_) => "Opaque",
        Value::Exception(_) => "exception",
        Value::Other(..) => "unknown",
    }
}

/// Packs `head` and the variables into at most [`ATTRIBUTES_MAX`] attributes.
fn pack(head: Vec<(String, String)>, varbinds: &[Varbind]) -> Attributes {
    let mut attributes: BTreeMap<AttributeName, AttributeValue> = BTreeMap::new();
    for (name, value) in head {
        let name = AttributeName::new(&name).expect("our own names are short");
        attributes.insert(name, AttributeValue::lossy(&value).expect("may be empty"));
    }
    let room = ATTRIBUTES_MAX - attributes.len();
    let known: Vec<(Oid, String, &Value)> = varbinds
        .iter()
        .filter(|varbind| varbind.oid.arcs() != SNMP_TRAP_COMMUNITY)
        .map(|varbind| (varbind.oid.clone(), shown(&varbind.value), &varbind.value))
        .collect();
    // What fits has an attribute of its own; of the others the length is needed to know how many attributes they take.
    let mut own: Vec<Option<(AttributeName, AttributeValue)>> = Vec::with_capacity(known.len());
    let mut names = std::collections::BTreeSet::new();
    for (oid, text, _) in &known {
        let pair = if names.len() < room { own_attribute(oid, text) } else { None };
        own.push(pair.filter(|(name, _)| names.insert(name.clone())));
    }
    let mut singles = names.len();
    let mut packed = String::new();
    for ((oid, text, value), own) in known.iter().zip(&own) {
        if own.is_none() {
            packed.push_str(&line(oid, text, value));
        }
    }
    // The last ones give way until all fit, or none is left.
    let mut last = own.len();
    while singles > 0 && singles + pieces(&packed) > room {
        last = own[..last].iter().rposition(Option::is_some).expect("there are some");
        own[last] = None;
        singles -= 1;
        let (oid, text, value) = &known[last];
        packed.insert_str(0, &line(oid, text, value));
    }
    attributes.extend(own.into_iter().flatten());
    let room = ATTRIBUTES_MAX - attributes.len();
    let needed = pieces(&packed);
    let mut rest = &*packed;
    let (kept, is_cut) = if needed > room { (room - 1, true) } else { (needed, false) };
    for number in 1..=kept {
        let (piece, behind) = rest.split_at(piece_bytes(rest));
        rest = behind;
        let name = AttributeName::new(&format!("varbinds.{number}")).expect("is short");
        attributes.insert(name, AttributeValue::new(piece).expect("JSON has no control characters beside line ends"));
    }
    if is_cut {
        let name = AttributeName::new("varbinds_cut").expect("is short");
        let count = rest.lines().count().to_string();
        attributes.insert(name, AttributeValue::new(&count).expect("is a number"));
    }
    Attributes::new(attributes).expect("are counted")
}

/// The attribute of one variable, if its name and its value fit.
fn own_attribute(oid: &Oid, text: &str) -> Option<(AttributeName, AttributeValue)> {
    let name = oid.to_string();
    (name.len() <= AttributeNameRule::BYTES_MAX)
        .then(|| Some((AttributeName::new(&name).ok()?, AttributeValue::new(text).ok()?)))?
}

/// A variable as a line of JSON.
fn line(oid: &Oid, text: &str, value: &Value) -> String {
    // Control characters of C1 are no JSON escapes, and no attribute has them; octets() leaves none.
    let line = serde_json::json!({"oid": oid.to_string(), "type": type_name(value), "value": text});
    format!("{line}\n")
}

/// How many attributes a text takes, cut at characters.
fn pieces(mut text: &str) -> usize {
    let mut count = 0;
    while !text.is_empty() {
        text = &text[piece_bytes(text)..];
        count += 1;
    }
    count
}

/// How many bytes of a text one attribute takes.
fn piece_bytes(text: &str) -> usize {
    let most = text.len().min(AttributeValueRule::BYTES_MAX);
    (0..=most).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}
