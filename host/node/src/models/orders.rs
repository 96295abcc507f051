//! Orders to a seat: one after the other, beside whatever else whoever gives them does. They go on while the next thing done
//! is waited for, in the same task: a token would otherwise go from task to task, which takes longer than a small model does.
//!
//! The seat is taken with the first order that needs the model. Tokens that only have to be known before that are kept
//! until then: a draft model that is there in case the peer is lost costs nothing as long as it is not.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use msao_core::meter::Meter;
use msao_engine::service::{ServiceError, Verdict};
use tokio::sync::{mpsc, oneshot};

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

/// The taking end.
struct Inbox {
    orders: mpsc::UnboundedReceiver<Order>,
    waiting: Arc<AtomicUsize>,
}

impl Inbox {
    async fn next(&mut self) -> Option<Order> {
        let order = self.orders.recv().await?;
        self.waiting.fetch_sub(order.cost(), Ordering::Relaxed);
        Some(order)
    }
}

/// The giving end. Dropping it ends the seat, whatever is under way.
pub struct Orders {
    orders: mpsc::UnboundedSender<Order>,
    waiting: Arc<AtomicUsize>,
    done: mpsc::UnboundedReceiver<Done>,
    /// `None` once it has ended.
    work: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Orders {
    /// Takes the seat when it is first needed, or at once if `eager`.
    pub fn new(opening: Opening, eager: bool) -> Orders {
        let (orders, given) = mpsc::unbounded_channel();
        let waiting = Arc::<AtomicUsize>::default();
        let inbox = Inbox {
            orders: given,
            waiting: Arc::clone(&waiting),
        };
        let (outbox, done) = mpsc::unbounded_channel();
        let work = async move {
            if let Err(error) = work(opening, eager, inbox, &outbox).await {
                let _nobody = outbox.send(Done::Failed(error));
            }
        };
        Orders {
            orders,
            waiting,
            done,
            work: Some(Box::pin(work)),
        }
    }

    /// Gives an order.
    pub fn give(&self, order: Order) {
        let cost = order.cost();
        self.waiting.fetch_add(cost, Ordering::Relaxed);
        // Work that has ended has said why.
        if self.orders.send(order).is_err() {
            self.waiting.fetch_sub(cost, Ordering::Relaxed);
        }
    }

    /// Orders that wait, and the tokens that they append. Nobody is kept from giving more: whoever is told by others what to
    /// give looks at it.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// What the seat has cost so far, behind all orders given before; `None` if it was not taken, or is lost.
    pub async fn meter(&mut self) -> Option<Meter> {
        let (reply, mut told) = oneshot::channel();
        self.give(Order::Meter(reply));
        loop {
            tokio::select! {
                biased;
                told = &mut told => return told.ok(),
                () = go_on(&mut self.work) => {}
            }
        }
    }

    /// Goes on with the orders until the next thing is done. Never comes once the seat is lost. May be dropped and asked again.
    pub async fn done(&mut self) -> Done {
        loop {
            tokio::select! {
                biased;
                Some(done) = self.done.recv() => return done,
                () = go_on(&mut self.work) => {}
            }
        }
    }
}

/// Until the work has ended, which it does once.
async fn go_on(work: &mut Option<Pin<Box<dyn Future<Output = ()> + Send>>>) {
    match work {
        Some(running) => {
            running.as_mut().await;
            *work = None;
        }
        None => std::future::pending().await,
    }
}

async fn work(
    opening: Opening,
    eager: bool,
    mut inbox: Inbox,
    outbox: &mpsc::UnboundedSender<Done>,
) -> Result<(), ServiceError> {
    let mut known: Vec<u32> = Vec::new();
    let mut first = None;
    while !eager && first.is_none() {
        match inbox.next().await {
            None => return Ok(()),
            Some(Order::RollBack(to)) => known.truncate(to as usize),
            Some(Order::Append(ids)) => known.extend(ids),
            // Nothing yet: who asks hears that by the other end being dropped.
            Some(Order::Meter(_)) => {}
            Some(order) => first = Some(order),
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
    let _nobody = outbox.send(Done::Ready {
        waited_ms,
        took_ms: ms(began),
    });
    loop {
        let order = match first.take() {
            Some(order) => order,
            None => match inbox.next().await {
                Some(order) => order,
                None => return Ok(()),
            },
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
                let _nobody = outbox.send(Done::Verified {
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
}
