//! Stalls hold everything and lose nothing; cuts reset every connection; a link that is down gives none.

use std::io::ErrorKind::{ConnectionRefused, ConnectionReset};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep};

use crate::support::{connect, content, link, ms, transfer};

#[tokio::test(start_paused = true)]
async fn nothing_passes_in_a_stall_and_nothing_is_lost() {
    let link = link("up = { bandwidth = '8 Mbit/s', delay-ms = 10.0 }");
    let (edge, mut cloud) = connect(&link);
    let begun = Instant::now();
    let staller = link.clone();
    tokio::spawn(async move {
        sleep(Duration::from_millis(200)).await;
        staller.stall(Duration::from_millis(500));
    });
    let mut edge_end = edge;
    tokio::spawn(async move {
        edge_end.write_all(&content(1_000_000)).await.unwrap();
        edge_end.shutdown().await.unwrap();
    });
    let mut received = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let bytes = cloud.read(&mut buffer).await.unwrap();
        let at = ms(begun.elapsed());
        assert!(!(200.5..699.5).contains(&at), "something came at {at}");
        if bytes == 0 {
            break;
        }
        received.extend_from_slice(&buffer[..bytes]);
    }
    assert!(received == content(1_000_000));
    // A second of bytes, the stall, the delay; the segment that the stall caught goes twice.
    assert!(
        (ms(begun.elapsed()) - 1510.0).abs() < 3.0,
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn planned_stalls_come_again() {
    let link = link(
        "up.bandwidth = '8 Mbit/s'\nstalls = [{ at-ms = 100, for-ms = 300 }]\nrepeat-ms = 1000",
    );
    let (edge, cloud) = connect(&link);
    // 1.5 MB take 1,500 ms, which three stalls make 2,400.
    let took = ms(transfer(edge, cloud, 1_500_000).await);
    assert!((took - 2400.0).abs() < 6.0, "{took}");
}

#[tokio::test(start_paused = true)]
async fn a_cut_resets_reads_and_writes_at_once() {
    let link = link("up.delay-ms = 50.0\ndown.delay-ms = 50.0\ncuts = [{ at-ms = 120 }]");
    let begun = Instant::now();
    let (mut waits, mut waits_end) = connect(&link);
    let (mut writes, mut writes_end) = connect(&link);
    let reader = tokio::spawn(async move {
        let error = waits.read(&mut [0; 10]).await.unwrap_err();
        assert_eq!(error.kind(), ConnectionReset);
        Instant::now()
    });
    let mut sent = 0;
    let error = loop {
        if let Err(error) = writes.write_all(&[1]).await {
            break error;
        }
        sent += 1;
        sleep(Duration::from_millis(10)).await;
    };
    assert_eq!((error.kind(), sent), (ConnectionReset, 12));
    let cut_ms = ms(reader.await.unwrap() - begun);
    assert!((119.5..=120.0).contains(&cut_ms), "{cut_ms}");
    // What was under way is lost, and the other end sees its stream end.
    let mut received = Vec::new();
    let _ = writes_end.read_to_end(&mut received).await;
    assert!(received.len() <= 8, "{}", received.len());
    assert_eq!(waits_end.read(&mut [0]).await.unwrap_or(0), 0);
    assert_eq!(writes.shutdown().await.unwrap_err().kind(), ConnectionReset);

    // A new connection works.
    let (edge, cloud) = connect(&link);
    transfer(edge, cloud, 1000).await;
}

#[tokio::test(start_paused = true)]
async fn a_link_that_is_down_gives_no_connection() {
    let link = link("up.delay-ms = 5.0\ncuts = [{ at-ms = 0, for-ms = 1000 }]");
    let down = async |what: &str| {
        assert!(!link.is_up(), "{what}");
        assert_eq!(
            link.handshake().await.unwrap_err().kind(),
            ConnectionRefused
        );
        let (mut edge, _cloud) = connect(&link);
        assert_eq!(
            edge.write_all(&[1]).await.unwrap_err().kind(),
            ConnectionReset
        );
        assert_eq!(
            edge.read(&mut [0]).await.unwrap_err().kind(),
            ConnectionReset
        );
    };
    let up = async || {
        assert!(link.is_up());
        link.handshake().await.unwrap();
        let (edge, cloud) = connect(&link);
        transfer(edge, cloud, 1000).await;
    };
    down("from the start").await;
    sleep(Duration::from_secs(1)).await;
    up().await;
    link.take_down();
    down("taken down").await;
    sleep(Duration::from_secs(1000)).await;
    down("still").await;
    link.bring_up();
    up().await;
    link.cut();
    up().await;
}

#[tokio::test(start_paused = true)]
async fn a_cut_in_the_middle_of_a_flood_leaves_nothing_behind() {
    let link = link("up.bandwidth = '10 Mbit/s'\ndown.bandwidth = '10 Mbit/s'");
    let mut tasks = Vec::new();
    for _ in 0..20 {
        let (mut edge, cloud) = connect(&link);
        let (mut cloud_reads, mut cloud_writes) = tokio::io::split(cloud);
        tasks.push(tokio::spawn(async move {
            while edge.write_all(&content(10_000)).await.is_ok() {}
        }));
        tasks.push(tokio::spawn(async move {
            while cloud_writes.write_all(&content(10_000)).await.is_ok() {}
        }));
        tasks.push(tokio::spawn(async move {
            while cloud_reads
                .read(&mut [0; 4096])
                .await
                .is_ok_and(|bytes| bytes > 0)
            {}
        }));
    }
    sleep(Duration::from_millis(777)).await;
    link.cut();
    for task in tasks {
        task.await.unwrap();
    }
    let traffic = link.traffic();
    assert_eq!((traffic.up.held_bytes, traffic.down.held_bytes), (0, 0));
    assert!(traffic.up.delivered_bytes > 900_000);
}
