//! A stand-in for Keystone that knows the tokens it was told, and answers `GET /v3/auth/tokens` as Keystone does: the token by which
//! it is asked must be good, and it says of another one whose it is, in which roles, and until when.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

/// It runs until it is dropped.
pub(crate) struct Keystone {
    address: SocketAddr,
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    tokens: Mutex<HashMap<String, Value>>,
    asked: AtomicUsize,
    over: AtomicBool,
}

impl Keystone {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("is bound");
        let inner = Arc::new(Inner::default());
        let serving = Arc::clone(&inner);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if serving.over.load(Ordering::SeqCst) {
                    break;
                }
                let serving = Arc::clone(&serving);
                std::thread::spawn(move || serving.answer(&stream));
            }
        });
        Self { address, inner }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
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
        self.inner.tokens.lock().expect("no panic").insert(token.to_owned(), said);
    }

    pub(crate) fn asked(&self) -> usize {
        self.inner.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Keystone {
    fn drop(&mut self) {
        self.inner.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

impl Inner {
    fn answer(&self, mut stream: &TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().expect("can be shared"));
        let (mut head, mut line) = (Vec::new(), String::new());
        while reader.read_line(&mut line).is_ok_and(|bytes| bytes > 0) && line != "\r\n" {
            head.push(std::mem::take(&mut line));
        }
        if self.over.load(Ordering::SeqCst) || head.is_empty() {
            return;
        }
        self.asked.fetch_add(1, Ordering::SeqCst);
        let header = |name: &str| {
            let found = head.iter().filter_map(|line| line.split_once(':')).find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let tokens = self.tokens.lock().expect("no panic");
        let is_path = head[0].starts_with("GET /v3/auth/tokens");
        let (status, body) = match tokens.get(&header("x-subject-token")) {
            _ if !is_path => ("404 Not Found", json!({ "error": { "code": 404 } })),
            _ if !tokens.contains_key(&header("x-auth-token")) => ("401 Unauthorized", json!({ "error": { "code": 401 } })),
            Some(said) => ("200 OK", said.clone()),
            None => ("404 Not Found", json!({ "error": { "code": 404 } })),
        };
        let body = body.to_string();
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        let _ = stream.write_all(answer.as_bytes());
    }
}
