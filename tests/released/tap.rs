//! What listens in on uplinks: it stands between a node and the one above it, passes everything on, and keeps what was said.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use klaxon_api::uplink::codec;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::{Error, Message, WebSocket, accept_hdr, client};

/// What was said, in order, over all uplinks.
pub(crate) type Said = Arc<Mutex<Vec<Value>>>;

/// One uplink that is listened to. The thread ends with the process.
pub(crate) struct Tap {
    pub(crate) address: SocketAddr,
}

impl Tap {
    /// Between nodes and the one at `above`; what is said is kept under `name`.
    pub(crate) fn to(above: &str, name: &str, said: &Said) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("has one");
        let above: SocketAddr = above.trim_start_matches("http://").parse().expect("is an address");
        let (name, said) = (name.to_owned(), Arc::clone(said));
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let (line, said) = (format!("{name}/{}", number + 1), Arc::clone(&said));
                let stream = stream.expect("a connection");
                std::thread::spawn(move || pass(stream, above, &line, &said));
            }
        });
        Self { address }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

fn pass(below: TcpStream, above: SocketAddr, line: &str, said: &Said) {
    let mut proof = None;
    #[expect(clippy::result_large_err, reason = "it is the library's")]
    let look = |request: &Request, response: Response| {
        proof = request.headers().get("authorization").cloned();
        Ok(response)
    };
    let Ok(mut below) = accept_hdr(below, look) else { return };
    let mut request = format!("ws://{above}/api/v1/uplink").into_client_request().expect("is a request");
    request.headers_mut().extend(proof.map(|proof| (tokio_tungstenite::tungstenite::http::header::AUTHORIZATION, proof)));
    let Ok((mut above, _)) = client(request, TcpStream::connect(above).expect("it listens")) else { return };
    for socket in [&below, &above] {
        socket.get_ref().set_read_timeout(Some(Duration::from_millis(5))).expect("can be set");
    }
    while carry(&mut below, &mut above, line, "below", said) && carry(&mut above, &mut below, line, "above", said) {}
    // The farewell goes through too.
    let _ = (below.close(None), above.close(None), below.flush(), above.flush());
}

fn carry(from: &mut WebSocket<TcpStream>, to: &mut WebSocket<TcpStream>, line: &str, who: &str, said: &Said) -> bool {
    match from.read() {
        // Each end answers pings itself.
        Ok(Message::Ping(_) | Message::Pong(_)) => true,
        Ok(message) => {
            if let Message::Binary(bytes) = &message {
                let message: Value = codec::decode(bytes).expect("is a message");
                said.lock().expect("nobody panics").push(json!({ "line": line, "from": who, "message": message }));
            }
            to.send(message).is_ok()
        }
        Err(Error::Io(error)) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => true,
        Err(_) => false,
    }
}
