//! What was found to differ and has not been listed yet. That all is aligned is believed only once every such range was listed:
//! a part that was lost would leave an alarm here as it was, and nobody would see.

use klaxon_schemas::child::bucket_bounds;
use klaxon_schemas::ids::AlarmId;
use klaxon_schemas::wire::v1;
use klaxon_schemas::wire::v1::uplink::Refusal;
use uuid::Uuid;

use super::End;

/// Ranges of ids, each as far as it has not been listed.
#[derive(Default)]
pub(super) struct Unlisted(Vec<(AlarmId, AlarmId)>);

impl Unlisted {
    /// All of these ranges.
    pub(super) fn of(buckets: &[u8]) -> Self {
        Self(buckets.iter().map(|bucket| bucket_bounds(*bucket)).collect())
    }

    /// Notes what `form` lists. Refused is one that says to be aligned while something has not come: it compares anew.
    pub(super) fn note(&mut self, form: &v1::RelayContent) -> Result<(), End> {
        match form {
            v1::RelayContent::Alignment { from, to, .. } => {
                // Parts come in the order of their ids.
                self.0.retain_mut(|(first, last)| {
                    let begins = from <= first && to >= first;
                    if begins && to < last {
                        *first = AlarmId(Uuid::from_u128(to.0.as_u128() + 1));
                    }
                    !(begins && to >= last)
                });
                Ok(())
            }
            v1::RelayContent::Aligned { .. } if !self.0.is_empty() => {
                Err(End::refused(Refusal::Busy, "aligned: a part of the alarms that differ has not come"))
            }
            _ => Ok(()),
        }
    }
}
