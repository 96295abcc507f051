//! Who may ship plug-ins: ed25519 signatures over component, manifest and a serial.
//!
//! A signature speaks for one component with one manifest. Its serial orders a key's releases of one plug-in: an older one is
//! refused once a newer one was active, so that nobody can bring back a release with a known fault by replaying its
//! signature. Going back is the operator's own verb.
//!
//! What is signed, byte by byte: `msao plug-in signature, format 1` and a zero byte; the SHA-256 of the component; the
//! SHA-256 of the manifest's bytes; the serial as eight bytes, little-endian.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use msao_core::digest::Digest;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::files::{FileError, at, read};
use crate::store::Release;

const DOMAIN: &[u8] = b"msao plug-in signature, format 1\0";
const FORMAT: u32 = 1;
/// Bytes of a key file or a signature file at most.
const MAX_BYTES: u64 = 16 << 10;

/// The order of a plug-in's releases, from 1 on.
pub type Serial = u64;

/// A public key. Written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey([u8; 32]);

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

impl FromStr for PublicKey {
    type Err = String;

    fn from_str(text: &str) -> Result<PublicKey, String> {
        let bytes = from_hex(text).ok_or_else(|| {
            let shown: String = text.chars().take(80).collect();
            format!("\"{shown}\" is no public key: 64 hexadecimal digits are expected")
        })?;
        VerifyingKey::from_bytes(&bytes)
            .map(|_| PublicKey(bytes))
            .map_err(|_| format!("\"{text}\" is no point of ed25519's curve"))
    }
}

impl TryFrom<String> for PublicKey {
    type Error = String;

    fn try_from(text: String) -> Result<PublicKey, String> {
        text.parse()
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> String {
        key.to_string()
    }
}

fn signed_bytes(release: &Release, serial: Serial) -> Vec<u8> {
    let mut bytes = DOMAIN.to_vec();
    bytes.extend(release.artifact.0);
    bytes.extend(release.manifest.0);
    bytes.extend(serial.to_le_bytes());
    bytes
}

/// `NAME.msao.sig`: a signature, as TOML beside the component.
///
/// ```toml
/// format = 1
/// artifact = "<SHA-256 of NAME.wasm>"
/// manifest = "<SHA-256 of policy.toml>"
/// serial = 7
/// key = "<public key>"
/// signature = "<128 hexadecimal digits>"
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SignatureFile {
    /// 1.
    pub format: u32,
    /// The component that is signed.
    pub artifact: Digest,
    /// The manifest that is signed with it.
    pub manifest: Digest,
    /// Its place in the order of releases.
    pub serial: Serial,
    /// By whom.
    pub key: PublicKey,
    /// The signature.
    pub signature: String,
}

/// Why a signature does not do.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SignatureError {
    /// The file is not one.
    #[error("the signature file cannot be read: {0}")]
    Syntax(String),
    /// There is none, and the operator wants one.
    #[error(
        "the plug-in is not signed; sign it with `msao policy sign`, or set policy.allow-unsigned where that is meant"
    )]
    Unsigned,
    /// It was made for something else.
    #[error("the signature is for {what} {signed}, not for {given}")]
    OtherRelease {
        /// `the component` or `the manifest`.
        what: &'static str,
        /// What was signed.
        signed: String,
        /// What is here.
        given: String,
    },
    /// The key is not on the list.
    #[error("the signature is by the key {0}, which policy.keys does not list")]
    UnknownKey(PublicKey),
    /// The key is not to be trusted any more.
    #[error("the signature is by the key {0} (\"{1}\"), which policy.revoked withdraws")]
    Revoked(PublicKey, String),
    /// The mathematics do not hold.
    #[error(
        "the signature is wrong: it was not made by the key {0} for these bytes and this serial"
    )]
    Wrong(PublicKey),
    /// A newer release was active.
    #[error(
        "{plugin} has serial {serial}, but serial {highest} was active before; a release is only taken back by a \
         rollback that names it"
    )]
    Older {
        /// The plug-in.
        plugin: String,
        /// What is offered.
        serial: Serial,
        /// The newest that was active.
        highest: Serial,
    },
    /// The serial belongs to another release.
    #[error(
        "{plugin} has serial {serial}, which another release of it has used; sign it with a higher one"
    )]
    SerialUsed {
        /// The plug-in.
        plugin: String,
        /// The serial.
        serial: Serial,
    },
}

