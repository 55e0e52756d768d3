//! What each request comes to: reports brought in by the door, and alarms shown.
//!
//! * A raise is a report like any other: of an alarm that stands it is a repeat, or an update. Its answer is the alarm's id, which
//!   stays the same as long as the alarm is kept. With `keep_existing_alarm` a standing alarm is left as it is.
//! * A message is a log event.
//! * A clear ends what its entity covers ([`starlingx::covers`]): each alarm by a report of its own, so that each has its change.
//! * Of a list what stands before the first that cannot be used comes in together; the answer's code is that one's.
//! * A report that says what is known already, such as the clear of what does not stand, is counted as a duplicate and leaves no
//!   trace in the journal: there are programs that clear everything at each start.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use klaxon_schemas::alarm::Alarm;
use klaxon_schemas::catalogue::Catalogue;
use klaxon_schemas::change::{Change, Subject, WithoutEffect};
use klaxon_schemas::event::{AlarmKey, Event, Report};
use klaxon_schemas::ids::AlarmId;
use klaxon_schemas::names::{AlarmType, Site};
use klaxon_schemas::resource::Resource;
use klaxon_schemas::starlingx;
use klaxon_store::door::{Door, RejectReason, Tally};
use klaxon_store::publish::{Answer as Published, Item, PublishError, Rejection, SUBMISSION_ENTRIES_MAX};
use klaxon_store::{AlarmQuery, StateRead};
use uuid::Uuid;

use super::map::{self, Unusable};
use super::wire::{Answer, Code, Fault, Filter, Request};
use crate::grumbler::Grumbler;

/// The most alarms in an answer: the room that clients have for them.
const ANSWER_FAULTS_MAX: usize = 1000;
/// How long the state may take to show an alarm whose raise is durable: where the journal is elsewhere it comes behind.
const SHOW_WAIT: Duration = Duration::from_secs(2);

/// Does what is asked.
pub(super) struct Desk {
    pub(super) door: Door,
    pub(super) site: Site,
    /// Whether the state may not show yet what is durable, because the journal is elsewhere.
    pub(super) is_behind: bool,
    pub(super) grumbler: Mutex<Grumbler>,
}

/// What one fault comes to.
enum Step {
    /// It says what is known, of this alarm if that is there already.
    Known(Option<AlarmId>),
    /// It is to come in.
    Report(Arc<Event>),
    /// These are over.
    Clear(Vec<Arc<Alarm>>),
}

impl Desk {
    /// What `client` is answered; positively only when what it brought is durable.
    pub(super) async fn answer(&self, request: Request, client: IpAddr) -> Result<Answer, Code> {
        match request {
            Request::CreateFault(fault) => self.create(&fault, client).await.map(|id| Answer::Uuid(id.to_string())),
            Request::CreateFaultList(faults) => self.create_all(&faults, client).await,
            Request::DeleteFault(filter) => match self.delete(&[filter], client).await? {
                0 => Err(Code::EntityNotFound),
                _ => Ok(Answer::Nothing),
            },
            Request::DeleteFaultList(filters) => self.delete(&filters, client).await.map(|_| Answer::Nothing),
            Request::DeleteFaults(entity) => {
                let standing = covered(&self.door.store().read(), &self.site, None, &entity, usize::MAX);
                if standing.is_empty() {
                    self.note_known();
                    return Err(Code::EntityNotFound);
                }
                self.publish(standing.iter().map(|alarm| clear_of(&alarm.key)).collect(), Tally::default()).await?;
                Ok(Answer::Nothing)
            }
            Request::GetFault(filter) => self.one(&filter),
            Request::GetFaults(entity) => {
                let read = self.door.store().read();
                let mut found = covered(&read, &self.site, None, &entity, usize::MAX);
                found.retain(|alarm| !read.is_suppressed(&alarm.key.alarm_type));
                several(&found, read.catalogue().as_deref())
            }
            Request::GetFaultsById(alarm_id) => self.of_id(&alarm_id),
            Request::GetFaultsByIdnEid(filter) => {
                let (_, found) = self.meant(&filter, ANSWER_FAULTS_MAX + 1).map_err(|_| Code::EntityNotFound)?;
                several(&found, self.door.store().read().catalogue().as_deref())
            }
        }
    }

