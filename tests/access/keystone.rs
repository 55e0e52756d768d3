//! A stand-in for Keystone that knows the tokens it was told, and answers `GET /v3/auth/tokens` as Keystone does: the token by which
//! it is asked must be good, and it says of another one whose it is, in which roles, and until when.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::harness::stand_in::{Asked, StandIn};

/// It runs until it is dropped.
pub(crate) struct Keystone {
    server: StandIn,
    kept: Arc<Kept>,
}

#[derive(Default)]
struct Kept {
    tokens: Mutex<HashMap<String, Value>>,
    asked: AtomicUsize,
}

impl Keystone {
    pub(crate) fn start() -> Self {
        let kept = Arc::<Kept>::default();
        let answering = Arc::clone(&kept);
        Self { server: StandIn::start(move |asked| answering.answer(asked)), kept }
    }

    pub(crate) fn url(&self) -> String {
        self.server.url()
    }

    pub(crate) fn knows(&self, token: &str, user: &str, domain: &str, roles: &[&str]) {
        let roles: Vec<_> = roles.iter().map(|role| json!({ "id": format!("id-of-{role}"), "name": role })).collect();
        let said = json!({ "token": {
            "methods": ["password"],
            "expires_at": "2099-01-01T00:00:00.000000Z",
            "issued_at": "2026-11-22T00:00:00.000000Z",
            "user": { "id": "0", "name": user, "domain": { "id": "default", "name": domain } },
            "project": { "id": "1", "name": "admin", "domain": { "id": "default", "name": "Default" } },
            "roles": roles,
        } });
        self.kept.tokens.lock().expect("no panic").insert(token.to_owned(), said);
    }

    pub(crate) fn forgets(&self, token: &str) {
        self.kept.tokens.lock().expect("no panic").remove(token);
    }

    pub(crate) fn asked(&self) -> usize {
        self.kept.asked.load(Ordering::SeqCst)
    }
}

impl Kept {
    fn answer(&self, asked: &Asked) -> (&'static str, Value) {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let tokens = self.tokens.lock().expect("no panic");
        match tokens.get(asked.header("x-subject-token")) {
            _ if asked.method != "GET" || !asked.path.starts_with("/v3/auth/tokens") => {
                ("404 Not Found", json!({ "error": { "code": 404 } }))
            }
            _ if !tokens.contains_key(asked.header("x-auth-token")) => {
                ("401 Unauthorized", json!({ "error": { "code": 401 } }))
            }
            Some(said) => ("200 OK", said.clone()),
            None => ("404 Not Found", json!({ "error": { "code": 404 } })),
        }
    }
}
