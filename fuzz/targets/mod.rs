//! What is tried on arbitrary bytes: each function takes them as something from outside and panics if a promise is broken. Used by
//! libFuzzer (`fuzz/main.rs`) and by an ordinary test (`tests/fuzzed.rs`).

use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};

use klaxon_ingest::fm::{self as fm_door, wire};
use klaxon_ingest::trap::devices::Devices;
use klaxon_ingest::trap::explain::Explainer;
use klaxon_ingest::trap::mapping::{MappingError, Mappings};
use klaxon_schemas::action::Action;
use klaxon_schemas::catalogue::Catalogue;
use klaxon_schemas::change::Change;
use klaxon_schemas::names::Site;
use klaxon_schemas::resource::Resource;
use klaxon_schemas::wire::v1;
use klaxon_snmp::{AuthProtocol, EngineHome, Inbound, PrivProtocol, Secret, User, Users};
use klaxon_store::{Store, StoreConfig, offline};

/// A name, and what is done with the bytes.
pub(crate) type Target = (&'static str, fn(&[u8]));

/// All of them, by name. `fuzz/corpus` has a folder of each.
pub(crate) const TARGETS: [Target; 11] = [
    ("action", action),
    ("catalogue", catalogue),
    ("config", config),
    ("event", event),
    ("fm", fm),
    ("mapping", mapping),
    ("resource", resource),
    ("segment", segment),
    ("state_key", state_key),
    ("stored", stored),
    ("trap", trap),
];

fn text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data).ok()
}

fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("names and numbers serialize")
}

/// A report: what is accepted is the same when it is written and read again, and is within its limits.
fn event(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let site = Site::new("here").expect("valid");
    let Ok((form, _)) = v1::parse_event(text) else { return };
    let (again, ignored) = v1::parse_event(&json(&form)).expect("what we write we read");
    assert_eq!(again, form);
    assert!(ignored.is_empty(), "we do not understand what we write: {ignored:?}");
    let Ok(event) = form.into_event(&site) else { return };
    let written = v1::Event::from(&event);
    let (read, _) = v1::parse_event(&json(&written)).expect("what we write we read");
    let elsewhere = Site::new("elsewhere").expect("valid");
    assert_eq!(read.into_event(&elsewhere).expect("is sound"), event, "its site is its own");
}

/// An operator's action, as the journal keeps it.
fn action(data: &[u8]) {
    let Ok(form) = serde_json::from_slice::<v1::Action>(data) else { return };
    let Ok(action) = Action::try_from(form) else { return };
    let written = json(&v1::Action::from(&action));
    let read: v1::Action = serde_json::from_str(&written).expect("what we write we read");
    assert_eq!(Action::try_from(read).expect("is sound"), action);
}

/// A resource: its elements join to its text, and each of its paths contains it.
fn resource(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let Ok(resource) = Resource::new(text) else { return };
    assert_eq!(resource.as_str(), text);
    let joined: Vec<String> = resource
        .elements()
        .map(|element| match element.name {
            Some(name) => format!("{name}={}", element.value),
            None => element.value.to_owned(),
        })
        .collect();
    assert_eq!(joined.join("."), text);
    assert_eq!(resource.paths().count(), joined.len());
    assert_eq!(resource.paths().last(), Some(text));
    for path in resource.paths().filter(|path| !path.is_empty()) {
        let outer = Resource::new(path).expect("a part of it is one, too");
        assert!(outer.contains(&resource), "{outer:?} contains {resource:?}");
        assert_eq!(resource.contains(&outer), outer == resource);
    }
    let longer = format!("{text}x");
    if let Ok(longer) = Resource::new(&longer) {
        assert!(!resource.contains(&longer), "a longer name is another resource");
    }
}

/// A catalogue: what is accepted has the same content when it is written and read again.
fn catalogue(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let Ok(catalogue) = Catalogue::parse(text) else { return };
    let again = Catalogue::try_from(catalogue.to_file()).expect("what we write we read");
    assert_eq!(again, catalogue);
    for entry in catalogue.iter() {
        assert_eq!(catalogue.get(&entry.id), Some(entry));
        let by_alias = entry.starlingx_id.as_ref().and_then(|alias| catalogue.get(alias));
        assert!(entry.starlingx_id.is_none() || by_alias == Some(entry));
    }
}

/// The text of a key of the engine's records.
fn state_key(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let Ok(key) = v1::state_key(text) else { return };
    let written = v1::state_key_text(&key);
    assert_eq!(v1::state_key(&written).expect("what we write we read"), key);
}

