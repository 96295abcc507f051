//! Orders to a seat: one after the other, beside whatever else whoever gives them does. They go on while the next thing done
//! is waited for, in the same task: a token would otherwise go from task to task, which takes longer than a small model does.
//!
//! The seat is taken with the first order that needs the model. Tokens that only have to be known before that are kept
//! until then: a draft model that is there in case the peer is lost costs nothing as long as it is not.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use msao_core::meter::Meter;
use msao_engine::service::{ServiceError, Verdict};
use tokio::sync::oneshot;
use tokio::task::coop::consume_budget;

use super::engine::Seat;

/// A seat that is being taken.
pub type Opening = Pin<Box<dyn Future<Output = Result<Box<dyn Seat>, ServiceError>> + Send>>;

/// What a seat is asked.
#[derive(Debug)]
pub enum Order {
    /// Hold these drafts against the model's choices; without drafts it chooses one token.
    Verify {
        /// Comes back with the verdict.
        stamp: u64,
        /// The drafts.
        drafts: Vec<u32>,
    },
    /// Take the answer back to so many tokens.
    RollBack(u32),
    /// Make these the next tokens of the answer.
    Append(Vec<u32>),
    /// Say what it has cost so far.
    Meter(oneshot::Sender<Meter>),
}

impl Order {
    /// What it counts as long as it waits: itself, and the tokens that it appends. Those that it verifies are few.
    fn cost(&self) -> usize {
        match self {
            Order::Append(ids) => 1 + ids.len(),
            Order::Verify { .. } | Order::RollBack(_) | Order::Meter(_) => 1,
        }
    }
}

/// What became of it.
#[derive(Debug)]
pub enum Done {
    /// The prompt has been read; told once, before any verdict.
    Ready {
        /// Time until there was a seat, in ms.
        waited_ms: f64,
        /// From there on, in ms.
        took_ms: f64,
    },
    /// A verdict.
    Verified {
        /// Of the order.
        stamp: u64,
        /// It.
        verdict: Verdict,
        /// How long it took, in ms, waiting for others' work included.
        took_ms: f64,
    },
    /// The seat is lost. Nothing follows.
    Failed(ServiceError),
}

/// What lies between whoever gives orders and the work that does them: both are in one task, which polls the work whenever it
/// waits. So nothing here wakes anybody. A channel would wake the very task that is running, once a token, and a task that is
/// woken while it runs goes behind all others, often to another core.
#[derive(Debug, Default)]
struct Desk {
    orders: VecDeque<Order>,
    /// Of the orders that wait.
    waiting: usize,
    done: VecDeque<Done>,
}

/// Never contended: the lock is there because a task may go from thread to thread.
#[derive(Clone, Debug, Default)]
struct Shared(Arc<Mutex<Desk>>);

impl Shared {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, done: Done) {
        self.desk().done.push_back(done);
    }

    /// The next order. Whoever gives one polls the work next, and so this.
    async fn next(&self) -> Order {
        poll_fn(|_| {
            let mut desk = self.desk();
            match desk.orders.pop_front() {
                Some(order) => {
                    desk.waiting -= order.cost();
                    Poll::Ready(order)
                }
                None => Poll::Pending,
            }
        })
        .await
    }
}

/// Ends only where the seat is lost.
type Work = Pin<Box<dyn Future<Output = ServiceError> + Send>>;

/// The giving end. Dropping it ends the seat, whatever is under way.
pub struct Orders {
    shared: Shared,
    /// `None` once it has ended.
    work: Option<Work>,
}

impl Orders {
    /// Takes the seat when it is first needed, or at once if `eager`.
    pub fn new(opening: Opening, eager: bool) -> Orders {
        let shared = Shared::default();
        let work = work(opening, eager, shared.clone());
        Orders {
            shared,
            work: Some(Box::pin(work)),
        }
    }