    async fn create(&self, fault: &Fault, client: IpAddr) -> Result<Uuid, Code> {
        match self.step(fault, &HashSet::new(), client)? {
            Step::Known(id) => {
                self.note_known();
                Ok(uuid(id))
            }
            Step::Clear(alarms) => {
                self.publish(alarms.iter().map(|alarm| clear_of(&alarm.key)).collect(), Tally::default()).await?;
                Ok(uuid(alarms.first().map(|alarm| alarm.id)))
            }
            Step::Report(event) => {
                let key = self.canonical(&event.key);
                let answers = self.publish(vec![Item::Event(Arc::clone(&event))], Tally::default()).await?;
                let changes = answers.iter().flat_map(|answer| match answer {
                    Published::Accepted { changes, .. } => changes.as_slice(),
                    Published::Duplicate | Published::Rejected(_) => &[],
                });
                if let Some(id) = changes.filter_map(|change| named(change, &key, &event)).next() {
                    return Ok(id);
                }
                // A repeat is no change, and where the journal is elsewhere changes come later.
                let alarm = if matches!(event.report, Report::Raise(_)) { self.shown(&key).await } else { None };
                Ok(uuid(alarm))
            }
        }
    }

    async fn create_all(&self, faults: &[Fault], client: IpAddr) -> Result<Answer, Code> {
        let (mut items, mut raised, mut tally) = (Vec::new(), HashSet::new(), Tally::default());
        let mut failed = None;
        for fault in faults {
            match self.step(fault, &raised, client) {
                Ok(Step::Known(_)) => tally.duplicate += 1,
                Ok(Step::Report(event)) => {
                    raised.insert(self.canonical(&event.key));
                    items.push(Item::Event(event));
                }
                Ok(Step::Clear(alarms)) => items.extend(alarms.iter().map(|alarm| clear_of(&alarm.key))),
                Err(code) => {
                    failed = Some(code);
                    break;
                }
            }
        }
        self.publish(items, tally).await?;
        failed.map_or(Ok(Answer::Nothing), Err)
    }

    /// What a fault comes to, if those with the keys `raised` have come before it.
    fn step(&self, fault: &Fault, raised: &HashSet<AlarmKey>, client: IpAddr) -> Result<Step, Code> {
        let event = Arc::new(map::event(fault, &self.site).map_err(|why| self.reject(&why, client))?);
        match event.report {
            Report::Clear => {
                let alarm_type = self.canonical(&event.key).alarm_type;
                let read = self.door.store().read();
                let found = covered(&read, &self.site, Some(&alarm_type), &fault.entity_instance_id, usize::MAX);
                if found.is_empty() {
                    self.note_known();
                    return Err(Code::EntityNotFound);
                }
                Ok(Step::Clear(found))
            }
            Report::Raise(_) if fault.keep_existing_alarm => {
                let key = self.canonical(&event.key);
                let standing = self.standing(&key);
                let is_known = standing.is_some() || raised.contains(&key);
                Ok(if is_known { Step::Known(standing) } else { Step::Report(event) })
            }
            Report::Raise(_) | Report::Log(_) | Report::Heartbeat { .. } => Ok(Step::Report(event)),
        }
    }

    /// Clears what these stand for; how many alarms that were.
    async fn delete(&self, filters: &[Filter], client: IpAddr) -> Result<usize, Code> {
        let (mut items, mut seen, mut tally) = (Vec::new(), HashSet::new(), Tally::default());
        // What is looked for twice is looked for once.
        let mut asked = HashSet::new();
        for filter in filters.iter().filter(|filter| asked.insert((&filter.alarm_id, &filter.entity_instance_id))) {
            match self.meant(filter, usize::MAX) {
                // What was raised a moment ago may not be seen here yet: the clear of it comes behind it.
                Ok((key, found)) if found.is_empty() && self.is_behind => items.push(clear_of(&key)),
                Ok((_, found)) => {
                    tally.duplicate += u64::from(found.is_empty());
                    items.extend(found.iter().filter(|alarm| seen.insert(alarm.id)).map(|alarm| clear_of(&alarm.key)));
                }
                // Nothing can stand under what is no id; who asks for it is told so, as by fmManager.
                Err(why) => {
                    self.grumble(&why, client);
                    tally.reject(RejectReason::Invalid, 1);
                }
            }
            // Others have their turn between two.
            tokio::task::yield_now().await;
        }
        self.publish(items, tally).await?;
        Ok(seen.len())
    }

