//! Delay and jitter are what was asked, the same for the same seed, and never change the order; what is held is bounded.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test's helpers may panic"
)]

use std::time::Duration;

use msao_link::shaper::Direction;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

use crate::support::{connect, content, link, ms, transfer};

const JITTERY: &str =
    "up = { delay-ms = 20.0, jitter-ms = 5.0 }\ndown = { delay-ms = 20.0, jitter-ms = 5.0 }";

/// Delays of lone bytes, in ms.
async fn delays(config: &str, bytes: usize) -> Vec<f64> {
    let link = link(config);
    let (mut edge, mut cloud) = connect(&link);
    let mut delays = Vec::new();
    for _ in 0..bytes {
        // At moments that have nothing to do with ticks.
        sleep(Duration::from_micros(50_370)).await;
        let sent = Instant::now();
        edge.write_all(&[1]).await.unwrap();
        cloud.read_exact(&mut [0]).await.unwrap();
        delays.push(ms(sent.elapsed()));
    }
    delays
}

#[tokio::test(start_paused = true)]
async fn a_delay_is_kept_and_adds_up_to_the_round_trip() {
    let link = link("up.delay-ms = 40.0\ndown.delay-ms = 25.0");
    let (mut edge, mut cloud) = connect(&link);
    let begun = Instant::now();
    edge.write_all(b"ping").await.unwrap();
    cloud.read_exact(&mut [0; 4]).await.unwrap();
    assert_eq!(ms(begun.elapsed()), 40.0);
    cloud.write_all(b"pong").await.unwrap();
    edge.read_exact(&mut [0; 4]).await.unwrap();
    assert_eq!(ms(begun.elapsed()), 65.0);
    // The end of a stream takes as long as a byte.
    edge.shutdown().await.unwrap();
    assert_eq!(cloud.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(ms(begun.elapsed()), 105.0);
    link.handshake().await.unwrap();
    assert_eq!(ms(begun.elapsed()), 170.0);

    link.set_delay(Direction::Up, Duration::from_millis(5), Duration::ZERO);
    let (mut edge, mut cloud) = connect(&link);
    edge.write_all(b"ping").await.unwrap();
    cloud.read_exact(&mut [0; 4]).await.unwrap();
    assert_eq!(ms(begun.elapsed()), 175.0);
}

#[tokio::test(start_paused = true)]
async fn jitter_is_uniform_about_the_delay() {
    const BYTES: usize = 2_000;
    let mut delays = delays(JITTERY, BYTES).await;
    let mean = delays.iter().sum::<f64>() / BYTES as f64;
    // Four standard errors of a uniform distribution 10 ms wide, and no bias of the ticks.
    assert!(
        (mean - 20.0).abs() < 4.0 * 2.89 / (BYTES as f64).sqrt(),
        "{mean}"
    );
    delays.sort_by(f64::total_cmp);
    assert!(delays[0] >= 14.5 && delays[BYTES - 1] <= 25.5, "{delays:?}");
    let distance = delays.iter().enumerate().fold(0.0_f64, |most, (i, delay)| {
        let expected = ((delay - 15.0) / 10.0).clamp(0.0, 1.0);
        most.max((expected - i as f64 / BYTES as f64).abs())
    });
    // Kolmogorov and Smirnov's bound that 999 of 1,000 samples keep, and half a tick of the 10 ms.
    assert!(distance < 1.95 / (BYTES as f64).sqrt() + 0.05, "{distance}");
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_times() {
    let first = delays(&format!("seed = 1\n{JITTERY}"), 100).await;
    assert_eq!(first, delays(&format!("seed = 1\n{JITTERY}"), 100).await);
    assert_ne!(first, delays(&format!("seed = 2\n{JITTERY}"), 100).await);
}

#[tokio::test(start_paused = true)]
async fn jitter_never_changes_the_order() {
    let link = link(
        "up = { bandwidth = '20 Mbit/s', delay-ms = 30.0, jitter-ms = 30.0 }\n\
         down = { bandwidth = '20 Mbit/s', delay-ms = 30.0, jitter-ms = 30.0 }",
    );
    let (edge, cloud) = connect(&link);
    transfer(edge, cloud, 1_000_000).await;
    let (edge, cloud) = connect(&link);
    transfer(cloud, edge, 1_000_000).await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_does_not_read_stops_the_writer() {
    const KIB: usize = 1024;
    for bandwidth in ["bandwidth = '100 Mbit/s', ", ""] {
        let link = link(&format!(
            "queue-kib = 64\nwindow-kib = 128\nup = {{ {bandwidth}delay-ms = 20.0 }}"
        ));
        let (mut edge, mut cloud) = connect(&link);
        let content = content(1_000 * KIB);
        let mut written = 0;
        while let Ok(bytes) = timeout(Duration::from_secs(5), edge.write(&content[written..])).await
        {
            written += bytes.unwrap();
        }
        let held = link.traffic().up.held_bytes as usize;
        assert_eq!(held, 192 * KIB, "queue and window are full");
        // The pump holds a buffer, the stream below another.
        assert!(written <= (192 + 64 + 64) * KIB, "{written}");

        let reader = tokio::spawn(async move {
            let mut received = vec![0; 1_000 * KIB];
            cloud.read_exact(&mut received).await.unwrap();
            received
        });
        edge.write_all(&content[written..]).await.unwrap();
        assert!(reader.await.unwrap() == content);
        assert_eq!(link.traffic().up.held_bytes, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn many_connections_hold_no_more_than_their_shares() {
    let link = link("queue-kib = 64\nup.bandwidth = '1 kbit/s'");
    let mut streams: Vec<_> = (0..100).map(|_| connect(&link)).collect();
    for (edge, _) in &mut streams {
        let write = timeout(Duration::from_millis(1), edge.write_all(&[0; 100_000]));
        assert!(write.await.is_err());
    }
    // The queue, and a segment each.
    assert!(link.traffic().up.held_bytes <= 64 * 1024 + 100 * 1500);
    drop(streams);
    // Those at the edge are gone; the pumps give up what they cannot deliver after a minute.
    sleep(Duration::from_secs(61)).await;
    assert_eq!(link.traffic().up.held_bytes, 0);
}

#[tokio::test(start_paused = true)]
async fn what_was_written_arrives_although_the_stream_was_dropped() {
    let link = link("up = { bandwidth = '1 Mbit/s', delay-ms = 100.0 }");
    let (mut edge, mut cloud) = connect(&link);
    edge.write_all(&content(50_000)).await.unwrap();
    drop(edge);
    drop(link);
    let mut received = Vec::new();
    cloud.read_to_end(&mut received).await.unwrap();
    assert!(received == content(50_000));
}

#[tokio::test(start_paused = true)]
async fn writing_after_the_end_is_an_error() {
    let link = link("");
    let (mut edge, cloud) = connect(&link);
    edge.shutdown().await.unwrap();
    let error = edge.write_all(&[1]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);

    let (mut edge, cloud_gone) = connect(&link);
    drop((cloud, cloud_gone));
    let error = loop {
        sleep(Duration::from_millis(1)).await;
        if let Err(error) = edge.write_all(&[1]).await {
            break error;
        }
    };
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
}
