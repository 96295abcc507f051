//! What `pki` writes.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use msao_transport::pki::{self, Existing, PkiError};
use msao_transport::{TlsError, TlsIdentity};

#[test]
fn keys_are_for_their_owner_alone_and_nothing_is_written_over_unasked() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("new");
    pki::init(&folder, &["a.example"], Existing::Keep).unwrap();
    let names = [pki::CA_CERT, pki::CA_KEY, pki::NODE_CERT, pki::NODE_KEY];
    let read = || names.map(|name| fs::read(folder.join(name)).unwrap());
    let before = read();
    for key in [pki::CA_KEY, pki::NODE_KEY] {
        let mode = fs::metadata(folder.join(key)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
    let refused = pki::init(&folder, &["b.example"], Existing::Keep).unwrap_err();
    assert!(matches!(refused, PkiError::Exists(_)), "{refused}");
    let refused = pki::issue(&folder, &folder, &["b.example"], Existing::Keep).unwrap_err();
    assert!(matches!(refused, PkiError::Exists(_)), "{refused}");
    assert!(before == read());
    // A further certificate leaves the CA as it is.
    pki::issue(&folder, &folder, &["b.example"], Existing::Replace).unwrap();
    let after = read();
    assert!(before[..2] == after[..2] && before[2] != after[2] && before[3] != after[3]);
    TlsIdentity::load(&folder).unwrap();
    pki::init(&folder, &["c.example"], Existing::Replace).unwrap();
    assert!(
        read()
            .iter()
            .zip(&before)
            .all(|(now, before)| now != before)
    );
    TlsIdentity::load(&folder).unwrap();
    assert_eq!(fs::read_dir(&folder).unwrap().count(), names.len());
}

#[test]
fn what_cannot_be_a_name_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let none: [&str; 0] = [];
    assert!(matches!(
        pki::init(folder.path(), &none, Existing::Keep),
        Err(PkiError::NoName)
    ));
    assert!(pki::init(folder.path(), &["näme"], Existing::Keep).is_err());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    let missing = folder.path().join("nowhere");
    let error = pki::issue(&missing, folder.path(), &["a"], Existing::Keep).unwrap_err();
    assert!(error.to_string().contains(pki::CA_CERT), "{error}");
}

#[test]
fn a_wrong_folder_is_named_with_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let load = || TlsIdentity::load(folder.path()).unwrap_err();
    let error = load();
    assert!(matches!(error, TlsError::Read { .. }), "{error}");
    assert!(error.to_string().contains("msao node init"), "{error}");
    pki::init(folder.path(), &["a.example"], Existing::Keep).unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let other = tempfile::tempdir().unwrap();
    pki::init(other.path(), &["a.example"], Existing::Keep).unwrap();
    let key = fs::read_to_string(folder.path().join(pki::NODE_KEY)).unwrap();
    write(
        pki::NODE_KEY,
        &fs::read_to_string(other.path().join(pki::NODE_KEY)).unwrap(),
    );
    let error = load().to_string();
    assert!(
        error.contains("node.key") && error.contains("is not the key of node.pem"),
        "{error}"
    );
    write(pki::NODE_KEY, "nothing");
    assert!(load().to_string().contains("no private key in PEM"));
    write(pki::NODE_KEY, &key);
    write(pki::NODE_CERT, "nothing");
    assert!(load().to_string().contains("no certificate in PEM"));
}