/// The stored forms: the first byte says which, the rest is JSON.
fn stored(data: &[u8]) {
    let Some((kind, json_text)) = data.split_first() else { return };
    match kind {
        b'c' => {
            let Ok(form) = serde_json::from_slice::<v1::Change>(json_text) else { return };
            let Ok(change) = Change::try_from(form) else { return };
            let written = json(&v1::Change::stored(&change));
            let read: v1::Change = serde_json::from_str(&written).expect("what we write we read");
            assert_eq!(Change::try_from(read).expect("is sound"), change);
            // What is shown must be there to show, whatever was stored.
            let _shown = json(&v1::Change::shown(&change, |_| true));
        }
        b'e' => {
            let Ok(form) = serde_json::from_slice::<v1::Entry>(json_text) else { return };
            let position = klaxon_schemas::ids::Position(7);
            let site = Site::new("here").expect("valid");
            let Ok(entry) = form.into_entry(position, &site) else { return };
            let written = json(&v1::Entry::from(&entry));
            let read: v1::Entry = serde_json::from_str(&written).expect("what we write we read");
            assert_eq!(json(&v1::Entry::from(&read.into_entry(position, &site).expect("is sound"))), written);
        }
        b's' => {
            let Ok(form) = serde_json::from_slice::<v1::StatePut>(json_text) else { return };
            let Ok((key, record)) = form.into_record() else { return };
            let written = json(&v1::StatePut::new(&key, &record));
            let read: v1::StatePut = serde_json::from_str(&written).expect("what we write we read");
            let (again, record) = read.into_record().expect("is sound");
            assert_eq!(again, key);
            assert_eq!(json(&v1::StatePut::new(&key, &record)), written);
        }
        b't' => {
            let Ok(touched) = serde_json::from_slice::<v1::Touched>(json_text) else { return };
            assert_eq!(serde_json::from_str::<v1::Touched>(&json(&touched)).expect("what we write we read"), touched);
        }
        _ => {}
    }
}

/// A configuration: refused, or within bounds.
fn config(data: &[u8]) {
    let Some(text) = text(data) else { return };
    if let Ok(config) = klaxon::config::Config::parse(text, Path::new("k.toml")) {
        config.check().ok();
        let _settings = config.engine.settings();
        let _store = config.store_config();
        klaxon::config::Config::reloadable_from(&config, &config).expect("nothing differs");
    }
}

/// A reader of traps that knows the users and is the engine of the corpus. What is in the time window there is not for long.
fn inbound() -> Inbound {
    let dir = tempfile::tempdir().expect("there is room");
    let kept = r#"{"engine_id":"80001f88056b6c61786f6e","engine_boots":1}"#;
    std::fs::write(dir.path().join("snmp-engine.json"), kept).expect("can be written");
    let home = EngineHome::new(dir.path());
    home.engine().expect("is sound");
    let (auth, privacy) = (Secret("password".to_owned()), Secret("hush-hush".to_owned()));
    let (auth, privacy) = (Some((AuthProtocol::Sha256, &auth)), Some((PrivProtocol::Aes256, &privacy)));
    let users = [("open", None, None), ("auth", auth, None), ("priv", auth, privacy)];
    let users = users.map(|(name, auth, privacy)| User::new(name, auth, privacy, false).expect("is right"));
    Inbound::new(std::sync::Arc::new(home), Users::new(users))
}

/// A datagram to the trap port: refused, or an event that the journal can keep; and what answers an inform is no inform.
fn trap(data: &[u8]) {
    static INBOUND: OnceLock<Mutex<Inbound>> = OnceLock::new();
    let mut inbound = INBOUND.get_or_init(|| Mutex::new(inbound())).lock().unwrap_or_else(PoisonError::into_inner);
    let site = Site::new("here").expect("valid");
    let source = std::net::SocketAddr::from(([192, 0, 2, 7], 40_000));
    let Ok((event, response)) = klaxon_ingest::trap::read(&mut inbound, data, source, &site) else { return };
    assert_eq!(event.origin.event_id.is_some(), response.is_some(), "an inform is recognised when it comes again");
    let written = json(&v1::Event::from(&event));
    let (read, _) = v1::parse_event(&written).expect("what we write we read");
    assert_eq!(read.into_event(&site).expect("is sound"), event);
    if let Some(response) = response {
        let refused =
            klaxon_ingest::trap::read(&mut inbound, &response, source, &site).expect_err("a response is no notification");
        assert!(refused.contains("Response"), "{refused}");
    }
}

/// What comes by the port of StarlingX's programs, one packet behind the other: refused, or understood; and a fault that is understood is
/// written as it was read, and is an event that the journal can keep, or says which field is wrong.
fn fm(data: &[u8]) {
    let site = Site::new("here").expect("valid");
    let mut rest = data;
    while let Ok(Some(bytes)) = wire::packet_bytes(rest)
        && bytes <= rest.len()
    {
        let (packet, behind) = rest.split_at(bytes);
        rest = behind;
        let packet = &packet[wire::LENGTH_BYTES..];
        let refused = wire::reply(wire::action_number(packet), &Err(wire::Code::InvalidRequest));
        assert_eq!(wire::packet_bytes(&refused), Ok(Some(refused.len())));
        let faults = match wire::request(packet) {
            Ok(wire::Request::CreateFault(fault)) => vec![*fault],
            Ok(wire::Request::CreateFaultList(faults)) => faults,
            _ => continue,
        };
        for fault in faults {
            // What was replaced may be longer than it was, and is cut once.
            let cut = written(&fault);
            assert_eq!(written(&cut), cut);
            let Ok(event) = fm_door::event(&fault, &site) else { continue };
            let (read, _) = v1::parse_event(&json(&v1::Event::from(&event))).expect("what we write we read");
            assert_eq!(read.into_event(&site).expect("is sound"), event);
        }
    }
}

