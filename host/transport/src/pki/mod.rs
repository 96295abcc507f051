//! Certificates of a private CA for nodes, and tokens for operators and clients.
//!
//! ```
//! use msao_transport::{TlsIdentity, pki};
//!
//! let folder = tempfile::tempdir()?;
//! let (first, second) = (folder.path().join("cloud"), folder.path().join("edge"));
//! pki::init(&first, &["cloud.example", "10.0.0.7"], pki::Existing::Keep)?;
//! // The CA's key stays in the first folder; the second is what goes to the other machine.
//! pki::issue(&first, &second, &["edge.example"], pki::Existing::Keep)?;
//! TlsIdentity::load(&second)?;
//!
//! let token = pki::Token::draw()?;
//! assert_eq!(token.sha256().to_string().len(), 64);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod files;
mod token;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use msao_core::digest::Digest;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use self::files::{Secrecy, write_all};
pub use self::token::Token;

/// The CA's certificate: every node has it.
pub const CA_CERT: &str = "ca.pem";
/// The CA's key: whoever has it can make nodes. No node reads it.
pub const CA_KEY: &str = "ca.key";
/// A node's certificate.
pub const NODE_CERT: &str = "node.pem";
/// A node's key.
pub const NODE_KEY: &str = "node.key";

/// How long a CA is valid.
pub const CA_VALID: Duration = Duration::from_secs(3650 * DAY_S);
/// How long a node's certificate is valid.
pub const NODE_VALID: Duration = Duration::from_secs(825 * DAY_S);

const DAY_S: u64 = 86_400;
/// Certificates are valid from a little before they are made: clocks of two machines differ.
const BEFORE: Duration = Duration::from_secs(3600);

/// What becomes of files that are there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// They stay: where one would be written over, nothing is written at all.
    Keep,
    /// They are replaced, each at once: a node that runs with them takes the new ones up.
    Replace,
}

/// Why certificates or tokens were not made.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file that is there already.
    #[error("{} is there already: choose another folder, or say that it is to be replaced", .0.display())]
    Exists(PathBuf),
    /// A file or folder that cannot be read or written.
    #[error("{}: {source}", .file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A node without a name.
    #[error(
        "a node's certificate needs at least one host name or address by which other nodes reach it"
    )]
    NoName,
    /// A name that no certificate can hold, or a key that is none.
    #[error("{what}: {source}")]
    Certificate {
        /// What was to be made or read.
        what: String,
        /// What is wrong.
        source: rcgen::Error,
    },
    /// The system gives no random bytes.
    #[error("the system gives no random bytes: {0}")]
    Random(getrandom::Error),
}

/// Makes a CA and a node's certificate of it in `folder`: `ca.pem`, `ca.key`, `node.pem`, `node.key`. `names` are the host
/// names and IP addresses by which other nodes reach the node, as they stand in their `peers.address`.
///
/// # Errors
/// [`PkiError`]; then nothing was written, or, where the system failed in the middle, only some of the files.
pub fn init(folder: &Path, names: &[impl AsRef<str>], existing: Existing) -> Result<(), PkiError> {
    let key = generate("the CA's key")?;
    let params = ca_params(&key, SystemTime::now());
    let ca = params
        .self_signed(&key)
        .map_err(|source| failed("the CA", source))?;
    let (ca_pem, ca_key) = (ca.pem(), key.serialize_pem());
    let node = node(
        &Issuer::new(params, key),
        names,
        SystemTime::now(),
        NODE_VALID,
    )?;
    let files = [
        (CA_CERT, ca_pem, Secrecy::Open),
        (CA_KEY, ca_key, Secrecy::Secret),
        (NODE_CERT, node.certificate, Secrecy::Open),
        (NODE_KEY, node.key, Secrecy::Secret),
    ];
    write_all(folder, &files, existing)
}

/// Makes a further node's certificate of the CA in `ca_folder`, which [`init`] has made: `ca.pem`, `node.pem` and
/// `node.key` in `folder`, which may be the same one.
///
/// # Errors
/// As [`init`].
pub fn issue(
    ca_folder: &Path,
    folder: &Path,
    names: &[impl AsRef<str>],
    existing: Existing,
) -> Result<(), PkiError> {
    issue_valid(
        ca_folder,
        folder,
        names,
        existing,
        SystemTime::now(),
        NODE_VALID,
    )
}

/// [`issue`], valid from an hour before `from` until `lasting` after it.
///
/// # Errors
/// As [`init`].
pub fn issue_valid(
    ca_folder: &Path,
    folder: &Path,
    names: &[impl AsRef<str>],
    existing: Existing,
    from: SystemTime,
    lasting: Duration,
) -> Result<(), PkiError> {
    let read = |name: &str| {
        let file = ca_folder.join(name);
        fs::read_to_string(&file).map_err(|source| PkiError::File { file, source })
    };
    let ca_pem = read(CA_CERT)?;
    let key = KeyPair::from_pem(&read(CA_KEY)?)
        .map_err(|source| failed(ca_folder.join(CA_KEY).display(), source))?;
    let issuer = Issuer::new(ca_params(&key, from), key);
    let node = node(&issuer, names, from, lasting)?;
    // Where the CA lies its certificate stays as it is.
    let same = fs::read_to_string(folder.join(CA_CERT)).is_ok_and(|there| there == ca_pem);
    let ca = (!same).then_some((CA_CERT, ca_pem, Secrecy::Open));
    let files: Vec<_> = ca
        .into_iter()
        .chain([
            (NODE_KEY, node.key, Secrecy::Secret),
            (NODE_CERT, node.certificate, Secrecy::Open),
        ])
        .collect();
    write_all(folder, &files, existing)
}

struct Made {
    certificate: String,
    key: String,
}

fn node(
    issuer: &Issuer<KeyPair>,
    names: &[impl AsRef<str>],
    from: SystemTime,
    lasting: Duration,
) -> Result<Made, PkiError> {
    let names: Vec<String> = names.iter().map(|name| name.as_ref().to_owned()).collect();
    let Some(first) = names.first().cloned() else {
        return Err(PkiError::NoName);
    };
    let what = format!("a certificate for {}", names.join(", "));
    let key = generate("a node's key")?;
    let mut params = CertificateParams::new(names).map_err(|source| failed(&what, source))?;
    params.distinguished_name.push(DnType::CommonName, first);
    params.not_before = (from - BEFORE).into();
    params.not_after = (from + lasting).into();
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // Each node is both: it connects, and it is connected to.
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let certificate = params
        .signed_by(&key, issuer)
        .map_err(|source| failed(&what, source))?;
    Ok(Made {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    })
}

/// What a CA says of itself. Its name follows from its key, so that further certificates can be made without parsing its
/// own one.
fn ca_params(key: &KeyPair, from: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    let name = format!("MSAO nodes {}", Digest::of(key.public_key_raw()).short());
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = (from - BEFORE).into();
    params.not_after = (from + CA_VALID).into();
    params
}

fn generate(what: &str) -> Result<KeyPair, PkiError> {
    KeyPair::generate().map_err(|source| failed(what, source))
}

fn failed(what: impl ToString, source: rcgen::Error) -> PkiError {
    PkiError::Certificate {
        what: what.to_string(),
        source,
    }
}