    /// Brings `items` in, in as many submissions as they need, and counts what became of them and what `tally` says. If one is rejected,
    /// its code; the others are in.
    async fn publish(&self, items: Vec<Item>, mut tally: Tally) -> Result<Vec<Published>, Code> {
        if items.is_empty() {
            self.door.counts().settle(&tally);
            return Ok(Vec::new());
        }
        let mut answers = Vec::with_capacity(items.len());
        let mut left = items.len();
        for submission in items.chunks(SUBMISSION_ENTRIES_MAX) {
            left -= submission.len();
            match self.door.publish(submission.to_vec(), std::mem::take(&mut tally)).await {
                Ok(published) => answers.extend(published.answers),
                Err(error) => {
                    let mut rest = Tally::default();
                    rest.refuse(&error, left as u64);
                    self.door.counts().settle(&rest);
                    tracing::debug!(%error, "reports of StarlingX's programs are not taken now");
                    return Err(code_of_refusal(&error));
                }
            }
        }
        refusal_of(&answers).map_or(Ok(answers), Err)
    }

    /// The key that a filter names, and what stands and is meant by it, no more than `most`.
    fn meant(&self, filter: &Filter, most: usize) -> Result<(AlarmKey, Vec<Arc<Alarm>>), Unusable> {
        let key = self.canonical(&map::key(&self.site, &filter.alarm_id, &filter.entity_instance_id)?);
        let found = covered(&self.door.store().read(), &self.site, Some(&key.alarm_type), &filter.entity_instance_id, most);
        Ok((key, found))
    }

    fn one(&self, filter: &Filter) -> Result<Answer, Code> {
        let (_, found) = self.meant(filter, usize::MAX).map_err(|_| Code::EntityNotFound)?;
        let entity = starlingx::named(&filter.entity_instance_id);
        let alarm = found.iter().find(|alarm| starlingx::entity_instance_id(&alarm.key) == entity);
        let alarm = alarm.ok_or(Code::EntityNotFound)?;
        let catalogue = self.door.store().read().catalogue();
        Ok(Answer::Fault(Box::new(map::fault(alarm, catalogue.as_deref()))))
    }

    fn of_id(&self, alarm_id: &str) -> Result<Answer, Code> {
        let read = self.door.store().read();
        let catalogue = read.catalogue();
        let alarm_type = AlarmType::new(alarm_id).map_err(|_| Code::EntityNotFound)?;
        let query = AlarmQuery {
            site: Some(self.site.clone()),
            alarm_type: Some(starlingx::alarm_type(catalogue.as_deref(), &alarm_type).clone()),
            limit: ANSWER_FAULTS_MAX + 1,
            ..AlarmQuery::default()
        };
        several(&read.list(&query).items, catalogue.as_deref())
    }

    /// The key under which the alarm is kept.
    fn canonical(&self, key: &AlarmKey) -> AlarmKey {
        let catalogue = self.door.store().read().catalogue();
        AlarmKey { alarm_type: starlingx::alarm_type(catalogue.as_deref(), &key.alarm_type).clone(), ..key.clone() }
    }

    fn standing(&self, key: &AlarmKey) -> Option<AlarmId> {
        self.door.store().read().find(key).filter(|alarm| alarm.is_active()).map(|alarm| alarm.id)
    }

    /// The alarm whose raise is durable, as soon as the state has it.
    async fn shown(&self, key: &AlarmKey) -> Option<AlarmId> {
        let mut committed = self.door.store().committed();
        let show = async {
            loop {
                committed.borrow_and_update();
                if let Some(id) = self.standing(key) {
                    return Some(id);
                }
                committed.changed().await.ok()?;
            }
        };
        tokio::time::timeout(SHOW_WAIT, show).await.ok().flatten()
    }

    /// A report cannot be used: it is counted, and said.
    fn reject(&self, why: &Unusable, client: IpAddr) -> Code {
        let mut tally = Tally::default();
        tally.reject(RejectReason::Invalid, 1);
        self.door.counts().settle(&tally);
        self.grumble(why, client);
        Code::InvalidAttribute
    }

    /// A report said what is known.
    fn note_known(&self) {
        self.door.counts().settle(&Tally { duplicate: 1, ..Tally::default() });
    }

