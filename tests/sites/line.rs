//! A line between two nodes of one process: it carries uplinks message by message, and loses, doubles and tears them.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::mix;

/// What the line does to messages, each in a thousand.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Manners {
    /// A message is cut in two, and the connection ends there.
    pub(crate) tears: u64,
    /// A message comes twice.
    pub(crate) doubles: u64,
    /// A message is lost, and soon after it the connection.
    pub(crate) loses: u64,
}

/// What it did.
#[derive(Debug, Default)]
pub(crate) struct Done {
    pub(crate) torn: AtomicU64,
    pub(crate) doubled: AtomicU64,
    pub(crate) lost: AtomicU64,
    pub(crate) carried: AtomicU64,
}

/// The line. Dropped, it ends all connections and takes no more.
pub(crate) struct Line(Arc<Shared>);

struct Shared {
    address: SocketAddr,
    state: Mutex<State>,
    done: Done,
    ends: AtomicBool,
}

struct State {
    target: SocketAddr,
    is_cut: bool,
    manners: Manners,
    dice: u64,
    open: Vec<TcpStream>,
}

/// What is to become of a message.
enum Fate {
    Comes,
    Twice,
    Torn,
    Lost,
    Cut,
}

impl Line {
    pub(crate) fn to(target: SocketAddr, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let state = State { target, is_cut: false, manners: Manners::default(), dice: seed, open: Vec::new() };
        let shared = Arc::new(Shared {
            address: listener.local_addr().expect("is bound"),
            state: Mutex::new(state),
            done: Done::default(),
            ends: AtomicBool::new(false),
        });
        let of_thread = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if of_thread.ends.load(Ordering::Relaxed) {
                    break;
                }
                of_thread.carry(stream);
            }
        });
        Self(shared)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.address
    }

    pub(crate) fn lead_to(&self, target: SocketAddr) {
        self.0.lock().target = target;
    }

    pub(crate) fn behave(&self, manners: Manners) {
        self.0.lock().manners = manners;
    }

    /// Nothing passes any more. What was read before this returns has come through or never will.
    pub(crate) fn cut(&self) {
        let mut state = self.0.lock();
        state.is_cut = true;
        end_all(&mut state);
    }

    pub(crate) fn heal(&self) {
        self.0.lock().is_cut = false;
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.0.lock().is_cut
    }

    pub(crate) fn done(&self) -> &Done {
        &self.0.done
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.0.ends.store(true, Ordering::Relaxed);
        self.cut();
        let _ = TcpStream::connect(self.0.address);
    }
}

fn end_all(state: &mut State) {
    for stream in state.open.drain(..) {
        let _ = stream.shutdown(Shutdown::Both);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding it")
    }

    fn carry(self: &Arc<Self>, below: TcpStream) {
        let target = {
            let state = self.lock();
            if state.is_cut {
                return;
            }
            state.target
        };
        let Ok(above) = TcpStream::connect(target) else { return };
        let _ = (below.set_nodelay(true), above.set_nodelay(true));
        let clone = |stream: &TcpStream| stream.try_clone().expect("a descriptor is left");
        {
            let mut state = self.lock();
            if state.is_cut {
                return;
            }
            state.open.extend([clone(&below), clone(&above)]);
        }
        for (from, to) in [(clone(&below), clone(&above)), (above, below)] {
            let shared = Arc::clone(self);
            std::thread::spawn(move || {
                let _ = shared.pump(&from, &to);
                let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
            });
        }
    }

    fn pump(&self, from: &TcpStream, mut to: &TcpStream) -> std::io::Result<()> {
        let mut from = std::io::BufReader::new(from);
        to.write_all(&head(&mut from)?)?;
        let mut is_first = true;
        loop {
            let message = frame(&mut from)?;
            // Pings and what ends a connection go as they are; so does the first message, because a second hello is a mistake for
            // which a node is sent away for a minute.
            let is_message = message[0] & 0x0f == 2 && !is_first;
            is_first = false;
            // Held while it is written: behind a cut nothing comes.
            let mut state = self.lock();
            match state.fate(is_message) {
                Fate::Cut => return Ok(()),
                Fate::Comes => to.write_all(&message)?,
                Fate::Twice => {
                    self.done.doubled.fetch_add(1, Ordering::Relaxed);
                    to.write_all(&message)?;
                    to.write_all(&message)?;
                }
                Fate::Torn => {
                    self.done.torn.fetch_add(1, Ordering::Relaxed);
                    to.write_all(&message[..1 + message.len() / 2])?;
                    end_all(&mut state);
                    return Ok(());
                }
                Fate::Lost => {
                    self.done.lost.fetch_add(1, Ordering::Relaxed);
                    drop(state);
                    // What is behind it still comes for a moment.
                    let shared_end = Duration::from_millis(5);
                    std::thread::sleep(shared_end);
                    if let Ok(next) = next_soon(&mut from) {
                        to.write_all(&next)?;
                    }
                    end_all(&mut self.lock());
                    return Ok(());
                }
            }
            self.done.carried.fetch_add(u64::from(is_message), Ordering::Relaxed);
        }
    }
}

impl State {
    fn fate(&mut self, is_message: bool) -> Fate {
        if self.is_cut {
            return Fate::Cut;
        }
        if !is_message {
            return Fate::Comes;
        }
        self.dice = mix(self.dice);
        let Manners { tears, doubles, loses } = self.manners;
        match self.dice % 1000 {
            roll if roll < tears => Fate::Torn,
            roll if roll < tears + doubles => Fate::Twice,
            roll if roll < tears + doubles + loses => Fate::Lost,
            _ => Fate::Comes,
        }
    }
}

/// The next message, if it comes at once.
fn next_soon(from: &mut std::io::BufReader<&TcpStream>) -> std::io::Result<Vec<u8>> {
    from.get_ref().set_read_timeout(Some(Duration::from_millis(5)))?;
    frame(from)
}

/// A request or its answer, up to the empty line.
fn head(from: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        from.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(head)
}

/// A frame (RFC 6455, 5.2), as it is on the wire.
fn frame(from: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let mut frame = vec![0; 2];
    from.read_exact(&mut frame)?;
    let more = |from: &mut dyn Read, frame: &mut Vec<u8>, count: usize| {
        let at = frame.len();
        frame.resize(at + count, 0);
        from.read_exact(&mut frame[at..])
    };
    let is_masked = frame[1] & 0x80 != 0;
    let length = match frame[1] & 0x7f {
        126 => {
            more(from, &mut frame, 2)?;
            u64::from(u16::from_be_bytes([frame[2], frame[3]]))
        }
        127 => {
            more(from, &mut frame, 8)?;
            u64::from_be_bytes(frame[2..10].try_into().expect("eight bytes"))
        }
        length => u64::from(length),
    };
    more(from, &mut frame, usize::try_from(length).expect("fits") + if is_masked { 4 } else { 0 })?;
    Ok(frame)
}
