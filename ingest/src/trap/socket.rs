//! The socket that traps come in by: its buffer, what the kernel dropped for want of room in it, and the thread that empties it.
//!
//! The thread does nothing but move datagrams to a queue of our own: what a burst finds no room for in the kernel is lost, and
//! nobody but the kernel's count knows. The queue is bounded by datagrams and by bytes; when it is full, the kernel's buffer
//! fills, and only then is something lost.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use nix::libc;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt, sockopt};
use rustix::event::{EventfdFlags, PollFd, PollFlags};
use socket2::{Domain, Protocol, Socket, Type};

use super::TrapCounts;

/// The largest datagram there can be.
const DATAGRAM_BYTES_MAX: usize = 65_535;
/// How long a receiver that stops goes on emptying the socket.
const DRAIN: Duration = Duration::from_secs(1);
/// How long it waits after the kernel refused to hand out a datagram, so that a broken socket does not burn a core.
const ERROR_WAIT: Duration = Duration::from_millis(100);

/// Something that came, and where it came to.
#[derive(Debug, Clone)]
pub(super) struct Datagram {
    pub(super) from: SocketAddr,
    /// Which of our addresses it was sent to: an answer must come from there.
    pub(super) to: Option<LocalAddress>,
    pub(super) bytes: Bytes,
    /// When it was taken from the kernel.
    pub(super) at: Instant,
}

/// One of this host's addresses.
#[derive(Debug, Clone, Copy)]
pub(super) enum LocalAddress {
    V4(libc::in_pktinfo),
    V6(libc::in6_pktinfo),
}

/// The socket.
#[derive(Debug)]
pub(super) struct TrapSocket {
    socket: UdpSocket,
    wake: OwnedFd,
    inode: u64,
}