    /// Says that `client` sent what cannot be used.
    pub(super) fn grumble(&self, why: &impl std::fmt::Display, client: IpAddr) {
        let told = self.grumbler.lock().unwrap_or_else(PoisonError::into_inner).hear();
        if let Some(others) = told {
            tracing::warn!(%client, reason = %why, others, "a request of StarlingX's programs cannot be used");
        }
    }
}

/// The report that ends an alarm.
fn clear_of(key: &AlarmKey) -> Item {
    Item::Event(Arc::new(map::clear(key.clone())))
}

/// The uuid of an alarm. Of one that is not seen in time, such as when the disk has no room for what follows from its raise, there is none
/// yet; clients take no answer without one.
fn uuid(alarm: Option<AlarmId>) -> Uuid {
    alarm.map_or_else(Uuid::new_v4, |id| id.0)
}

/// What stands at `site` of a type, or of all, and is covered by `entity`; no more than `most`.
fn covered(read: &StateRead<'_>, site: &Site, alarm_type: Option<&AlarmType>, entity: &str, most: usize) -> Vec<Arc<Alarm>> {
    let entity = starlingx::named(entity);
    let Ok(resource) = Resource::new(entity) else { return Vec::new() };
    // A qualifier is shown as if it were the last part of the resource.
    let outer = entity.rsplit_once(".qualifier=").and_then(|(outer, _)| Resource::new(outer).ok());
    let (contained, completed) = (format!("{entity}."), format!("{entity}="));
    let places = outer.iter().flat_map(|outer| read.at(site, outer));
    let places = places.chain(read.at(site, &resource)).chain(read.beginning(site, &contained));
    let standing = places.chain(read.beginning(site, &completed)).filter(|alarm| {
        alarm.is_active()
            && alarm_type.is_none_or(|alarm_type| alarm.key.alarm_type == *alarm_type)
            && starlingx::covers(entity, &starlingx::entity_instance_id(&alarm.key))
    });
    standing.take(most).cloned().collect()
}

/// These alarms as an answer, if they are not too many.
fn several(alarms: &[Arc<Alarm>], catalogue: Option<&Catalogue>) -> Result<Answer, Code> {
    match alarms.len() {
        0 => Err(Code::EntityNotFound),
        count if count > ANSWER_FAULTS_MAX => Err(Code::NotEnoughSpace),
        _ => Ok(Answer::Faults(alarms.iter().map(|alarm| map::fault(alarm, catalogue)).collect())),
    }
}

/// Under which id what `event` says is found, if this change says so; `key` is that of its alarm.
fn named(change: &Change, key: &AlarmKey, event: &Arc<Event>) -> Option<Uuid> {
    match &change.subject {
        Subject::Alarm { alarm, .. } if alarm.key == *key => Some(alarm.id.0),
        Subject::Event { event: of, .. } if of == event => starlingx::event_log_uuid(change),
        _ => None,
    }
}

/// The code of the first that was rejected, or that is in history only because as many alarms stand as may.
fn refusal_of(answers: &[Published]) -> Option<Code> {
    let is_one_too_many =
        |change: &Arc<Change>| matches!(change.subject, Subject::Event { without_effect: Some(WithoutEffect::AlarmLimit), .. });
    answers.iter().find_map(|answer| match answer {
        Published::Rejected(rejection) => Some(code_of_rejection(rejection)),
        Published::Accepted { changes, .. } => changes.iter().any(is_one_too_many).then_some(Code::NotEnoughSpace),
        Published::Duplicate => None,
    })
}

fn code_of_rejection(rejection: &Rejection) -> Code {
    match rejection {
        Rejection::AlarmLimit { .. } | Rejection::HeartbeatLimit { .. } | Rejection::FollowerLimit { .. } => {
            Code::NotEnoughSpace
        }
        Rejection::TooLarge { .. } | Rejection::KeepTooLarge { .. } => Code::InvalidAttribute,
        Rejection::TooOld | Rejection::AtTheSite | Rejection::NotTaken(_) => Code::InvalidRequest,
    }
}

fn code_of_refusal(error: &PublishError) -> Code {
    match error {
        PublishError::Busy | PublishError::Stopping => Code::ResourceUnavailable,
        PublishError::TooMany { .. } => Code::NotEnoughSpace,
        PublishError::DiskFull { .. } | PublishError::Unread { .. } | PublishError::Away { .. } => Code::DatabaseFailure,
    }
}
