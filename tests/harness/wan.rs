//! A bad network: a proxy on loopback that carries bytes between a site and its centre, and does to them what networks do.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What the network does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weather {
    /// It carries all.
    Fair,
    /// Who connects is turned away, and what is connected ends.
    Cut,
    /// Nothing comes through, and nobody is told.
    Silent,
}

/// The proxy. Dropped, it ends all connections and takes no more.
pub(crate) struct Wan(Arc<Shared>);

struct Shared {
    address: SocketAddr,
    target: Mutex<SocketAddr>,
    weather: Mutex<Weather>,
    /// How many bytes may still pass before the connections are cut in the middle; negative if no end is set.
    left: AtomicI64,
    delay_ms: AtomicU64,
    /// Bytes a second, each way; 0 is without bound.
    rate: AtomicU64,
    up: AtomicU64,
    down: AtomicU64,
    connections: AtomicUsize,
    /// How often a piece was cut in two.
    torn: AtomicUsize,
    open: Mutex<Vec<TcpStream>>,
    ends: std::sync::atomic::AtomicBool,
}

#[allow(dead_code, reason = "each test uses its part")]
impl Wan {
    /// A proxy to `target`.
    pub(crate) fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let shared = Arc::new(Shared {
            address: listener.local_addr().expect("is bound"),
            target: Mutex::new(target),
            weather: Mutex::new(Weather::Fair),
            left: AtomicI64::new(-1),
            delay_ms: AtomicU64::new(0),
            rate: AtomicU64::new(0),
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            connections: AtomicUsize::new(0),
            torn: AtomicUsize::new(0),
            open: Mutex::default(),
            ends: std::sync::atomic::AtomicBool::new(false),
        });
        let of_thread = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if of_thread.ends.load(Ordering::Relaxed) {
                    break;
                }
                if let Ok(stream) = stream {
                    of_thread.carry(stream);
                }
            }
        });
        Self(shared)
    }

    /// Where the site is to connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// Another centre is behind it from now on; what is connected stays.
    pub(crate) fn lead_to(&self, target: SocketAddr) {
        *self.0.target.lock().expect("nobody panics") = target;
    }

    /// The weather from now on.
    pub(crate) fn set(&self, weather: Weather) {
        *self.0.weather.lock().expect("nobody panics") = weather;
        if weather == Weather::Cut {
            self.0.end_all();
        }
    }

    /// All connections end after so many more bytes, whatever message that is the middle of.
    pub(crate) fn cut_after(&self, bytes: u64) {
        self.0.left.store(bytes as i64, Ordering::Relaxed);
    }

    /// No such end is set any more.
    pub(crate) fn no_cut(&self) {
        self.0.left.store(-1, Ordering::Relaxed);
    }

    /// How often a piece was cut in two: its first part came through, the rest did not.
    pub(crate) fn torn(&self) -> usize {
        self.0.torn.load(Ordering::Relaxed)
    }

    /// Each piece is held up so long.
    pub(crate) fn delay(&self, delay: Duration) {
        self.0.delay_ms.store(delay.as_millis() as u64, Ordering::Relaxed);
    }

    /// So many bytes a second pass each way; 0 is without bound.
    pub(crate) fn throttle(&self, bytes_per_second: u64) {
        self.0.rate.store(bytes_per_second, Ordering::Relaxed);
    }

    /// How many bytes have passed: up, and down.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        (self.0.up.load(Ordering::Relaxed), self.0.down.load(Ordering::Relaxed))
    }

    /// How often somebody connected.
    pub(crate) fn connections(&self) -> usize {
        self.0.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Wan {
    fn drop(&mut self) {
        self.0.ends.store(true, Ordering::Relaxed);
        self.set(Weather::Cut);
        // So that the thread that accepts looks.
        let _ = TcpStream::connect(self.0.address);
    }
}

impl Shared {
    fn weather(&self) -> Weather {
        *self.weather.lock().expect("nobody panics")
    }

    fn end_all(&self) {
        for stream in self.open.lock().expect("nobody panics").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn carry(self: &Arc<Self>, below: TcpStream) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        if self.weather() == Weather::Cut {
            return;
        }
        let target = *self.target.lock().expect("nobody panics");
        let Ok(above) = TcpStream::connect(target) else { return };
        let _ = (below.set_nodelay(true), above.set_nodelay(true));
        let clone = |stream: &TcpStream| stream.try_clone().expect("a descriptor is left");
        self.open.lock().expect("nobody panics").extend([clone(&below), clone(&above)]);
        for (from, to, count) in [(clone(&below), clone(&above), Way::Up), (above, below, Way::Down)] {
            let shared = Arc::clone(self);
            std::thread::spawn(move || shared.pump(from, to, count));
        }
    }

    fn pump(&self, mut from: TcpStream, mut to: TcpStream, way: Way) {
        let mut piece = [0; 4096];
        while let Ok(bytes) = from.read(&mut piece)
            && bytes > 0
        {
            let delay = self.delay_ms.load(Ordering::Relaxed);
            let rate = self.rate.load(Ordering::Relaxed);
            // What a thin line takes for so many bytes, and what a long one takes for any.
            let takes = (bytes as u64 * 1000).checked_div(rate).unwrap_or(0);
            std::thread::sleep(Duration::from_millis(delay + takes));
            // As TCP does it: what did not come through is sent again when it can.
            while self.weather() == Weather::Silent {
                std::thread::sleep(Duration::from_millis(5));
            }
            if self.weather() == Weather::Cut {
                break;
            }
            let mut pass = bytes;
            if self.left.load(Ordering::Relaxed) >= 0 {
                let before = self.left.fetch_sub(bytes as i64, Ordering::Relaxed);
                if before < bytes as i64 {
                    pass = usize::try_from(before).unwrap_or(0);
                }
            }
            if to.write_all(&piece[..pass]).is_err() {
                break;
            }
            let count = if way == Way::Up { &self.up } else { &self.down };
            count.fetch_add(pass as u64, Ordering::Relaxed);
            if pass < bytes {
                self.torn.fetch_add(usize::from(pass > 0), Ordering::Relaxed);
                self.left.store(-1, Ordering::Relaxed);
                self.end_all();
                break;
            }
        }
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}
