//! Looking back: which changes are asked for, and finding them by the indexes of the segments.
//!
//! Each segment's index gives the positions of the changes that can match, or, if nothing is asked for that it knows, all. Each
//! of them is read as far as the filter needs it, and whole only if it matches.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use klaxon_schemas::access::Scope;
use klaxon_schemas::change::{Change, ChangeKind, Reason, Subject};
use klaxon_schemas::entry::Entry;
use klaxon_schemas::error::chain;
use klaxon_schemas::ids::{ActionId, AlarmId, Position};
use klaxon_schemas::names::{Actor, AlarmType, Site};
use klaxon_schemas::resource::Resource;
use klaxon_schemas::severity::Severity;
use klaxon_schemas::time::Timestamp;

use crate::files;
use crate::journal::frame::{Kind, RawRecord};
use crate::journal::index::{Chunk, Key, index_path};
use crate::journal::record::{self, Sketch};
use crate::journal::segment::Segment;
use crate::journal::{Journal, ReadError};
use crate::state::Needle;
use crate::stream::unreadable;

/// The most changes that are looked at for one page.
const CHANGES_LOOKED_AT_MAX: usize = 20_000;
/// The most segments that are looked into for one page.
const SEGMENTS_LOOKED_AT_MAX: usize = 64;

/// The most records that are looked at for one page of entries.
const PAGE_RECORDS_MAX: usize = 50_000;

/// The most changes in one [`HistoryPage`].
pub const HISTORY_LIMIT_MAX: usize = 1000;

/// Which way a list goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// The largest or newest first.
    #[default]
    Descending,
    /// The smallest or oldest first.
    Ascending,
}

/// Which changes are asked for; what is absent matches all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryQuery {
    /// Of this alarm.
    pub alarm: Option<AlarmId>,
    /// That this action led to, or in which it was refused. No index knows it: begin with `cursor` near it.
    pub action: Option<ActionId>,
    /// That this person or program did, or tried to do. No index knows it.
    pub actor: Option<Actor>,
    /// Of the sites that may be seen.
    pub scope: Scope,
    /// At this site.
    pub site: Option<Site>,
    /// At this resource or under it.
    pub resource: Option<Resource>,
    /// Of this type.
    pub alarm_type: Option<AlarmType>,
    /// Of one of these kinds; all if empty.
    pub kinds: Vec<ChangeKind>,
    /// At least this urgent. What has no severity is left out.
    pub severity_min: Option<Severity>,
    /// Not before.
    pub from: Option<Timestamp>,
    /// Before.
    pub until: Option<Timestamp>,
    /// With this text in the text, resource, type or note, in whatever case.
    pub text: Option<String>,
    /// Newest first, or oldest first.
    pub order: Order,
    /// Go on from here: only what is before it if newest first, behind it if oldest first.
    pub cursor: Option<Position>,
    /// At most so many, and at most [`HISTORY_LIMIT_MAX`].
    pub limit: usize,
}

impl Default for HistoryQuery {
    fn default() -> Self {
        Self {
            alarm: None,
            action: None,
            actor: None,
            scope: Scope::all(),
            site: None,
            resource: None,
            alarm_type: None,
            kinds: Vec::new(),
            severity_min: None,
            from: None,
            until: None,
            text: None,
            order: Order::Descending,
            cursor: None,
            limit: 100,
        }
    }
}

/// Some of the changes that were asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HistoryPage {
    /// In the order that was asked for.
    pub items: Vec<(Position, Change)>,
    /// The cursor to go on from; absent at the end. A page may be short, even empty, and still have one.
    pub next: Option<Position>,
}

/// Why a page ended.
enum End {
    /// The page is full, or enough was looked at: go on from here.
    Paused(Position),
    /// There is nothing more.
    Reached,
}

/// What a page is made of.
struct Search<'a> {
    query: &'a HistoryQuery,
    needle: Option<Needle>,
    /// The action as it is written.
    action: Option<(ActionId, String)>,
    limit: usize,
    looked_at: usize,
    page: HistoryPage,
}