impl TrapSocket {
    /// Binds to `listen` with a receive buffer of `buffer_bytes`, or as large as may be. All addresses of IPv6 are those of IPv4 as
    /// well; where the kernel has no IPv6, they are those of IPv4.
    pub(super) fn bind(listen: SocketAddr, buffer_bytes: usize) -> io::Result<Self> {
        match (Self::bind_to(listen, buffer_bytes), without_ipv6(listen)) {
            (Err(error), Some(instead)) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
                Self::bind_to(instead, buffer_bytes).inspect(|_| {
                    tracing::info!(%listen, %instead, "there is no IPv6 here, so traps are listened for by IPv4 only");
                })
            }
            (bound, _) => bound,
        }
    }

    fn bind_to(listen: SocketAddr, buffer_bytes: usize) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(listen), Type::DGRAM, Some(Protocol::UDP))?;
        // With CAP_NET_ADMIN there is no limit; without it net.core.rmem_max is one, and the kernel says nothing.
        let bytes = buffer_bytes.min(i32::MAX as usize / 2);
        if setsockopt(&socket, sockopt::RcvBufForce, &bytes).is_err() {
            socket.set_recv_buffer_size(bytes)?;
        }
        socket.set_nonblocking(true)?;
        match listen {
            SocketAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?,
            SocketAddr::V6(_) => {
                // Whatever net.ipv6.bindv6only says.
                socket.set_only_v6(false)?;
                setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
            }
        }
        socket.bind(&listen.into())?;
        let inode = rustix::fs::fstat(&socket)?.st_ino;
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { socket: socket.into(), wake, inode })
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// The size of the receive buffer as it was asked for; the kernel keeps twice that, for its own needs.
    pub(super) fn buffer_bytes(&self) -> io::Result<usize> {
        Ok(socket2::SockRef::from(&self.socket).recv_buffer_size()? / 2)
    }

    /// How many datagrams the kernel has dropped because the buffer was full.
    pub(super) fn dropped(&self) -> io::Result<u64> {
        let table = if self.local_addr()?.is_ipv4() { "/proc/net/udp" } else { "/proc/net/udp6" };
        let text = std::fs::read_to_string(table)?;
        dropped_in(&text, self.inode).ok_or_else(|| io::Error::other(format!("the socket is not in {table}")))
    }

    /// Sends `bytes` back to where something came from, from the address it was sent to.
    pub(super) fn answer(&self, reply: &Reply, bytes: &[u8]) -> io::Result<()> {
        let to = SockaddrStorage::from(reply.to);
        let message = match &reply.from {
            Some(LocalAddress::V4(address)) => Some(ControlMessage::Ipv4PacketInfo(address)),
            Some(LocalAddress::V6(address)) => Some(ControlMessage::Ipv6PacketInfo(address)),
            None => None,
        };
        let iov = [io::IoSlice::new(bytes)];
        sendmsg(self.socket.as_raw_fd(), &iov, message.as_slice(), MsgFlags::MSG_DONTWAIT, Some(&to))?;
        Ok(())
    }

    /// Ends [`TrapSocket::receive`], once it has emptied the socket.
    pub(super) fn wake(&self) {
        // It fails only if it was told so often that it knows.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    /// Moves what comes to `queue` until woken, then what is there. Closes the queue behind it.
    pub(super) fn receive(&self, queue: &Queue, counts: &TrapCounts) {
        // Whatever ends this thread, the one that reads does not wait for it, and the receiver ends.
        let _closed = CloseOnDrop(queue);
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        let mut control = nix::cmsg_space!(libc::in_pktinfo, libc::in6_pktinfo);
        let mut until: Option<Instant> = None;
        while until.is_none_or(|until| Instant::now() < until) && !queue.is_closed() {
            match self.take(&mut buffer, &mut control) {
                Ok(datagram) => {
                    if queue.put(datagram) {
                        counts.datagrams.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if until.is_some() {
                        break;
                    }
                    if self.wait() {
                        until = Some(Instant::now() + DRAIN);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::error!(%error, "a datagram cannot be received");
                    std::thread::sleep(ERROR_WAIT);
                }
            }
        }
    }

    fn take(&self, buffer: &mut [u8], control: &mut [u8]) -> io::Result<Datagram> {
        let mut iov = [IoSliceMut::new(buffer)];
        let flags = MsgFlags::MSG_DONTWAIT;
        let received = recvmsg::<SockaddrStorage>(self.socket.as_raw_fd(), &mut iov, Some(control), flags)?;
        let from = received.address.as_ref().and_then(socket_address);
        let from = from.ok_or_else(|| io::Error::other("a datagram without a sender"))?;
        // Without it the kernel chooses the address of an answer, as it does for most programs.
        let to = received.cmsgs().ok().and_then(|mut messages| {
            messages.find_map(|message| match message {
                ControlMessageOwned::Ipv4PacketInfo(address) => Some(LocalAddress::V4(address)),
                ControlMessageOwned::Ipv6PacketInfo(address) => Some(LocalAddress::V6(address)),
                _ => None,
            })
        });
        let length = received.bytes;
        Ok(Datagram { from, to, bytes: Bytes::copy_from_slice(&buffer[..length]), at: Instant::now() })
    }

    /// Waits until something is there. Whether it is time to end.
    fn wait(&self) -> bool {
        let mut watched = [PollFd::new(&self.socket, PollFlags::IN), PollFd::new(&self.wake, PollFlags::IN)];
        match rustix::event::poll(&mut watched, None) {
            Ok(_) => watched[1].revents().contains(PollFlags::IN),
            Err(_interrupted) => false,
        }
    }
}

/// What all addresses are in IPv4, if `listen` is all of IPv6.
fn without_ipv6(listen: SocketAddr) -> Option<SocketAddr> {
    let is_all = listen.is_ipv6() && listen.ip().is_unspecified();
    is_all.then(|| SocketAddr::from((Ipv4Addr::UNSPECIFIED, listen.port())))
}

/// Where an answer goes, and from where.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    pub(super) to: SocketAddr,
    pub(super) from: Option<LocalAddress>,
}

impl From<&Datagram> for Reply {
    fn from(datagram: &Datagram) -> Self {
        // The kernel chooses the interface; it knows the way back best.
        let from = datagram.to.map(|address| match address {
            LocalAddress::V4(address) => LocalAddress::V4(libc::in_pktinfo { ipi_ifindex: 0, ..address }),
            LocalAddress::V6(address) => LocalAddress::V6(address),
        });
        Self { to: datagram.from, from }
    }
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
        (Some(v4), _) => Some(SocketAddr::from((IpAddr::from(v4.ip()), v4.port()))),
        (_, Some(v6)) => Some(SocketAddr::V6((*v6).into())),
        _ => None,
    }
}

