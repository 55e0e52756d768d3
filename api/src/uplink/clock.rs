//! The clocks of two nodes.

use klaxon_schemas::action::Action;
use klaxon_schemas::time::Timestamp;

/// An action of this node as a node is told it whose clock is `ahead_us` microseconds ahead of this one's: it decides by its own
/// clock whether the action has expired, and whether it was ordered before another one.
pub(super) fn by_clock_ahead(action: &Action, ahead_us: i64) -> Action {
    let there = |time: Option<Timestamp>| time.map(|time| time.saturating_add_micros(ahead_us));
    Action { ordered_at: there(action.ordered_at), expires_at: there(action.expires_at), ..action.clone() }
}

#[cfg(test)]
mod tests {
    use klaxon_schemas::action::Verb;
    use klaxon_schemas::ids::ActionId;
    use klaxon_schemas::names::{Actor, AlarmType};
    use uuid::Uuid;

    use super::*;

    #[test]
    fn what_is_ordered_here_is_ordered_and_expires_at_the_same_moment_there() {
        let time = |text: &str| -> Option<Timestamp> { Some(text.parse().expect("is a time")) };
        let action = Action {
            id: ActionId(Uuid::from_u128(1)),
            actor: Actor::new("anna").expect("valid"),
            from: None,
            ordered_at: time("2026-11-22T03:12:00Z"),
            expires_at: time("2026-11-22T04:12:00Z"),
            verb: Verb::Unsuppress { alarm_type: AlarmType::new("fan.failed").expect("valid") },
        };
        let ahead = by_clock_ahead(&action, 90_000_000);
        assert_eq!((ahead.ordered_at, ahead.expires_at), (time("2026-11-22T03:13:30Z"), time("2026-11-22T04:13:30Z")));
        assert_eq!(Action { ordered_at: action.ordered_at, expires_at: action.expires_at, ..ahead }, action);
        let behind = by_clock_ahead(&action, -3_600_000_000);
        assert_eq!((behind.ordered_at, behind.expires_at), (time("2026-11-22T02:12:00Z"), time("2026-11-22T03:12:00Z")));
        let never = Action { ordered_at: None, expires_at: None, ..action };
        assert_eq!(by_clock_ahead(&never, 90_000_000), never);
        // A clock that cannot be does no harm.
        for ahead_us in [i64::MAX, i64::MIN + 1] {
            assert!(by_clock_ahead(&behind, ahead_us).expires_at.is_some());
        }
    }
}
