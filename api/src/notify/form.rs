//! Notifications in our own form, as webhooks and topics get them: `schemas/json/notification.v1.schema.json`.

use klaxon_schemas::catalogue::Catalogue;
use klaxon_schemas::change::Subject;
use klaxon_schemas::wire::v1;

use super::{Notification, What};
use crate::http::enrich;

/// What is delivered together.
pub(super) fn notifications(catalogue: &Catalogue, batch: &[Notification]) -> v1::Notifications {
    v1::Notifications {
        version: v1::NOTIFICATIONS_VERSION,
        receiver: batch[0].receiver.clone(),
        notifications: batch.iter().map(|notification| self::notification(catalogue, notification)).collect(),
    }
}

fn notification(catalogue: &Catalogue, notification: &Notification) -> v1::Notification {
    let numbered = !matches!(notification.what, What::Heartbeat { .. });
    let what = match &notification.what {
        What::Alarm { how, change, alarm, suppressed } => {
            let mut shown = v1::Alarm::shown(alarm, *suppressed);
            if let Some(entry) = catalogue.get(&shown.alarm_type) {
                enrich(&mut shown, entry);
            }
            v1::Notified::Alarm { how: *how, alarm: Box::new(shown), change: change.as_deref().map(v1::Step::of) }
        }
        What::Log { change } => match &change.subject {
            Subject::Event { event, catalogued, without_effect } => v1::Notified::Log {
                change: v1::Step::of(change),
                event: Box::new((&**event).into()),
                catalogued: *catalogued,
                without_effect: *without_effect,
            },
            _ => unreachable!("only an event is logged"),
        },
        What::Digest(digest) => v1::Notified::Digest { digest: (**digest).clone() },
        What::Gap(gap) => v1::Notified::Gap { gap: gap.clone() },
        What::Heartbeat { last } => v1::Notified::Heartbeat { last_delivery_seq: *last },
    };
    v1::Notification {
        epoch: notification.epoch,
        delivery_seq: numbered.then_some(notification.delivery_seq),
        resent: notification.resent,
        what,
    }
}
