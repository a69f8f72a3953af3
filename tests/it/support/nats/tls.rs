//! An authority of a test's own, and a server that is encrypted by it.

use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use tempfile::TempDir;

/// An authority, and the folder of what it signed for clients.
#[derive(Debug, Clone)]
pub struct Authority {
    issuer: Arc<CertifiedIssuer<'static, KeyPair>>,
    folder: Arc<TempDir>,
}

/// A certificate and its key, in files.
#[derive(Debug, Clone)]
pub struct Signed {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names are needed");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("keys can be made");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("it signs itself");
        let folder = tempfile::tempdir().expect("there is room for files");
        fs::write(folder.path().join("ca.pem"), issuer.pem()).expect("the folder is ours");
        Self {
            issuer: Arc::new(issuer),
            folder: Arc::new(folder),
        }
    }

    /// The authority's own certificate.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A certificate for a client.
    pub fn client(&self, name: &str) -> Signed {
        let name = SanType::DnsName(name.try_into().expect("a name in ASCII"));
        self.sign(name, self.folder.path(), "client")
    }

    fn sign(&self, name: SanType, folder: &Path, file: &str) -> Signed {
        let key = KeyPair::generate().expect("keys can be made");
        let mut params = CertificateParams::new(Vec::new()).expect("names come next");
        params.subject_alt_names = vec![name];
        let signed = params.signed_by(&key, &*self.issuer).expect("the authority signs");
        let files = Signed {
            certificate: folder.join(format!("{file}.pem")),
            key: folder.join(format!("{file}.key")),
        };
        fs::write(&files.certificate, signed.pem()).expect("the folder is ours");
        fs::write(&files.key, key.serialize_pem()).expect("the folder is ours");
        files
    }
}

/// How a server is encrypted.
#[derive(Debug, Clone)]
pub struct NatsTls {
    pub authority: Authority,
    /// Whether clients need a certificate of the authority.
    pub clients: bool,
    /// Whether the handshake comes before the server's first word.
    pub first: bool,
}

impl NatsTls {
    /// The part of the server's configuration, with a certificate for its address in `folder`.
    pub(super) fn block(&self, address: IpAddr, folder: &Path) -> String {
        let own = self.authority.sign(SanType::IpAddress(address), folder, "server");
        let mut text = String::from("tls {\n");
        for (key, file) in [
            ("cert_file", &own.certificate),
            ("key_file", &own.key),
            ("ca_file", &self.authority.file()),
        ] {
            writeln!(text, "  {key}: \"{}\"", file.display()).expect("a string takes everything");
        }
        let (clients, first) = (self.clients, self.first);
        writeln!(text, "  verify: {clients}\n  handshake_first: {first}\n}}").expect("a string takes everything");
        text
    }
}
