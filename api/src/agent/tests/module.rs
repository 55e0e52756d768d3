//! The MIB modules' word against what is served. The compiler is mib-rs (MIT or Apache-2.0), which carries the base modules of
//! RFC 2578 to 2580 as the RFCs have them.

use std::collections::{BTreeMap, BTreeSet};

use klaxon_schemas::ids::Epoch;
use klaxon_schemas::names::Follower;
use klaxon_snmp::{Set, Varbind};
use mib_rs::{Access, BaseType, Loader, Mib};

use super::*;
use crate::agent::mib;
use crate::agent::oids::{NotificationKind, NotificationObject, ReceiverColumn};
use crate::notify::{Counters, ReceiverShown, ReceiverState};

fn compile(root: &Root) -> Mib {
    let source = mib_rs::source::memory("KLAXON-ALARM-MIB", mib(root));
    let mib = Loader::new().source(source).modules(["KLAXON-ALARM-MIB"]).load().expect("compiles");
    // The root is the only thing that may be remarked on: its arcs have no names.
    let remarks: Vec<String> = mib.diagnostics().iter().map(|diagnostic| format!("{diagnostic:?}")).collect();
    assert!(remarks.is_empty(), "{}", remarks.join("\n"));
    mib
}

fn receiver() -> ReceiverShown {
    ReceiverShown {
        name: Follower::new("noc").expect("valid"),
        kind: "snmp",
        target: "noc.example:162".to_owned(),
        state: ReceiverState::Retrying,
        since: at("2026-11-22T03:00:00Z"),
        last_error: Some("no route to host".to_owned()),
        last_error_at: None,
        last_reached_at: None,
        lag_changes: 3,
        lag_s: 60,
        epoch: Epoch(17),
        assigned: 9,
        confirmed: 8,
        oldest_kept: Some(1),
        told: 0,
        realigning: false,
        counters: Counters::default(),
    }
}

/// The type of the SMI that a value has.
fn base(value: &Value) -> Vec<BaseType> {
    match value {
        Value::Integer(_) => vec![BaseType::Integer32],
        Value::OctetString(_) => vec![BaseType::OctetString],
        Value::Gauge32(_) => vec![BaseType::Gauge32, BaseType::Unsigned32],
        Value::TimeTicks(_) => vec![BaseType::TimeTicks],
        Value::Counter64(_) => vec![BaseType::Counter64],
        other => panic!("{other:?} is in no table of ours"),
    }
}

#[test]
fn every_object_of_the_module_is_served_as_it_says_and_no_other() {
    let config = TablesConfig { root: "1.3.6.1.4.1.32473.5".parse().expect("is one"), ..TablesConfig::default() };
    let mib = compile(&config.root);
    let mut bench = Bench::with(config.clone(), vec![alarm(1)], Some(Arc::new(|| vec![receiver()])));
    bench.alarms(ChangeKind::Raised, vec![alarm(2)]);
    bench.follow();
    let readable = mib.objects().filter(|object| matches!(object.access(), Access::ReadOnly | Access::ReadWrite));
    let said: BTreeSet<String> = readable.filter_map(|object| Some(object.node()?.oid().to_string())).collect();
    let mut served = BTreeSet::new();
    for (oid, value) in bench.walk(&config.root.oid(&[])) {
        let instance: mib_rs::Oid = oid.to_string().parse().expect("is one");
        let object = mib.lookup_oid(&instance).object().unwrap_or_else(|| panic!("{oid} is not in the module"));
        served.insert(object.node().expect("has a place").oid().to_string());
        let declared = object.ty().expect("has a type");
        let base_type = declared.effective_base();
        assert!(base(&value).contains(&base_type), "{} is {base_type:?} and not {value:?}", object.name());
        match &value {
            Value::OctetString(bytes) => {
                let sizes = object.effective_sizes();
                let length = i64::try_from(bytes.len()).expect("is small");
                let fits = sizes.iter().any(|range| range.min.as_i64() <= Some(length) && Some(length) <= range.max.as_i64());
                assert!(sizes.is_empty() || fits, "{}: {} octets, and {sizes:?}", object.name(), bytes.len());
            }
            Value::Integer(number) => {
                let known = object.effective_enums().iter().any(|named| named.value == i64::from(*number));
                assert!(known, "{} is never {number}", object.name());
            }
            _ => {}
        }
    }
    assert_eq!(said, served);
}

