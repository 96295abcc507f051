//! What an operator reads about strangers at the port.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use msao_transport::TlsIdentity;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::support::{Cloud, LONG, certificates, down_with, peer_config, start};

/// Keeps all lines.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<String>>);

impl Subscriber for Lines {
    fn enabled(&self, _: &Metadata) -> bool {
        true
    }
    fn new_span(&self, _: &Attributes) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event) {
        struct Text<'a>(&'a mut String);
        impl Visit for Text<'_> {
            fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                write!(self.0, "{field}={value:?} ").unwrap();
            }
        }
        let mut lines = self.0.lock().unwrap();
        event.record(&mut Text(&mut lines));
        lines.push('\n');
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

impl Lines {
    async fn has(&self, part: &str) {
        let comes = async {
            while !self.0.lock().unwrap().contains(part) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        let came = timeout(LONG, comes).await;
        assert!(came.is_ok(), "no `{part}` in\n{}", self.0.lock().unwrap());
    }
}

async fn says(cloud: &Cloud, said: &[u8]) {
    let mut stream = TcpStream::connect(cloud.address).await.unwrap();
    let _ = stream.write_all(said).await;
    let mut rest = Vec::new();
    let _ = timeout(LONG, stream.read_to_end(&mut rest)).await.unwrap();
}

async fn with(tls: TlsIdentity) -> Cloud {
    Cloud::with(|config| config.tls = Some(tls)).await
}

// One test, since what it hears is bound to its thread.
#[tokio::test]
async fn each_stranger_is_named() {
    let lines = Lines::default();
    let _heard = tracing::subscriber::set_default(lines.clone());
    let (_folder, tls, edge) = certificates();
    let (_other, _, stranger) = certificates();

    let cloud = Cloud::plain().await;
    says(&cloud, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    lines
        .has("an HTTP/1 client came to the listener for nodes")
        .await;
    says(&cloud, &[7; 100]).await;
    lines.has("what came is not HTTP/2").await;
    let mut config = peer_config(cloud.address);
    config.tls = Some(edge);
    let peer = start(config);
    down_with(&peer, "TLS").await;
    lines.has("a TLS client came where TLS is off").await;
    drop(peer);

    let cloud = with(tls.clone()).await;
    let peer = start(peer_config(cloud.address));
    down_with(&peer, "TLS").await;
    lines
        .has("the peer does not speak TLS on this connection")
        .await;
    drop(peer);
    let mut config = peer_config(cloud.address);
    config.tls = Some(stranger);
    let peer = start(config);
    down_with(&peer, "CA").await;
    lines
        .has("the peer says that this node's certificate is not of its CA")
        .await;
    drop(peer);

    // A flood of them is counted.
    let cloud = Cloud::plain().await;
    for _ in 0..20 {
        says(&cloud, &[7; 100]).await;
    }
    let shown = lines
        .0
        .lock()
        .unwrap()
        .matches("what came is not HTTP/2")
        .count();
    assert!(shown <= 1 + 2 * 5, "{shown}");
}
