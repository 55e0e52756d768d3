//! What a request is made of: the address, secrets and certificates that the settings name. Files are read when they are used
//! and again when they have changed, so that a rotated token or certificate needs no reload, and one that is missing is like a
//! receiver that is away.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use bytes::Bytes;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use sha2::Sha256;

use super::super::files::Stamp;
use super::{Address, Secret, WebhookConfig, Word};
use crate::trust::{self, Authorities, ClientTls};

/// The header with the signature.
pub(super) const SIGNATURE: HeaderName = HeaderName::from_static("klaxon-signature");
/// How long a connection is kept that nothing is sent on. Shorter than what servers and what stands before them wait.
const IDLE_MAX: Duration = Duration::from_secs(20);
/// How often TCP asks whether the other side is still there.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Ready to send.
pub(super) struct Ready {
    pub(super) client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    uri: Uri,
    headers: HeaderMap,
    key: Option<Secret>,
    /// What must not be seen in any message.
    secrets: Vec<String>,
    stamps: Vec<Stamp>,
}

impl Ready {
    /// Reads what the settings name. The error says what is wrong, without secrets. Blocks.
    pub(super) fn prepare(config: &WebhookConfig, authorities: &Authorities) -> Result<Self, String> {
        // Before anything is read: what changes in between is then read again.
        let stamps = stamps(config);
        let address_word = config.address.read("the address")?;
        let address: Address = address_word.parse().map_err(|reason| format!("the address {reason}"))?;
        let headers = config.headers.iter().map(|(name, secret)| header(&secret.0).map(|value| (name.clone(), value)));
        let mut headers: HeaderMap = headers.collect::<Result<_, _>>()?;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(concat!("Klaxon/", env!("CARGO_PKG_VERSION"))));
        let mut secrets: Vec<String> = config.headers.iter().map(|(_, secret)| secret.0.clone()).collect();
        secrets.extend(address.secrets());
        if let Some(basic) = &address.basic {
            secrets.extend([basic.0.clone()]);
            secrets.extend(basic.0.split_once(':').map(|(_, password)| password.to_owned()));
            let encoded = base64::engine::general_purpose::STANDARD.encode(&basic.0);
            headers.insert(AUTHORIZATION, header(&format!("Basic {encoded}"))?);
            secrets.push(encoded);
        }
        if let Some(bearer) = &config.bearer {
            let token = bearer.read("the bearer token")?;
            headers.insert(AUTHORIZATION, header(&format!("Bearer {token}"))?);
            secrets.push(token);
        }
        let key = config.secret.as_ref().map(|secret| secret.read("the secret")).transpose()?.map(Secret);
        secrets.extend(key.iter().map(|key| key.0.clone()));
        // One may be part of another, of which the rest would be seen.
        secrets.sort_unstable_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets.dedup();
        let is_tls = address.uri.scheme_str() == Some("https");
        let tls = if is_tls { tls(config).read_with(authorities)? } else { trust::nobody()? };
        Ok(Self { client: client(config, tls), uri: address.uri, headers, key, secrets, stamps })
    }

    /// Whether the files are as they were when they were read. Blocks.
    pub(super) fn is_current(&self, config: &WebhookConfig) -> bool {
        self.stamps == stamps(config)
    }

    /// Whether it depends on files at all.
    pub(super) fn has_files(&self) -> bool {
        !self.stamps.is_empty()
    }

    /// A request with `body`, signed as of `now`.
    pub(super) fn request(&self, body: Bytes, now: SystemTime) -> Request<Full<Bytes>> {
        let signature = self.key.as_ref().map(|key| {
            let at = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            HeaderValue::from_str(&signature(key, at, &body)).expect("digits and letters are a header's value")
        });
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        if let Some(signature) = signature {
            request.headers_mut().insert(SIGNATURE, signature);
        }
        request
    }

    /// The text without anything that must not be seen.
    pub(super) fn scrub(&self, text: &str) -> String {
        self.secrets
            .iter()
            .filter(|secret| secret.len() > 1)
            .fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), "***"))
    }
}

/// `t=SECONDS,v1=HEX`: HMAC-SHA256 over the seconds, a dot and the body. The time is signed, so that a request that somebody
/// has caught can be told from a new one.
fn signature(key: &Secret, at: u64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.0.as_bytes()).expect("a key may be of any length");
    mac.update(at.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    let digits: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("t={at},v1={digits}")
}

/// Whether a header may be set by hand.
pub(super) fn is_free(name: &HeaderName) -> bool {
    let taken = [AUTHORIZATION, CONTENT_TYPE, HOST, SIGNATURE];
    !taken.contains(name)
        && !["connection", "content-length", "transfer-encoding", "te", "upgrade", "trailer", "expect", "keep-alive"]
            .contains(&name.as_str())
}

/// A value that is not shown, should anything show headers.
pub(super) fn header(text: &str) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::from_str(text).map_err(|_| "a header or token has characters that no header may have")?;
    value.set_sensitive(true);
    Ok(value)
}

fn tls(config: &WebhookConfig) -> ClientTls {
    ClientTls { authorities: config.ca_file.clone(), client: config.certificate_file.clone().zip(config.key_file.clone()) }
}

fn files(config: &WebhookConfig) -> impl Iterator<Item = &PathBuf> {
    let words = [Some(&config.address), config.secret.as_ref(), config.bearer.as_ref()];
    let words = words.into_iter().flatten().filter_map(|word| match word {
        Word::File(path) => Some(path),
        Word::Said(_) => None,
    });
    words.chain([&config.ca_file, &config.certificate_file, &config.key_file].into_iter().flatten())
}

fn stamps(config: &WebhookConfig) -> Vec<Stamp> {
    files(config).map(Stamp::of).collect()
}

fn client(config: &WebhookConfig, tls: ClientConfig) -> Client<HttpsConnector<HttpConnector>, Full<Bytes>> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(KEEPALIVE));
    tcp.set_connect_timeout(Some(config.timeout));
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(tcp);
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_MAX)
        .pool_max_idle_per_host(config.window)
        .build(connector)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_hmac_sha256_over_time_and_body() {
        // printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac hush
        let made = signature(&Secret("hush".to_owned()), 1_700_000_000, br#"{"a":1}"#);
        assert_eq!(made, "t=1700000000,v1=7cfd1df542c33ab7251748ffdc6e7fed278c63b83d4ece95a4534b0ad465571b");
    }
}
