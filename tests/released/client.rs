//! A node below, as a recording plays it.

use std::net::TcpStream;

use klaxon_api::uplink::codec;
use serde_json::Value;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Message, WebSocket, client};

use crate::harness::{Node, PATIENCE};

/// A connection to a node.
pub(crate) struct Client(WebSocket<TcpStream>);

impl Client {
    pub(crate) fn open(node: &Node, token: &str) -> Self {
        let mut request = "ws://localhost/api/v1/uplink".into_client_request().expect("is a request");
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse().expect("is a header"));
        let stream = TcpStream::connect(node.base.trim_start_matches("http://")).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("can be set");
        Self(client(request, stream).expect("is let in").0)
    }

    pub(crate) fn say(&mut self, message: &Value) {
        // Who was refused may be gone.
        let _ = self.0.send(Message::Binary(codec::encode(message).expect("encodes")));
    }

    /// The next message of this kind; others between are passed over.
    pub(crate) fn expect(&mut self, kind: &str) -> Value {
        loop {
            match self.0.read() {
                Ok(Message::Binary(bytes)) => {
                    let message: Value = codec::decode(&bytes).expect("is a message");
                    if message["m"] == kind {
                        return message;
                    }
                    assert!(message["m"] != "refused", "{message} in place of {kind}");
                }
                Ok(_) => {}
                Err(error) => panic!("{error} in place of {kind}"),
            }
        }
    }
}