/// One page of the changes that `query` asks for.
pub(crate) fn page(journal: &Journal, query: &HistoryQuery) -> Result<HistoryPage, ReadError> {
    let mut segments = journal.segments();
    if query.order == Order::Descending {
        segments.reverse();
    }
    let mut search = Search {
        query,
        needle: query.text.as_deref().map(Needle::new),
        action: query.action.map(|action| (action, action.to_string())),
        limit: query.limit.clamp(1, HISTORY_LIMIT_MAX),
        looked_at: 0,
        page: HistoryPage::default(),
    };
    let concerned = segments.iter().filter(|segment| match (query.order, query.cursor) {
        (_, None) => true,
        (Order::Descending, Some(before)) => segment.header.first < before,
        (Order::Ascending, Some(after)) => segment.last() > after,
    });
    for (number, segment) in concerned.enumerate() {
        if number >= SEGMENTS_LOOKED_AT_MAX {
            search.page.next = Some(match query.order {
                Order::Descending => segment.last().plus(1),
                Order::Ascending => segment.header.follows,
            });
            break;
        }
        match search.segment(journal, segment) {
            Ok(End::Reached) => {}
            Ok(End::Paused(next)) => {
                search.page.next = Some(next);
                break;
            }
            // Retention removed it meanwhile: what is older is gone with it, what is newer still comes.
            Err(ReadError::Io { .. }) if !journal.segments().iter().any(|kept| kept.header.first == segment.header.first) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(search.page)
}

/// The entry at `position`.
pub(crate) fn entry(journal: &Journal, position: Position) -> Result<Option<Entry>, ReadError> {
    let segments = journal.segments();
    let Some(segment) = segments.iter().find(|segment| segment.holds(position)) else { return Ok(None) };
    let mut found = None;
    segment.walk(position, |record, _| {
        found = (record.kind == Kind::Entry).then(|| record::entry(record.payload, position));
        ControlFlow::Break(())
    })?;
    found.transpose().map_err(|error| unreadable(journal, position, &chain(&error)).into())
}

/// The entries behind `after`, in order.
pub(crate) fn entries_after(journal: &Journal, after: Position) -> Result<Vec<Entry>, ReadError> {
    let mut entries = Vec::new();
    let mut failure = None;
    journal.walk(after, |record| {
        if record.kind == Kind::Entry {
            match record::entry(record.payload, record.position) {
                Ok(entry) => entries.push(entry),
                Err(error) => {
                    failure = Some((record.position, chain(&error)));
                    return ControlFlow::Break(());
                }
            }
        }
        ControlFlow::Continue(())
    })?;
    match failure {
        Some((position, reason)) => Err(unreadable(journal, position, &reason).into()),
        None => Ok(entries),
    }
}

/// Entries behind `after`, at most `limit` and about `bytes_max` of them, and up to where this goes.
pub(crate) fn entries_page(
    journal: &Journal,
    after: Position,
    limit: usize,
    bytes_max: usize,
) -> Result<(Vec<Entry>, Position), ReadError> {
    let mut entries = Vec::new();
    let (mut bytes, mut looked_at, mut failure) = (0, 0, None);
    let reached = journal.walk(after, |record| {
        looked_at += 1;
        if record.kind == Kind::Entry {
            bytes += record.payload.len();
            match record::entry(record.payload, record.position) {
                Ok(entry) => entries.push(entry),
                Err(error) => {
                    failure = Some((record.position, chain(&error)));
                    return ControlFlow::Break(());
                }
            }
        }
        let is_enough = entries.len() >= limit || bytes >= bytes_max || looked_at >= PAGE_RECORDS_MAX;
        if is_enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    match failure {
        Some((position, reason)) => Err(unreadable(journal, position, &reason).into()),
        None => Ok((entries, reached)),
    }
}

impl Search<'_> {
    fn segment(&mut self, journal: &Journal, segment: &Segment) -> Result<End, ReadError> {
        let chunks = chunks(segment)?;
        match self.positions(segment)? {
            Some(positions) => self.at_positions(journal, segment, &chunks, positions),
            None => self.in_chunks(journal, segment, &chunks),
        }
    }

    fn is_before_cursor(&self, position: Position) -> bool {
        match (self.query.order, self.query.cursor) {
            (_, None) => true,
            (Order::Descending, Some(before)) => position < before,
            (Order::Ascending, Some(after)) => position > after,
        }
    }

    fn may_match(&self, chunk: &Chunk) -> bool {
        chunk.earliest <= chunk.latest
            && self.query.from.is_none_or(|from| chunk.latest >= from.as_micros())
            && self.query.until.is_none_or(|until| chunk.earliest < until.as_micros())
    }

    /// The changes in `segment` that can match, in order; nothing if the index knows nothing of what is asked for.
    fn positions(&self, segment: &Segment) -> Result<Option<Vec<Position>>, ReadError> {
        let query = self.query;
        let mut found: Option<Vec<Position>> = None;
        let mut keys: Vec<Vec<Key>> = Vec::new();
        keys.extend(query.alarm.map(|alarm| vec![Key::alarm(alarm)]));
        match (&query.resource, &query.site) {
            (Some(resource), Some(site)) => keys.push(vec![Key::resource(site, resource.as_str())]),
            (Some(resource), None) => keys.push(resource_keys(segment, resource)?),
            (None, Some(site)) => keys.push(vec![Key::site(site)]),
            (None, None) => keys.extend(query.scope.sites().map(|sites| sites.iter().map(|site| Key::site(site)).collect())),
        }
        keys.extend(query.alarm_type.as_ref().map(|alarm_type| vec![Key::alarm_type(alarm_type)]));
        for any in keys {
            let mut positions = Vec::new();
            for key in any {
                positions.extend(find(segment, key)?);
            }
            positions.sort_unstable();
            positions.dedup();
            found = Some(match found {
                None => positions,
                Some(before) => before.into_iter().filter(|position| positions.binary_search(position).is_ok()).collect(),
            });
        }
        Ok(found)
    }

    fn at_positions(
        &mut self,
        journal: &Journal,
        segment: &Segment,
        chunks: &[Chunk],
        mut positions: Vec<Position>,
    ) -> Result<End, ReadError> {
        positions.retain(|position| self.is_before_cursor(*position));
        if self.query.order == Order::Descending {
            positions.reverse();
        }
        let mut positions = positions.into_iter().peekable();
        let mut buffer = Vec::new();
        while let Some(position) = positions.next() {
            let behind = chunks.partition_point(|chunk| chunk.position <= position);
            let Some(chunk) = behind.checked_sub(1).map(|at| chunks[at]) else { continue };
            let until = chunks.get(behind).map(|next| next.position);
            // What lies in one chunk is read at once.
            buffer.clear();
            buffer.push(position);
            while let Some(next) = positions.next_if(|next| *next >= chunk.position && until.is_none_or(|until| *next < until))
            {
                buffer.push(next);
            }
            if !self.may_match(&chunk) {
                continue;
            }
            if self.query.order == Order::Descending {
                buffer.reverse();
            }
            if let Some(next) = self.chunk(journal, segment, &chunk, until, Some(&buffer))? {
                return Ok(End::Paused(next));
            }
        }
        Ok(End::Reached)
    }

    fn in_chunks(&mut self, journal: &Journal, segment: &Segment, chunks: &[Chunk]) -> Result<End, ReadError> {
        let mut numbers: Vec<usize> = (0..chunks.len()).filter(|number| self.may_match(&chunks[*number])).collect();
        if self.query.order == Order::Descending {
            numbers.reverse();
        }
        for number in numbers {
            let chunk = chunks[number];
            let until = chunks.get(number + 1).map(|next| next.position);
            let concerned = match (self.query.order, self.query.cursor) {
                (_, None) => true,
                (Order::Descending, Some(before)) => chunk.position < before,
                (Order::Ascending, Some(after)) => until.is_none_or(|until| until.0 > after.0 + 1),
            };
            if concerned && let Some(next) = self.chunk(journal, segment, &chunk, until, None)? {
                return Ok(End::Paused(next));
            }
        }
        Ok(End::Reached)
    }

    /// Takes what matches in one chunk, all of it or at the sorted `positions`; tells from where to go on if the page is full.
    fn chunk(
        &mut self,
        journal: &Journal,
        segment: &Segment,
        chunk: &Chunk,
        until: Option<Position>,
        positions: Option<&[Position]>,
    ) -> Result<Option<Position>, ReadError> {
        let first = positions.map_or(chunk.position, |positions| positions[0]);
        let last = positions.and_then(|positions| positions.last().copied());
        let mut found = Vec::new();
        let mut failure = None;
        segment.walk_at((chunk.position, chunk.offset), first, |record, _| {
            if until.is_some_and(|until| record.position >= until) || last.is_some_and(|last| record.position > last) {
                return ControlFlow::Break(());
            }
            let wanted = record.kind == Kind::Change
                && self.is_before_cursor(record.position)
                && positions.is_none_or(|positions| positions.binary_search(&record.position).is_ok());
            if wanted {
                self.looked_at += 1;
                match self.read(&record) {
                    Ok(change) => found.extend(change.map(|change| (record.position, change))),
                    Err(error) => {
                        failure = Some((record.position, chain(&error)));
                        return ControlFlow::Break(());
                    }
                }
            }
            ControlFlow::Continue(())
        })?;
        if let Some((position, reason)) = failure {
            return Err(unreadable(journal, position, &reason).into());
        }
        if self.query.order == Order::Descending {
            found.reverse();
        }
        let room = self.limit - self.page.items.len();
        if found.len() >= room {
            found.truncate(room);
            self.page.items.append(&mut found);
            return Ok(self.page.items.last().map(|(position, _)| *position));
        }
        self.page.items.append(&mut found);
        if self.looked_at < CHANGES_LOOKED_AT_MAX {
            return Ok(None);
        }
        Ok(Some(match (self.query.order, until) {
            (Order::Descending, _) => first,
            (Order::Ascending, _) if last.is_some() => last.expect("just looked"),
            (Order::Ascending, Some(until)) => Position(until.0 - 1),
            (Order::Ascending, None) => segment.last(),
        }))
    }

    fn read(&self, record: &RawRecord<'_>) -> Result<Option<Change>, record::DecodeError> {
        // Most are told apart by their bytes, and need not be taken apart.
        if self.action.as_ref().is_some_and(|(_, text)| !contains(record.payload, text.as_bytes())) {
            return Ok(None);
        }
        let sketch = Sketch::read(record.payload)?;
        if !self.matches(&sketch) {
            return Ok(None);
        }
        let change = record::change(record.payload)?;
        Ok(self.action.as_ref().is_none_or(|(action, _)| is_of(&change, *action)).then_some(change))
    }

    fn matches(&self, change: &Sketch<'_>) -> bool {
        let query = self.query;
        query.alarm.is_none_or(|alarm| change.alarm_id() == Some(alarm))
            && query.actor.as_ref().is_none_or(|actor| change.actor() == Some(actor.as_str()))
            && query.scope.includes(change.site())
            && query.site.as_ref().is_none_or(|site| change.site() == site.as_str())
            && query.alarm_type.as_ref().is_none_or(|alarm_type| change.alarm_type() == Some(alarm_type.as_str()))
            && (query.kinds.is_empty() || query.kinds.contains(&change.kind))
            && query.severity_min.is_none_or(|least| change.severity().is_some_and(|severity| severity >= least))
            && query.from.is_none_or(|from| change.at >= from)
            && query.until.is_none_or(|until| change.at < until)
            && query.resource.as_ref().is_none_or(|resource| {
                let of_change = change.resource().and_then(|text| Resource::new(text).ok());
                of_change.is_some_and(|of_change| resource.contains(&of_change))
            })
            && self.needle.as_ref().is_none_or(|needle| change.words().any(|words| needle.is_in(words)))
    }
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}

/// Whether `action` led to the change.
fn is_of(change: &Change, action: ActionId) -> bool {
    change.reasons.contains(&Reason::Action(action))
        || matches!(&change.subject, Subject::Refusal(refusal) if refusal.action == action)
}

fn chunks(segment: &Segment) -> Result<Arc<[Chunk]>, ReadError> {
    loop {
        if let Some(chunks) = segment.with_builder(|builder| builder.chunks().into()) {
            return Ok(chunks);
        }
        if let Some(index) = segment.index()? {
            return Ok(index.chunks().into());
        }
    }
}

fn find(segment: &Segment, key: Key) -> Result<Vec<Position>, ReadError> {
    loop {
        if let Some(found) = segment.with_builder(|builder| builder.find(key)) {
            return Ok(found);
        }
        let Some(index) = segment.index()? else { continue };
        if let Some(found) = index.find(key)? {
            return Ok(found);
        }
        let path = index_path(&segment.path);
        tracing::warn!(index = %path.display(), "a block of an index is damaged");
        forget_index(segment, &path)?;
    }
}

/// The damaged index at `path` goes, so that it is built anew.
fn forget_index(segment: &Segment, path: &Path) -> Result<(), ReadError> {
    files::remove_file(path).map_err(|source| ReadError::Io { path: path.to_owned(), source })?;
    segment.forget_index();
    Ok(())
}

/// The keys of `resource` at every site of `segment`.
fn resource_keys(segment: &Segment, resource: &Resource) -> Result<Vec<Key>, ReadError> {
    fn keys<'a>(sites: impl Iterator<Item = &'a str>, resource: &Resource) -> Vec<Key> {
        sites.map(|site| Key::resource(site, resource.as_str())).collect()
    }
    loop {
        if let Some(keys) = segment.with_builder(|builder| keys(builder.sites(), resource)) {
            return Ok(keys);
        }
        if let Some(index) = segment.index()? {
            return Ok(keys(index.sites(), resource));
        }
    }
}
