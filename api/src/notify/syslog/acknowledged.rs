//! How much of what was written to a connection the other system has not acknowledged: the kernel knows, and tells by sock_diag(7).

use std::net::{IpAddr, SocketAddr};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with};

/// nlmsghdr.
const HEADER_BYTES: usize = 16;
/// SOCK_DIAG_BY_FAMILY.
const BY_FAMILY: u16 = 20;
/// NLM_F_REQUEST.
const REQUEST: u16 = 1;
/// Where idiag_wqueue stands in inet_diag_msg.
const WRITE_QUEUE_AT: usize = HEADER_BYTES + 60;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const TCP: u8 = 6;

/// Bytes of the connection that are not acknowledged; nothing, if the kernel does not say.
pub(super) fn waiting_bytes(own: SocketAddr, peer: SocketAddr) -> Option<u32> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(netlink::SOCK_DIAG)).ok()?;
    send(&socket, &question(own, peer), SendFlags::empty()).ok()?;
    let mut answer = [0; 1024];
    // It has answered when the question was sent.
    let (bytes, _) = recv(&socket, &mut answer, RecvFlags::empty()).ok()?;
    let answer = answer.get(..bytes)?;
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let waiting = u32::from_ne_bytes(answer.get(WRITE_QUEUE_AT..WRITE_QUEUE_AT + 4)?.try_into().ok()?);
    (kind == BY_FAMILY).then_some(waiting)
}

/// inet_diag_req_v2 behind its header.
fn question(own: SocketAddr, peer: SocketAddr) -> Vec<u8> {
    let family = if own.is_ipv4() { AF_INET } else { AF_INET6 };
    let mut body = vec![family, TCP, 0, 0];
    // In any state.
    body.extend(u32::MAX.to_ne_bytes());
    body.extend(own.port().to_be_bytes());
    body.extend(peer.port().to_be_bytes());
    body.extend(address(own.ip()));
    body.extend(address(peer.ip()));
    // At any interface, with any cookie.
    body.extend(0u32.to_ne_bytes());
    body.extend([0xff; 8]);
    let length = u32::try_from(HEADER_BYTES + body.len()).expect("is small");
    let mut question = length.to_ne_bytes().to_vec();
    question.extend(BY_FAMILY.to_ne_bytes());
    question.extend(REQUEST.to_ne_bytes());
    question.extend([0; 8]);
    question.extend(body);
    question
}

fn address(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V6(ip) => ip.octets(),
        IpAddr::V4(ip) => {
            let mut padded = [0; 16];
            padded[..4].copy_from_slice(&ip.octets());
            padded
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn what_nobody_takes_waits() {
        for bound in ["127.0.0.1:0", "[::1]:0"] {
            // A machine may have no IPv6.
            let Ok(listener) = TcpListener::bind(bound) else { continue };
            let mut stream = TcpStream::connect(listener.local_addr().expect("is bound")).expect("it listens");
            let (mut other, _) = listener.accept().expect("it comes");
            let (own, peer) = (stream.local_addr().expect("is bound"), stream.peer_addr().expect("is there"));
            stream.write_all(b"a").expect("it takes it");
            let mut taken = [0];
            other.read_exact(&mut taken).expect("it comes");
            let begun = std::time::Instant::now();
            while waiting_bytes(own, peer) != Some(0) {
                assert!(begun.elapsed().as_secs() < 10, "{:?}", waiting_bytes(own, peer));
            }
            stream.set_nonblocking(true).expect("can be set");
            while stream.write(&[0; 65_536]).is_ok() {}
            assert!(waiting_bytes(own, peer).is_some_and(|waiting| waiting > 0));
            assert_eq!(waiting_bytes(own, own), None, "there is no such connection");
        }
    }
}
