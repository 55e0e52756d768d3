//! What is kept of the node above, shared with those who ask about it and give orders: where it is, with what this node proves to it who
//! it is, and what becomes of that by orders, settings and answers.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use klaxon_schemas::ids::Position;
use klaxon_schemas::names::ChildName;
use tokio::sync::watch;

use super::kept::{Kept, KeptError, Leaving, Token};
use super::{Address, Plan, now};

/// What is said to be above when a node leaves without another one.
const NOWHERE: &str = "nowhere";

/// Where the node above is, and with what this node proves who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) url: Address,
    /// A token with which it joins, or a credential.
    pub(super) token: Option<Token>,
    /// What is tried if that is not taken.
    pub(super) previous: Option<Token>,
}

/// See [`Desk::hold`].
pub(super) struct Hold<'a>(&'a Desk);

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.0.lock().holds -= 1;
        self.0.wake();
    }
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
    /// Why it is not known what is kept.
    broken: Option<String>,
    /// How many want no connection to be made for now.
    holds: u32,
}

impl Inner {
    /// Reads what is kept in `dir`, and takes up what the settings say, on the disk as well.
    fn read(&mut self, dir: &Path) -> Result<(), KeptError> {
        self.kept = Kept::read(dir)?;
        if let Some(new) = settled(self, &self.plan) {
            new.write(dir)?;
            self.kept = Some(new);
        }
        Ok(())
    }

    /// The same again, if it could not be done: what was in the way may be gone. Whether it is done now.
    fn mend(&mut self, dir: &Path) -> bool {
        if self.broken.is_none() {
            return false;
        }
        self.broken = self.read(dir).err().map(|error| error.to_string());
        if self.broken.is_none() {
            tracing::info!("it is known again which node is above");
        }
        self.broken.is_none()
    }

    /// Where the node above is, if one is meant to be there.
    fn url(&self) -> Option<&Address> {
        match &self.kept {
            Some(kept) if kept.is_off => None,
            Some(kept) => Some(&kept.url),
            None => self.plan.configured.as_ref(),
        }
    }
}

