//! Going to another address while the node runs: to another node, with a token of that one; or to the same node, which is somewhere
//! else by now and takes what proved this one before.

use std::sync::Arc;
use std::time::Duration;

use klaxon_schemas::error::chain;

use super::desk::Target;
use super::kept::Token;
use super::link::{Link, LinkError, Proof};
use super::part::Part;
use super::session::{self, End, Failure};
use super::{ANEW_MAX, Address, open, refused};

/// How long another node may take to let this one in, before it is left for it.
const REHOME_WAIT: Duration = Duration::from_secs(20);

/// Has the node at `url` let this one in, while the one that is above stays until then; and goes there. Otherwise it tells why not,
/// and all is as it was.
pub(super) async fn other_node(part: &Part, url: &Address, token: &Token) -> Result<(), String> {
    let plan = part.plan();
    if let Some(refusal) = url.refusal(plan.insecure) {
        return Err(format!("{url} {refusal}"));
    }
    let proof = Proof { tls: &plan.tls, token: Some(token) };
    let asked = async {
        let mut times = 0;
        loop {
            let mut link = Link::open(url, &proof, plan.connect_timeout.min(REHOME_WAIT), &part.line).await?;
            match session::greet(part, &mut link, true).await {
                // It knows this node from before.
                Err(End::Anew) if times < ANEW_MAX => times += 1,
                other => return other.map(|greeted| (link, greeted.welcome)),
            }
        }
    };
    let (link, welcome) = match tokio::time::timeout(REHOME_WAIT, asked).await {
        Ok(Ok(asked)) => asked,
        Ok(Err(End::Refused { code, reason, .. })) => return Err(refused(code, &reason)),
        Ok(Err(End::Failed(failure))) => return Err(chain(&failure)),
        Ok(Err(End::Anew)) => return Err("a new numbering is asked for again and again".to_owned()),
        Ok(Err(End::Wanted)) => return Err("the node is stopping".to_owned()),
        Err(_elapsed) => return Err(format!("{url} did not let this node in within {} s", REHOME_WAIT.as_secs())),
    };
    let credential = welcome.credential.map_or_else(|| token.clone(), Token);
    let (desk, url) = (Arc::clone(&part.desk), url.clone());
    let kept = tokio::task::spawn_blocking(move || desk.rehomed(url, welcome.child, credential)).await;
    // The connection that lasts is made by who makes them all.
    link.close().await;
    part.desk.wake();
    kept.map_err(|error| error.to_string())?
}

/// Goes on with the node that is above, which is to be at `url` by now: it is, if it takes the credential. Otherwise it tells why not,
/// and all is as it was. Nothing that comes up to that node is another than before.
pub(super) async fn same_node(part: &Part, url: &Address) -> Result<(), String> {
    let plan = part.plan();
    if let Some(refusal) = url.refusal(plan.insecure) {
        return Err(format!("{url} {refusal}"));
    }
    let needed = "a token is needed: get one there (klaxon site add NAME) and give it with --token-file";
    let desk = Arc::clone(&part.desk);
    let proven = tokio::task::spawn_blocking(move || desk.proven()).await.map_err(|error| error.to_string())?;
    let Some(proven) = proven else {
        return Err(format!("no node above has given this one a credential: {needed}"));
    };
    if proven.url == *url {
        return Err(format!("{url} is above this node already"));
    }
    let stays = |reason: String| format!("{} stays above this node: {reason}", proven.url);
    // There a second connection would be taken for a second node of the name.
    let held = part.desk.hold();
    let asked = async {
        let _turn = part.turn.lock().await;
        let target = Target { url: url.clone(), ..proven.clone() };
        let (mut link, target) = open(part, &plan, &target).await?;
        match session::greet(part, &mut link, false).await {
            // Whoever took the credential is the node that gave it; if it has gone back in time, that is seen to as always.
            Ok(_) | Err(End::Anew) => {}
            Err(end) => return Err(end),
        }
        link.close().await;
        Ok(target.token)
    };
    let token = match tokio::time::timeout(REHOME_WAIT, asked).await {
        Ok(Ok(token)) => token,
        Ok(Err(End::Failed(Failure::Link(denied @ LinkError::Denied { .. })))) => {
            return Err(stays(format!("{denied}; another node is there, or it has forgotten this one, and {needed}")));
        }
        Ok(Err(End::Refused { code, reason, .. })) => return Err(stays(refused(code, &reason))),
        Ok(Err(End::Failed(failure))) => return Err(stays(chain(&failure))),
        Ok(Err(End::Anew | End::Wanted)) => return Err(stays("the node is stopping".to_owned())),
        Err(_elapsed) => return Err(stays(format!("{url} did not let this node in within {} s", REHOME_WAIT.as_secs()))),
    };
    let (desk, new, old) = (Arc::clone(&part.desk), url.clone(), proven.clone());
    let kept = tokio::task::spawn_blocking(move || desk.readdressed(&old, new, token.as_ref())).await;
    // The connection that lasts is made by who makes them all.
    drop(held);
    kept.map_err(|error| error.to_string())?.map_err(stays)
}
