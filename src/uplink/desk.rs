//! What the uplink shares with those who ask about it and give it orders: what is kept of the node above, and how things stand.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

use klaxon_api::http::{UplinkShown, UplinkState};
use klaxon_schemas::child::Reached;
use klaxon_schemas::ids::Position;
use klaxon_schemas::names::{ChildName, Follower, Site};
use klaxon_schemas::state::Followed;
use klaxon_schemas::time::Timestamp;
use klaxon_schemas::wire::v1::uplink::Welcome;
use klaxon_store::door::{Door, Tally};
use klaxon_store::publish::{Item, Keep};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::kept::{Kept, KeptError, Token};
use super::link::{LineCounts, token_in};
use super::{Address, FOLLOWER, Plan, now};
use crate::follow::Control;

/// Where the node above is, and with what this node proves who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) url: Address,
    /// A credential, or the token with which it joins.
    pub(super) token: Option<Token>,
}

/// What is kept of the node above.
#[derive(Debug)]
pub(super) struct Desk {
    /// The store's folder.
    dir: PathBuf,
    inner: Mutex<Inner>,
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct Inner {
    plan: Plan,
    kept: Option<Kept>,
}

impl Desk {
    /// Reads what is kept in `dir`, and takes up what the settings say.
    pub(super) fn open(dir: PathBuf, plan: Plan) -> Result<Self, KeptError> {
        let kept = Kept::read(&dir)?;
        let desk = Self { dir, inner: Mutex::new(Inner { plan, kept }), changes: watch::Sender::new(0) };
        desk.settle()?;
        Ok(desk)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn plan(&self) -> Plan {
        self.lock().plan.clone()
    }

    pub(super) fn kept(&self) -> Option<Kept> {
        self.lock().kept.clone()
    }

    /// Wakes when there is another node above, or another way to it.
    pub(super) fn changed(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn wake(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// Takes up other settings; whether anything is another than before. Blocks.
    pub(super) fn apply(&self, plan: Plan) -> Result<bool, KeptError> {
        {
            let mut inner = self.lock();
            if inner.plan == plan {
                return Ok(false);
            }
            inner.plan = plan;
        }
        self.settle()?;
        self.wake();
        Ok(true)
    }

    /// If the settings say another address than when what is kept was written, that one counts: the old one is left.
    fn settle(&self) -> Result<(), KeptError> {
        let mut inner = self.lock();
        let configured = inner.plan.configured.clone();
        let Some(url) = configured.clone() else { return Ok(()) };
        let new = match &inner.kept {
            None => return Ok(()),
            Some(kept) if kept.configured == configured => return Ok(()),
            Some(kept) if kept.url == url => Kept { configured, ..kept.clone() },
            Some(kept) => Kept { leaving: kept.leaving(now()), ..Kept::joining(url, configured, None) },
        };
        self.put(&mut inner, new)
    }

    fn put(&self, inner: &mut Inner, kept: Kept) -> Result<(), KeptError> {
        kept.write(&self.dir)?;
        inner.kept = Some(kept);
        Ok(())
    }

    /// Where the node above is, if there is one. The file with the join token is read now.
    pub(super) fn target(&self) -> Result<Option<Target>, String> {
        let inner = self.lock();
        let url = inner.kept.as_ref().map(|kept| &kept.url).or(inner.plan.configured.as_ref());
        let Some(url) = url else { return Ok(None) };
        let kept = inner.kept.as_ref();
        let token = kept.and_then(|kept| kept.credential.clone().or_else(|| kept.join_token.clone()));
        let token = match (token, &inner.plan.join_token_file) {
            (Some(token), _) => Some(token),
            (None, Some(file)) => Some(token_in(file)?),
            (None, None) if inner.plan.tls.client.is_some() => None,
            (None, None) => {
                return Err(format!(
                    "there is nothing with which to join {url}: get a token there (klaxon site add NAME) and give it to klaxon join"
                ));
            }
        };
        Ok(Some(Target { url: url.clone(), token }))
    }

    /// Joins the node at `url`, which may be the one that is above already. Blocks.
    pub(super) fn join(&self, url: Address, token: Token, is_rehome: bool) -> Result<(), String> {
        {
            let mut inner = self.lock();
            if let Some(refusal) = url.refusal(inner.plan.insecure) {
                return Err(format!("{url} {refusal}"));
            }
            let configured = inner.plan.configured.clone();
            let other = inner.kept.as_ref().filter(|kept| kept.url != url);
            let leaving = match other.map(|kept| kept.leaving(now())) {
                Some(Some(leaving)) if !is_rehome => {
                    return Err(format!("{} is above this node now; klaxon site rehome leaves it", leaving.url));
                }
                Some(leaving) => leaving,
                None => inner.kept.as_ref().and_then(|kept| kept.leaving.clone()),
            };
            let kept = Kept { leaving, ..Kept::joining(url, configured, Some(token)) };
            self.put(&mut inner, kept).map_err(|error| error.to_string())?;
        }
        self.wake();
        Ok(())
    }

    /// It was let in at `url` as `name`, perhaps with a new credential: on the disk when this returns.
    pub(super) async fn welcomed(
        self: &Arc<Self>,
        url: Address,
        name: ChildName,
        credential: Option<Token>,
    ) -> Result<(), KeptError> {
        self.update(move |inner| {
            let old = inner.kept.clone().filter(|kept| kept.url == url);
            let mut new = old.clone().unwrap_or_else(|| Kept::joining(url, inner.plan.configured.clone(), None));
            new.name = Some(name);
            if credential.is_some() {
                (new.credential, new.join_token) = (credential, None);
            }
            (old.as_ref() != Some(&new)).then_some(new)
        })
        .await
    }

    /// The node above gave another credential: on the disk when this returns.
    pub(super) async fn rotated(self: &Arc<Self>, credential: Token) -> Result<(), KeptError> {
        self.update(move |inner| inner.kept.clone().map(|kept| Kept { credential: Some(credential), ..kept })).await
    }

    /// Where this node went, if it leaves the one at `url`.
    pub(super) fn left(&self, url: &Address) -> Option<Address> {
        let kept = self.kept()?;
        kept.leaving.is_some_and(|leaving| leaving.url == *url).then_some(kept.url)
    }

    /// The node at `url` knows that it is left, or is not to be told any more.
    pub(super) async fn told_of_leaving(self: &Arc<Self>, url: &Address) {
        let url = url.clone();
        let forgotten = self.update(move |inner| {
            let kept = inner.kept.clone().filter(|kept| kept.leaving.as_ref().is_some_and(|leaving| leaving.url == url))?;
            Some(Kept { leaving: None, ..kept })
        });
        if let Err(error) = forgotten.await {
            tracing::warn!(%error, "that the node above was left is told again");
        }
    }

    async fn update(self: &Arc<Self>, change: impl FnOnce(&Inner) -> Option<Kept> + Send + 'static) -> Result<(), KeptError> {
        let desk = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || {
            let mut inner = desk.lock();
            change(&inner).map_or(Ok(()), |kept| desk.put(&mut inner, kept))
        });
        done.await.unwrap_or(Ok(()))
    }
}

/// How things stand.
#[derive(Debug, Default)]
pub(super) struct Board(Mutex<Standing>);

/// What is known of the connection.
#[derive(Debug, Default)]
pub(super) struct Standing {
    pub(super) connected: bool,
    pub(super) connected_since: Option<Timestamp>,
    pub(super) disconnected_since: Option<Timestamp>,
    pub(super) parent: Option<Site>,
    pub(super) parent_version: Option<String>,
    pub(super) last_error: Option<(String, Timestamp)>,
    pub(super) next_try_at: Option<Timestamp>,
    pub(super) connections: u64,
    pub(super) changes_sent: u64,
    pub(super) history_sent: u64,
    pub(super) clock_offset_ms: Option<i64>,
    pub(super) round_trip_ms: Option<i64>,
    pub(super) reached: Option<Reached>,
    /// What was last kept of how far it has come, and whether anything is.
    kept: Option<Position>,
}

impl Board {
    pub(super) fn lock(&self) -> MutexGuard<'_, Standing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What all that the uplink does needs.
pub(super) struct Part {
    pub(super) door: Door,
    pub(super) site: Site,
    pub(super) control: mpsc::Sender<Control>,
    pub(super) desk: Arc<Desk>,
    pub(super) board: Board,
    pub(super) line: Arc<LineCounts>,
    pub(super) stop: CancellationToken,
    /// The plan and the target of the connection that lives.
    pub(super) current: Mutex<Option<(Plan, Address)>>,
}

impl Part {
    pub(super) fn plan(&self) -> Plan {
        self.desk.plan()
    }

    /// Whether the connection that lives is not the one that is wanted any more.
    pub(super) async fn is_replanned(&self, _child: &ChildName) -> bool {
        let wanted = self.desk.target().ok().flatten().map(|target| (self.plan(), target.url));
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) != wanted
    }

    pub(super) fn welcomed(&self, welcome: &Welcome) {
        let mut board = self.board.lock();
        board.connected = true;
        board.connections += 1;
        board.connected_since = Some(now());
        board.disconnected_since = None;
        board.next_try_at = None;
        board.parent = Some(welcome.parent.clone());
        board.parent_version = Some(welcome.version.clone());
        tracing::info!(parent = %welcome.parent, name = %welcome.child, "the node above is reached");
    }

    pub(super) fn reached(&self, reached: &Reached) {
        self.board.lock().reached = Some(reached.clone());
    }

    /// Keeps how far the node above has come, so that retention waits for it. If it cannot be kept now, it is the next time.
    pub(super) async fn keep_cursor(&self, is_last: bool) {
        let position = {
            let board = self.board.lock();
            let position = board.reached.as_ref().map(Reached::needed_after);
            position.filter(|position| board.kept != Some(*position))
        };
        let Some(position) = position else { return };
        let followed = Followed { position, delivery: None };
        let keep = Item::Keep(Arc::new(Keep::cursor(follower(), Some(followed))));
        match self.door.publish(vec![keep], Tally::default()).await {
            Ok(_) => self.board.lock().kept = Some(position),
            Err(error) if is_last => tracing::debug!(%error, "how far the node above has come is not kept"),
            Err(_) => {}
        }
    }

    /// No node is above: retention waits for nobody.
    pub(super) async fn forget_cursor(&self) {
        let is_kept = self.door.store().read().state().followers().contains_key(&follower());
        if is_kept {
            let keep = Item::Keep(Arc::new(Keep::cursor(follower(), None)));
            if self.door.publish(vec![keep], Tally::default()).await.is_ok() {
                self.board.lock().kept = None;
            }
        }
    }

    /// How things stand, for whoever asks.
    pub(super) fn shown(&self) -> UplinkShown {
        let (plan, kept, target) = (self.plan(), self.desk.kept(), self.desk.target());
        let board = self.board.lock();
        let has_target = !matches!(target, Ok(None));
        let state = match (board.connected, has_target) {
            (true, _) => UplinkState::Connected,
            (false, true) => UplinkState::Disconnected,
            (false, false) => UplinkState::Off,
        };
        let last = *self.door.store().committed().borrow();
        let reached = board.reached.as_ref();
        let load = |count: &std::sync::atomic::AtomicU64| count.load(std::sync::atomic::Ordering::Relaxed);
        UplinkShown {
            state,
            kind: plan.kind,
            url: kept.as_ref().map(|kept| kept.url.to_string()).or(plan.configured.map(|url| url.to_string())),
            name: kept.as_ref().and_then(|kept| kept.name.clone()),
            parent: board.parent.clone(),
            parent_version: board.parent_version.clone(),
            since: if board.connected { board.connected_since } else { board.disconnected_since },
            last_error: board.last_error.as_ref().map(|(error, _)| error.clone()),
            last_error_at: board.last_error.as_ref().map(|(_, at)| *at),
            next_try_at: board.next_try_at,
            position: last,
            reached: reached.map(|reached| reached.position),
            lag_records: reached.map(|reached| last.0.saturating_sub(reached.position.0)),
            history_missing_records: reached
                .map(|reached| reached.missing.iter().map(|span| span.upto.0.saturating_sub(span.after.0)).sum()),
            changes_sent: board.changes_sent,
            history_sent: board.history_sent,
            connections: board.connections,
            sent_bytes: load(&self.line.sent),
            received_bytes: load(&self.line.received),
            clock_offset_ms: board.clock_offset_ms,
            round_trip_ms: board.round_trip_ms,
        }
    }
}

/// Under which name it is kept how far the node above has come.
pub(super) fn follower() -> Follower {
    FOLLOWER.parse().expect("is a word")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(url: Option<&str>) -> Plan {
        Plan { configured: url.map(|url| url.parse().expect("an address")), ..Plan::default() }
    }

    #[test]
    fn another_address_in_the_settings_leaves_the_old_node_and_an_order_stays_while_they_do_not_change() {
        let dir = tempfile::tempdir().expect("can be made");
        let [one, two, three] = ["https://one:443", "https://two:443", "https://three:443"];
        let desk = Desk::open(dir.path().to_owned(), plan(Some(one))).expect("opens");
        desk.join(one.parse().expect("valid"), Token("t".to_owned()), false).expect("joins");
        {
            let mut inner = desk.lock();
            let kept = Kept { name: Some("depot".parse().expect("valid")), ..inner.kept.clone().expect("is kept") };
            desk.put(&mut inner, kept).expect("is written");
        }
        assert!(desk.join(two.parse().expect("valid"), Token("t".to_owned()), false).is_err(), "one is above");
        desk.join(two.parse().expect("valid"), Token("t2".to_owned()), true).expect("goes");
        let kept = |desk: &Desk| desk.kept().expect("is kept");
        assert_eq!(kept(&desk).leaving.expect("leaves").url.to_string(), one);
        // A start with the same settings goes on with what was ordered.
        let desk = Desk::open(dir.path().to_owned(), plan(Some(one))).expect("opens");
        assert_eq!(desk.target().expect("is known").expect("there is one").url.to_string(), two);
        {
            let mut inner = desk.lock();
            let kept = Kept { credential: Some(Token("c".to_owned())), leaving: None, ..inner.kept.clone().expect("is kept") };
            desk.put(&mut inner, kept).expect("is written");
        }
        assert!(desk.apply(plan(Some(three))).expect("is taken"));
        assert_eq!(kept(&desk).url.to_string(), three);
        assert_eq!(kept(&desk).leaving.expect("leaves").url.to_string(), two);
        assert!(desk.target().is_err(), "there is no token for it");
    }
}
