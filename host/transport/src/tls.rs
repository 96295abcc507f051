//! Who a node is to other nodes: a certificate of the private CA, read anew when its files change.
//!
//! Both sides show a certificate and hold the other's against `ca.pem`; TLS 1.3 and HTTP/2, nothing else. Sessions of TLS
//! are not resumed: a resumed one would outlive the certificate that it began with.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use msao_core::digest::Digest;
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::explain;
use crate::pki::{CA_CERT, NODE_CERT, NODE_KEY};

/// The protocol by its name in TLS.
pub(crate) const ALPN: &[u8] = b"h2";

/// A certificate that ends within this is told of when it is loaded.
const SOON: Duration = Duration::from_secs(14 * 86_400);

/// Why a node's certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that cannot be read.
    #[error("{}: {source}: make the folder with `msao node init`", .file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file that holds something else.
    #[error("{}: {problem}", .file.display())]
    Content {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The system gives no cryptography, or no time.
    #[error("TLS cannot be set up: {0}")]
    SetUp(#[from] rustls::Error),
}

/// A node's certificate, its key and its CA. Clones are the same one.
#[derive(Clone)]
pub struct TlsIdentity {
    shared: Arc<Shared>,
}

struct Shared {
    folder: PathBuf,
    current: ArcSwap<Loaded>,
}

/// What new connections use.
pub(crate) struct Loaded {
    pub(crate) client: Arc<ClientConfig>,
    pub(crate) server: Arc<ServerConfig>,
    certificate: Digest,
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("TlsIdentity")
            .field("folder", &self.shared.folder)
            .field("certificate", &self.certificate())
            .finish()
    }
}

impl TlsIdentity {
    /// Reads `ca.pem`, `node.pem` and `node.key` of a folder.
    ///
    /// # Errors
    /// A file is missing or wrong, key and certificate do not belong together, or the certificate is not of that CA, is
    /// not valid yet or not any longer.
    pub fn load(folder: impl Into<PathBuf>) -> Result<TlsIdentity, TlsError> {
        let folder = folder.into();
        let loaded = load(&folder)?;
        let shared = Shared {
            folder,
            current: ArcSwap::from_pointee(loaded),
        };
        Ok(TlsIdentity {
            shared: Arc::new(shared),
        })
    }

    /// Looks at the files' times every `every`, in a task of the current runtime, as long as a clone of this is there.
    /// New files that are right are used for new connections; wrong ones are logged, and the old ones stay in use.
    pub fn watch(&self, every: Duration) {
        let shared = Arc::downgrade(&self.shared);
        let seen = stamps(&self.shared.folder);
        tokio::spawn(watch(shared, seen, every));
    }

    /// The SHA-256 of the certificate in use.
    pub fn certificate(&self) -> Digest {
        self.shared.current.load().certificate
    }

    pub(crate) fn loaded(&self) -> Arc<Loaded> {
        self.shared.current.load_full()
    }
}

async fn watch(shared: Weak<Shared>, mut seen: [Stamp; 3], every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        let Some(shared) = shared.upgrade() else {
            return;
        };
        // Files are read aside: a folder may lie on a slow disk.
        let looked = tokio::task::spawn_blocking(move || shared.look(seen)).await;
        let Ok(now) = looked else {
            return;
        };
        seen = now;
    }
}

impl Shared {
    /// Loads what has changed since `seen`; what was seen now.
    fn look(&self, seen: [Stamp; 3]) -> [Stamp; 3] {
        // Before the files are read: a change meanwhile is seen the next time.
        let now = stamps(&self.folder);
        if now == seen {
            return now;
        }
        match load(&self.folder) {
            Ok(loaded) => {
                let certificate = loaded.certificate;
                self.current.store(Arc::new(loaded));
                tracing::info!(folder = %self.folder.display(), certificate = %certificate.short(), "certificate read anew");
            }
            Err(error) => {
                tracing::warn!(%error, "the new certificate cannot be used; the old one stays in use");
            }
        }
        now
    }
}

