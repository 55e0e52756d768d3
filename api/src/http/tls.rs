//! TLS towards other hosts: a certificate from files, exchanged while connections go on.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// How long the other side may take until the connection is made.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(10);
/// How often it is looked whether the files have changed.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// The largest file that is read.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// The most names of a certificate that are looked at.
const NAMES_MAX: usize = 16;

/// The files that say who the node is, and whom it believes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, with those that vouch for it, as PEM.
    pub certificate: PathBuf,
    /// Its key, as PEM.
    pub key: PathBuf,
    /// Whose certificates prove who somebody is; without one only tokens do.
    pub client_ca: Option<PathBuf>,
    /// Whether nobody is let in who shows no such certificate.
    pub client_required: bool,
}

/// Why files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// One cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What is in one is not what it should be.
    #[error("{} {reason}", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// They do not fit each other.
    #[error("certificate and key cannot be used together")]
    Mismatch(#[source] rustls::Error),
}

/// What the node shows of itself and whom it believes. Cloning shares it.
#[derive(Clone)]
pub struct Tls(Arc<Shared>);

struct Shared {
    files: TlsFiles,
    config: ArcSwap<ServerConfig>,
    /// The hash of what the files held when they were last looked at.
    seen: Mutex<[u8; 32]>,
}

/// What the files hold.
struct Content {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Tls {
    /// As the files say.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let content = Content::read(&files)?;
        let config = content.config(&files)?;
        let seen = Mutex::new(content.hash());
        Ok(Self(Arc::new(Shared { files, config: ArcSwap::from_pointee(config), seen })))
    }

    /// Reads the files anew; whether they say something else. Connections go on as they are. If they cannot be used, everything
    /// stays.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let content = Content::read(&self.0.files)?;
        let hash = content.hash();
        let mut seen = self.0.seen.lock().expect("nobody panics while holding it");
        if *seen == hash {
            return Ok(false);
        }
        // What cannot be used is told once.
        *seen = hash;
        self.0.config.store(Arc::new(content.config(&self.0.files)?));
        Ok(true)
    }

    /// Takes up what the files say, whenever they change.
    pub(super) async fn watch(self) {
        let mut is_told = false;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let tls = self.clone();
            match tokio::task::spawn_blocking(move || tls.reload()).await {
                Ok(Ok(changed)) => {
                    is_told = false;
                    if changed {
                        tracing::info!(certificate = %self.0.files.certificate.display(), "a new certificate is in use");
                    }
                }
                Ok(Err(error)) => {
                    let is_read = matches!(error, TlsError::Read { .. });
                    if !(is_read && is_told) {
                        tracing::error!(
                            error = &error as &dyn std::error::Error,
                            "the files of TLS cannot be used; the old certificate stays"
                        );
                    }
                    is_told = is_read;
                }
                Err(error) => tracing::error!(%error, "the files of TLS cannot be looked at"),
            }
        }
    }

    /// Makes a connection, and says which names the other side has proven, if any.
    pub(super) async fn shake_hands(&self, stream: TcpStream) -> io::Result<(TlsStream<TcpStream>, Vec<String>)> {
        let acceptor = TlsAcceptor::from(self.0.config.load_full());
        let stream = tokio::time::timeout(HANDSHAKE_WAIT, acceptor.accept(stream)).await??;
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let names = shown.map(|certificate| names_of(certificate)).unwrap_or_default();
        Ok((stream, names))
    }
}

/// The names in a certificate: its subject's common name, then its DNS names.
fn names_of(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let common = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    let alternatives = certificate.subject_alternative_name().ok().flatten();
    let alternatives = alternatives.iter().flat_map(|extension| &extension.value.general_names);
    let dns = alternatives.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(*name),
        _ => None,
    });
    common.chain(dns).take(NAMES_MAX).map(str::to_owned).collect()
}

impl Content {
    fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        Ok(Self {
            certificate: read(&files.certificate)?,
            key: read(&files.key)?,
            client_ca: files.client_ca.as_deref().map(read).transpose()?,
        })
    }

    fn hash(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for part in [&self.certificate, &self.key].into_iter().chain(&self.client_ca) {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }

    fn config(&self, files: &TlsFiles) -> Result<ServerConfig, TlsError> {
        let wrong = |path: &Path, reason: String| TlsError::Content { path: path.to_owned(), reason };
        let chain = certificates(&files.certificate, &self.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|error| wrong(&files.key, format!("holds no private key that can be used: {error}")))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().map_err(TlsError::Mismatch)?;
        let builder = match (&files.client_ca, &self.client_ca) {
            (Some(path), Some(content)) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(path, content)? {
                    roots
                        .add(certificate)
                        .map_err(|error| wrong(path, format!("holds a certificate that is no root: {error}")))?;
                }
                // Who need not show one may still have a token.
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let verifier = if files.client_required { verifier } else { verifier.allow_unauthenticated() };
                let verifier = verifier.build();
                builder.with_client_cert_verifier(verifier.map_err(|error| wrong(path, format!("cannot be used: {error}")))?)
            }
            _ => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(TlsError::Mismatch)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

fn certificates(path: &Path, content: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |reason: String| TlsError::Content { path: path.to_owned(), reason };
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(content).collect();
    let all = all.map_err(|error| wrong(format!("holds no certificates as PEM: {error}")))?;
    if all.is_empty() { Err(wrong("holds no certificate".to_owned())) } else { Ok(all) }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::Read { path: path.to_owned(), source };
    let bytes = std::fs::metadata(path).map_err(failed)?.len();
    if bytes > FILE_BYTES_MAX {
        let reason = format!("has {bytes} bytes, at most {FILE_BYTES_MAX} are read");
        return Err(TlsError::Content { path: path.to_owned(), reason });
    }
    std::fs::read(path).map_err(failed)
}
