//! Files that settings of receivers name: read when they are needed, and told when they have changed. And what TLS is made of.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rustls::client::WantsClientCert;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};

/// The largest file that is read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Who vouches for servers: the system's certificates, read when the first receiver needs them. Cloning shares them.
#[derive(Debug, Clone, Default)]
pub struct Authorities(Arc<Mutex<Option<Arc<RootCertStore>>>>);

impl Authorities {
    fn get(&self) -> Result<Arc<RootCertStore>, String> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(roots) = &*kept {
            return Ok(Arc::clone(roots));
        }
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if added == 0 {
            return Err("this system has no certificates of authorities; install them, or set ca_file".to_owned());
        }
        Ok(Arc::clone(kept.insert(Arc::new(roots))))
    }
}

/// How a file was when it was read: another time or length means another content.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stamp(PathBuf, Option<(SystemTime, u64)>);

impl Stamp {
    /// How it is now. Blocks.
    pub(super) fn of(path: &PathBuf) -> Self {
        let metadata = std::fs::metadata(path).ok();
        Self(path.clone(), metadata.and_then(|metadata| Some((metadata.modified().ok()?, metadata.len()))))
    }
}

/// What a file holds.
pub(super) fn read(path: &Path) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    if std::fs::metadata(path).map_err(failed)?.len() > FILE_BYTES_MAX {
        return Err(format!("{} has more than {FILE_BYTES_MAX} bytes", path.display()));
    }
    std::fs::read_to_string(path).map_err(failed)
}

/// The certificates of a connection, in PEM.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct TlsFiles {
    /// The authorities that vouch for the server, instead of the system's.
    pub(super) ca: Option<PathBuf>,
    /// The certificate that we show, with its chain, and its key.
    pub(super) own: Option<(PathBuf, PathBuf)>,
}

impl TlsFiles {
    /// Reads them. The error says what is wrong, without secrets. Blocks.
    pub(super) fn client(&self, authorities: &Authorities) -> Result<ClientConfig, String> {
        let roots = match &self.ca {
            None => authorities.get()?,
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(path, &read(path)?)? {
                    roots.add(certificate).map_err(|error| format!("{}: {error}", path.display()))?;
                }
                Arc::new(roots)
            }
        };
        let builder = trusting(roots)?;
        let Some((certificate, key)) = &self.own else { return Ok(builder.with_no_client_auth()) };
        let chain = certificates(certificate, &read(certificate)?)?;
        let secret = PrivateKeyDer::from_pem_slice(read(key)?.as_bytes());
        let secret = secret.map_err(|error| format!("{} holds no private key in PEM: {error}", key.display()))?;
        let with_client = builder.with_client_auth_cert(chain, secret);
        with_client.map_err(|error| format!("{} and {}: {error}", certificate.display(), key.display()))
    }
}

/// What a client takes that speaks no TLS.
pub(super) fn no_tls() -> Result<ClientConfig, String> {
    Ok(trusting(Arc::new(RootCertStore::empty()))?.with_no_client_auth())
}

fn trusting(roots: Arc<RootCertStore>) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(builder.map_err(|error| error.to_string())?.with_root_certificates(roots))
}

fn certificates(path: &Path, text: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(format!("{} holds no certificate in PEM", path.display())),
        Err(error) => Err(format!("{} is no PEM: {error}", path.display())),
    }
}