/// What tells a file from what it was.
type Stamp = Option<(i64, i64, u64, u64)>;

fn stamps(folder: &Path) -> [Stamp; 3] {
    [CA_CERT, NODE_CERT, NODE_KEY].map(|name| {
        let file = fs::metadata(folder.join(name)).ok()?;
        Some((file.mtime(), file.mtime_nsec(), file.ino(), file.len()))
    })
}

fn content(file: &Path, problem: impl fmt::Display) -> TlsError {
    TlsError::Content {
        file: file.to_owned(),
        problem: problem.to_string(),
    }
}

fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(file).map_err(|source| TlsError::Read {
        file: file.to_owned(),
        source,
    })
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(file)?).collect();
    let found = read.map_err(|error| content(file, error))?;
    if found.is_empty() {
        return Err(content(file, "holds no certificate in PEM"));
    }
    Ok(found)
}

fn load(folder: &Path) -> Result<Loaded, TlsError> {
    let [ca_file, cert_file, key_file] =
        [CA_CERT, NODE_CERT, NODE_KEY].map(|name| folder.join(name));
    let mut roots = RootCertStore::empty();
    for root in certificates(&ca_file)? {
        let added = roots.add(root);
        added.map_err(|error| content(&ca_file, explain::tls_words(&error)))?;
    }
    let roots = Arc::new(roots);
    let chain = certificates(&cert_file)?;
    let key = PrivateKeyDer::from_pem_slice(&read(&key_file)?)
        .map_err(|error| content(&key_file, format!("holds no private key in PEM: {error}")))?;
    warn_of_readers(&key_file);

    let provider = Arc::new(ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
            .build()
            .map_err(|error| content(&ca_file, error))?;
    check_own(&chain, verifier.as_ref(), &cert_file)?;
    let mismatch = |error: rustls::Error| match error {
        rustls::Error::InconsistentKeys(_) => {
            content(&key_file, format!("is not the key of {NODE_CERT}"))
        }
        error => content(&key_file, error),
    };
    let certificate = chain.first().map_or(Digest([0; 32]), |own| Digest::of(own));
    let client = client(&provider, roots, chain.clone(), key.clone_key()).map_err(mismatch)?;
    let server = server(&provider, verifier, chain, key).map_err(mismatch)?;
    Ok(Loaded {
        client: Arc::new(client),
        server: Arc::new(server),
        certificate,
    })
}

/// Holds a node's own certificate against its own CA, as its peers will.
fn check_own(
    chain: &[CertificateDer<'static>],
    verifier: &dyn ClientCertVerifier,
    file: &Path,
) -> Result<(), TlsError> {
    let Some((own, between)) = chain.split_first() else {
        return Err(content(file, "holds no certificate in PEM"));
    };
    let now = UnixTime::now();
    if let Err(error) = verifier.verify_client_cert(own, between, now) {
        return Err(content(file, own_words(&error)));
    }
    let soon = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs()) + SOON);
    if verifier.verify_client_cert(own, between, soon).is_err() {
        tracing::warn!(
            file = %file.display(),
            "the certificate ends within two weeks: make a new one of the same CA; it is taken up without a restart"
        );
    }
    Ok(())
}

fn own_words(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(error) => {
            explain::certificate_words(error, "this node's certificate")
        }
        error => explain::tls_words(error),
    }
}

fn client(
    provider: &Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ClientConfig, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn server(
    provider: &Arc<CryptoProvider>,
    verifier: Arc<dyn ClientCertVerifier>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn warn_of_readers(key: &Path) {
    let mode = fs::metadata(key).map(|file| file.permissions().mode());
    if mode.is_ok_and(|mode| mode & 0o077 != 0) {
        tracing::warn!(file = %key.display(), "others can read this key: chmod 600");
    }
}