impl SignatureFile {
    /// Reads a signature file.
    ///
    /// # Errors
    /// [`SignatureError::Syntax`].
    pub fn parse(text: &str) -> Result<SignatureFile, SignatureError> {
        if text.len() as u64 > MAX_BYTES {
            return Err(SignatureError::Syntax(format!(
                "it is larger than {MAX_BYTES} bytes"
            )));
        }
        let file: SignatureFile =
            toml::from_str(text).map_err(|error| SignatureError::Syntax(error.to_string()))?;
        if file.format != FORMAT {
            return Err(SignatureError::Syntax(format!(
                "it has format {}; this program reads {FORMAT}",
                file.format
            )));
        }
        if file.serial == 0 {
            return Err(SignatureError::Syntax(
                "serial is 0; allowed: 1 or more".into(),
            ));
        }
        Ok(file)
    }

    /// As it is written.
    pub fn to_text(&self) -> String {
        // Plain strings and numbers can always be written as TOML.
        toml::to_string(self).unwrap_or_default()
    }
}

/// The keys that an operator trusts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// Keys by the names that the operator gave them.
    pub keys: BTreeMap<String, PublicKey>,
    /// Keys that are not trusted whatever else is said.
    pub revoked: Vec<PublicKey>,
    /// Whether plug-ins without a signature are taken.
    pub allow_unsigned: bool,
}

impl Trust {
    /// Checks that `signature` lets `release` in. Returns its serial; None: it is unsigned, and may be.
    ///
    /// # Errors
    /// [`SignatureError`].
    pub fn check(
        &self,
        release: &Release,
        signature: Option<&SignatureFile>,
    ) -> Result<Option<Serial>, SignatureError> {
        let Some(file) = signature else {
            return if self.allow_unsigned {
                Ok(None)
            } else {
                Err(SignatureError::Unsigned)
            };
        };
        for (what, signed, given) in [
            ("the component", file.artifact, release.artifact),
            ("the manifest", file.manifest, release.manifest),
        ] {
            if signed != given {
                return Err(SignatureError::OtherRelease {
                    what,
                    signed: signed.short(),
                    given: given.short(),
                });
            }
        }
        let named = self.keys.iter().find(|(_, key)| **key == file.key);
        if self.revoked.contains(&file.key) {
            let name = named.map_or("unknown", |(name, _)| name).to_owned();
            return Err(SignatureError::Revoked(file.key, name));
        }
        if named.is_none() {
            return Err(SignatureError::UnknownKey(file.key));
        }
        let wrong = SignatureError::Wrong(file.key);
        let Some(signature) = from_hex::<64>(&file.signature) else {
            return Err(wrong);
        };
        let Ok(key) = VerifyingKey::from_bytes(&file.key.0) else {
            return Err(wrong);
        };
        // Strict: one signature has one form, and weak keys are refused.
        key.verify_strict(
            &signed_bytes(release, file.serial),
            &Signature::from_bytes(&signature),
        )
        .map(|()| Some(file.serial))
        .map_err(|_| wrong)
    }
}

/// Why a key file cannot be used.
#[derive(Debug, Error)]
pub enum KeyError {
    /// It cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Others may read it.
    #[error(
        "the key file {} can be read by others (mode {mode:03o}); run `chmod 600` on it, and think of the key as known",
        .path.display()
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It is no key.
    #[error("{} is no ed25519 private key in PKCS#8 PEM: {problem}", .path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// No randomness.
    #[error("the system gives no random bytes: {0}")]
    Random(String),
}

/// A private key that signs plug-ins. Its file is PKCS#8 PEM, as openssl writes it, and readable by its owner alone.
pub struct SigningKeyFile {
    key: SigningKey,
}

impl fmt::Debug for SigningKeyFile {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "SigningKeyFile({})", self.public())
    }
}

