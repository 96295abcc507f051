//! Looking for a way to a target: there, elsewhere, or nowhere.
#![allow(clippy::unwrap_used, clippy::panic)] // a test's helpers may panic

use std::sync::Arc;
use std::time::Duration;

use msao_core::digest::Digest;
use msao_core::inputs::ModelInputs;
use msao_core::offload::Route;
use msao_media::Limits;
use msao_node::answer::{Channel, Connecting, Elsewhere, NoWay, Target, Traffic, Way};
use msao_node::request::{Cargo, Means, Prompt, Sight};
use msao_processor::Processor;
use msao_session::frame::Identity;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::common::{models, two, up};

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(20);

/// A target of which something is needed that one at a time can have, as what is sent is made once.
struct Toy {
    is_there: bool,
    /// It was there for whoever looked, and is gone for whoever connects.
    goes: bool,
    needed: Arc<Semaphore>,
}

impl Target for Toy {
    fn connect(&self, patient: bool, _cargo: &Arc<Cargo>, _traffic: &Arc<Traffic>) -> Connecting {
        let needed = Arc::clone(&self.needed);
        let is_there = self.is_there && !self.goes;
        Box::pin(async move {
            let _had = needed.acquire_owned().await.unwrap();
            match (is_there, patient) {
                (true, _) => Ok(Channel::pair().0),
                (false, true) => std::future::pending().await,
                (false, false) => Err(NoWay::Lost("it is down".into())),
            }
        })
    }

    fn forget(&self, _cargo: &Cargo) {}

    fn figures(&self) -> (f64, f64) {
        (-1.0, -1.0)
    }

    fn is_there(&self) -> bool {
        self.is_there
    }
}

fn cargo() -> Arc<Cargo> {
    let nothing = Digest::of(b"");
    let prompt = Prompt {
        messages: Vec::new(),
        media: Vec::new(),
        inputs: Arc::new(ModelInputs::default()),
        identity: Identity {
            model: nothing,
            tokenizer: nothing,
            processor: nothing,
        },
        notes: Vec::new(),
        content: nothing,
    };
    let processor = Processor::load(&models().join("demo-draft")).unwrap();
    let means = Means {
        limits: Limits::default(),
        decoders: Arc::new(Semaphore::new(1)),
        gone: CancellationToken::new(),
    };
    let (prompt, processor) = (Arc::new(prompt), Arc::new(processor));
    let cargo = Cargo::new(&prompt, &Sight::default(), &processor, None, means);
    Arc::new(cargo)
}

/// The way to the node in row 1, which is there or not; and one to row 2, should that be there.
fn ways(first: bool, second: bool) -> (Way, Elsewhere) {
    let needed = Arc::new(Semaphore::new(1));
    let way = move |row, is_there| Way {
        row,
        target: Arc::new(Toy {
            is_there,
            goes: false,
            needed: Arc::clone(&needed),
        }),
    };
    let asked = way(1, first);
    let elsewhere = move |row: usize| {
        assert_eq!(row, 1);
        second.then(|| way(2, true))
    };
    (asked, Arc::new(elsewhere))
}

/// In which row a way is found; or why there is none. None: it is still waited for.
async fn found(first: bool, second: bool, patient: bool) -> Option<Result<usize, NoWay>> {
    let (way, elsewhere) = ways(first, second);
    let (cargo, traffic) = (cargo(), Arc::<Traffic>::default());
    let finding = way.find(Duration::ZERO, patient, elsewhere, &cargo, &traffic);
    let within = match (first, second, patient) {
        (false, false, true) => Duration::from_millis(500),
        _ => LONG,
    };
    let (other, made) = tokio::time::timeout(within, finding).await.ok()?;
    Some(made.map(|_| other.map_or(way.row, |other| other.row)))
}

#[tokio::test]
async fn who_is_asked_first_answers_while_it_is_there() {
    for patient in [true, false] {
        assert_eq!(found(true, true, patient).await, Some(Ok(1)));
    }
}

/// What was begun for one that is gone is not in the way of another.
#[tokio::test]
async fn another_answers_where_one_is_gone() {
    for patient in [true, false] {
        assert_eq!(found(false, true, patient).await, Some(Ok(2)));
    }
}

#[tokio::test]
async fn where_nobody_is_only_the_patient_wait() {
    assert_eq!(found(false, false, true).await, None);
    let lost = found(false, false, false).await;
    assert!(matches!(lost, Some(Err(NoWay::Lost(_)))), "{lost:?}");
}

/// What was seen to be there is gone when it is asked: who may not wait hears of it, and does not wait for a peer that may never
/// be back.
#[tokio::test]
async fn who_is_gone_in_between_is_waited_for_by_the_patient_alone() {
    let way = Way {
        row: 1,
        target: Arc::new(Toy {
            is_there: true,
            goes: true,
            needed: Arc::new(Semaphore::new(1)),
        }),
    };
    let nobody: Elsewhere = Arc::new(|_: usize| None::<Way>);
    let (cargo, traffic) = (cargo(), Arc::<Traffic>::default());
    let finding = way.find(Duration::ZERO, false, nobody, &cargo, &traffic);
    let found = tokio::time::timeout(LONG, finding).await;
    let Ok((_, lost)) = found else {
        panic!("it waits for ever");
    };
    assert!(matches!(lost, Err(NoWay::Lost(_))), "{lost:?}");
}

/// A real peer keeps to that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_is_down_is_waited_for_by_the_patient_alone() {
    let (cloud, edge) = two("").await;
    drop(cloud);
    up(&edge, false).await;
    let way = edge.node.target(1, Route::Cloud, false).unwrap();
    let (cargo, traffic) = (cargo(), Arc::<Traffic>::default());
    let connecting = way.target.connect(false, &cargo, &traffic);
    let found = tokio::time::timeout(LONG, connecting).await;
    let Ok(lost) = found else {
        panic!("it waits for ever");
    };
    assert!(matches!(lost, Err(NoWay::Lost(_))), "{lost:?}");
    let connecting = way.target.connect(true, &cargo, &traffic);
    let waited = tokio::time::timeout(Duration::from_millis(500), connecting).await;
    assert!(waited.is_err(), "{waited:?}");
}
