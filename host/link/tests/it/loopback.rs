//! The shaper under real sockets and the real clock. Load on the machine may only make it slower, so only what must not be
//! faster is held to a tight bound.
#![allow(clippy::unwrap_used, reason = "a test's helpers may panic")]

use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use msao_link::shaper::{End, Link, ShapedStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{link, ms, transfer};

/// A connection whose edge end is shaped.
async fn connect(link: &Link) -> (ShapedStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (edge, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (edge, (cloud, _)) = (edge.unwrap(), accepted.unwrap());
    edge.set_nodelay(true).unwrap();
    cloud.set_nodelay(true).unwrap();
    (link.wrap_tcp(edge, End::Edge), cloud)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shaped_socket_carries_what_was_asked() {
    let link =
        link("up = { bandwidth = '40 Mbit/s', delay-ms = 10.0 }\ndown.bandwidth = '80 Mbit/s'");
    let ((edge, cloud), (edge_down, cloud_down)) = (connect(&link).await, connect(&link).await);
    let up = tokio::spawn(transfer(edge, cloud, 1_500_000));
    let down = tokio::spawn(transfer(cloud_down, edge_down, 3_000_000));
    let (up, down) = (ms(up.await.unwrap()), ms(down.await.unwrap()));
    println!(
        "300 ms at 40 Mbit/s and 10 ms of delay took {up:.1} ms; 300 ms at 80 Mbit/s took {down:.1} ms"
    );
    assert!((309.0..3000.0).contains(&up), "{up}");
    assert!((299.0..3000.0).contains(&down), "{down}");
}

#[tokio::test]
async fn a_shaped_socket_has_the_round_trip_that_was_asked() {
    let link = link("up.delay-ms = 10.0\ndown.delay-ms = 10.0");
    let (mut edge, mut cloud) = connect(&link).await;
    tokio::spawn(async move {
        let mut byte = [0];
        while cloud.read_exact(&mut byte).await.is_ok() {
            cloud.write_all(&byte).await.unwrap();
        }
    });
    let mut round_trips = Vec::new();
    for _ in 0..50 {
        let sent = Instant::now();
        edge.write_all(&[1]).await.unwrap();
        edge.read_exact(&mut [0]).await.unwrap();
        round_trips.push(ms(sent.elapsed()));
    }
    round_trips.sort_by(f64::total_cmp);
    println!(
        "of 20 ms: least {:.2}, median {:.2}",
        round_trips[0], round_trips[25]
    );
    // Half a tick each way may be missing.
    assert!(round_trips[0] >= 18.9, "{round_trips:?}");
    assert!(round_trips[25] < 200.0, "{round_trips:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_resets_the_socket_at_the_other_end() {
    let link = link("up.bandwidth = '10 Mbit/s'");
    let (mut edge, mut cloud) = connect(&link).await;
    let cutter = link.clone();
    let cut = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        cutter.cut();
    });
    let reader = tokio::spawn(async move {
        let mut buffer = vec![0; 64 << 10];
        loop {
            match cloud.read(&mut buffer).await {
                Ok(0) => panic!("the stream ended as if all were well"),
                Ok(_) => {}
                Err(error) => return error.kind(),
            }
        }
    });
    let error = loop {
        if let Err(error) = edge.write_all(&[0; 4096]).await {
            break error.kind();
        }
    };
    cut.await.unwrap();
    assert_eq!(error, ErrorKind::ConnectionReset);
    assert_eq!(reader.await.unwrap(), ErrorKind::ConnectionReset);
}
