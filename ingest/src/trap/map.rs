//! What a notification says, as an event: what the mappings make of it, and all its variables as attributes.
//!
//! As many variables as fit have an attribute each, by OID; the others follow as JSON lines in `varbinds.1`, `varbinds.2` …, to be
//! read as one text; `varbinds_cut` says how many did not fit even there.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use klaxon_schemas::event::{ATTRIBUTES_MAX, AlarmKey, Attributes, Details, Event, Report};
use klaxon_schemas::names::{AlarmType, AttributeName, AttributeValue, Producer, Qualifier, Rule as _, Site, Text};
use klaxon_schemas::names::{AttributeNameRule, AttributeValueRule};
use klaxon_schemas::resource::Resource;
use klaxon_schemas::severity::Severity;
use klaxon_snmp::{Notification, Oid, Value, Varbind};

use super::devices::Devices;
use super::mapping::{Judgement, Mapped, Mappings, Subject, shown, type_name, whole_arcs};

/// snmpTrapAddress.0: the device, where another sends for it (RFC 3584).
const SNMP_TRAP_ADDRESS: &[u32] = &[1, 3, 6, 1, 6, 3, 18, 1, 3, 0];
/// snmpTrapCommunity.0: a secret that is not kept.
const SNMP_TRAP_COMMUNITY: &[u32] = &[1, 3, 6, 1, 6, 3, 18, 1, 4, 0];

/// Makes events of notifications.
#[derive(Debug, Clone)]
pub(super) struct Mapper {
    /// Of devices of which no other is known.
    site: Site,
    devices: Devices,
    mappings: Mappings,
}

/// Whose trap it is.
struct Whose<'a> {
    source: IpAddr,
    trap_address: Option<IpAddr>,
    /// Its name, or its address.
    device: String,
    site: &'a Site,
}

impl Mapper {
    pub(super) fn new(site: Site, devices: Devices, mappings: Mappings) -> Self {
        Self { site, devices, mappings }
    }

    /// The event that `notification` from `source` is.
    pub(super) fn event(&self, source: SocketAddr, notification: &Notification) -> Event {
        let whose = self.whose(source, notification);
        let mapped = self.mappings.map(&whose.subject(notification)).unwrap_or_else(|| unmapped(&whose, notification));
        let mut attributes = Vec::new();
        let mut attribute = |name: &str, value: String| attributes.push((name.to_owned(), value));
        attribute("source_address", whose.source.to_string());
        if let Some(address) = whose.trap_address {
            attribute("trap_address", address.to_string());
        }
        attribute("snmp_version", notification.version.as_str().to_owned());
        super::v3::attributes(notification).for_each(|(name, value)| attribute(name, value));
        attribute("trap_oid", notification.trap_oid.to_string());
        if let Some(enterprise) = &notification.enterprise {
            attribute("enterprise", enterprise.to_string());
        }
        // An alarm that is reported again would be another each time, and be told of.
        if let Some(ticks) = notification.up_time.filter(|_| !matches!(mapped.report, Report::Raise(_))) {
            attribute("sys_up_time", ticks.to_string());
        }
        if !notification.oddities.is_empty() {
            attribute("encoding", notification.oddities.join("; "));
        }
        for (name, value) in mapped.attributes {
            attribute(name, value);
        }
        let is_kept = |varbind: &&Varbind| !mapped.leave_out.iter().any(|object| varbind.oid.arcs().starts_with(object));
        let varbinds: Vec<&Varbind> = notification.varbinds.iter().filter(is_kept).collect();
        let key = AlarmKey {
            site: whose.site.clone(),
            resource: mapped.resource,
            alarm_type: mapped.alarm_type,
            qualifier: mapped.qualifier,
        };
        let producer = Producer::new(&format!("trap/{}", whose.source)).expect("an address is a token");
        // A plain trap has nothing that tells a second delivery from a second event: two that are equal byte for byte may be two
        // failures within one tick of the device's clock, and no device sends a trap again that nobody acknowledges. What comes
        // again is an inform, and its id depends on when it came: super::inform.
        let details = Details {
            event_type: mapped.event_type,
            probable_cause: mapped.probable_cause.cloned(),
            repair_action: mapped.repair_action.cloned(),
            attributes: pack(attributes, &varbinds),
            ..Details::default()
        };
        Event { details, ..Event::new(key, mapped.report, mapped.text).of(producer) }
    }

    /// What the rules for `notification` from `source` say of it.
    pub(super) fn judge(&self, source: SocketAddr, notification: &Notification) -> Vec<Judgement> {
        let whose = self.whose(source, notification);
        self.mappings.judge(&whose.subject(notification))
    }

    /// What mappings call an OID.
    pub(super) fn name_of(&self, oid: &Oid) -> Option<String> {
        self.mappings.name_of(oid.arcs())
    }

    fn whose(&self, source: SocketAddr, notification: &Notification) -> Whose<'_> {
        let source = source.ip().to_canonical();
        let trap_address = trap_address(notification);
        let address = trap_address.unwrap_or(source);
        let (site, name) = self.devices.find(address);
        let device = name.map_or_else(|| address.to_string(), |name| name.as_str().to_owned());
        Whose { source, trap_address, device, site: site.unwrap_or(&self.site) }
    }
}

impl<'a> Whose<'a> {
    fn subject(&'a self, notification: &'a Notification) -> Subject<'a> {
        let address = self.trap_address.unwrap_or(self.source);
        Subject { notification, device: &self.device, address, source: self.source, site: self.site }
    }
}

/// What no rule takes is kept as it came.
fn unmapped(whose: &Whose<'_>, notification: &Notification) -> Mapped<'static> {
    let oid = notification.trap_oid.to_string();
    let text = format!("{oid} from {}", whose.device);
    Mapped {
        resource: Resource::new(&format!("device={}", whose.device)).expect("is short and printable"),
        alarm_type: AlarmType::new("snmp.trap").expect("is a word"),
        qualifier: Qualifier::new(whole_arcs(&oid)).expect("is digits and dots"),
        report: Report::Log(Severity::Indeterminate),
        text: Text::lossy(&text).expect("may be empty"),
        attributes: Vec::new(),
        leave_out: &[],
        event_type: None,
        probable_cause: None,
        repair_action: None,
    }
}

fn trap_address(notification: &Notification) -> Option<IpAddr> {
    let stated = notification.varbinds.iter().find_map(|varbind| match (varbind.oid.arcs(), &varbind.value) {
        (SNMP_TRAP_ADDRESS, Value::IpAddress(address)) if !address.is_unspecified() => Some(*address),
        _ => None,
    });
    stated.or(notification.agent_address).map(IpAddr::from)
}

/// Packs `head` and the variables into at most [`ATTRIBUTES_MAX`] attributes.
fn pack(head: Vec<(String, String)>, varbinds: &[&Varbind]) -> Attributes {
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
