//! A shaped link carries what was asked, in the order in which it was written, and shares it fairly.
//!
//! Under the paused clock bytes are handed over at ticks of 1 ms, at most 0.5 ms off; transfers are long enough for that to
//! be a small part of the 2% allowed.
#![allow(clippy::unwrap_used, reason = "a test's helpers may panic")]

use std::time::Duration;

use msao_link::shaper::{Direction, Link, Trace, TraceFormat};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::{Instant, sleep, timeout_at};

use crate::support::{connect, content, link, ms, transfer};

#[tokio::test(start_paused = true)]
async fn throughput_is_what_was_asked_in_both_directions() {
    for (bandwidth, bps, bytes) in [
        ("56 kbit/s", 56e3, 7_000),
        ("1 Mbit/s", 1e6, 100_000),
        ("20 Mbit/s", 20e6, 500_000),
        ("20 Mbit/s", 20e6, 5_000_000),
        ("200 Mbit/s", 200e6, 10_000_000),
        ("1 Gbit/s", 1e9, 30_000_000),
    ] {
        let expected_ms = bytes as f64 * 8000.0 / bps;
        let config = format!("up.bandwidth = '{bandwidth}'\ndown.bandwidth = '{bandwidth}'");
        let link = link(&config);
        let (edge, cloud) = connect(&link);
        let up_ms = ms(transfer(edge, cloud, bytes).await);
        let (edge, cloud) = connect(&link);
        let down_ms = ms(transfer(cloud, edge, bytes).await);
        for (direction, took_ms) in [("up", up_ms), ("down", down_ms)] {
            let off = took_ms / expected_ms - 1.0;
            assert!(
                off.abs() < 0.02,
                "{bandwidth} {direction}, {bytes} bytes: {off:+.4}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn directions_do_not_share_their_bandwidth() {
    let link = link("up.bandwidth = '8 Mbit/s'\ndown.bandwidth = '80 Mbit/s'");
    let ((edge_up, cloud_up), (edge_down, cloud_down)) = (connect(&link), connect(&link));
    let up = transfer(edge_up, cloud_up, 1_000_000);
    let down = transfer(cloud_down, edge_down, 10_000_000);
    let (up, down) = tokio::join!(up, down);
    assert!((ms(up) / 1000.0 - 1.0).abs() < 0.02, "{up:?}");
    assert!((ms(down) / 1000.0 - 1.0).abs() < 0.02, "{down:?}");
}

#[tokio::test(start_paused = true)]
async fn without_a_bandwidth_nothing_waits() {
    let link = link("");
    let (edge, cloud) = connect(&link);
    assert_eq!(transfer(edge, cloud, 10_000_000).await, Duration::ZERO);
}

/// Reads until `until`; how much came.
async fn read_until(stream: &mut DuplexStream, until: Instant) -> usize {
    let mut bytes = 0;
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read) = timeout_at(until, stream.read(&mut buffer)).await {
        bytes += read.unwrap();
    }
    bytes
}

#[tokio::test(start_paused = true)]
async fn connections_share_a_direction_fairly() {
    let link = link("up.bandwidth = '20 Mbit/s'");
    let until = Instant::now() + Duration::from_secs(4);
    let mut readers = Vec::new();
    // However much a connection writes at a time, and whoever came first.
    for write in [100, 1_400, 100_000, 1_000_000] {
        let (mut edge, mut cloud) = connect(&link);
        tokio::spawn(async move { while edge.write_all(&content(write)).await.is_ok() {} });
        readers.push(tokio::spawn(
            async move { read_until(&mut cloud, until).await },
        ));
    }
    let share = 20e6 / 8.0;
    for reader in readers {
        let bytes = reader.await.unwrap() as f64;
        assert!((bytes / share - 1.0).abs() < 0.02, "{bytes} of {share}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_small_message_does_not_wait_for_a_large_one_of_another_connection() {
    let link = link("up = { bandwidth = '20 Mbit/s', delay-ms = 10.0 }");
    let (mut bulk, mut bulk_end) = connect(&link);
    tokio::spawn(async move { while bulk.write_all(&content(1_000_000)).await.is_ok() {} });
    tokio::spawn(async move {
        read_until(&mut bulk_end, Instant::now() + Duration::from_secs(60)).await
    });
    let (mut edge, mut cloud) = connect(&link);
    for _ in 0..50 {
        sleep(Duration::from_millis(33)).await;
        let sent = Instant::now();
        edge.write_all(&[1; 50]).await.unwrap();
        cloud.read_exact(&mut [0; 50]).await.unwrap();
        let took = ms(sent.elapsed());
        // The delay, the segment that was passing (0.6 ms), half a tick.
        assert!((9.5..=11.2).contains(&took), "{took}");
    }
}

/// How much had come after each ms.
async fn replay(link: &Link, length_ms: u64) -> Vec<u64> {
    let (mut edge, mut cloud) = connect(link);
    tokio::spawn(async move { while edge.write_all(&content(100_000)).await.is_ok() {} });
    let begun = Instant::now();
    let mut sums = Vec::new();
    let mut sum = 0;
    for at_ms in 0..length_ms {
        // Up to the middle of the next ms, so that all of this one has come.
        let until = begun + Duration::from_micros(at_ms * 1000 + 500);
        sum += read_until(&mut cloud, until).await as u64;
        sums.push(sum);
    }
    sums
}

#[tokio::test(start_paused = true)]
async fn a_mahimahi_trace_gives_its_packets_at_its_moments_in_a_loop() {
    let moments = [0, 0, 3, 7, 7, 7, 40, 41, 90];
    let text: String = moments.iter().map(|ms| format!("{ms}\n")).collect();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.up");
    std::fs::write(&file, text).unwrap();
    let link = link(&format!(
        "up.trace = {{ file = '{}', format = 'mahimahi' }}",
        file.display()
    ));
    for (at_ms, sum) in replay(&link, 400).await.into_iter().enumerate() {
        let at_ms = at_ms as u64;
        let packets: u64 = (0..5)
            .flat_map(|round| moments.map(|moment| round * 90 + moment))
            .filter(|&moment| moment <= at_ms)
            .count() as u64;
        assert_eq!(sum, packets * 1500, "after {at_ms} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn a_trace_of_rates_gives_their_integral() {
    let link = link("");
    let text = "time_s,bps\n0,8000000\n0.2,0\n0.3,2000000\n0.5,40000000\n0.6,0\n0.7,0";
    let trace = Trace::parse(text, TraceFormat::Csv).unwrap();
    assert_eq!(trace.period_ms(), 800.0);
    sleep(Duration::from_millis(777)).await;
    // From its beginning, which is now.
    link.set_trace(Direction::Up, trace);
    let bytes_per_ms = |ms: u64| match ms % 800 {
        0..200 => 1_000,
        300..500 => 250,
        500..600 => 5_000,
        _ => 0,
    };
    let mut expected: f64 = 0.0;
    for (at_ms, sum) in replay(&link, 2_000).await.into_iter().enumerate() {
        // A segment passes as a whole, and half a tick's bytes may be early.
        let off = sum as f64 - expected;
        assert!((-1500.0..=2500.0).contains(&off), "after {at_ms} ms: {off}");
        expected += f64::from(bytes_per_ms(at_ms as u64));
    }
}

#[tokio::test(start_paused = true)]
async fn bandwidth_changes_while_bytes_flow() {
    let link = link("up.bandwidth = '8 Mbit/s'");
    let (mut edge, mut cloud) = connect(&link);
    tokio::spawn(async move { while edge.write_all(&content(100_000)).await.is_ok() {} });
    let begun = Instant::now();
    let second = |n| begun + Duration::from_secs(n);
    let slow = read_until(&mut cloud, second(1)).await as f64;
    link.set_bandwidth(Direction::Up, Some("80 Mbit/s".parse().unwrap()));
    let fast = read_until(&mut cloud, second(2)).await as f64;
    assert!((slow / 1e6 - 1.0).abs() < 0.02, "{slow}");
    assert!((fast / 1e7 - 1.0).abs() < 0.02, "{fast}");
    link.set_bandwidth(Direction::Up, None);
    let mut rest = vec![0; 100_000_000];
    cloud.read_exact(&mut rest).await.unwrap();
    assert_eq!(Instant::now(), second(2));
}