/// The last column of the line with this inode.
fn dropped_in(table: &str, inode: u64) -> Option<u64> {
    table.lines().skip(1).find_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        (columns.get(9)?.parse() == Ok(inode)).then(|| columns.get(12)?.parse().ok())?
    })
}

/// The queue between the thread that empties the socket and the one that reads what came.
#[derive(Debug)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    filled: Condvar,
    emptied: Condvar,
    datagrams_max: usize,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Inner {
    datagrams: VecDeque<Datagram>,
    bytes: usize,
    is_closed: bool,
}

impl Queue {
    pub(super) fn new(datagrams_max: usize, bytes_max: usize) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::default(),
            filled: Condvar::new(),
            emptied: Condvar::new(),
            datagrams_max: datagrams_max.max(1),
            bytes_max,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nobody panics with it")
    }

    /// Waits for room; whether it is taken. Once the queue is closed nobody takes anything any more.
    pub(super) fn put(&self, datagram: Datagram) -> bool {
        let is_full = |inner: &mut Inner| {
            inner.datagrams.len() >= self.datagrams_max || (inner.bytes >= self.bytes_max && inner.bytes > 0)
        };
        let mut inner = self.emptied.wait_while(self.lock(), |inner| is_full(inner) && !inner.is_closed);
        let inner = inner.as_mut().expect("nobody panics with it");
        if inner.is_closed {
            return false;
        }
        inner.bytes += datagram.bytes.len();
        inner.datagrams.push_back(datagram);
        if inner.datagrams.len() == 1 {
            self.filled.notify_one();
        }
        true
    }

    /// What is there, at most `most`; waits for one. Nothing once the queue is closed and empty.
    pub(super) fn take(&self, most: usize) -> Vec<Datagram> {
        let waiting = self.filled.wait_while(self.lock(), |inner| inner.datagrams.is_empty() && !inner.is_closed);
        let mut inner = waiting.expect("nobody panics with it");
        let count = inner.datagrams.len().min(most);
        let taken: Vec<_> = inner.datagrams.drain(..count).collect();
        inner.bytes -= taken.iter().map(|datagram| datagram.bytes.len()).sum::<usize>();
        self.emptied.notify_one();
        taken
    }

    /// How many wait.
    #[cfg(test)]
    fn waiting(&self) -> usize {
        self.lock().datagrams.len()
    }

    fn is_closed(&self) -> bool {
        self.lock().is_closed
    }

    /// Nothing comes any more.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.filled.notify_all();
        self.emptied.notify_all();
    }
}

