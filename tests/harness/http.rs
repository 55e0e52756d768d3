//! HTTP as it is on the wire, for requests that a client library would not make, and streams of events.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use serde_json::Value;

use super::{Node, PATIENCE, Reply};

/// What is sent: method, path under the root, headers and a body.
pub(crate) struct Wire<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) headers: &'a [(&'a str, &'a str)],
    pub(crate) body: &'a [u8],
}

impl Wire<'_> {
    fn bytes(&self, host: &str) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.0\r\n", self.method, self.path);
        let names = |name: &str| self.headers.iter().any(|(given, _)| given.eq_ignore_ascii_case(name));
        if !names("host") {
            head.push_str(&format!("host: {host}\r\n"));
        }
        if !names("content-length") && self.method != "GET" {
            head.push_str(&format!("content-length: {}\r\n", self.body.len()));
        }
        for (name, value) in self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        [head.as_bytes(), b"\r\n", self.body].concat()
    }
}

/// Splits an answer that has come whole.
fn reply(answer: &[u8]) -> Reply {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Reply { status: status.unwrap_or_else(|| panic!("no status: {head}")), body: body.to_owned() }
}

impl Node {
    fn host(&self) -> &str {
        self.base.trim_start_matches("http://")
    }

    /// A request as it is, over TCP.
    pub(crate) fn wire(&self, request: &Wire<'_>) -> Reply {
        let mut connection = TcpStream::connect(self.host()).expect("the node listens");
        connection.set_read_timeout(Some(PATIENCE)).expect("can be set");
        // A node that refuses early may close before it has read all.
        let _ = connection.write_all(&request.bytes(self.host()));
        let mut answer = Vec::new();
        let _ = connection.read_to_end(&mut answer);
        reply(&answer)
    }

    /// A request as it is, over the Unix socket.
    pub(crate) fn wire_unix(&self, request: &Wire<'_>) -> Reply {
        let mut connection = UnixStream::connect(self.data.join("klaxon.sock")).expect("the node listens");
        connection.set_read_timeout(Some(PATIENCE)).expect("can be set");
        connection.write_all(&request.bytes("localhost")).expect("it reads");
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer).expect("it answers");
        reply(&answer)
    }

    /// Opens a stream of changes; `query` with its `?`.
    pub(crate) fn stream(&self, query: &str, last_event: Option<&str>) -> Stream {
        let connection = TcpStream::connect(self.host()).expect("the node listens");
        connection.set_read_timeout(Some(PATIENCE)).expect("can be set");
        let path = format!("/api/v1/stream{query}");
        let headers: Vec<_> = last_event.map(|id| ("last-event-id", id)).into_iter().collect();
        let request = Wire { method: "GET", path: &path, headers: &headers, body: b"" };
        (&connection).write_all(&request.bytes(self.host())).expect("it reads");
        Stream { lines: BufReader::with_capacity(1024, connection), is_past_head: false }
    }
}

/// A stream of changes. Nothing is read ahead but a kibibyte.
pub(crate) struct Stream {
    lines: BufReader<TcpStream>,
    is_past_head: bool,
}

/// One event of a stream.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) data: Value,
}

impl Event {
    pub(crate) fn position(&self) -> u64 {
        self.id.split_once('-').and_then(|(_, position)| position.parse().ok()).expect("an id is EPOCH-POSITION")
    }
}

impl Stream {
    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.lines.read_line(&mut line).unwrap_or(0);
        (read > 0).then(|| line.trim_end().to_owned())
    }

    /// Waits for the next event; `None` if the stream has ended.
    pub(crate) fn next(&mut self) -> Option<Event> {
        if !self.is_past_head {
            let status = self.line()?;
            assert!(status.contains(" 200 "), "the stream is refused: {status}");
            while !self.line()?.is_empty() {}
            self.is_past_head = true;
        }
        let begun = Instant::now();
        let mut event = Event { id: String::new(), name: String::new(), data: Value::Null };
        loop {
            let line = self.line()?;
            // Heartbeats alone are no answer.
            assert!(begun.elapsed() < PATIENCE, "waited too long for an event");
            match line.split_once(": ") {
                Some(("id", id)) => event.id = id.to_owned(),
                Some(("event", name)) => event.name = name.to_owned(),
                Some(("data", data)) => event.data = serde_json::from_str(data).expect("data is JSON"),
                // A heartbeat has no data, and is no event.
                None if line.is_empty() && event.data.is_null() => {}
                None if line.is_empty() => return Some(event),
                _ => {}
            }
        }
    }

    /// The next event, which must be of this name.
    pub(crate) fn expect(&mut self, name: &str) -> Event {
        let event = self.next().unwrap_or_else(|| panic!("the stream ended before {name}"));
        assert_eq!(event.name, name, "{event:?}");
        event
    }
}
