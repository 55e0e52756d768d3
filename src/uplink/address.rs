//! The address of the node above.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest an address may be.
const ADDRESS_BYTES_MAX: usize = 512;

/// Where a node is: `https://HOST[:PORT]`, or `http://HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    /// Whether TLS is spoken.
    pub is_secure: bool,
    /// The name or address of the host, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// The port of `https://` if none is named.
const PORT_SECURE: u16 = 443;
/// The port of `http://` if none is named: that of every node.
const PORT: u16 = 7780;

impl Address {
    /// Host and port as they stand in a request.
    pub fn authority(&self) -> String {
        if self.host.contains(':') { format!("[{}]:{}", self.host, self.port) } else { format!("{}:{}", self.host, self.port) }
    }

    /// Whether it is on this host.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    /// Why it may not be spoken to, if so.
    pub fn refusal(&self, insecure: bool) -> Option<String> {
        (!self.is_secure && !insecure && !self.is_loopback()).then(|| {
            "is not https://, so anybody on the way could read and change what is said; take https://, or allow it with \
             uplink.insecure = true"
                .to_owned()
        })
    }
}

impl std::str::FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no address such as https://noc.example or https://noc.example:7443");
        let (is_secure, rest) = match text.split_once("://") {
            Some(("https" | "wss", rest)) => (true, rest),
            Some(("http" | "ws", rest)) => (false, rest),
            _ => return Err(wrong()),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if text.len() > ADDRESS_BYTES_MAX || rest.is_empty() || rest.contains(['/', '?', '#', '@', ' ', '\\']) {
            return Err(wrong());
        }
        let default = if is_secure { PORT_SECURE } else { PORT };
        let (host, port) = match rest.strip_prefix('[').map(|rest| rest.split_once(']').ok_or_else(wrong)) {
            Some(Ok((host, ""))) => (host, None),
            Some(Ok((host, port))) => (host, Some(port.strip_prefix(':').ok_or_else(wrong)?)),
            Some(Err(error)) => return Err(error),
            None => rest.rsplit_once(':').map_or((rest, None), |(host, port)| (host, Some(port))),
        };
        let port = port.map_or(Ok(default), str::parse).map_err(|_| wrong())?;
        let is_host = if rest.starts_with('[') {
            host.parse::<std::net::Ipv6Addr>().is_ok()
        } else {
            !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
        };
        if is_host && port != 0 { Ok(Self { is_secure, host: host.to_ascii_lowercase(), port }) } else { Err(wrong()) }
    }
}

/// As it is written, with its port.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.is_secure { "https" } else { "http" }, self.authority())
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_what_is_none_is_refused() {
        let read = |text: &str| text.parse::<Address>().map(|address| address.to_string());
        assert_eq!(read("https://noc.example"), Ok("https://noc.example:443".to_owned()));
        assert_eq!(read("https://NOC.example:7443/"), Ok("https://noc.example:7443".to_owned()));
        assert_eq!(read("http://[::1]:80"), Ok("http://[::1]:80".to_owned()));
        for wrong in [
            "noc",
            "ftp://noc",
            "https://",
            "https://noc/path",
            "https://u@noc",
            "https://noc:0",
            "https://[::1",
            "https://a b",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