/// Closes a queue when its thread ends, also if it panics.
pub(super) struct CloseOnDrop<'a>(pub(super) &'a Queue);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_in_the_line_of_the_socket() {
        let table = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
            \x20 83: 0100007F:048A 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0000000000000000 0\n\
            \x20 84: 0100007F:048B 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4712 2 0000000000000000 93\n";
        assert_eq!(dropped_in(table, 4712), Some(93));
        assert_eq!(dropped_in(table, 4711), Some(0));
        assert_eq!(dropped_in(table, 1), None);
    }

    #[test]
    fn the_kernel_counts_what_a_small_buffer_loses() {
        let socket = TrapSocket::bind("127.0.0.1:0".parse().expect("an address"), 4096).expect("a port is free");
        let sender = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
        let to = socket.local_addr().expect("is bound");
        for _ in 0..200 {
            sender.send_to(&[0; 1000], to).expect("can be sent");
        }
        let lost = socket.dropped().expect("can be read");
        assert!((1..200).contains(&lost), "{lost}");
        // What is left comes in, is counted, and with that the sum is whole.
        let (queue, counts) = (Queue::new(1000, 1 << 20), TrapCounts::default());
        socket.wake();
        socket.receive(&queue, &counts);
        assert_eq!(queue.waiting() as u64 + lost, 200);
        let taken = queue.take(1000);
        assert_eq!(taken.len() as u64, counts.datagrams.load(Ordering::Relaxed));
        assert!(taken.iter().all(|datagram| datagram.from == sender.local_addr().expect("is bound") && datagram.to.is_some()));
        assert!(queue.take(1000).is_empty(), "is closed");
    }

    #[test]
    fn an_answer_comes_from_the_address_that_was_written_to() {
        for (listen, ours) in [("0.0.0.0:0", "127.0.0.77"), ("[::]:0", "127.0.0.78"), ("[::]:0", "::1")] {
            let Ok(socket) = TrapSocket::bind(listen.parse().expect("an address"), 65_536) else { continue };
            let ours: IpAddr = ours.parse().expect("an address");
            let to = SocketAddr::from((ours, socket.local_addr().expect("is bound").port()));
            let sender = UdpSocket::bind(if ours.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" }).expect("a port is free");
            // Connected, it hears nobody else.
            sender.connect(to).expect("can be sent to");
            sender.set_read_timeout(Some(Duration::from_secs(5))).expect("can be set");
            sender.send(b"inform").expect("can be sent");
            let queue = Queue::new(10, 1 << 20);
            socket.wake();
            socket.receive(&queue, &TrapCounts::default());
            let datagram = queue.take(1).pop().expect("it came");
            socket.answer(&Reply::from(&datagram), b"response").expect("can be sent");
            let mut answer = [0; 20];
            assert_eq!(sender.recv(&mut answer).ok(), Some(8), "{listen} {ours}");
        }
    }

    #[test]
    fn only_all_addresses_have_a_substitute_without_ipv6() {
        let instead = |listen: &str| without_ipv6(listen.parse().expect("an address")).map(|instead| instead.to_string());
        assert_eq!(instead("[::]:162").as_deref(), Some("0.0.0.0:162"));
        assert_eq!((instead("[::1]:162"), instead("0.0.0.0:162")), (None, None));
    }

    #[test]
    fn a_thread_that_breaks_closes_the_queue() {
        let queue = Queue::new(1, 1);
        let broken = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let _closed = CloseOnDrop(&queue);
                std::panic::resume_unwind(Box::new("it broke"));
            });
            assert!(queue.take(1).is_empty(), "whoever waits hears of it");
            thread.join()
        });
        assert!(broken.is_err());
    }

    #[test]
    fn a_full_queue_waits_and_loses_nothing() {
        let queue = Queue::new(3, 1 << 20);
        let datagram = |byte| Datagram {
            from: "127.0.0.1:1".parse().expect("an address"),
            to: None,
            bytes: Bytes::copy_from_slice(&[byte]),
            at: Instant::now(),
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                assert!((0..100).all(|byte| queue.put(datagram(byte))));
                queue.close();
            });
            let mut taken = Vec::new();
            loop {
                let some = queue.take(2);
                if some.is_empty() {
                    break;
                }
                assert!(queue.waiting() <= 3);
                taken.extend(some.iter().map(|datagram| datagram.bytes[0]));
            }
            assert_eq!(taken, (0..100).collect::<Vec<_>>());
        });
    }
}
