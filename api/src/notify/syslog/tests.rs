//! The sink against programs that listen: what they get, and what counts as told.

use std::time::Instant;

use klaxon_schemas::notify::How;
use klaxon_schemas::severity::Severity;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::notify::What;
use crate::notify::samples::{alarm, notification, tools};

fn told(number: u64) -> Notification {
    let what = What::Alarm { how: How::Raised, change: None, alarm: Arc::new(alarm(Severity::Major)), suppressed: false };
    notification(number, what)
}

fn sink(address: SocketAddr, transport: Transport) -> SyslogSink {
    let config = SyslogConfig { timeout: Duration::from_secs(2), ..SyslogConfig::new(address.to_string(), transport) };
    assert_eq!(config.mistake(), None);
    SyslogSink::new(&config, &tools())
}

/// What must not take for ever.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), what).await.expect("it comes about")
}

/// The next message of a stream.
async fn next(stream: &mut BufReader<TcpStream>) -> String {
    let mut length = Vec::new();
    stream.read_until(b' ', &mut length).await.expect("it can be read");
    let length = String::from_utf8_lossy(&length).trim_end().parse().expect("the length comes first");
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await.expect("it is whole");
    String::from_utf8(message).expect("is UTF-8")
}

#[tokio::test]
async fn an_alarm_is_as_rfc_5674_has_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let config = SyslogConfig {
        facility: Facility::Local4,
        hostname: Some("gate".to_owned()),
        external_url: Some("https://k/".to_owned()),
        ..SyslogConfig::new(listener.local_addr().expect("is bound").to_string(), Transport::Tcp)
    };
    let sink = SyslogSink::new(&config, &tools());
    let receive = async { next(&mut BufReader::new(listener.accept().await.expect("it comes").0)).await };
    let message = sink.written(&[told(3)]).pop().expect("is one");
    let sending = async { sink.send(vec![told(3)]).await };
    let (received, _) = soon(async { tokio::join!(receive, sending) }).await;
    assert_eq!(received.as_bytes(), message);
    let (standard, own) = received.split_once("[klaxon@8072.9999.9999.7780 ").expect("has both");
    assert_eq!(
        standard,
        format!(
            "<162>1 2026-11-22T03:13:00Z gate klaxon {} alarm.raised [alarm resource=\"host=web-1.file-system=/var\" \
             probableCause=\"storageCapacityProblemX733\" perceivedSeverity=\"major\" \
             eventType=\"processingErrorAlarm\" \
             resourceURI=\"https://k/#filter=host%3Dweb%2D1%2Efile%2Dsystem%3D%2Fvar\"]",
            std::process::id()
        )
    );
    for part in
        ["receiver=\"noc\"", "epoch=\"5\"", "delivery_seq=\"3\"", "site=\"north\"", "qualifier=\"q\\\"1\"", "raise_seq=\"2\""]
    {
        assert!(own.contains(part), "{own}: {part}");
    }
    assert!(own.ends_with("] \u{feff}raised major disk.full north host=web-1.file-system=/var (q\"1): 97 % full"), "{own}");
}

#[tokio::test]
async fn what_a_connection_did_not_stand_behind_is_not_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let sink = sink(listener.local_addr().expect("is bound"), Transport::Tcp);
    // It takes it, and is gone a little later.
    let take = async {
        let mut stream = BufReader::new(listener.accept().await.expect("it comes").0);
        next(&mut stream).await;
        tokio::time::sleep(line::STAND / 4).await;
    };
    let (_, sent) = soon(async { tokio::join!(take, sink.send(vec![told(1)])) }).await;
    assert_eq!(sent, Err(SendError::Unreachable("it closed the connection".to_owned())));
    // The next one stays.
    let stay = async {
        let mut stream = BufReader::new(listener.accept().await.expect("it comes").0);
        (next(&mut stream).await, stream)
    };
    let ((message, stream), sent) = soon(async { tokio::join!(stay, sink.send(vec![told(1)])) }).await;
    assert!(message.contains("delivery_seq=\"1\"") && sent == Ok(Delivered::Confirmed), "{sent:?}");
    // It ends while nothing is said: that is seen before anything is written to it.
    drop(stream);
    let is_seen = async {
        while !sink.line.lock().await.as_ref().is_some_and(|line| line.is_over()) {
            tokio::task::yield_now().await;
        }
    };
    soon(is_seen).await;
    let stay = async {
        let mut stream = BufReader::new(listener.accept().await.expect("it comes").0);
        (next(&mut stream).await, stream)
    };
    let ((message, _stream), sent) = soon(async { tokio::join!(stay, sink.send(vec![told(2)])) }).await;
    assert!(message.contains("delivery_seq=\"2\"") && sent == Ok(Delivered::Confirmed), "{sent:?}");
}

