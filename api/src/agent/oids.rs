//! Where each object stands: the tree of KLAXON-ALARM-MIB under its root. `schemas/mib/KLAXON-ALARM-MIB.txt` says the same, and
//! a test holds one to the other. The tables and what sends notifications take the numbers from here.
//!
//! ```text
//! root ─┬─ 0 notifications      raised 1, changed 2, cleared 3, left 4, retired 5, logged 6, digest 7, gap 8, heartbeat 9
//!       ├─ 1 objects ─┬─ 1 node         scalars
//!       │             ├─ 2 severities   .1.column.severity
//!       │             ├─ 3 sites        .1.column.site
//!       │             ├─ 4 alarms       .1.column.alarm
//!       │             ├─ 5 history      .1.column.change
//!       │             ├─ 6 receivers    .1.column.receiver
//!       │             └─ 7 delivery     scalars of notifications
//!       └─ 2 conformance
//! ```

use std::fmt;
use std::str::FromStr;

use klaxon_snmp::Oid;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Where the tree hangs unless it is configured otherwise: in the playpen of net-snmp, which is there for this.
pub const DEFAULT_ROOT: [u32; 10] = [1, 3, 6, 1, 4, 1, 8072, 9999, 9999, 7780];
/// The most arcs a root may have, so that no object has more than the 128 of RFC 2578.
pub const ROOT_ARCS_MAX: usize = 32;

/// The root of KLAXON-ALARM-MIB.
#[derive(Clone, PartialEq, Eq)]
pub struct Root(Vec<u32>);

/// A text that is no root.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RootError {
    /// No numbers with dots between them.
    #[error("is no object identifier such as 1.3.6.1.4.1.8072.9999.9999.7780")]
    Form,
    /// Not where an enterprise may put what is its own.
    #[error("does not stand under 1.3.6.1.4.1, where enterprises have their objects, or is an enterprise as a whole")]
    Place,
    /// More than [`ROOT_ARCS_MAX`].
    #[error("has more than {ROOT_ARCS_MAX} numbers")]
    TooLong,
}

impl Root {
    /// The identifier of what stands at `rest` under the root.
    pub fn oid(&self, rest: &[u32]) -> Oid {
        self.oid_of(&[rest])
    }

    /// The same, with `rest` in parts.
    pub fn oid_of(&self, rest: &[&[u32]]) -> Oid {
        let mut arcs = Vec::with_capacity(self.0.len() + 16);
        arcs.extend_from_slice(&self.0);
        rest.iter().for_each(|part| arcs.extend_from_slice(part));
        Oid::new(&arcs)
    }

    /// Its numbers.
    pub fn arcs(&self) -> &[u32] {
        &self.0
    }

    /// snmpTrapOID of a notification.
    pub fn notification(&self, kind: NotificationKind) -> Oid {
        self.oid(&[NOTIFICATIONS, kind as u32])
    }

    /// The variable of an alarm's row; `index` is 0 where there is no alarm, as in what is told of a log event.
    pub fn alarm(&self, column: AlarmColumn, index: u32) -> Oid {
        self.oid(&[OBJECTS, ALARMS, 1, column as u32, index])
    }

    /// A variable that is only in notifications.
    pub fn delivery(&self, object: DeliveryObject) -> Oid {
        self.oid(&[OBJECTS, DELIVERY, object as u32, 0])
    }
}

impl Default for Root {
    fn default() -> Self {
        Self(DEFAULT_ROOT.to_vec())
    }
}

impl FromStr for Root {
    type Err = RootError;

