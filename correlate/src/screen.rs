//! What can be said of a step of a child before it is journalled, so that what has come before, or is not taken, leaves no
//! trace there. Only what the step says of itself is looked at here, none of its alarms; [`Engine::apply`] looks at all of it.

use std::sync::Arc;

use klaxon_schemas::child::{Child, NotTaken, Reached, Relay, RelayContent, Span};
use klaxon_schemas::ids::{ActionId, Epoch};
use klaxon_schemas::names::ChildName;

use crate::engine::Engine;

impl Engine {
    /// Whether a step is new, as the engine stands now: not if it has come before.
    pub fn screen_relay(&self, relay: &Relay) -> Result<bool, NotTaken> {
        let pending = self.pending.get(&relay.child);
        let is_pending = |id: &ActionId| pending.is_some_and(|pending| pending.contains_key(id));
        screen_step(self.children.get(&relay.child), is_pending, relay)
    }
}

/// The child, if its steps are taken.
pub(crate) fn takes_steps<'a>(name: &ChildName, child: Option<&'a Arc<Child>>) -> Result<&'a Arc<Child>, NotTaken> {
    let unknown = || NotTaken::UnknownChild { child: name.clone() };
    let child = child.filter(|child| child.retired.is_none()).ok_or_else(unknown)?;
    if !child.kind.owns() {
        return Err(NotTaken::OtherKind { child: name.clone() });
    }
    if child.awaits_approval {
        return Err(NotTaken::AwaitsApproval { child: name.clone() });
    }
    Ok(child)
}

/// Whether a step is new where this is known of the child, and of its actions which are on their way: not if it has come before.
pub fn screen_step(
    child: Option<&Arc<Child>>,
    is_pending: impl Fn(&ActionId) -> bool,
    relay: &Relay,
) -> Result<bool, NotTaken> {
    let child = takes_steps(&relay.child, child)?;
    let known = child.reached.as_ref();
    match &relay.content {
        RelayContent::Acted { actions } => return Ok(actions.iter().any(is_pending)),
        RelayContent::Alignment { .. } => {}
        RelayContent::Aligned { at: upto, after, .. }
        | RelayContent::Live { after, upto, .. }
        | RelayContent::History { after, upto, .. }
        | RelayContent::Gap { after, upto } => Span { after: *after, upto: *upto }.check()?,
    }
    if let Some(known) = known.filter(|known| known.epoch > relay.epoch) {
        return Err(NotTaken::OtherEpoch { is: relay.epoch, known: known.epoch });
    }
    let known = known.filter(|known| known.epoch == relay.epoch);
    let is_known = || {
        let other = child.reached.as_ref().map_or(Epoch(0), |known| known.epoch);
        known.ok_or(NotTaken::OtherEpoch { is: relay.epoch, known: other })
    };
    match &relay.content {
        RelayContent::Alignment { at, .. } => Ok(known.is_none_or(|known| *at >= known.position)),
        RelayContent::Aligned { at, after, .. } => match known {
            Some(known) if *at < known.position => Ok(false),
            Some(known) if *after > known.position => Err(NotTaken::OutOfPlace { after: *after, reached: known.position }),
            _ => Ok(true),
        },
        RelayContent::Live { after, upto, .. } => {
            let reached = is_known()?.position;
            if *upto > reached && *after != reached {
                return Err(NotTaken::OutOfPlace { after: *after, reached });
            }
            Ok(*upto > reached)
        }
        RelayContent::History { after, upto, .. } | RelayContent::Gap { after, upto } => {
            is_missing(is_known()?, Span { after: *after, upto: *upto })
        }
        RelayContent::Acted { .. } => Ok(true),
    }
}

/// Whether a stretch of history is yet to come: an error if it is not the one that comes next.
fn is_missing(reached: &Reached, span: Span) -> Result<bool, NotTaken> {
    if span.upto <= reached.needed_after() {
        return Ok(false);
    }
    match reached.missing.first() {
        None => Err(NotTaken::OutOfPlace { after: span.after, reached: reached.position }),
        Some(oldest) if span.after != oldest.after || span.upto > oldest.upto => {
            Err(NotTaken::OutOfPlace { after: span.after, reached: oldest.after })
        }
        Some(_) => Ok(true),
    }
}