#[tokio::test]
async fn what_only_this_system_holds_is_not_told() {
    let socket = tokio::net::TcpSocket::new_v4().expect("can be made");
    // The other system takes a little, and then no more.
    socket.set_recv_buffer_size(2048).expect("can be set");
    socket.bind("127.0.0.1:0".parse().expect("is an address")).expect("a port is free");
    let listener = socket.listen(1).expect("can listen");
    let sink = sink(listener.local_addr().expect("is bound"), Transport::Tcp);
    let batch: Vec<Notification> = (1..=40).map(told).collect();
    let (kept, sent) = soon(async { tokio::join!(listener.accept(), sink.send(batch)) }).await;
    assert_eq!(sent, Err(SendError::Unreachable("it took nothing for 2 s".to_owned())));
    assert!(kept.is_ok());
}

#[tokio::test]
async fn what_nobody_takes_is_not_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let sink = sink(listener.local_addr().expect("is bound"), Transport::Tcp);
    let (accepted, begun) = (listener.accept(), Instant::now());
    // More than both systems hold for a program that reads nothing.
    let batch: Vec<Notification> = (1..=20_000).map(told).collect();
    let (kept, sent) = soon(async { tokio::join!(accepted, sink.send(batch)) }).await;
    assert_eq!(sent, Err(SendError::Unreachable("it took nothing for 2 s".to_owned())));
    assert!(kept.is_ok() && begun.elapsed() >= Duration::from_secs(2));
    // What was given up half way leaves nothing to go on with.
    let receive = async { next(&mut BufReader::new(listener.accept().await.expect("it comes anew").0)).await };
    let (message, _) = soon(async { tokio::join!(receive, sink.send(vec![told(7)])) }).await;
    assert!(message.contains("delivery_seq=\"7\""), "{message}");
}

#[tokio::test]
async fn datagrams_follow_a_receiver_that_moves() {
    let socket = || async { UdpSocket::bind("127.0.0.1:0").await.expect("a port is free") };
    let (before, now) = (socket().await, socket().await);
    let sink = sink(now.local_addr().expect("is bound"), Transport::Udp);
    let old = socket().await;
    old.connect(before.local_addr().expect("is bound")).await.expect("can be connected");
    // It was found elsewhere, and not long ago.
    *sink.socket.lock().await = Some(Found { socket: Arc::new(old), at: Instant::now() });
    let mut datagram = [0; 2000];
    assert_eq!(sink.send(vec![told(1)]).await, Ok(Delivered::Confirmed));
    soon(before.recv(&mut datagram)).await.expect("it comes");
    // Now it is long ago.
    let long_ago = Instant::now().checked_sub(FOUND_FOR).expect("the machine runs for longer than that");
    sink.socket.lock().await.as_mut().expect("was found").at = long_ago;
    assert_eq!(sink.send(vec![told(2)]).await, Ok(Delivered::Confirmed));
    soon(now.recv(&mut datagram)).await.expect("it comes");
    let shown = sink.socket.lock().await.as_ref().expect("was found").socket.local_addr().expect("is bound");
    sink.socket.lock().await.as_mut().expect("was found").at = long_ago;
    assert_eq!(sink.send(vec![told(3)]).await, Ok(Delivered::Confirmed));
    let kept = sink.socket.lock().await.as_ref().expect("was found").socket.local_addr().expect("is bound");
    assert_eq!(shown, kept, "who has not moved is sent to from where it was");
}

#[tokio::test]
async fn a_datagram_to_nobody_is_not_told() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port is free");
    let address = socket.local_addr().expect("is bound");
    let sink = sink(address, Transport::Udp);
    assert_eq!(sink.send(vec![told(1), told(2)]).await, Ok(Delivered::Confirmed));
    let mut datagram = [0; 2000];
    for number in 1..=2 {
        let bytes = socket.recv(&mut datagram).await.expect("it comes");
        let message = String::from_utf8_lossy(&datagram[..bytes]).into_owned();
        assert!(message.starts_with("<26>1 ") && message.contains(&format!("delivery_seq=\"{number}\"")), "{message}");
    }
    drop(socket);
    let refused = sink.send(vec![told(3)]).await;
    assert!(matches!(&refused, Err(SendError::Unreachable(why)) if why.contains("refused")), "{refused:?}");
}