    fn from_str(text: &str) -> Result<Self, RootError> {
        let number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok()).flatten();
        let arcs: Option<Vec<u32>> = text.strip_prefix('.').unwrap_or(text).split('.').map(number).collect();
        let arcs = arcs.ok_or(RootError::Form)?;
        if !arcs.starts_with(&[1, 3, 6, 1, 4, 1]) || arcs.len() < 8 {
            return Err(RootError::Place);
        }
        if arcs.len() > ROOT_ARCS_MAX {
            return Err(RootError::TooLong);
        }
        Ok(Self(arcs))
    }
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.oid(&[]), f)
    }
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Root {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Root {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Under the root: what is sent.
pub const NOTIFICATIONS: u32 = 0;
/// Under the root: what is asked for.
pub const OBJECTS: u32 = 1;

/// Under the objects: scalars about the node.
pub const NODE: u32 = 1;
/// Under the objects: the table of counts by severity.
pub const SEVERITIES: u32 = 2;
/// Under the objects: the table of sites.
pub const SITES: u32 = 3;
/// Under the objects: the table of active alarms.
pub const ALARMS: u32 = 4;
/// Under the objects: the table of the last changes.
pub const HISTORY: u32 = 5;
/// Under the objects: the table of receivers.
pub const RECEIVERS: u32 = 6;
/// Under the objects: scalars that are only in notifications.
pub const DELIVERY: u32 = 7;

/// An `enum` whose discriminants are arcs, and all of them in their order: written once, so that none is left out of the list.
macro_rules! arcs {
    ($(#[$outer:meta])* $name:ident { $($(#[$inner:meta])* $variant:ident = $arc:literal,)+ }) => {
        $(#[$outer])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$inner])* $variant = $arc,)+ }

        impl $name {
            /// All, in their order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The one with this number.
            pub fn of(arc: u32) -> Option<Self> {
                match arc {
                    $($arc => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }
    };
}

arcs! {
    /// What is sent.
    NotificationKind {
        /// An episode began, as the receiver sees it.
        Raised = 1,
        /// What was told has changed.
        Changed = 2,
        /// The episode ended.
        Cleared = 3,
        /// What was told stands no longer among what the receiver asked for.
        Left = 4,
        /// It was cleared and forgotten by an operator.
        Retired = 5,
        /// A log event.
        Logged = 6,
        /// What a receiver missed that was away for long, in sum.
        Digest = 7,
        /// What is gone from the journal before the receiver was told.
        Gap = 8,
        /// All is well, and this is how far it has come.
        Heartbeat = 9,
    }
}

arcs! {
    /// The scalars about the node.
    NodeObject {
        /// klaxonNodeId.
        Id = 1,
        /// klaxonNodeSite.
        Site = 2,
        /// klaxonNodeVersion.
        Version = 3,
        /// klaxonJournalEpoch.
        Epoch = 4,
        /// klaxonJournalPosition.
        Position = 5,
        /// klaxonJournalLastChange.
        LastChange = 6,
        /// klaxonTablesPosition.
        TablesPosition = 7,
        /// klaxonAlarmsActive.
        Active = 8,
        /// klaxonAlarmsCleared.
        Cleared = 9,
        /// klaxonAlarmsLastChanged.
        LastChanged = 10,
        /// klaxonHistoryMax.
        HistoryMax = 11,
    }
}

arcs! {
    /// The columns of the counts by severity.
    SeverityColumn {
        /// klaxonSeverityIndex, not accessible.
        Index = 1,
        /// klaxonSeverityAlarms.
        Alarms = 2,
        /// klaxonSeverityAcknowledged.
        Acknowledged = 3,
        /// klaxonSeverityShelved.
        Shelved = 4,
        /// klaxonSeveritySuppressed.
        Suppressed = 5,
        /// klaxonSeverityStale.
        Stale = 6,
        /// klaxonSeverityShown.
        Shown = 7,
    }
}

arcs! {
    /// The columns of the sites.
    SiteColumn {
        /// klaxonSiteIndex, not accessible.
        Index = 1,
        /// klaxonSiteName.
        Name = 2,
        /// klaxonSiteReachable.
        Reachable = 3,
        /// klaxonSiteLastHeardAt.
        LastHeardAt = 4,
        /// klaxonSiteLagSeconds.
        LagSeconds = 5,
        /// klaxonSiteCritical.
        Critical = 6,
        /// klaxonSiteMajor.
        Major = 7,
        /// klaxonSiteMinor.
        Minor = 8,
        /// klaxonSiteWarning.
        Warning = 9,
        /// klaxonSiteIndeterminate.
        Indeterminate = 10,
    }
}

arcs! {
    /// The columns of the active alarms. The history has those that are about the alarm under the same numbers.
    AlarmColumn {
        /// klaxonAlarmIndex, not accessible.
        Index = 1,
        /// klaxonAlarmId.
        Id = 2,
        /// klaxonAlarmSite.
        Site = 3,
        /// klaxonAlarmResource.
        Resource = 4,
        /// klaxonAlarmType.
        Type = 5,
        /// klaxonAlarmQualifier.
        Qualifier = 6,
        /// klaxonAlarmSeverity.
        Severity = 7,
        /// klaxonAlarmEventType.
        EventType = 8,
        /// klaxonAlarmProbableCause.
        ProbableCause = 9,
        /// klaxonAlarmProbableCauseNumber.
        ProbableCauseNumber = 10,
        /// klaxonAlarmText.
        Text = 11,
        /// klaxonAlarmRepairAction.
        RepairAction = 12,
        /// klaxonAlarmRunbook.
        Runbook = 13,
        /// klaxonAlarmServiceAffecting.
        ServiceAffecting = 14,
        /// klaxonAlarmFirstRaisedAt.
        FirstRaisedAt = 15,
        /// klaxonAlarmRaisedAt.
        RaisedAt = 16,
        /// klaxonAlarmChangedAt.
        ChangedAt = 17,
        /// klaxonAlarmEventTime.
        EventTime = 18,
        /// klaxonAlarmClearedAt.
        ClearedAt = 19,
        /// klaxonAlarmClearedBy.
        ClearedBy = 20,
        /// klaxonAlarmAcknowledged, can be set.
        Acknowledged = 21,
        /// klaxonAlarmAcknowledgedBy, can be set.
        AcknowledgedBy = 22,
        /// klaxonAlarmAcknowledgedAt.
        AcknowledgedAt = 23,
        /// klaxonAlarmAcknowledgedNote, can be set.
        AcknowledgedNote = 24,
        /// klaxonAlarmAssignedTo.
        AssignedTo = 25,
        /// klaxonAlarmAssignedBy.
        AssignedBy = 26,
        /// klaxonAlarmAssignedAt.
        AssignedAt = 27,
        /// klaxonAlarmShelved.
        Shelved = 28,
        /// klaxonAlarmShelvedUntil.
        ShelvedUntil = 29,
        /// klaxonAlarmShelvedBy.
        ShelvedBy = 30,
        /// klaxonAlarmShelvedReason.
        ShelvedReason = 31,
        /// klaxonAlarmSuppressed.
        Suppressed = 32,
        /// klaxonAlarmStale.
        Stale = 33,
        /// klaxonAlarmStaleSince.
        StaleSince = 34,
        /// klaxonAlarmCount.
        Count = 35,
        /// klaxonAlarmRaiseSeq.
        RaiseSeq = 36,
        /// klaxonAlarmLastReportedAt.
        LastReportedAt = 37,
        /// klaxonAlarmProducer.
        Producer = 38,
        /// klaxonAlarmCatalogued.
        Catalogued = 39,
        /// klaxonAlarmNotes.
        Notes = 40,
        /// klaxonAlarmLastNote.
        LastNote = 41,
        /// klaxonAlarmChangeEpoch.
        ChangeEpoch = 42,
        /// klaxonAlarmChangeSeq.
        ChangeSeq = 43,
        /// klaxonAlarmAttributes.
        Attributes = 44,
    }
}

arcs! {
    /// The columns of the history that are about the change.
    HistoryColumn {
        /// klaxonHistoryPosition.
        Position = 51,
        /// klaxonHistoryKind.
        Kind = 52,
        /// klaxonHistoryAt.
        At = 53,
        /// klaxonHistoryActor.
        Actor = 54,
        /// klaxonHistoryNote.
        Note = 55,
        /// klaxonHistoryPreviousSeverity.
        PreviousSeverity = 56,
        /// klaxonHistoryReasons.
        Reasons = 57,
    }
}

arcs! {
    /// The columns of the receivers.
    ReceiverColumn {
        /// klaxonReceiverIndex, not accessible.
        Index = 1,
        /// klaxonReceiverName.
        Name = 2,
        /// klaxonReceiverKind.
        Kind = 3,
        /// klaxonReceiverState.
        State = 4,
        /// klaxonReceiverSince.
        Since = 5,
        /// klaxonReceiverLagChanges.
        LagChanges = 6,
        /// klaxonReceiverLagSeconds.
        LagSeconds = 7,
        /// klaxonReceiverEpoch.
        Epoch = 8,
        /// klaxonReceiverAssigned.
        Assigned = 9,
        /// klaxonReceiverConfirmed.
        Confirmed = 10,
        /// klaxonReceiverLastError.
        LastError = 11,
        /// klaxonReceiverResendFrom, can be set.
        ResendFrom = 12,
    }
}

arcs! {
    /// The scalars that are only in notifications.
    DeliveryObject {
        /// klaxonDeliveryReceiver: whom it is for.
        Receiver = 1,
        /// klaxonDeliveryEpoch: whose numbering.
        Epoch = 2,
        /// klaxonDeliverySeq: its number, contiguous from 1 for each receiver and epoch.
        Seq = 3,
        /// klaxonDeliveryResent: whether it was sent before.
        Resent = 4,
        /// klaxonDeliveryChange: what happened.
        Change = 5,
        /// klaxonDeliveryChangeAt: when.
        ChangeAt = 6,
        /// klaxonDeliveryActor: by whom.
        Actor = 7,
        /// klaxonDeliveryNote: with which words.
        Note = 8,
        /// klaxonDeliveryPreviousSeverity: the severity before.
        PreviousSeverity = 9,
        /// klaxonDeliveryPosition: where the change stands in the journal.
        Position = 10,
        /// klaxonDigestChanges: how many changes were missed.
        DigestChanges = 11,
        /// klaxonDigestUnseen: how many alarms came and went meanwhile.
        DigestUnseen = 12,
        /// klaxonDigestCritical: how many of them were critical at most.
        DigestCritical = 13,
        /// klaxonDigestMajor.
        DigestMajor = 14,
        /// klaxonDigestMinor.
        DigestMinor = 15,
        /// klaxonDigestWarning.
        DigestWarning = 16,
        /// klaxonDigestIndeterminate.
        DigestIndeterminate = 17,
        /// klaxonDigestFirstAt: when the first change was.
        DigestFirstAt = 18,
        /// klaxonDigestLastAt: when the last was.
        DigestLastAt = 19,
        /// klaxonDigestNamed: some of the alarms that came and went, one a line.
        DigestNamed = 20,
        /// klaxonGapFirst: the first position that is gone.
        GapFirst = 21,
        /// klaxonGapLast: the last.
        GapLast = 22,
        /// klaxonGapChanges: how many changes that were, 0 if nobody knows.
        GapChanges = 23,
        /// klaxonHeartbeatLast: the last number that was given out.
        HeartbeatLast = 24,
    }
}

/// A variable of a notification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotificationObject {
    /// Of an alarm's row.
    Alarm(AlarmColumn),
    /// Of the notification alone.
    Delivery(DeliveryObject),
}

/// What every notification about an alarm has of its row: who it is, how it stands, and the key by which raise and clear meet. The
/// rest is put behind it where there is something to say and room in the message (RFC 3416 section 4.2.6).
const OF_ALARM: [AlarmColumn; 17] = {
    use AlarmColumn as C;
    [
        C::Id,
        C::Site,
        C::Resource,
        C::Type,
        C::Qualifier,
        C::Severity,
        C::EventType,
        C::ProbableCause,
        C::Text,
        C::RepairAction,
        C::RaisedAt,
        C::ChangedAt,
        C::EventTime,
        C::ClearedAt,
        C::Acknowledged,
        C::Shelved,
        C::RaiseSeq,
    ]
};

impl NotificationKind {
    /// The variables that every notification of this kind has behind sysUpTime and snmpTrapOID, in their order.
    pub fn objects(self) -> impl Iterator<Item = NotificationObject> {
        use DeliveryObject as D;
        let is_of_alarm = !matches!(self, Self::Digest | Self::Gap | Self::Heartbeat);
        let delivery = D::ALL.iter().copied().filter(move |object| match self {
            Self::Digest => *object <= D::Resent || (D::DigestChanges..=D::DigestNamed).contains(object),
            Self::Gap => *object <= D::Resent || (D::GapFirst..=D::GapChanges).contains(object),
            Self::Heartbeat => matches!(object, D::Receiver | D::Epoch | D::HeartbeatLast),
            _ => *object <= D::ChangeAt,
        });
        let alarm = OF_ALARM.iter().copied().filter(move |_| is_of_alarm);
        delivery.map(NotificationObject::Delivery).chain(alarm.map(NotificationObject::Alarm))
    }

    /// The variables that one of this kind may have behind those, in their order.
    pub fn more_objects(self) -> impl Iterator<Item = NotificationObject> {
        use DeliveryObject as D;
        let is_of_alarm = !matches!(self, Self::Digest | Self::Gap | Self::Heartbeat);
        let delivery = D::ALL.iter().copied().filter(|object| (D::Actor..=D::Position).contains(object));
        let is_more = |column: &AlarmColumn| *column != AlarmColumn::Index && !OF_ALARM.contains(column);
        let alarm = AlarmColumn::ALL.iter().copied().filter(is_more);
        let more = delivery.map(NotificationObject::Delivery).chain(alarm.map(NotificationObject::Alarm));
        more.filter(move |_| is_of_alarm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_is_an_enterprises_own() {
        let root: Root = "1.3.6.1.4.1.8072.9999.9999.7780".parse().expect("is one");
        assert_eq!(root, Root::default());
        assert_eq!(".1.3.6.1.4.1.8072.9999.9999.7780".parse(), Ok(root.clone()));
        assert_eq!(root.to_string(), "1.3.6.1.4.1.8072.9999.9999.7780");
        for (text, error) in [
            ("", RootError::Form),
            ("enterprises.5", RootError::Form),
            ("1.3.6.1.4.1.5.99999999999", RootError::Form),
            ("1.3..6", RootError::Form),
            ("1.3.6.1.2.1.118.1", RootError::Place),
            ("1.3.6.1.4.1.731", RootError::Place),
        ] {
            assert_eq!(text.parse::<Root>(), Err(error), "{text}");
        }
        let long = format!("1.3.6.1.4.1{}", ".1".repeat(27));
        assert_eq!(long.parse::<Root>(), Err(RootError::TooLong));
    }

    #[test]
    fn objects_have_their_place() {
        let root = Root::default();
        assert_eq!(root.notification(NotificationKind::Cleared).to_string(), format!("{root}.0.3"));
        assert_eq!(root.alarm(AlarmColumn::Text, 77).to_string(), format!("{root}.1.4.1.11.77"));
        assert_eq!(root.delivery(DeliveryObject::Seq).to_string(), format!("{root}.1.7.3.0"));
        assert_eq!(NotificationKind::Raised.objects().count(), 6 + 17);
        assert_eq!(NotificationKind::Raised.more_objects().count(), 4 + 43 - 17);
        assert_eq!(NotificationKind::Heartbeat.objects().count(), 3);
        assert_eq!(AlarmColumn::of(45), None);
    }
}
