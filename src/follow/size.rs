//! How large an entry becomes in the journal, and what is too large for it.

use klaxon_schemas::action::Verb;
use klaxon_schemas::entry::{ENTRY_BYTES_MAX, EntryKind};
use klaxon_schemas::wire::v1;
use klaxon_store::publish::{Answer, Rejection};

/// About how large an entry is in its wire form, without escapes.
pub(super) fn rough_bytes(kind: &EntryKind) -> usize {
    const FRAME: usize = 512;
    match kind {
        EntryKind::Event(event) => {
            let details = &event.details;
            let attributes: usize = details.attributes.iter().map(|(name, value)| name.len() + value.len() + 8).sum();
            let repair = details.repair_action.as_ref().map_or(0, |text| text.len());
            FRAME + event.key.resource.as_str().len() + event.key.qualifier.len() + event.text.len() + repair + attributes
        }
        EntryKind::Action(action) => match &action.verb {
            Verb::OnAlarms(targets, _) => FRAME + 80 * targets.len() + 2 * 4096,
            _ => FRAME + 2 * 4096,
        },
        _ => FRAME,
    }
}

/// Refuses what is too large for the journal. Escapes make a text at most six times as long, so few are measured.
pub(super) fn within_bounds(kind: &EntryKind) -> Result<(), Answer> {
    if rough_bytes(kind) * 6 <= ENTRY_BYTES_MAX {
        return Ok(());
    }
    let bytes = match kind {
        EntryKind::Event(event) => serde_json::to_vec(&v1::Event::from(&**event)).map_or(0, |json| json.len()),
        // Its targets are bounded by number.
        _ => 0,
    };
    if bytes > ENTRY_BYTES_MAX {
        return Err(Answer::Rejected(Rejection::TooLarge { bytes, bytes_max: ENTRY_BYTES_MAX }));
    }
    Ok(())
}
