//! The mirror: the alarms of the sites below, as they send them. Nothing here decides about an alarm; its owner does.

use std::collections::BTreeMap;
use std::sync::Arc;

use klaxon_schemas::alarm::Alarm;
use klaxon_schemas::child::{ChildFact, Relay};
use klaxon_schemas::ids::AlarmId;
use klaxon_schemas::names::ChildName;

use crate::engine::{Engine, Moment};
use crate::output::{Disposition, Output};

/// The alarms of other sites, by the child they come through.
#[derive(Default)]
pub(crate) struct Mirror(BTreeMap<ChildName, BTreeMap<AlarmId, Arc<Alarm>>>);

impl Mirror {
    /// Takes in an alarm as it is now.
    pub(crate) fn put(&mut self, alarm: Arc<Alarm>) {
        if let Some(via) = alarm.via.clone() {
            self.0.entry(via).or_default().insert(alarm.id, alarm);
        }
    }
}

impl Engine {
    /// A site sent a step of what became of its alarms.
    pub(crate) fn mirror(&mut self, _moment: &Moment<'_>, _relay: &Arc<Relay>, _out: &mut Output) -> Disposition {
        Disposition::Applied
    }

    /// Something became of a child.
    pub(crate) fn child(&mut self, _moment: &Moment<'_>, _fact: &Arc<ChildFact>, _out: &mut Output) -> Disposition {
        Disposition::Applied
    }
}
