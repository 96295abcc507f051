//! Floods that HTTP/2 invites to.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::support::{Cloud, LONG, connected, peer_config, small};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// `POST /node/v1/session`, in literals of HPACK.
fn headers() -> Vec<u8> {
    let mut block = vec![0x83, 0x86];
    for (name, value) in [(0x04_u8, "/node/v1/session"), (0x01, "cloud.test")] {
        block.push(name);
        block.push(value.len() as u8);
        block.extend_from_slice(value.as_bytes());
    }
    block
}

/// Sends until the node ends the connection; what it sent.
async fn flood(cloud: &Cloud, mut next: impl FnMut(u32) -> Vec<u8>) -> Vec<u8> {
    let stream = TcpStream::connect(cloud.address).await.unwrap();
    let (mut from, mut to) = stream.into_split();
    let reading = tokio::spawn(async move {
        let mut read = Vec::new();
        let _ = from.read_to_end(&mut read).await;
        read
    });
    let flooding = async {
        if to.write_all(PREFACE).await.is_err() {
            return;
        }
        for number in 0.. {
            if to.write_all(&next(number)).await.is_err() {
                return;
            }
        }
    };
    // The node ends the connection.
    timeout(LONG, flooding).await.unwrap();
    timeout(LONG, reading).await.unwrap().unwrap()
}

async fn survives(mut cloud: Cloud) {
    let peer = connected(peer_config(cloud.address)).await;
    let stream = peer.open().unwrap();
    stream.send(&small(1)).await.unwrap();
    let (mut there, _) = cloud.session().await;
    assert_eq!(there.recv().await, Some(Ok(small(1))));
}

#[tokio::test]
async fn streams_that_are_opened_and_reset_without_end() {
    let cloud = Cloud::plain().await;
    flood(&cloud, |number| {
        let stream = 2 * number + 1;
        let mut frames = frame(1, 4, stream, &headers());
        frames.extend(frame(3, 0, stream, &8_u32.to_be_bytes()));
        frames
    })
    .await;
    survives(cloud).await;
}

#[tokio::test]
async fn a_header_that_goes_on_without_end() {
    let cloud = Cloud::plain().await;
    flood(&cloud, |number| match number {
        0 => frame(1, 0, 1, &headers()),
        _ => frame(9, 0, 1, &[0x00, 1, b'a', 1, b'b']),
    })
    .await;
    survives(cloud).await;
}

#[tokio::test]
async fn empty_data_without_end() {
    let cloud = Cloud::plain().await;
    flood(&cloud, |number| match number {
        0 => frame(1, 4, 1, &headers()),
        _ => frame(0, 0, 1, b""),
    })
    .await;
    survives(cloud).await;
}

#[tokio::test]
async fn small_data_that_nobody_reads() {
    let cloud = Cloud::plain().await;
    // Of a session that waits for HELLO: its body is not read before that.
    flood(&cloud, |number| match number {
        0 => frame(1, 4, 1, &headers()),
        _ => frame(0, 0, 1, b"x").repeat(100),
    })
    .await;
    survives(cloud).await;
}

#[tokio::test]
async fn more_sessions_at_once_than_allowed() {
    let cloud = Cloud::with(|config| {
        config.sessions = 4;
        config.request_within = Duration::from_secs(60);
    })
    .await;
    let peer = connected(peer_config(cloud.address)).await;
    let mut streams: Vec<_> = (0..500).map(|_| peer.open().unwrap()).collect();
    let mut refused = 0;
    for stream in &mut streams {
        // A session's stream is held by nobody there and stays open; of the others each is told.
        if let Ok(Some(Err(_))) = timeout(Duration::from_millis(200), stream.recv()).await {
            refused += 1;
        }
        if refused >= 400 {
            break;
        }
    }
    assert!(refused >= 400, "{refused}");
    assert!(peer.status().up);
}
