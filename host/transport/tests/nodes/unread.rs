//! Whoever does not read loses the stream; what is held for it is bounded, and others do not wait.

use std::time::Duration;

use msao_session::frame::{encode, limits as frames};
use msao_transport::{Dial, MemoryDial, PeerConfig, TransportError, limits, memory};
use tokio::io::DuplexStream;
use tokio::time::{Instant, sleep};

use super::raw::{Pieces, Raw, bytes};
use super::support::{Cloud, connected, numbered, small};

/// A bare connection in memory.
pub async fn connect(dial: &MemoryDial) -> DuplexStream {
    dial.connect().await.unwrap()
}

fn size(number: u32) -> usize {
    let mut bytes = Vec::new();
    encode(&numbered(number), frames::NEWEST, &mut bytes).unwrap();
    bytes.len()
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_stops_reading_holds_a_bounded_amount_and_then_nothing() {
    let (dial, listener) = memory();
    let mut cloud = Cloud::on(listener, |config| {
        config.gone_after = Duration::from_secs(3600)
    });
    let mut raw = Raw::over(connect(&dial).await).await;
    raw.greet().await;
    let (body, _more) = Pieces::open(bytes(&[small(1)]));
    let unread = raw.session(body).await;
    let (there, _) = cloud.session().await;
    let mut sum = 0;
    let begun = Instant::now();
    let error = loop {
        match there.send(&numbered(59)).await {
            Ok(()) => sum += size(59),
            Err(error) => break error,
        }
        // Lets HTTP/2 take what it will.
        tokio::task::yield_now().await;
        assert!(sum < 64 << 20, "nothing holds it back");
    };
    assert_eq!(error, TransportError::Unread("the peer"));
    assert!(begun.elapsed() >= limits::UNREAD);
    // The outbox, HTTP/2's buffer, and the window of hyper's client, which is 2 MiB.
    let bound = limits::OUTBOX_BYTES + limits::MAX_SEND_BUFFER + (2 << 20) + (1 << 20);
    assert!(sum <= bound, "{sum} of {bound}");
    assert_eq!(there.send(&small(1)).await, Err(TransportError::Cancelled));
    // Other streams of the same connection do not suffer.
    let (body, _more) = Pieces::open(bytes(&[small(2)]));
    let _other = raw.session(body).await;
    let (mut other_there, _) = cloud.session().await;
    assert_eq!(other_there.recv().await, Some(Ok(small(2))));
    drop(unread);
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_takes_nothing_loses_its_stream_alone() {
    let (dial, listener) = memory();
    let mut cloud = Cloud::on(listener, |_| ());
    let mut config = PeerConfig::new("cloud", "cloud.test:7443");
    config.dial = Dial::Memory(dial);
    config.probe = None;
    let peer = connected(config).await;
    let lazy = peer.open().unwrap();
    lazy.send(&small(1)).await.unwrap();
    let (mut lazy_there, _) = cloud.session().await;
    let busy = peer.open().unwrap();
    busy.send(&small(1)).await.unwrap();
    let (mut busy_there, _) = cloud.session().await;
    assert_eq!(busy_there.recv().await, Some(Ok(small(1))));

    let flooding = tokio::spawn(async move {
        let mut sent = 0_u64;
        loop {
            match lazy.send(&numbered(3)).await {
                Ok(()) => sent += 1,
                Err(error) => return (sent, error, lazy),
            }
        }
    });
    for _ in 0..20 {
        sleep(Duration::from_millis(100)).await;
        busy.send(&small(2)).await.unwrap();
        let sent = Instant::now();
        assert_eq!(busy_there.recv().await, Some(Ok(small(2))));
        assert!(
            sent.elapsed() < Duration::from_secs(1),
            "{:?}",
            sent.elapsed()
        );
    }
    let (sent, error, mut lazy) = flooding.await.unwrap();
    assert!(
        matches!(error, TransportError::Lost(_) | TransportError::Cancelled),
        "{error}"
    );
    let held = sent as usize * size(3);
    // The inbox, the window, the buffer and the outbox on the way; a frame counts 256 bytes in the inbox.
    assert!(held < (64 << 20), "{held}");
    assert_eq!(lazy.recv().await, Some(Err(TransportError::Cancelled)));
    // What had come is still there, then the reason.
    let mut came = 0;
    let end = loop {
        match lazy_there.recv().await {
            Some(Ok(_)) => came += 1,
            end => break end,
        }
    };
    assert_eq!(end, Some(Err(TransportError::Unread("the receiver"))));
    assert!(
        came <= 1 + limits::INBOX_BYTES / limits::FRAME_COST,
        "{came}"
    );
    assert!(peer.status().up);
}
