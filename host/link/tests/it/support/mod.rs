//! Links and streams for the tests.
#![allow(clippy::unwrap_used, reason = "a test's helpers may panic")]

use std::time::Duration;

use msao_link::shaper::{End, Link, LinkConfig, ShapedStream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::Instant;

/// A link of a `[link]` section.
pub fn link(config: &str) -> Link {
    let config: LinkConfig = toml::from_str(config).unwrap();
    Link::start(&config).unwrap()
}

/// A connection over a link: its end at the edge, and its end in the cloud.
pub fn connect(link: &Link) -> (ShapedStream, DuplexStream) {
    let (edge, cloud) = duplex(64 << 10);
    (link.wrap(edge, End::Edge), cloud)
}

/// Bytes by which every mistake in their order shows.
pub fn content(bytes: usize) -> Vec<u8> {
    (0..bytes as u64)
        .map(|i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8)
        .collect()
}

/// Sends `bytes` and ends the stream; what came out, and after what time the last of it.
pub async fn transfer(
    mut from: impl AsyncWrite + Unpin + Send + 'static,
    mut to: impl AsyncRead + Unpin,
    bytes: usize,
) -> Duration {
    let begun = Instant::now();
    let sender = tokio::spawn(async move {
        from.write_all(&content(bytes)).await.unwrap();
        from.shutdown().await.unwrap();
        from
    });
    let mut received = vec![0; bytes];
    to.read_exact(&mut received).await.unwrap();
    let took = begun.elapsed();
    assert!(received == content(bytes), "bytes came out changed");
    assert_eq!(
        to.read(&mut [0]).await.unwrap(),
        0,
        "more came out than went in"
    );
    drop(sender.await.unwrap());
    took
}

/// In ms.
pub fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
