//! Follows all links of this network namespace by a thread of its own, which sleeps until the kernel tells something.
//!
//! ```text
//! begin ─▶ dump asked ──all named──▶ sure ──messages lost, or an audit──▶ dump asked anew
//!              ├──interrupted──▶ dump asked anew, 100 ms later
//!              └──no end in 5 s, or the socket fails──▶ dead; whoever holds it opens a new one
//! ```

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_recv_buffer_size_force};
use tokio::sync::Notify;

use super::table::Table;
use super::wire::{self, Message, Said};
use crate::collect::run::boottime;

/// The group to which the kernel tells changes of links.
const RTNLGRP_LINK: u32 = 1;
/// The most links that are followed.
const LINKS_MAX: usize = 65_536;
/// How long a dump may take.
const DUMP_TIME_MAX: Duration = Duration::from_secs(5);
/// The shortest time from the end of a dump to one that repeats it, so that a storm is not answered with a storm.
const DUMP_PAUSE: Duration = Duration::from_millis(100);
/// Room for a datagram at first, and at most.
const DATAGRAM_BYTES: usize = 64 * 1024;
const DATAGRAM_BYTES_MAX: usize = 16 * 1024 * 1024;
/// After so many datagrams without a pause those who wait are told.
const DATAGRAMS_MAX: usize = 64;

/// How the following goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counts {
    /// How many dumps have ended.
    pub(super) dumps: u64,
    /// How often messages were lost because they came faster than they were read.
    pub(super) overruns: u64,
}

/// What the thread shares with whoever looks.
pub(super) struct Known {
    pub(super) table: Table,
    pub(super) counts: Counts,
    /// Whether nothing is known to be missing.
    pub(super) is_sure: bool,
    dead: Option<Arc<io::Error>>,
}

#[cfg(test)]
impl Known {
    pub(super) fn test(table: Table) -> Self {
        Self { table, counts: Counts::default(), is_sure: true, dead: None }
    }
}

struct Shared {
    known: Mutex<Known>,
    has_dumped: Condvar,
    wakes: Arc<Notify>,
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The links of this namespace, as they are now. Dropping it ends its thread.
pub(super) struct Follower {
    shared: Arc<Shared>,
    /// A byte asks for an audit; that it is gone ends the thread.
    orders: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Follower {
    /// Begins to follow; each change notifies `wakes`.
    pub(super) fn begin(wakes: Arc<Notify>, receive_bytes: usize, downs_kept: usize) -> io::Result<Self> {
        let socket = open(receive_bytes)?;
        let (orders, ordered) = UnixStream::pair()?;
        orders.set_nonblocking(true)?;
        ordered.set_nonblocking(true)?;
        let known = Known { table: Table::new(downs_kept, LINKS_MAX), counts: Counts::default(), is_sure: false, dead: None };
        let shared = Arc::new(Shared { known: Mutex::new(known), has_dumped: Condvar::new(), wakes });
        let ending = Ending(Arc::clone(&shared));
        let worker = Worker {
            port: socket.port,
            socket: socket.socket,
            ordered,
            shared: Arc::clone(&shared),
            buffer: Vec::with_capacity(DATAGRAM_BYTES),
            sequence: 0,
            dump_until: None,
            dump_from: Some(Instant::now()),
        };
        let thread = std::thread::Builder::new().name("link".to_owned()).spawn(move || {
            let result = worker.run();
            ending.end(result);
        })?;
        Ok(Self { shared, orders: Some(orders), thread: Some(thread) })
    }

    /// What is known, or why nobody follows any more. Waits for the first dump.
    pub(super) fn known(&self) -> io::Result<MutexGuard<'_, Known>> {
        let is_empty = |known: &mut Known| known.counts.dumps == 0 && known.dead.is_none();
        let known = self.shared.known();
        let (known, waited) =
            self.shared.has_dumped.wait_timeout_while(known, DUMP_TIME_MAX, is_empty).unwrap_or_else(PoisonError::into_inner);
        match &known.dead {
            Some(error) => Err(io::Error::new(error.kind(), Arc::clone(error))),
            None if waited.timed_out() => Err(io::Error::new(io::ErrorKind::TimedOut, "not all links were named in time")),
            None => Ok(known),
        }
    }

