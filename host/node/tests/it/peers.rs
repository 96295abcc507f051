//! What a peer can make a node hold, that of a session included which takes nothing.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test's helpers may panic

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use msao_core::chat::Modality;
use msao_core::digest::Digest;
use msao_hostile::build::Decision;
use msao_node::answer::Channel;
use msao_session::PrefixDigest;
use msao_session::frame::{Draft, Frame, Medium, RefusedCode};
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;

use crate::common::{Bench, SESSION, asking, opening, picture, two};

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(20);

/// Opens the session on a question about the picture, if `seen`, else on one without.
fn open(seen: bool) -> Frame {
    let medium = seen.then(|| Medium {
        digest: Digest::of(&picture()),
        modality: Modality::Image,
        keep: None,
        made: None,
    });
    opening("Tell me a story.", medium)
}

/// A round of an epoch of its own by which these were committed.
fn draft(round: u32, forced: &[u32]) -> Frame {
    Frame::Draft(Draft {
        session: SESSION,
        epoch: round,
        round,
        committed: forced.len() as u32,
        prefix: PrefixDigest::of(forced).digest(),
        start: 0,
        forced: forced.to_vec(),
        proposed: Vec::new(),
        last: false,
    })
}

/// As long as it is held, sessions about pictures wait for their turn, and take nothing.
async fn waiting(cloud: &Bench, edge: &Bench) -> OwnedSemaphorePermit {
    let bytes = picture();
    let (digest, peer) = (Digest::of(&bytes), edge.node.peers[0].peer());
    peer.media(digest, Bytes::from(bytes)).await.unwrap();
    let decoders = Arc::clone(&cloud.node.decoders);
    let all = u32::try_from(decoders.available_permits()).unwrap();
    decoders.acquire_many_owned(all).await.unwrap()
}

async fn next(channel: &mut Channel) -> Option<Frame> {
    tokio::time::timeout(LONG, channel.recv()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_sends_more_than_is_taken_is_refused_and_others_are_answered() {
    let (cloud, edge) = two("").await;
    let held = waiting(&cloud, &edge).await;
    let mut stream = edge.node.peers[0].peer().open().unwrap();
    stream.send(&open(true)).await.unwrap();
    let mut end = None;
    for _ in 0..100 {
        for _ in 0..1000 {
            if stream.send(&draft(1, &[])).await.is_err() {
                break;
            }
        }
        // No faster than they are carried on.
        let said = tokio::time::timeout(Duration::from_millis(10), stream.recv()).await;
        if let Ok(said) = said {
            end = Some(said);
            break;
        }
    }
    match end {
        Some(Some(Ok(Frame::Refused(refused)))) => {
            assert_eq!(refused.code, RefusedCode::Overloaded, "{refused:?}");
        }
        // The transport may have noticed first.
        Some(Some(Err(_))) => {}
        other => panic!("{other:?} ends no flood"),
    }
    drop(held);
    let there = Decision {
        route: 1,
        peer: 1,
        ..Decision::default()
    };
    edge.plan(&there, 0);
    let more = json!({ "max_tokens": 4, "msao": { "require": "exact" } });
    edge.answer(&asking("7 + 6 = ?", more)).await;
    drop(stream);
    edge.rest().await;
    cloud.rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_streams_that_take_up_a_session_the_newest_waits() {
    let (cloud, edge) = two("").await;
    let held = waiting(&cloud, &edge).await;
    let sessions = cloud.node.sessions.as_ref().unwrap();
    let another = || {
        let (mut own, other) = Channel::pair();
        own.send(open(true));
        sessions.accept(other);
        own
    };
    let mut first = another();
    let end = Instant::now() + LONG;
    while sessions.count() == 0 {
        assert!(Instant::now() < end, "the session is not let in");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut newest = another();
    for _ in 0..20 {
        let mut newer = another();
        // Of two that come at a time either may be the newer one. The other is dropped at once.
        let (left, was_before) = tokio::select! {
            left = next(&mut newest) => (left, true),
            left = next(&mut newer) => (left, false),
        };
        assert_eq!(left, None);
        if was_before {
            newest = newer;
        }
    }
    drop(held);
    assert_eq!(next(&mut first).await, None);
    let told = next(&mut newest).await;
    assert!(matches!(told, Some(Frame::Verdict(_))), "{told:?}");
    drop(newest);
    cloud.rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_changes_what_it_has_committed_again_and_again_is_refused() {
    let (cloud, _edge) = two("").await;
    let (mut own, other) = Channel::pair();
    own.send(open(false));
    for round in 1..=3000 {
        own.send(draft(round, &[1 + round % 2]));
    }
    cloud.node.sessions.as_ref().unwrap().accept(other);
    let refused = loop {
        match next(&mut own).await {
            Some(Frame::Refused(refused)) => break refused,
            Some(_) => {}
            None => panic!("the way was lost without a word"),
        }
    };
    assert_eq!(refused.code, RefusedCode::Protocol, "{refused:?}");
    assert!(refused.message.contains("again and again"), "{refused:?}");
    cloud.rest().await;
}