    /// Gives an order.
    pub fn give(&self, order: Order) {
        // Work that has ended has said why.
        if self.work.is_some() {
            let mut desk = self.shared.desk();
            desk.waiting += order.cost();
            desk.orders.push_back(order);
        }
    }

    /// Orders that wait, and the tokens that they append. Nobody is kept from giving more: whoever is told by others what to
    /// give looks at it.
    pub fn waiting(&self) -> usize {
        self.shared.desk().waiting
    }

    /// What the seat has cost so far, behind all orders given before; `None` if it was not taken, or is lost.
    pub async fn meter(&mut self) -> Option<Meter> {
        let (reply, mut told) = oneshot::channel();
        self.give(Order::Meter(reply));
        poll_fn(|context| {
            self.go_on(context);
            match told.try_recv() {
                Ok(meter) => Poll::Ready(Some(meter)),
                Err(oneshot::error::TryRecvError::Closed) => Poll::Ready(None),
                Err(oneshot::error::TryRecvError::Empty) => Poll::Pending,
            }
        })
        .await
    }

    /// Goes on with the orders until the next thing is done. Never comes once the seat is lost. May be dropped and asked again.
    pub async fn done(&mut self) -> Done {
        // A model that answers at once would never let go of the thread.
        consume_budget().await;
        poll_fn(|context| {
            let before = self.shared.desk().done.pop_front();
            let done = before.or_else(|| {
                self.go_on(context);
                self.shared.desk().done.pop_front()
            });
            done.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Does of the work what can be done now.
    fn go_on(&mut self, context: &mut Context) {
        let Some(work) = &mut self.work else {
            return;
        };
        if let Poll::Ready(error) = work.as_mut().poll(context) {
            self.work = None;
            let mut desk = self.shared.desk();
            // Who waits for one of these hears that it will not be done.
            desk.orders.clear();
            desk.waiting = 0;
            desk.done.push_back(Done::Failed(error));
        }
    }
}

async fn work(opening: Opening, eager: bool, shared: Shared) -> ServiceError {
    let Err(error) = serve(opening, eager, &shared).await;
    error
}

/// Does orders for as long as there is a seat to do them.
async fn serve(opening: Opening, eager: bool, shared: &Shared) -> Result<Infallible, ServiceError> {
    let mut known: Vec<u32> = Vec::new();
    let mut first = None;
    while !eager && first.is_none() {
        match shared.next().await {
            Order::RollBack(to) => known.truncate(to as usize),
            Order::Append(ids) => known.extend(ids),
            // Nothing yet: who asks hears that by the other end being dropped.
            Order::Meter(_) => {}
            order @ Order::Verify { .. } => first = Some(order),
        }
    }
    let began = Instant::now();
    let ms = |since: Instant| since.elapsed().as_secs_f64() * 1000.0;
    let seat = opening.await?;
    let waited_ms = ms(began);
    let began = Instant::now();
    if !known.is_empty() {
        seat.append(known).await?;
    }
    seat.read().await?;
    shared.tell(Done::Ready {
        waited_ms,
        took_ms: ms(began),
    });
    loop {
        let order = match first.take() {
            Some(order) => order,
            None => shared.next().await,
        };
        match order {
            Order::RollBack(to) => seat.roll_back(to as usize).await?,
            Order::Append(ids) => seat.append(ids).await?,
            Order::Meter(reply) => {
                let _gone = reply.send(seat.meter().await?);
            }
            Order::Verify { stamp, drafts } => {
                let began = Instant::now();
                let verdict = seat.verify(drafts).await?;
                shared.tell(Done::Verified {
                    stamp,
                    verdict,
                    took_ms: ms(began),
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use msao_core::meter::Spent;
    use msao_core::probe::ProbeReport;
    use msao_engine::Keep;

    use super::super::engine::Awaited;
    use super::*;

    #[tokio::test]
    async fn what_waits_is_counted_until_it_is_taken() {
        let never = || -> Opening {
            Box::pin(std::future::pending::<Result<Box<dyn Seat>, ServiceError>>())
        };
        let give = |orders: &Orders| {
            orders.give(Order::Append(vec![1, 2, 3]));
            orders.give(Order::RollBack(1));
        };
        let taken = async |orders: &mut Orders| {
            tokio::select! {
                biased;
                done = orders.done() => panic!("{done:?} without a seat"),
                () = tokio::task::yield_now() => {}
            }
        };
        // Nothing is taken before there is a seat.
        let mut eager = Orders::new(never(), true);
        give(&eager);
        eager.give(Order::Verify {
            stamp: 1,
            drafts: vec![4; 64],
        });
        taken(&mut eager).await;
        assert_eq!(eager.waiting(), 4 + 1 + 1);
        // What only has to be known is taken at once.
        let mut lazy = Orders::new(never(), false);
        give(&lazy);
        assert_eq!(lazy.waiting(), 4 + 1);
        taken(&mut lazy).await;
        assert_eq!(lazy.waiting(), 0);
    }

    /// Answers at once.
    struct AtOnce;

    impl Seat for AtOnce {
        fn read(&self) -> Awaited<'_, ()> {
            Box::pin(async { Ok(()) })
        }

        fn verify(&self, _drafts: Vec<u32>) -> Awaited<'_, Verdict> {
            Box::pin(async {
                Ok(Verdict {
                    accepted: 0,
                    picks: Vec::new(),
                    logprobs: Vec::new(),
                    confidence: Vec::new(),
                    ended: false,
                    spent: Spent::default(),
                })
            })
        }

        fn append(&self, _tokens: Vec<u32>) -> Awaited<'_, ()> {
            Box::pin(async { Ok(()) })
        }

        fn roll_back(&self, _tokens: usize) -> Awaited<'_, ()> {
            Box::pin(async { Ok(()) })
        }

        fn probed(&self) -> Awaited<'_, ProbeReport> {
            Box::pin(async { Err(ServiceError::Stopped) })
        }

        fn keep(&self, _keep: Keep) -> Awaited<'_, ()> {
            Box::pin(async { Ok(()) })
        }

        fn meter(&self) -> Awaited<'_, Meter> {
            Box::pin(async { Ok(Meter::default()) })
        }
    }

    /// Counts how often the task is woken.
    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn what_is_done_at_once_is_told_at_once_and_wakes_nobody() {
        let opening: Opening = Box::pin(async { Ok(Box::new(AtOnce) as Box<dyn Seat>) });
        let mut orders = Orders::new(opening, false);
        let wakes = Arc::<Wakes>::default();
        let waker = Waker::from(Arc::clone(&wakes));
        let mut context = Context::from_waker(&waker);
        orders.give(Order::Verify {
            stamp: 7,
            drafts: Vec::new(),
        });
        let mut told = Vec::new();
        for _ in 0..2 {
            match pin!(orders.done()).poll(&mut context) {
                Poll::Ready(done) => told.push(done),
                Poll::Pending => panic!("not told: {told:?}"),
            }
        }
        assert!(
            matches!(
                told[..],
                [Done::Ready { .. }, Done::Verified { stamp: 7, .. }]
            ),
            "{told:?}"
        );
        assert!(pin!(orders.meter()).poll(&mut context).is_ready());
        assert_eq!(wakes.0.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn orders_behind_the_loss_of_a_seat_are_not_waited_for() {
        let opening: Opening = Box::pin(async { Err(ServiceError::Stopped) });
        let mut orders = Orders::new(opening, false);
        orders.give(Order::Verify {
            stamp: 1,
            drafts: Vec::new(),
        });
        orders.give(Order::Append(vec![1, 2]));
        assert!(orders.meter().await.is_none());
        assert!(matches!(orders.done().await, Done::Failed(_)));
        orders.give(Order::RollBack(0));
        assert_eq!(orders.waiting(), 0);
        assert!(orders.meter().await.is_none());
    }
}
