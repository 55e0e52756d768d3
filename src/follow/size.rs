//! How large an entry becomes in the journal, what is too large for it or finds no room, and what fits into a frame.

use std::sync::Arc;

use klaxon_schemas::action::{Matcher, Verb};
use klaxon_schemas::alarm::Alarm;
use klaxon_schemas::change::{Change, Subject};
use klaxon_schemas::child::{Relay, RelayContent};
use klaxon_schemas::entry::{ENTRY_BYTES_MAX, Entry, EntryKind, RELAY_BYTES_MAX};
use klaxon_schemas::names::ChildName;
use klaxon_schemas::wire::v1;
use klaxon_store::Room;
use klaxon_store::publish::{Answer, PublishError, Rejection};

/// The most entries that share a frame with their results. More run ahead in a frame of their own.
pub(super) const FRAME_ENTRIES_MAX: usize = 1024;
/// The most bytes of reports that share a frame with their results, by [`frame_bytes`].
pub(super) const FRAME_BYTES_ROUGH_MAX: usize = 4 * 1024 * 1024;

/// About how large an entry is in its wire form, without escapes.
pub(super) fn rough_bytes(kind: &EntryKind) -> usize {
    const FRAME: usize = 512;
    match kind {
        EntryKind::Event(event) => {
            let details = &event.details;
            let attributes: usize = details.attributes.iter().map(|(name, value)| name.len() + value.len() + 8).sum();
            let repair = details.repair_action.as_ref().map_or(0, |text| text.len());
            let labels = details.labels.len();
            FRAME
                + event.key.resource.as_str().len()
                + event.key.qualifier.len()
                + event.text.len()
                + repair
                + attributes
                + labels
        }
        EntryKind::Action(action) => match &action.verb {
            Verb::OnAlarms(targets, _) => FRAME + 80 * targets.len() + 2 * 4096,
            Verb::AddShelf(order) => FRAME + 2 * 4096 + label_matcher_bytes(&order.matcher),
            _ => FRAME + 2 * 4096,
        },
        EntryKind::Relay(relay) => match &relay.content {
            RelayContent::Alignment { alarms, unread, .. } => {
                FRAME + alarms.iter().map(|alarm| alarm_bytes(alarm)).sum::<usize>() + 48 * unread.len()
            }
            RelayContent::Live { changes, .. } | RelayContent::History { changes, .. } => {
                FRAME + changes.iter().map(|change| change_bytes(change)).sum::<usize>()
            }
            RelayContent::Aligned { below, .. } => FRAME + 256 * below.len(),
            RelayContent::Acted { actions } => FRAME + 40 * actions.len(),
            RelayContent::Gap { .. } => FRAME,
        },
        _ => FRAME,
    }
}

/// About how much room an entry and what comes of it take in a frame, in the measure of [`rough_bytes`].
pub(super) fn frame_bytes(kind: &EntryKind) -> usize {
    // Doors cut an alignment so that what is lost with it is at most four times this.
    const LOST: usize = 256 * 1024;
    let is_alignment = |relay: &Relay| matches!(relay.content, RelayContent::Alignment { .. });
    let lost = if matches!(kind, EntryKind::Relay(relay) if is_alignment(relay)) { LOST } else { 0 };
    rough_bytes(kind) + lost
}

fn alarm_bytes(alarm: &Alarm) -> usize {
    const FIELDS: usize = 700;
    let details = &alarm.details;
    let attributes: usize = details.attributes.iter().map(|(name, value)| name.len() + value.len() + 8).sum();
    let repair = details.repair_action.as_ref().map_or(0, |text| text.len());
    let notes: usize = alarm.notes.iter().map(|note| 100 + note.text.len()).sum();
    let labels = details.labels.len();
    let about = alarm.key.resource.as_str().len() + alarm.key.qualifier.len() + alarm.text.len();
    FIELDS + about + repair + attributes + labels + notes
}

fn label_matcher_bytes(matcher: &Matcher) -> usize {
    matcher.labels.iter().map(|label| 40 + label.name().len() + label.value().len()).sum()
}

fn change_bytes(change: &Change) -> usize {
    const FIELDS: usize = 300;
    let note = change.note.as_ref().map_or(0, |note| note.len());
    FIELDS
        + note
        + match &change.subject {
            Subject::Alarm { alarm, .. } => alarm_bytes(alarm),
            Subject::Event { event, .. } => rough_bytes(&EntryKind::Event(Arc::clone(event))),
            Subject::Shelf(shelf) => 4096 + label_matcher_bytes(&shelf.order.matcher),
            Subject::Suppression { .. } | Subject::Quarantine { .. } => 4096,
            // At most SCOPE_SITES_MAX names.
            Subject::Token(note) => note.sites.iter().map(|site| site.len() + 3).sum(),
            Subject::Refusal(_) | Subject::Child(_) => 0,
        }
}

/// Refuses what is too large for the journal. Escapes make a text at most six times as long, so few are measured.
pub(super) fn within_bounds(kind: &EntryKind) -> Result<(), Answer> {
    let bytes_max = if matches!(kind, EntryKind::Relay(_)) { RELAY_BYTES_MAX } else { ENTRY_BYTES_MAX };
    if rough_bytes(kind) * 6 <= bytes_max {
        return Ok(());
    }
    let bytes = match kind {
        EntryKind::Relay(relay) => serde_json::to_vec(&v1::Relay::from(&**relay)).map_or(0, |json| json.len()),
        EntryKind::Event(event) => serde_json::to_vec(&v1::Event::from(&**event)).map_or(0, |json| json.len()),
        // Its targets are bounded by number.
        _ => 0,
    };
    if bytes > bytes_max {
        return Err(Answer::Rejected(Rejection::TooLarge { bytes, bytes_max }));
    }
    Ok(())
}

/// Entries in pieces that fit into a frame together with their results.
pub(super) fn chunks(entries: &[Entry]) -> impl Iterator<Item = &[Entry]> {
    let mut rest = entries;
    std::iter::from_fn(move || {
        let mut rough = 0;
        let fitting = rest.iter().take(FRAME_ENTRIES_MAX).take_while(|entry| {
            rough += frame_bytes(&entry.kind);
            rough <= FRAME_BYTES_ROUGH_MAX
        });
        let count = fitting.count().max(1).min(rest.len());
        let (chunk, behind) = rest.split_at(count);
        rest = behind;
        (!chunk.is_empty()).then_some(chunk)
    })
}

/// Why nothing is taken, if there is no room.
pub(crate) fn no_room(room: Room) -> Option<PublishError> {
    match room {
        Room::Ok => None,
        Room::Low { free_bytes, watermark_bytes } => Some(PublishError::DiskFull { free_bytes, needed_bytes: watermark_bytes }),
        Room::Unread { journal_bytes, history_max_bytes } => Some(PublishError::Unread { journal_bytes, history_max_bytes }),
    }
}

/// The node below that an entry is from, or about.
pub(super) fn child_of(kind: &EntryKind) -> Option<&ChildName> {
    match kind {
        EntryKind::Relay(relay) => Some(&relay.child),
        EntryKind::Child(fact) => Some(&fact.child),
        _ => None,
    }
}
