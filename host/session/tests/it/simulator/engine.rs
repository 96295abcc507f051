//! An engine that does one order after the other, as the real one does for a session.

use std::collections::VecDeque;

use super::toy::{END, Toy};

#[derive(Clone, Debug)]
pub enum Order {
    Draft {
        stamp: u64,
        position: u32,
    },
    Verify {
        stamp: u64,
        position: u32,
        drafts: Vec<u32>,
    },
    RollBack(u32),
    Append(Vec<u32>),
}

/// What a timed order gave.
#[derive(Clone, Debug)]
pub enum Done {
    Drafted {
        stamp: u64,
        id: u32,
    },
    Verified {
        stamp: u64,
        choices: Vec<u32>,
        ended: bool,
    },
}

#[derive(Clone, Debug, Default)]
pub struct Engine {
    pub output: Vec<u32>,
    orders: VecDeque<Order>,
    running: bool,
}

impl Engine {
    pub fn order(&mut self, order: Order) {
        self.orders.push_back(order);
    }

    /// Does what takes no time; true if an order begins now that takes some.
    pub fn begin(&mut self) -> bool {
        while !self.running {
            let Some(order) = self.orders.front() else {
                return false;
            };
            match order {
                Order::RollBack(to) => {
                    let to = *to as usize;
                    assert!(
                        to <= self.output.len(),
                        "rolled back to what was never read"
                    );
                    self.output.truncate(to);
                }
                Order::Append(ids) => self.output.extend(ids),
                Order::Draft { position, .. } => {
                    assert_eq!(*position as usize, self.output.len(), "drafts elsewhere");
                    self.running = true;
                    return true;
                }
                Order::Verify { position, .. } => {
                    assert_eq!(*position as usize, self.output.len(), "verifies elsewhere");
                    self.running = true;
                    return true;
                }
            }
            self.orders.pop_front();
        }
        false
    }

    /// The order that runs is done.
    pub fn finish(&mut self, toy: &Toy) -> Done {
        self.running = false;
        match self.orders.pop_front().unwrap() {
            Order::Draft { stamp, .. } => {
                let id = toy.draft(&self.output);
                if id != END {
                    self.output.push(id);
                }
                Done::Drafted { stamp, id }
            }
            Order::Verify { stamp, drafts, .. } => {
                let mut choices = Vec::new();
                let mut ended = false;
                loop {
                    let id = toy.target(&self.output);
                    if id == END {
                        ended = true;
                        break;
                    }
                    self.output.push(id);
                    choices.push(id);
                    if drafts.get(choices.len() - 1) != Some(&id) {
                        break;
                    }
                }
                Done::Verified {
                    stamp,
                    choices,
                    ended,
                }
            }
            order => panic!("{order:?} takes no time"),
        }
    }

    /// Whether nothing waits that would change what has been read.
    pub fn is_settled(&self) -> bool {
        let changes = |order: &&Order| matches!(order, Order::RollBack(_) | Order::Append(_));
        self.orders.iter().find(changes).is_none()
    }
}
