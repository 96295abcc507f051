//! Certificates between nodes: whoever has none, a wrong one or an old one is turned away, and both sides say why.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use msao_transport::{TlsIdentity, pki};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

use super::support::{
    Cloud, LONG, certificates, connected, down_with, peer_config, small, start, until,
};

/// A client that trusts the CA and has no certificate.
async fn anonymous(
    cloud: &Cloud,
    folder: &std::path::Path,
    versions: &[&'static rustls::SupportedProtocolVersion],
    alpn: &[&[u8]],
) -> std::io::Result<Vec<u8>> {
    let mut roots = RootCertStore::empty();
    let ca = std::fs::read(folder.join("cloud").join(pki::CA_CERT)).unwrap();
    roots
        .add(CertificateDer::from_pem_slice(&ca).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let connector = TlsConnector::from(Arc::new(config));
    let stream = TcpStream::connect(cloud.address).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut stream = connector.connect(name, stream).await?;
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await?;
    let mut rest = Vec::new();
    timeout(LONG, stream.read_to_end(&mut rest))
        .await
        .unwrap()?;
    Ok(rest)
}

async fn with_tls(tls: &TlsIdentity) -> Cloud {
    let tls = tls.clone();
    Cloud::with(|config| config.tls = Some(tls)).await
}

#[tokio::test]
async fn whoever_shows_no_certificate_gets_nothing() {
    let (folder, tls, edge) = certificates();
    let cloud = with_tls(&tls).await;
    let error = anonymous(&cloud, folder.path(), &[&rustls::version::TLS13], &[b"h2"])
        .await
        .unwrap_err();
    assert!(error.to_string().contains("CertificateRequired"), "{error}");
    // Others are served on.
    let mut config = peer_config(cloud.address);
    config.tls = Some(edge);
    connected(config).await;
}

#[tokio::test]
async fn other_protocols_get_nothing() {
    let (folder, tls, _) = certificates();
    let cloud = with_tls(&tls).await;
    let tls13 = &[&rustls::version::TLS13];
    let error = anonymous(&cloud, folder.path(), tls13, &[b"http/1.1"])
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("NoApplicationProtocol"),
        "{error}"
    );
}

#[tokio::test]
async fn a_certificate_of_another_ca_is_refused_and_both_sides_say_so() {
    let (_folder, tls, edge) = certificates();
    let (_other_folder, other_tls, other_edge) = certificates();
    // The edge does not know the cloud's CA.
    let cloud = with_tls(&tls).await;
    let mut config = peer_config(cloud.address);
    config.tls = Some(other_edge.clone());
    let peer = start(config);
    let why = down_with(&peer, "CA").await;
    assert!(
        why.contains("the peer's certificate is not of the CA in ca.pem"),
        "{why}"
    );
    // The cloud does not know the edge's: it has the right CA's certificate and another's own.
    let mixed = tempfile::tempdir().unwrap();
    for (from, name) in [
        (_folder.path(), pki::CA_CERT),
        (_other_folder.path(), pki::NODE_CERT),
        (_other_folder.path(), pki::NODE_KEY),
    ] {
        std::fs::copy(from.join("edge").join(name), mixed.path().join(name)).unwrap();
    }
    let error = TlsIdentity::load(mixed.path()).unwrap_err().to_string();
    assert!(
        error.contains("this node's certificate is not of the CA in ca.pem"),
        "{error}"
    );
    // So it has to hold both CAs to get that far.
    let both: String = [_folder.path(), _other_folder.path()]
        .map(|folder| std::fs::read_to_string(folder.join("edge").join(pki::CA_CERT)).unwrap())
        .concat();
    std::fs::write(mixed.path().join(pki::CA_CERT), both).unwrap();
    let mut config = peer_config(cloud.address);
    config.tls = Some(TlsIdentity::load(mixed.path()).unwrap());
    let peer = start(config);
    let why = down_with(&peer, "CA").await;
    assert!(
        why.contains("the peer says that this node's certificate is not of its CA"),
        "{why}"
    );
    drop((other_tls, edge));
}

#[tokio::test]
async fn a_certificate_for_another_host_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    pki::init(folder.path(), &["elsewhere.example"], pki::Existing::Keep).unwrap();
    let tls = TlsIdentity::load(folder.path()).unwrap();
    let cloud = with_tls(&tls).await;
    let mut config = peer_config(cloud.address);
    config.tls = Some(tls);
    let why = down_with(&start(config), "host").await;
    assert!(why.contains("elsewhere.example"), "{why}");
}

