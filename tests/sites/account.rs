//! What became of things, for whoever has to find out why a schedule failed.

use klaxon_api::notify::What;
use klaxon_schemas::alarm::Alarm;
use klaxon_schemas::change::Subject;

use super::schedules::{Place, World};

impl World {
    /// What each node says of those below it.
    pub(crate) fn notes(&self) -> Vec<String> {
        let nodes = self.sites.iter().map(|site| (site.name, site.node())).chain([("centre", self.centre())]);
        nodes
            .flat_map(|(name, node)| {
                let notes = node.history().into_iter().filter_map(|change| match change.subject {
                    Subject::Child(note) => {
                        Some(format!("{name}: {} {}: {} {:?}", change.site, change.at, note.name, note.what))
                    }
                    _ => None,
                });
                notes.collect::<Vec<_>>()
            })
            .collect()
    }

    /// All that became of an alarm at the centre, for whoever has to find out.
    pub(crate) fn story(&self, site: &Place, resource: &str) -> String {
        let mut lines = Vec::new();
        let of_it = |alarm: &Alarm| {
            alarm.owner.as_ref().is_some_and(|owner| **owner == *site.name) && alarm.key.resource.as_str() == resource
        };
        for change in self.centre().history() {
            match &change.subject {
                Subject::Alarm { alarm, .. } if of_it(alarm) => lines.push(format!(
                    "{} {} {:?} {} {:?} {} episode {} since {:?} cleared {}",
                    if change.past { "past" } else { "live" },
                    change.site,
                    change.number,
                    change.at,
                    change.kind,
                    alarm.severity,
                    alarm.raise_seq,
                    alarm.event_time,
                    alarm.cleared.is_some()
                )),
                Subject::Child(note) => lines.push(format!("{note:?}")),
                _ => {}
            }
        }
        for one in self.told.all() {
            if let What::Alarm { how, alarm, change, .. } = &one.what
                && of_it(alarm)
            {
                let number = change.as_ref().map(|change| (change.site.clone(), change.number, change.kind));
                lines.push(format!(
                    "told {}: {how:?} {number:?} episode {} since {:?}",
                    one.delivery_seq, alarm.raise_seq, alarm.event_time
                ));
            }
        }
        lines.join("\n")
    }
}