    /// Asks for a dump that holds what was told against what is.
    pub(super) fn audit(&self) {
        if let Some(mut orders) = self.orders.as_ref() {
            // If there is no room, enough of them wait.
            let _ = orders.write(&[0]);
        }
    }
}

#[cfg(test)]
impl Follower {
    /// Ends the thread as a socket that fails does.
    pub(super) fn kill(&mut self) {
        self.orders = None;
        self.thread.take().expect("is there").join().expect("ends");
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Tells that the thread has ended, however it did.
struct Ending(Arc<Shared>);

impl Ending {
    fn end(self, result: io::Result<()>) {
        let error = result.err().unwrap_or_else(|| io::Error::other("it was ended"));
        self.0.known().dead = Some(Arc::new(error));
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.known().dead.get_or_insert_with(|| Arc::new(io::Error::other("it broke")));
        self.0.has_dumped.notify_all();
        self.0.wakes.notify_one();
    }
}

struct Opened {
    socket: Socket,
    port: u32,
}

fn open(receive_bytes: usize) -> io::Result<Opened> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    // Beyond the system's limit only the privileged may go; the rest get what the limit allows.
    if set_socket_recv_buffer_size_force(&socket, receive_bytes).is_err() {
        set_socket_recv_buffer_size(&socket, receive_bytes)?;
    }
    let address = socket.bind_auto()?;
    socket.add_membership(RTNLGRP_LINK)?;
    socket.set_non_blocking(true)?;
    Ok(Opened { port: address.port_number(), socket })
}

/// What the thread does.
struct Worker {
    socket: Socket,
    port: u32,
    ordered: UnixStream,
    shared: Arc<Shared>,
    buffer: Vec<u8>,
    sequence: u32,
    /// By when the dump under way must end.
    dump_until: Option<Instant>,
    /// From when on a dump is to be made.
    dump_from: Option<Instant>,
}

impl Worker {
    fn run(mut self) -> io::Result<()> {
        loop {
            let now = Instant::now();
            if self.dump_until.is_some_and(|until| until <= now) {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "a dump of all links did not end"));
            }
            if self.dump_until.is_none() && self.dump_from.is_some_and(|from| from <= now) {
                self.begin_dump(now)?;
            }
            let (is_ordered, is_told) = self.wait(now)?;
            if is_ordered && !self.take_order()? {
                return Ok(());
            }
            if is_told && self.drain()? {
                self.shared.wakes.notify_one();
            }
        }
    }

    /// Sleeps until there is something to do; says whether that is an order, and whether the kernel told something.
    fn wait(&self, now: Instant) -> io::Result<(bool, bool)> {
        let until = self.dump_until.or(self.dump_from);
        let timeout = until.map(|until| {
            let left = until.saturating_duration_since(now);
            Timespec { tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() }
        });
        let mut ready = [PollFd::new(&self.ordered, PollFlags::IN), PollFd::new(&self.socket, PollFlags::IN)];
        match poll(&mut ready, timeout.as_ref()) {
            Ok(_) => Ok((!ready[0].revents().is_empty(), !ready[1].revents().is_empty())),
            Err(Errno::INTR) => Ok((false, false)),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether there is more to do.
    fn take_order(&mut self) -> io::Result<bool> {
        let mut orders = [0; 64];
        match self.ordered.read(&mut orders) {
            Ok(0) => Ok(false),
            Ok(_) => {
                self.dump_from.get_or_insert_with(Instant::now);
                Ok(true)
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(true),
            Err(error) => Err(error),
        }
    }

    fn begin_dump(&mut self, now: Instant) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        self.shared.known().table.begin_dump();
        self.socket.send_to(&wire::dump_request(self.sequence), &SocketAddr::new(0, 0), 0)?;
        self.dump_from = None;
        self.dump_until = Some(now + DUMP_TIME_MAX);
        Ok(())
    }

    /// Takes in what the kernel told; whether anything is new.
    fn drain(&mut self) -> io::Result<bool> {
        let mut is_new = false;
        for _ in 0..DATAGRAMS_MAX {
            self.buffer.clear();
            let (length, sender) = match self.socket.recv_from(&mut self.buffer, RecvFlags::TRUNC.bits().cast_signed()) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error()) => {
                    self.lost();
                    continue;
                }
                Err(error) => return Err(error),
            };
            if sender.port_number() != 0 {
                continue;
            }
            if length > self.buffer.len() {
                self.buffer = Vec::with_capacity(length.next_power_of_two().min(DATAGRAM_BYTES_MAX));
                self.lost();
                continue;
            }
            for message in wire::read(&self.buffer)? {
                is_new |= self.take(message)?;
            }
        }
        Ok(is_new)
    }

    fn take(&mut self, message: Message) -> io::Result<bool> {
        let now = boottime();
        let is_answer = self.dump_until.is_some() && message.answers == (self.sequence, self.port);
        let shared = Arc::clone(&self.shared);
        let mut known = shared.known();
        if is_answer && message.is_interrupted {
            known.table.dump_was_interrupted();
        }
        Ok(match message.said {
            Said::Link(link) if is_answer => known.table.dumped(now, link),
            Said::Link(link) => known.table.told(now, link),
            Said::Gone(index) => known.table.gone(index),
            Said::End(Err(error)) if is_answer => return Err(io::Error::from_raw_os_error(error)),
            Said::End(Ok(())) if is_answer => {
                self.dump_until = None;
                let (is_whole, is_new) = known.table.end_dump();
                if !is_whole {
                    self.dump_from.get_or_insert_with(|| Instant::now() + DUMP_PAUSE);
                }
                known.counts.dumps += 1;
                let is_sure = is_whole && self.dump_from.is_none();
                let was_sure = std::mem::replace(&mut known.is_sure, is_sure);
                shared.has_dumped.notify_all();
                is_new || was_sure != is_sure
            }
            Said::Lost => {
                drop(known);
                self.lost();
                true
            }
            Said::End(_) | Said::Other => false,
        })
    }

    /// Messages were lost: only a dump that begins now or later tells how things are.
    fn lost(&mut self) {
        let mut known = self.shared.known();
        known.counts.overruns += 1;
        known.is_sure = false;
        self.dump_from
            .get_or_insert_with(|| Instant::now() + if self.dump_until.is_some() { DUMP_PAUSE } else { Duration::ZERO });
    }
}
