//! A change is found by the same keys whether it was just made or read from the journal.

use super::*;
use crate::journal::frame::{FrameBuffer, RawRecord, Step as Met, step};
use crate::journal::index::IndexBuilder;
use crate::journal::record::{self, Sketch};
use klaxon_schemas::access::{Role, TokenNote};
use klaxon_schemas::action::{Matcher, ShelfOrder};
use klaxon_schemas::change::{Refusal, RefusalReason, WithoutEffect};
use klaxon_schemas::child::{ChildKind, ChildNote, ChildStep};
use klaxon_schemas::ids::ActionId;
use klaxon_schemas::names::Actor;
use klaxon_schemas::state::{Shelf, ShelfPhase, Suppression};

fn subjects() -> Vec<Subject> {
    let action = ActionId(uuid::Uuid::from_u128(5));
    let refusal = |alarm, site| Refusal { action, alarm, site, reason: RefusalReason::NoEffect };
    let south = || Some(Site::new("south").expect("valid"));
    let shelf = |site| {
        let order = ShelfOrder::new(Matcher { site, ..Matcher::default() }, at(9), Text::new("work").expect("valid"));
        let ends_at = JournalTime(9);
        let by = Actor::new("ann").expect("valid");
        Subject::Shelf(Arc::new(Shelf {
            id: action,
            by,
            at: at(1),
            order,
            ends_at,
            phase: ShelfPhase::Standing,
            begins_at: None,
            amended_at: None,
            ended_at: None,
            forgotten_at: None,
        }))
    };
    let child =
        |kind| Subject::Child(Arc::new(ChildNote { name: "tower-1".parse().expect("valid"), kind, what: ChildStep::Enrolled }));
    vec![
        Subject::Alarm { alarm: Arc::new(alarm(4)), previous_severity: Some(Severity::Minor) },
        Subject::Event { event: event(3), catalogued: true, without_effect: Some(WithoutEffect::Overtaken) },
        Subject::Suppression {
            alarm_type: AlarmType::new("disk.full").expect("valid"),
            suppression: Arc::new(Suppression { by: Actor::new("bob \"b\"").expect("valid"), at: at(1), reason: None }),
        },
        Subject::Refusal(refusal(Some(alarm(4).id), south())),
        Subject::Refusal(refusal(None, None)),
        shelf(south()),
        shelf(None),
        child(ChildKind::Site),
        child(ChildKind::Agent),
        Subject::Token(Arc::new(TokenNote {
            name: "grafana".parse().expect("valid"),
            role: Role::Reader,
            sites: south().into_iter().collect(),
            expires_at: None,
        })),
        Subject::Quarantine { entry: Position(3), failure: Text::new("broke").expect("valid") },
    ]
}

#[test]
fn made_and_read_changes_have_the_same_keys() {
    for subject in subjects() {
        let change = Change {
            site: Site::new("north").expect("valid"),
            number: ChangeNumber { epoch: Epoch(1), seq: Seq(9) },
            at: at(9),
            past: false,
            kind: ChangeKind::Noted,
            reasons: vec![Reason::Entry(Position(3))],
            actor: Some(Actor::new("ann").expect("valid")),
            from: None,
            note: Some(Text::new("a \"note\"\nof two lines").expect("valid")),
            subject,
            place: None,
        };
        let mut frame = FrameBuffer::default();
        frame.begin(Position(7));
        record::push_change(&mut frame, &change);
        let bytes = frame.finish().expect("fits");
        let Ok(Met::Record(RawRecord { payload, .. }, _)) = step(&bytes[24..], Position(7)) else { panic!("is whole") };
        let (mut made, mut read) = (IndexBuilder::new(Position(1)), IndexBuilder::new(Position(1)));
        made.change(Position(7), &change);
        read.sketch(Position(7), &Sketch::read(payload).expect("reads"));
        assert_eq!(format!("{made:?}"), format!("{read:?}"), "{change:?}");
        assert_eq!(record::change(payload).expect("reads"), change);
    }
}

#[test]
fn a_record_at_another_place_fails_its_checksum() {
    let mut frame = FrameBuffer::default();
    frame.begin(Position(7));
    record::push_alarm(&mut frame, &alarm(1));
    let bytes = frame.finish().expect("fits");
    assert!(step(&bytes[24..], Position(7)).is_ok());
    assert!(step(&bytes[24..], Position(8)).is_err());
}
