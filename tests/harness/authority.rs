//! Certificates for tests of TLS.

use super::scratch;

/// Certificates that trust each other, in files of a folder.
pub(crate) struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pub(crate) certificate: rcgen::Certificate,
    pub(crate) dir: tempfile::TempDir,
}

impl Authority {
    /// One whose root is in `ca.pem`.
    pub(crate) fn new() -> Self {
        Self::called("authority")
    }

    /// One of this name.
    pub(crate) fn called(name: &str) -> Self {
        let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).expect("valid");
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().expect("can be made");
        let certificate = params.self_signed(&key).expect("can be made");
        let authority = Self { issuer: rcgen::Issuer::new(params, key), certificate, dir: scratch("tls-") };
        authority.write("ca.pem", &authority.certificate.pem());
        authority
    }

    /// Puts a file into the folder.
    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.dir.path().join(name), text).expect("can be written");
    }

    /// A certificate with these names.
    pub(crate) fn issue(&self, common: &str, dns: &[&str]) -> (rcgen::Certificate, rcgen::KeyPair) {
        let mut params = rcgen::CertificateParams::new(dns.iter().map(ToString::to_string).collect::<Vec<_>>()).expect("valid");
        params.distinguished_name.push(rcgen::DnType::CommonName, common);
        let key = rcgen::KeyPair::generate().expect("can be made");
        (params.signed_by(&key, &self.issuer).expect("can be made"), key)
    }

    /// A certificate for the node, in `cert.pem` and `key.pem`; the DER of it.
    pub(crate) fn serve(&self) -> Vec<u8> {
        let (certificate, key) = self.issue("centre", &["localhost", "127.0.0.1"]);
        self.write("key.pem", &key.serialize_pem());
        self.write("cert.pem", &certificate.pem());
        certificate.der().to_vec()
    }

    /// A file of the folder, as settings name it.
    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }
}