#[tokio::test]
async fn an_expired_certificate_is_refused_and_both_sides_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let [ca, good, short] = ["ca", "good", "short"].map(|name| folder.path().join(name));
    pki::init(&ca, &["127.0.0.1"], pki::Existing::Keep).unwrap();
    pki::issue(&ca, &good, &["127.0.0.1"], pki::Existing::Keep).unwrap();
    let lasting = Duration::from_secs(20);
    let issue = |from: SystemTime, existing| {
        pki::issue_valid(&ca, &short, &["127.0.0.1"], existing, from, lasting).unwrap();
    };
    issue(SystemTime::now() - lasting - lasting, pki::Existing::Keep);
    let error = TlsIdentity::load(&short).unwrap_err().to_string();
    assert!(
        error.contains("this node's certificate has expired"),
        "{error}"
    );
    assert!(error.contains(pki::NODE_CERT), "{error}");
    // One that was still good when it was loaded.
    issue(
        SystemTime::now() - lasting + Duration::from_secs(5),
        pki::Existing::Replace,
    );
    let (good, short) = (
        TlsIdentity::load(&good).unwrap(),
        TlsIdentity::load(&short).unwrap(),
    );
    sleep(Duration::from_secs(7)).await;
    // At the cloud.
    let cloud = with_tls(&short).await;
    let mut config = peer_config(cloud.address);
    config.tls = Some(good.clone());
    let why = down_with(&start(config), "expired").await;
    assert!(why.contains("the peer's certificate has expired"), "{why}");
    // At the edge.
    let cloud = with_tls(&good).await;
    let mut config = peer_config(cloud.address);
    config.tls = Some(short);
    let why = down_with(&start(config), "expired").await;
    assert!(
        why.contains("the peer says that this node's certificate has expired"),
        "{why}"
    );
}

#[tokio::test]
async fn tls_on_one_side_alone_is_named_on_the_other() {
    let (_folder, tls, edge) = certificates();
    let cloud = with_tls(&tls).await;
    let why = down_with(&start(peer_config(cloud.address)), "TLS").await;
    assert!(why.contains("wants TLS"), "{why}");
    let cloud = Cloud::plain().await;
    let mut config = peer_config(cloud.address);
    config.tls = Some(edge);
    let why = down_with(&start(config), "TLS").await;
    assert!(
        why.contains("does not speak TLS on this connection"),
        "{why}"
    );
}

#[tokio::test]
async fn new_files_are_taken_up_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    pki::init(folder.path(), &["127.0.0.1"], pki::Existing::Keep).unwrap();
    let tls = TlsIdentity::load(folder.path()).unwrap();
    tls.watch(Duration::from_millis(50));
    let before = tls.certificate();
    let mut cloud = with_tls(&tls).await;
    let mut config = peer_config(cloud.address);
    config.tls = Some(tls.clone());
    let peer = connected(config).await;
    // A file that is none: the old one stays in use.
    let key = folder.path().join(pki::NODE_KEY);
    let kept = std::fs::read(&key).unwrap();
    std::fs::write(&key, "no key").unwrap();
    sleep(Duration::from_millis(400)).await;
    assert_eq!(tls.certificate(), before);
    std::fs::write(&key, kept).unwrap();
    // A good one.
    pki::issue(
        folder.path(),
        folder.path(),
        &["127.0.0.1"],
        pki::Existing::Replace,
    )
    .unwrap();
    let changed = async {
        while tls.certificate() == before {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LONG, changed).await.unwrap();
    // Connections that were there live on, and new ones use the new one.
    let stream = peer.open().unwrap();
    stream.send(&small(1)).await.unwrap();
    assert_eq!(cloud.session().await.1.certificate, Some(before));
    let mut config = peer_config(cloud.address);
    config.tls = Some(tls.clone());
    let peer = start(config);
    until(&peer, |status| status.up).await;
    let stream = peer.open().unwrap();
    stream.send(&small(1)).await.unwrap();
    assert_eq!(cloud.session().await.1.certificate, Some(tls.certificate()));
}