#[test]
fn notifications_have_the_variables_that_the_module_says() {
    let root = Root::default();
    let mib = compile(&root);
    let said: BTreeMap<String, Vec<String>> = mib
        .notifications()
        .map(|notification| {
            let objects = notification.objects().map(|object| object.node().expect("has a place").oid().to_string());
            (notification.node().expect("has a place").oid().to_string(), objects.collect())
        })
        .collect();
    let place = |object: NotificationObject| {
        let instance = match object {
            NotificationObject::Alarm(column) => root.alarm(column, 0),
            NotificationObject::Delivery(object) => root.delivery(object),
        };
        Oid::new(&instance.arcs()[..instance.arcs().len() - 1]).to_string()
    };
    let ours: BTreeMap<String, Vec<String>> = NotificationKind::ALL
        .iter()
        .map(|kind| (root.notification(*kind).to_string(), kind.objects().map(place).collect()))
        .collect();
    assert_eq!(said, ours);
    // What may follow is in the module too.
    for kind in NotificationKind::ALL {
        for object in kind.more_objects() {
            let oid: mib_rs::Oid = place(object).parse().expect("is one");
            assert!(mib.exact_node_by_oid(&oid).is_some_and(|node| node.object().is_some()), "{oid}");
        }
    }
}

#[test]
fn numbers_that_managers_of_v1_cannot_read_are_named() {
    let bench = Bench::with(TablesConfig::default(), vec![alarm(1)], Some(Arc::new(|| vec![receiver()])));
    let part = bench.objects.iter().find(|part| part.root() == Root::default().oid(&[])).expect("is there");
    let columns = part.counter64();
    for (oid, value) in bench.walk(&part.root()) {
        let is_named = columns.iter().any(|column| oid.arcs().starts_with(column.arcs()));
        assert_eq!(matches!(value, Value::Counter64(_)), is_named, "{oid}");
    }
}

#[tokio::test]
async fn a_request_that_comes_again_has_a_receiver_sent_everything_once() {
    let shown: ReceiversShown = Arc::new(|| vec![receiver()]);
    let bench = Bench::with(TablesConfig::default(), Vec::new(), Some(shown));
    let index = bench.shared.snapshot().receivers[0].index;
    let set = async |user: &str, source: &str, request_id: i32, from: u32| {
        let oid = Root::default().oid(&[1, 6, 1, ReceiverColumn::ResendFrom as u32, index]);
        let varbinds = vec![Varbind { oid, value: Value::Gauge32(from) }];
        bench.objects[0].check(&varbinds[0], &[]).expect("can be set");
        let source = source.parse().expect("an address");
        bench.objects[0].set(Set { user: user.to_owned(), source, request_id, varbinds }).await
    };
    for source in ["192.0.2.1:1", "192.0.2.1:1", "192.0.2.9:9"] {
        assert_eq!(set("noc", source, 7, 3).await, Ok(()), "it is answered each time");
    }
    assert_eq!(*bench.resent.lock().expect("nobody broke it"), [3]);
    set("noc", "192.0.2.1:1", 8, 3).await.expect("is another request");
    set("noc", "192.0.2.1:1", 8, 4).await.expect("is another request");
    set("ops", "192.0.2.1:1", 8, 4).await.expect("is another's");
    assert_eq!(*bench.resent.lock().expect("nobody broke it"), [3, 3, 4, 4]);
}
