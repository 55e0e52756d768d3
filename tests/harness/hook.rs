//! A receiver of webhooks: an HTTP server that keeps what came, answers as it is told to, and can be away.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::wait_until;

/// How soon a connection notices that the server is to go away.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Post {
    pub(crate) path: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// What it was answered.
    pub(crate) status: u16,
    /// When it had come whole.
    pub(crate) at: Instant,
}

impl Post {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a body is JSON")
    }
}

/// What all connections share.
#[derive(Debug, Default)]
struct Kept {
    posts: Mutex<Vec<Post>>,
    /// What is answered; 0 for 200.
    status: AtomicU16,
    stop: AtomicBool,
}

/// A receiver. Dropped, it is gone, and its port is free.
pub(crate) struct Hook {
    pub(crate) address: SocketAddr,
    kept: Arc<Kept>,
    listening: Option<JoinHandle<()>>,
}

impl Hook {
    pub(crate) fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().expect("is an address"))
    }

    /// As one that was there before.
    pub(crate) fn start_at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).expect("the port is free");
        let address = listener.local_addr().expect("is bound");
        let kept = Arc::<Kept>::default();
        let ours = Arc::clone(&kept);
        let listening = std::thread::spawn(move || {
            let mut served = Vec::new();
            for stream in listener.incoming() {
                if ours.stop.load(Ordering::Relaxed) {
                    break;
                }
                let kept = Arc::clone(&ours);
                served.extend(stream.map(|stream| std::thread::spawn(move || serve(&stream, &kept))));
            }
            drop(listener);
            served.into_iter().for_each(|one| one.join().expect("a connection does not break"));
        });
        Self { address, kept, listening: Some(listening) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// From now on everything is answered so.
    pub(crate) fn answer(&self, status: u16) {
        self.kept.status.store(status, Ordering::Relaxed);
    }

    pub(crate) fn posts(&self) -> Vec<Post> {
        self.kept.posts.lock().expect("nobody panicked").clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.kept.posts.lock().expect("nobody panicked").len()
    }

    /// Every notification in our own form that was answered with 200, in the order in which they came.
    pub(crate) fn told(&self) -> Vec<Value> {
        let posts = self.posts();
        let good = posts.iter().filter(|post| post.status == 200);
        good.flat_map(|post| post.json()["notifications"].as_array().cloned().expect("is a list")).collect()
    }

    /// Waits for so many notifications that were answered with 200.
    pub(crate) fn wait_told(&self, count: usize) -> Vec<Value> {
        wait_until(&format!("{count} notifications have come"), || self.told().len() >= count);
        self.told()
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.kept.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
        if let Some(listening) = self.listening.take() {
            let _ = listening.join();
        }
    }
}

fn serve(stream: &TcpStream, kept: &Kept) {
    stream.set_read_timeout(Some(LOOK_EVERY)).expect("can be set");
    stream.set_nodelay(true).expect("can be set");
    let mut reader = BufReader::new(stream);
    while let Some(mut post) = read(&mut reader, kept) {
        post.status = match kept.status.load(Ordering::Relaxed) {
            0 => 200,
            status => status,
        };
        let answer = format!("HTTP/1.1 {} x\r\ncontent-length: 2\r\n\r\nok", post.status);
        kept.posts.lock().expect("nobody panicked").push(post);
        if (&*stream).write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn read(reader: &mut BufReader<&TcpStream>, kept: &Kept) -> Option<Post> {
    let mut lines = Vec::new();
    loop {
        let line = line(reader, kept)?;
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    let path = lines.first()?.split(' ').nth(1)?.to_owned();
    let headers: Vec<(String, String)> = lines[1..]
        .iter()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length").and_then(|(_, value)| value.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    let mut filled = 0;
    while filled < body.len() {
        match reader.read(&mut body[filled..]) {
            Ok(0) => return None,
            Ok(bytes) => filled += bytes,
            Err(error) if is_idle(&error) && !kept.stop.load(Ordering::Relaxed) => {}
            Err(_) => return None,
        }
    }
    Some(Post { path, headers, body, status: 0, at: Instant::now() })
}

/// One line without its end; none if the connection or the server is to end.
fn line(reader: &mut BufReader<&TcpStream>, kept: &Kept) -> Option<String> {
    let mut line = Vec::new();
    loop {
        match reader.read_until(b'\n', &mut line) {
            Ok(0) => return None,
            Ok(_) => return Some(String::from_utf8_lossy(&line).trim_end().to_owned()),
            Err(error) if is_idle(&error) && !kept.stop.load(Ordering::Relaxed) => {}
            Err(_) => return None,
        }
    }
}

fn is_idle(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut | std::io::ErrorKind::Interrupted)
}
