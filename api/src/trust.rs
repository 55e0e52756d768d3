//! TLS as the one who calls: whom to believe, and what to show.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::WantsClientCert;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};

/// The largest file that is read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The files that TLS needs, read for each connection.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientTls {
    /// Who vouches for the other side; the system's authorities if absent.
    pub authorities: Option<PathBuf>,
    /// The certificate that proves who this side is, and its key.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// Who vouches for servers where nothing else is said: the system's certificates, read when they are first needed. Cloning shares
/// them.
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
            return Err("this system has no certificates of authorities; install them, or name one that is trusted (ca_file)"
                .to_owned());
        }
        Ok(Arc::clone(kept.insert(Arc::new(roots))))
    }
}

impl ClientTls {
    /// As rustls takes them, or what is wrong with which file. Blocks.
    pub fn read(&self) -> Result<ClientConfig, String> {
        self.read_with(&Authorities::default())
    }

    /// The same for one of many, that read the system's authorities once.
    pub(crate) fn read_with(&self, system: &Authorities) -> Result<ClientConfig, String> {
        let roots = match &self.authorities {
            None => system.get()?,
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(path)? {
                    roots.add(certificate).map_err(|error| format!("{}: {error}", path.display()))?;
                }
                Arc::new(roots)
            }
        };
        let builder = trusting(roots)?;
        let Some((certificate, key)) = &self.client else { return Ok(builder.with_no_client_auth()) };
        let secret = PrivateKeyDer::from_pem_slice(&read(key)?);
        let secret = secret.map_err(|error| format!("{} holds no private key in PEM: {error}", key.display()))?;
        let with_client = builder.with_client_auth_cert(certificates(certificate)?, secret);
        with_client.map_err(|error| format!("{} and {}: {error}", certificate.display(), key.display()))
    }
}

/// For connections that speak no TLS.
pub(crate) fn nobody() -> Result<ClientConfig, String> {
    Ok(trusting(Arc::new(RootCertStore::empty()))?.with_no_client_auth())
}

fn trusting(roots: Arc<RootCertStore>) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(builder.map_err(|error| error.to_string())?.with_root_certificates(roots))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(format!("{} holds no certificate in PEM", path.display())),
        Err(error) => Err(format!("{} is no PEM: {error}", path.display())),
    }
}

/// What a small file holds: at most 1 MiB.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    let failed = |error: io::Error| format!("cannot read {}: {error}", path.display());
    if std::fs::metadata(path).map_err(failed)?.len() > FILE_BYTES_MAX {
        return Err(format!("{} has more than {FILE_BYTES_MAX} bytes", path.display()));
    }
    std::fs::read(path).map_err(failed)
}

/// What a small file of text holds: at most 1 MiB.
pub fn read_text(path: &Path) -> Result<String, String> {
    String::from_utf8(read(path)?).map_err(|_| format!("{} holds no text", path.display()))
}