impl SigningKeyFile {
    /// A new key.
    ///
    /// # Errors
    /// [`KeyError::Random`].
    pub fn generate() -> Result<SigningKeyFile, KeyError> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| KeyError::Random(error.to_string()))?;
        let key = SigningKey::from_bytes(&seed);
        Ok(SigningKeyFile { key })
    }

    #[cfg(test)]
    pub(crate) fn from_seed(seed: [u8; 32]) -> SigningKeyFile {
        let key = SigningKey::from_bytes(&seed);
        SigningKeyFile { key }
    }

    /// Writes the key to a new file with mode 0600.
    ///
    /// # Errors
    /// [`KeyError`]; a file that exists is not overwritten.
    pub fn write_new(&self, path: &Path) -> Result<(), KeyError> {
        let text = (self.key.to_pkcs8_pem(LineEnding::LF)).map_err(|error| KeyError::NoKey {
            path: path.to_owned(),
            problem: error.to_string(),
        })?;
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(at(path, "made"))?;
        file.write_all(text.as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(at(path, "written"))?;
        Ok(())
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// [`KeyError`], also where others may read the file.
    pub fn read(path: &Path) -> Result<SigningKeyFile, KeyError> {
        let metadata = std::fs::metadata(path).map_err(at(path, "opened"))?;
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Open {
                path: path.to_owned(),
                mode,
            });
        }
        let no_key = |problem: String| KeyError::NoKey {
            path: path.to_owned(),
            problem,
        };
        let bytes = read(path, MAX_BYTES)?.unwrap_or_default();
        let text = std::str::from_utf8(&bytes).map_err(|error| no_key(error.to_string()))?;
        SigningKey::from_pkcs8_pem(text)
            .map(|key| SigningKeyFile { key })
            .map_err(|error| no_key(error.to_string()))
    }

    /// The public half, which operators list in `policy.keys`.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.key.verifying_key().to_bytes())
    }

    /// Signs a release.
    pub fn sign(&self, release: Release, serial: Serial) -> SignatureFile {
        let signature = self.key.sign(&signed_bytes(&release, serial));
        let hex = signature
            .to_bytes()
            .iter()
            .fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        SignatureFile {
            format: FORMAT,
            artifact: release.artifact,
            manifest: release.manifest,
            serial,
            key: self.public(),
            signature: hex,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release() -> Release {
        Release {
            artifact: Digest::of(b"component"),
            manifest: Digest::of(b"manifest"),
        }
    }

    fn trusting(key: &SigningKeyFile) -> Trust {
        Trust {
            keys: BTreeMap::from([("ops".to_owned(), key.public())]),
            ..Trust::default()
        }
    }

    #[test]
    fn a_signature_speaks_for_one_release_one_serial_and_one_key() {
        let key = SigningKeyFile::generate().unwrap();
        let other = SigningKeyFile::generate().unwrap();
        let trust = trusting(&key);
        let good = key.sign(release(), 7);
        assert_eq!(trust.check(&release(), Some(&good)), Ok(Some(7)));
        assert_eq!(SignatureFile::parse(&good.to_text()), Ok(good.clone()));

        assert_eq!(trust.check(&release(), None), Err(SignatureError::Unsigned));
        let lenient = Trust {
            allow_unsigned: true,
            ..trust.clone()
        };
        assert_eq!(lenient.check(&release(), None), Ok(None));

        let elsewhere = Release {
            artifact: Digest::of(b"other component"),
            ..release()
        };
        let replayed = trust.check(&elsewhere, Some(&good)).unwrap_err();
        assert!(matches!(
            replayed,
            SignatureError::OtherRelease {
                what: "the component",
                ..
            }
        ));
        // The file's own words changed to fit, the signature does not.
        let forged = SignatureFile {
            artifact: elsewhere.artifact,
            ..good.clone()
        };
        assert_eq!(
            trust.check(&elsewhere, Some(&forged)),
            Err(SignatureError::Wrong(key.public()))
        );
        let renumbered = SignatureFile {
            serial: 8,
            ..good.clone()
        };
        assert_eq!(
            lenient.check(&release(), Some(&renumbered)),
            Err(SignatureError::Wrong(key.public()))
        );
        let stranger = other.sign(release(), 7);
        assert_eq!(
            lenient.check(&release(), Some(&stranger)),
            Err(SignatureError::UnknownKey(other.public()))
        );
        let posing = SignatureFile {
            key: key.public(),
            ..stranger
        };
        assert_eq!(
            trust.check(&release(), Some(&posing)),
            Err(SignatureError::Wrong(key.public()))
        );
        let revoking = Trust {
            revoked: vec![key.public()],
            ..trust
        };
        assert_eq!(
            revoking.check(&release(), Some(&good)),
            Err(SignatureError::Revoked(key.public(), "ops".into()))
        );
    }

    #[test]
    fn key_files_are_for_their_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ops.pem");
        let key = SigningKeyFile::generate().unwrap();
        key.write_new(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(SigningKeyFile::read(&path).unwrap().public(), key.public());
        assert!(key.write_new(&path).is_err(), "an existing key is kept");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            SigningKeyFile::read(&path),
            Err(KeyError::Open { mode: 0o640, .. })
        ));
        let garbage = folder.path().join("garbage.pem");
        std::fs::write(&garbage, "no key").unwrap();
        std::fs::set_permissions(&garbage, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(matches!(
            SigningKeyFile::read(&garbage),
            Err(KeyError::NoKey { .. })
        ));
    }

    #[test]
    fn bad_signature_files_are_refused() {
        let good = SigningKeyFile::generate()
            .unwrap()
            .sign(release(), 1)
            .to_text();
        for (text, named) in [
            (String::new(), "format"),
            (good.replace("format = 1", "format = 2"), "format 2"),
            (good.replace("serial = 1", "serial = 0"), "serial is 0"),
            (format!("{good}colour = 1\n"), "colour"),
        ] {
            let error = SignatureFile::parse(&text).unwrap_err().to_string();
            assert!(error.contains(named), "{error} should name {named}");
        }
    }
}