impl Desk {
    /// Reads what is kept in `dir`, and takes up what the settings say. If that cannot be read or written, there is no way up until
    /// it can, and the node goes on without one.
    pub(super) fn open(dir: PathBuf, plan: Plan) -> Self {
        let mut inner = Inner { plan, kept: None, broken: None, holds: 0 };
        inner.broken = inner.read(&dir).err().map(|error| error.to_string());
        if let Some(reason) = &inner.broken {
            tracing::error!(%reason, "the node goes on without the node above");
        }
        Self { dir, inner: Mutex::new(inner), changes: watch::Sender::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same; what could not be read or written is tried again. Blocks.
    fn lock_mended(&self) -> MutexGuard<'_, Inner> {
        let mut inner = self.lock();
        inner.mend(&self.dir);
        inner
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

    /// What is ordered is to be looked at.
    pub(super) fn wake(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// Takes up other settings, all of them or, if what follows cannot be kept, none; whether anything is another than before. Blocks.
    pub(super) fn apply(&self, plan: Plan) -> Result<bool, KeptError> {
        {
            let mut inner = self.lock();
            if inner.broken.is_some() {
                // What is kept cannot be read: that is no reason to refuse other settings.
                let is_other = inner.plan != plan;
                inner.plan = plan;
                let is_mended = inner.mend(&self.dir);
                drop(inner);
                self.wake();
                return Ok(is_other || is_mended);
            }
            if inner.plan == plan {
                return Ok(false);
            }
            if let Some(new) = settled(&inner, &plan) {
                self.put(&mut inner, new)?;
            }
            inner.plan = plan;
        }
        self.wake();
        Ok(true)
    }

    fn put(&self, inner: &mut Inner, kept: Kept) -> Result<(), KeptError> {
        kept.write(&self.dir)?;
        (inner.kept, inner.broken) = (Some(kept), None);
        Ok(())
    }

    /// No connection is made while what this gives is kept, and the one that lives ends.
    pub(super) fn hold(&self) -> Hold<'_> {
        self.lock().holds += 1;
        self.wake();
        Hold(self)
    }

    pub(super) fn is_held(&self) -> bool {
        self.lock().holds > 0
    }

    /// Whether a node is meant to be above.
    pub(super) fn has_target(&self) -> bool {
        let inner = self.lock();
        inner.broken.is_some() || inner.url().is_some()
    }

    /// Why it is not known which node is above.
    pub(super) fn broken(&self) -> Option<String> {
        self.lock().broken.clone()
    }

    /// Where the node above is, if there is one. The file with the join token is read now. Blocks.
    pub(super) fn target(&self) -> Result<Option<Target>, String> {
        let (url, kept, plan) = {
            let inner = self.lock_mended();
            if let Some(reason) = &inner.broken {
                return Err(reason.clone());
            }
            let Some(url) = inner.url() else { return Ok(None) };
            (url.clone(), inner.kept.clone(), inner.plan.clone())
        };
        let (token, previous) = match kept {
            Some(kept) if kept.join_token.is_some() => (kept.join_token, kept.credential),
            Some(kept) => (kept.credential, kept.previous),
            None => (None, None),
        };
        let token = match (token, &plan.join_token_file) {
            (Some(token), _) => Some(token),
            (None, Some(file)) => Some(Token::in_file(file)?),
            (None, None) if plan.tls.client.is_some() => None,
            (None, None) => {
                return Err(format!(
                    "there is nothing with which to join {url}: get a token there (klaxon site add NAME) and give it to klaxon join"
                ));
            }
        };
        Ok(Some(Target { url, token, previous }))
    }

    /// What the connection that lives follows from: where the node above is, and the token that is to be taken there.
    pub(super) fn wanted(&self) -> Option<(Plan, Address, Option<Token>)> {
        let inner = self.lock();
        let join_token = inner.kept.as_ref().and_then(|kept| kept.join_token.clone());
        inner.url().map(|url| (inner.plan.clone(), url.clone(), join_token))
    }

    /// Joins the node at `url`, which may be the one that is above already. Blocks.
    pub(super) fn join(&self, url: Address, token: Token) -> Result<(), String> {
        {
            let mut inner = self.lock_mended();
            if let Some(refusal) = url.refusal(inner.plan.insecure) {
                return Err(format!("{url} {refusal}"));
            }
            let configured = inner.plan.configured.clone();
            let kept = match &inner.kept {
                Some(kept) if kept.url != url && kept.leaving(now()).is_some() => {
                    return Err(format!("{} is above this node now; klaxon site rehome leaves it", kept.url));
                }
                Some(kept) => kept.joined_anew(url, configured, token),
                None => Kept::joining(url, configured, Some(token)),
            };
            self.put(&mut inner, kept).map_err(|error| error.to_string())?;
        }
        self.wake();
        Ok(())
    }

    /// The node that would be left for the one at `url`, if that is another. Blocks.
    pub(super) fn left_for(&self, url: &Address) -> Option<Address> {
        let inner = self.lock_mended();
        inner.kept.as_ref().filter(|kept| kept.url != *url).and_then(|kept| kept.leaving(now())).map(|leaving| leaving.url)
    }

    /// The node at `url` has let this one in as `name`: from now on it is above, and the one that was is left. On the disk when
    /// this returns; nobody is woken. Blocks.
    pub(super) fn rehomed(&self, url: Address, name: ChildName, token: Token) -> Result<(), String> {
        let mut inner = self.lock_mended();
        let configured = inner.plan.configured.clone();
        let leaving = inner.kept.as_ref().and_then(|kept| kept.leaving(now()).or_else(|| kept.leaving.clone()));
        let leaving = leaving.filter(|leaving| leaving.url != url);
        let new = Kept { name: Some(name), credential: Some(token), leaving, ..Kept::joining(url, configured, None) };
        self.put(&mut inner, new).map_err(|error| error.to_string())
    }

    /// What proves this node to the one that is above, wherever that one is. Blocks.
    pub(super) fn proven(&self) -> Option<Target> {
        let inner = self.lock_mended();
        let kept = inner.kept.as_ref().filter(|kept| !kept.is_off)?;
        match (&kept.credential, &kept.leaving) {
            (Some(_), _) => {
                Some(Target { url: kept.url.clone(), token: kept.credential.clone(), previous: kept.previous.clone() })
            }
            // The settings say another address, and whoever is there has not let it in.
            (None, Some(left)) if kept.name.is_none() && left.credential.is_some() => {
                Some(Target { url: left.url.clone(), token: left.credential.clone(), previous: None })
            }
            _ => None,
        }
    }

    /// The node above, which was at `old.url`, is at `url` and takes `token`: nothing else is another. On the disk when this returns;
    /// nobody is woken. Blocks.
    pub(super) fn readdressed(&self, old: &Target, url: Address, token: Option<&Token>) -> Result<(), String> {
        let mut inner = self.lock();
        let configured = inner.plan.configured.clone();
        let kept = inner.kept.clone().filter(|kept| !kept.is_off).ok_or("another order came meanwhile")?;
        let mut new = if kept.url == old.url && kept.credential == old.token {
            Kept { url, configured, ..kept }
        } else if let Some(left) = kept.leaving.filter(|left| left.url == old.url && kept.credential.is_none()) {
            Kept {
                name: left.name,
                credential: left.credential,
                standing_upto: kept.standing_upto,
                ..Kept::joining(url, configured, None)
            }
        } else {
            return Err("another order came meanwhile".to_owned());
        };
        if new.previous.is_some() && new.previous.as_ref() == token {
            std::mem::swap(&mut new.credential, &mut new.previous);
        }
        self.put(&mut inner, new).map_err(|error| error.to_string())
    }

    /// No node is above from now on. On the disk when this returns. Blocks.
    pub(super) fn leave(&self) -> Result<(), String> {
        {
            let mut inner = self.lock_mended();
            let Some(url) = inner.url().cloned() else { return Err("no node is above this one".to_owned()) };
            let configured = inner.plan.configured.clone();
            let leaving = inner.kept.as_ref().and_then(|kept| kept.leaving(now()).or_else(|| kept.leaving.clone()));
            let new = Kept { leaving, is_off: true, ..Kept::joining(url, configured, None) };
            self.put(&mut inner, new).map_err(|error| error.to_string())?;
        }
        self.wake();
        Ok(())
    }

    /// It was let in at `target` as `name`, perhaps with a new credential: on the disk when this returns. Nothing is kept if
    /// another node, or another token for this one, has been ordered since.
    pub(super) async fn welcomed(
        self: &Arc<Self>,
        target: Target,
        name: ChildName,
        credential: Option<Token>,
    ) -> Result<(), KeptError> {
        let was_told_of = self.leaving().is_some();
        let kept = self.update(move |inner| {
            let Target { url, token, .. } = target;
            let old = inner.kept.clone();
            let is_other_token = |kept: &Kept| kept.join_token.is_some() && kept.join_token != token;
            if inner.url() != Some(&url) || old.as_ref().is_some_and(is_other_token) {
                return None;
            }
            let mut new = old.clone().unwrap_or_else(|| Kept::joining(url, inner.plan.configured.clone(), None));
            new.name = Some(name);
            if credential.is_some() {
                // What proved it before is void.
                (new.credential, new.previous, new.join_token) = (credential, None, None);
            } else if new.previous.is_some() && new.previous == token {
                std::mem::swap(&mut new.credential, &mut new.previous);
            }
            (old.as_ref() != Some(&new)).then_some(new)
        });
        kept.await?;
        if !was_told_of && self.leaving().is_some() {
            self.wake();
        }
        Ok(())
    }

    /// The node at `url` gave another credential: on the disk when this returns, also if that node is being left.
    pub(super) async fn rotated(self: &Arc<Self>, url: Address, credential: Token) -> Result<(), KeptError> {
        self.update(move |inner| {
            let mut kept = inner.kept.clone()?;
            if kept.url == url && !kept.is_off {
                kept.previous = kept.credential.replace(credential);
            } else {
                kept.leaving.as_mut().filter(|leaving| leaving.url == url)?.credential = Some(credential);
            }
            Some(kept)
        })
        .await
        .map(drop)
    }

    /// The node at `target` does not take its token, and there is a credential from before: that one holds. Whether that is news.
    pub(super) async fn not_taken(self: &Arc<Self>, target: Target) -> Result<bool, KeptError> {
        self.update(move |inner| {
            let is_it = |kept: &Kept| kept.join_token.is_some() && kept.join_token == target.token;
            let kept = inner.kept.clone().filter(|kept| kept.url == target.url && is_it(kept) && kept.credential.is_some())?;
            Some(Kept { join_token: None, ..kept })
        })
        .await
    }

    /// What stands is all that the node at `url` is told of what came up to `upto`; nothing, if it has been told. On the disk when
    /// this returns.
    pub(super) async fn standing(self: &Arc<Self>, url: Address, upto: Option<Position>) -> Result<(), KeptError> {
        self.update(move |inner| {
            let kept = inner.kept.clone().filter(|kept| kept.url == url && kept.standing_upto != upto)?;
            Some(Kept { standing_upto: upto, ..kept })
        })
        .await
        .map(drop)
    }

    /// Whom this node leaves, and for what: known as soon as the other one has let it in. Until then it may go back.
    pub(super) fn leaving(&self) -> Option<(Leaving, String)> {
        let kept = self.kept()?;
        let to = match (kept.is_off, &kept.name) {
            (true, _) => NOWHERE.to_owned(),
            (false, Some(_)) => kept.url.to_string(),
            (false, None) => return None,
        };
        Some((kept.leaving?, to))
    }

    /// Where this node went, if it leaves the one at `url`.
    pub(super) fn left(&self, url: &Address) -> Option<String> {
        self.leaving().filter(|(leaving, _)| leaving.url == *url).map(|(_, to)| to)
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

    /// Whether anything is kept that was not.
    async fn update(self: &Arc<Self>, change: impl FnOnce(&Inner) -> Option<Kept> + Send + 'static) -> Result<bool, KeptError> {
        let desk = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || {
            let mut inner = desk.lock();
            change(&inner).map_or(Ok(false), |kept| desk.put(&mut inner, kept).map(|()| true))
        });
        done.await.unwrap_or(Ok(false))
    }
}

/// What is kept, if the settings say another address than when it was written: that one counts, and the old one is left. Before
/// the new one has let this node in, settings that say the old one again go back to it as if nothing had been.
fn settled(inner: &Inner, plan: &Plan) -> Option<Kept> {
    let (configured, kept) = (plan.configured.clone(), inner.kept.as_ref()?);
    let url = configured.clone()?;
    if kept.configured == configured {
        return None;
    }
    if kept.url == url && !kept.is_off {
        return Some(Kept { configured, ..kept.clone() });
    }
    let joining = Kept::joining(url.clone(), configured, None);
    Some(match (kept.leaving(now()), kept.leaving.clone()) {
        (None, Some(left)) if left.url == url && !kept.is_off => {
            Kept { name: left.name, credential: left.credential, ..joining }
        }
        (leaving, before) => Kept { leaving: leaving.or(before.filter(|left| left.url != url)), ..joining },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(url: Option<&str>) -> Plan {
        Plan { configured: url.map(|url| url.parse().expect("an address")), ..Plan::default() }
    }

    fn address(url: &str) -> Address {
        url.parse().expect("an address")
    }

    fn token(token: &str) -> Token {
        Token(token.to_owned())
    }

    fn name() -> ChildName {
        "depot".parse().expect("valid")
    }

    fn to(url: &Address, token: Option<Token>) -> Target {
        Target { url: url.clone(), token, previous: None }
    }

    /// Lets the node in where it wants to go, with `credential`.
    async fn let_in(desk: &Arc<Desk>, credential: &str) {
        let target = desk.target().expect("is known").expect("there is one");
        desk.welcomed(target, name(), Some(token(credential))).await.expect("is written");
    }

    #[tokio::test]
    async fn an_answer_that_comes_late_overwrites_nothing_that_was_ordered_since() {
        let dir = tempfile::tempdir().expect("can be made");
        let [one, two] = ["https://one:443", "https://two:443"].map(address);
        let desk = Arc::new(Desk::open(dir.path().to_owned(), plan(Some("https://one:443"))));
        let came = to(&one, Some(token("t")));
        desk.join(two.clone(), token("t2")).expect("goes");
        desk.welcomed(came.clone(), name(), Some(token("c"))).await.expect("is no error");
        desk.rotated(one.clone(), token("c2")).await.expect("is no error");
        assert_eq!(desk.target().expect("is known"), Some(to(&two, Some(token("t2")))));
        // The same node, with another token.
        desk.join(one.clone(), token("t3")).expect("goes back");
        desk.welcomed(came, name(), Some(token("c"))).await.expect("is no error");
        assert_eq!(desk.target().expect("is known"), Some(to(&one, Some(token("t3")))));
        let_in(&desk, "c3").await;
        assert_eq!(desk.target().expect("is known").expect("there is one").token, Some(token("c3")));
        // Who is left may still give a credential with which it is told.
        desk.rehomed(two, name(), token("c4")).expect("goes");
        desk.rotated(one, token("c5")).await.expect("is written");
        let kept = desk.kept().expect("is kept");
        assert_eq!((kept.credential, kept.leaving.expect("leaves").credential), (Some(token("c4")), Some(token("c5"))));
    }

    #[tokio::test]
    async fn what_proved_the_node_before_is_kept_until_something_newer_did() {
        let dir = tempfile::tempdir().expect("can be made");
        let one = address("https://one:443");
        let desk = Arc::new(Desk::open(dir.path().to_owned(), plan(None)));
        desk.join(one.clone(), token("t")).expect("joins");
        let_in(&desk, "c").await;
        // Joining the same node anew: the credential holds until the token was taken.
        desk.join(one.clone(), token("t2")).expect("joins anew");
        let both = Target { previous: Some(token("c")), ..to(&one, Some(token("t2"))) };
        assert_eq!(desk.target().expect("is known"), Some(both.clone()));
        desk.not_taken(both).await.expect("is written");
        assert_eq!(
            desk.target().expect("is known"),
            Some(to(&one, Some(token("c")))),
            "a token that is not taken is forgotten"
        );
        // A rotation that the node above forgot.
        desk.rotated(one.clone(), token("c2")).await.expect("is written");
        let both = Target { previous: Some(token("c")), ..to(&one, Some(token("c2"))) };
        assert_eq!(desk.target().expect("is known"), Some(both.clone()));
        desk.not_taken(both.clone()).await.expect("is no error");
        desk.welcomed(to(&one, both.previous), name(), None).await.expect("is written");
        assert_eq!(desk.target().expect("is known").expect("there is one").token, Some(token("c")));
    }

    #[tokio::test]
    async fn another_address_in_the_settings_leaves_the_old_node_once_the_new_one_lets_this_one_in() {
        let dir = tempfile::tempdir().expect("can be made");
        let [one, two, three] = ["https://one:443", "https://two:443", "https://three:443"];
        let desk = Arc::new(Desk::open(dir.path().to_owned(), plan(Some(one))));
        desk.join(address(one), token("t")).expect("joins");
        let_in(&desk, "c1").await;
        assert!(desk.join(address(two), token("t")).is_err(), "one is above");
        desk.rehomed(address(two), name(), token("c2")).expect("goes");
        assert_eq!(desk.left(&address(one)).as_deref(), Some(two));
        // A start with the same settings goes on with what was ordered.
        let desk = Arc::new(Desk::open(dir.path().to_owned(), plan(Some(one))));
        assert_eq!(desk.target().expect("is known").expect("there is one").url.to_string(), two);
        desk.told_of_leaving(&address(one)).await;
        assert!(desk.apply(plan(Some(three))).expect("is taken"));
        let kept = desk.kept().expect("is kept");
        assert_eq!((kept.url.to_string(), kept.leaving.expect("leaves").url.to_string()), (three.to_owned(), two.to_owned()));
        assert!(desk.target().is_err(), "there is no token for it");
        assert_eq!(desk.left(&address(two)), None, "it may yet be gone back to");
        // And it is, with what proved this node there.
        assert!(desk.apply(plan(Some(two))).expect("is taken"));
        assert_eq!(desk.target().expect("is known"), Some(to(&address(two), Some(token("c2")))));
        assert_eq!(desk.kept().expect("is kept").leaving, None);
        // Once the other one has let it in, the old one is told.
        assert!(desk.apply(plan(Some(three))).expect("is taken"));
        desk.join(address(three), token("t3")).expect("joins");
        let_in(&desk, "c3").await;
        assert_eq!(desk.left(&address(two)).as_deref(), Some(three));
        // None above: the last one is told, and the settings count when they change.
        desk.leave().expect("is kept");
        let desk = Arc::new(Desk::open(dir.path().to_owned(), plan(Some(three))));
        assert_eq!((desk.target(), desk.has_target()), (Ok(None), false));
        assert_eq!(desk.left(&address(three)).as_deref(), Some(NOWHERE));
        assert!(desk.leave().is_err());
    }

    #[test]
    fn what_cannot_be_read_or_written_keeps_the_rest_going() {
        let dir = tempfile::tempdir().expect("can be made");
        let file = dir.path().join(crate::uplink::KEPT_FILE);
        std::fs::write(&file, "{\"format\":1,").expect("is written");
        let desk = Desk::open(dir.path().to_owned(), plan(Some("https://one:443")));
        let said = desk.target().expect_err("is not known");
        assert!(said.contains("uplink.json") && said.contains("join anew"), "{said}");
        assert!(desk.has_target() && std::fs::read(&file).expect("is there").len() < 20, "it is left as it is");
        desk.join(address("https://one:443"), token("t")).expect("mends it");
        assert_eq!((desk.broken(), desk.target().expect("is known").is_some()), (None, true));
        // Other settings are taken up whole, or not at all.
        std::fs::create_dir(file.with_extension("json.tmp")).expect("is in the way");
        assert!(desk.apply(plan(Some("https://two:443"))).is_err());
        assert_eq!(desk.plan().configured, Some(address("https://one:443")));
    }

    #[tokio::test]
    async fn what_could_not_be_read_or_written_is_tried_again() {
        let dir = tempfile::tempdir().expect("can be made");
        let (file, aside) = (dir.path().join(crate::uplink::KEPT_FILE), dir.path().join("aside"));
        let [one, two] = ["https://one:443", "https://two:443"];
        let desk = Arc::new(Desk::open(dir.path().to_owned(), plan(Some(one))));
        desk.join(address(one), token("t")).expect("joins");
        let_in(&desk, "c").await;
        let known = desk.target().expect("is known");
        // For a while it cannot be read.
        std::fs::rename(&file, &aside).expect("is moved");
        std::fs::create_dir(&file).expect("is in the way");
        let desk = Desk::open(dir.path().to_owned(), plan(Some(one)));
        assert!(desk.target().is_err() && desk.broken().is_some());
        assert!(!desk.apply(plan(Some(one))).expect("is no error"), "it is as it was");
        std::fs::remove_dir(&file).expect("is removed");
        std::fs::rename(&aside, &file).expect("is moved back");
        assert_eq!(desk.target(), Ok(known.clone()));
        assert_eq!(desk.broken(), None);
        // Nor can what follows from other settings be written.
        let in_the_way = file.with_extension("json.tmp");
        std::fs::create_dir(&in_the_way).expect("is in the way");
        let desk = Desk::open(dir.path().to_owned(), plan(Some(two)));
        assert!(desk.target().is_err() && desk.broken().is_some());
        std::fs::remove_dir(&in_the_way).expect("is removed");
        assert!(desk.apply(plan(Some(two))).expect("is taken"), "it is known again");
        assert_eq!(desk.broken(), None);
        let kept = desk.kept().expect("is kept");
        assert_eq!((kept.url, kept.leaving.expect("leaves").url), (address(two), address(one)));
        // And with the settings that were, it goes back.
        std::fs::create_dir(&in_the_way).expect("is in the way");
        let desk = Desk::open(dir.path().to_owned(), plan(Some(one)));
        assert!(desk.broken().is_some());
        std::fs::remove_dir(&in_the_way).expect("is removed");
        assert_eq!(desk.target(), Ok(known));
    }

    #[tokio::test]
    async fn the_same_node_at_another_address_is_no_other_one() {
        let dir = tempfile::tempdir().expect("can be made");
        let [one, two, three] = ["https://one:443", "https://two:443", "https://three:443"];
        let desk = Arc::new(Desk::open(dir.path().to_owned(), plan(Some(one))));
        assert!(desk.proven().is_none());
        desk.join(address(one), token("t")).expect("joins");
        assert!(desk.proven().is_none(), "a token is no credential");
        let_in(&desk, "c").await;
        desk.rotated(address(one), token("c2")).await.expect("is written");
        let proven = desk.proven().expect("is known");
        assert_eq!((&proven.url, &proven.token, &proven.previous), (&address(one), &Some(token("c2")), &Some(token("c"))));
        // What is taken there counts from now on, and nobody is left.
        desk.readdressed(&proven, address(two), Some(&token("c"))).expect("is written");
        assert!(desk.readdressed(&proven, address(three), None).is_err(), "it is there no more");
        let both = Target { previous: Some(token("c2")), ..to(&address(two), Some(token("c"))) };
        assert_eq!(desk.target().expect("is known"), Some(both.clone()));
        assert!(desk.leaving().is_none());
        let desk = Arc::new(Desk::open(dir.path().to_owned(), plan(Some(one))));
        assert_eq!(desk.target().expect("is known"), Some(both), "what the settings said before changes nothing");
        // Settings that say where it is are followed by the same order.
        assert!(desk.apply(plan(Some(three))).expect("is taken"));
        assert!(desk.target().is_err(), "there is no token for it");
        let proven = desk.proven().expect("is known");
        desk.readdressed(&proven, address(three), proven.token.as_ref()).expect("is written");
        assert_eq!(desk.target().expect("is known"), Some(to(&address(three), Some(token("c")))));
        assert!(desk.leaving().is_none() && desk.kept().expect("is kept").name == Some(name()));
    }
}