/// The fault as a client reads it that is shown it.
fn written(fault: &wire::Fault) -> wire::Fault {
    let create = wire::Action::CreateFault.number();
    let packet = wire::reply(create, &Ok(wire::Answer::Fault(Box::new(fault.clone()))));
    match wire::request(&packet[wire::LENGTH_BYTES..]) {
        Ok(wire::Request::CreateFault(fault)) => *fault,
        other => panic!("it is one fault: {other:?}"),
    }
}

/// A mapping file: refused with a line that is there, or rules that make a sound event of any trap.
fn mapping(data: &[u8]) {
    const PACKETS: [&[u8]; 5] = [
        include_bytes!("../corpus/trap/v2c-link-down.bin"),
        include_bytes!("../corpus/trap/v2c-types.bin"),
        include_bytes!("../corpus/trap/v2c-ups-added.bin"),
        include_bytes!("../corpus/trap/v1-bgp-backward.bin"),
        include_bytes!("../corpus/trap/v2c-ent-disabled.bin"),
    ];
    let Some(text) = text(data) else { return };
    let mappings = match Mappings::parse(text, "m.toml") {
        Ok(mappings) => mappings,
        Err(MappingError::Wrong { line, .. }) => {
            assert!((1..=text.lines().count() + 1).contains(&line), "line {line}");
            return;
        }
        Err(_) => return,
    };
    let site = Site::new("here").expect("valid");
    let source = std::net::SocketAddr::from(([192, 0, 2, 7], 40_000));
    let mut explainer = Explainer::new(site.clone(), Devices::default(), mappings);
    for packet in PACKETS {
        let event = explainer.explain(packet, source).expect("is a trap").event;
        let (read, _) = v1::parse_event(&json(&v1::Event::from(&event))).expect("what we write we read");
        assert_eq!(read.into_event(&site).expect("is sound"), event);
    }
}

/// A journal of one segment: read whole, cut, or refused; and a second reading says the same. After `r` the bytes are records
/// (kind, length in two bytes, payload) in frames whose checksums are right; else they are the file.
fn segment(data: &[u8]) {
    static IDENTITY: OnceLock<Vec<u8>> = OnceLock::new();
    let identity = IDENTITY.get_or_init(|| {
        let dir = tempfile::tempdir().expect("there is room");
        let (store, writer, _) = Store::open(StoreConfig::new(dir.path().join("store"))).expect("a store is made");
        drop(writer);
        drop(store);
        std::fs::read(dir.path().join("store/node.json")).expect("it has an identity")
    });
    let dir = tempfile::tempdir().expect("there is room");
    let journal = dir.path().join("journal");
    std::fs::create_dir(&journal).expect("can be made");
    std::fs::write(dir.path().join("node.json"), identity).expect("can be written");
    let bytes = match data.split_first() {
        Some((b'r', records)) => framed(records),
        _ => data.to_owned(),
    };
    std::fs::write(journal.join("00000000000000000001.seg"), bytes).expect("can be written");
    let read = || offline::verify(dir.path()).map_err(|error| error.to_string());
    let first = read();
    assert_eq!(read(), first);
    // Whoever verifies reads more closely.
    assert!(first.is_err() || offline::read_state(dir.path()).is_ok());
}

/// A segment as `store/FORMAT.md` draws it, one frame a record.
fn framed(mut records: &[u8]) -> Vec<u8> {
    let mut segment = b"klaxnseg".to_vec();
    segment.extend([1, 0, 0, 0, 0, 0, 0, 0]);
    segment.extend([1_u64, 0, 1].iter().flat_map(|number| number.to_le_bytes()));
    segment.extend([0; 20]);
    segment.extend(crc32c(&segment).to_le_bytes());
    let mut position = 1_u64;
    while let Some(([kind, low, high], rest)) = records.split_first_chunk() {
        let (payload, behind) = rest.split_at(usize::from(u16::from_le_bytes([*low, *high])).min(rest.len()));
        records = behind;
        let length = u32::try_from(payload.len()).expect("has two bytes");
        let head = (u32::from(*kind) << 24 | length).to_le_bytes();
        let checksum = crc32c(&[&position.to_le_bytes()[..], &head, payload].concat());
        let body = [&head[..], &checksum.to_le_bytes(), payload].concat();
        let size = u32::try_from(body.len()).expect("is small").to_le_bytes();
        let rest = [&position.to_le_bytes()[..], &1_u32.to_le_bytes(), &body].concat();
        segment.extend(b"K\xfe\xffF");
        segment.extend(size);
        segment.extend(crc32c(&[&size[..], &rest].concat()).to_le_bytes());
        segment.extend(rest);
        position += 1;
    }
    segment
}

/// CRC-32C, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| if sum & 1 == 1 { sum >> 1 ^ 0x82f6_3b78 } else { sum >> 1 })
    })
}
