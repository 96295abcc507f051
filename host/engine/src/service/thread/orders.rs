//! What sessions are asked to do: which orders are taken, and those that need no pass.

use super::Engine;
use crate::error::EngineError;
use crate::runner::Needs;
use crate::service::ServiceError;
use crate::service::choose::with_scratch;
use crate::service::client::Order;

/// Most orders that may wait on one session.
const ORDERS: usize = 256;

impl Engine {
    /// Why a draft is too long for one pass, if it is.
    pub(super) fn too_long(&self, order: &Order) -> Option<EngineError> {
        let most = self.options.decode_rows;
        match order {
            Order::Verify { drafts, .. } if drafts.len() >= most => {
                Some(EngineError::request(format!(
                    "{} drafts at once, and fewer than {most} are allowed",
                    drafts.len()
                )))
            }
            _ => None,
        }
    }

    pub(super) fn queue(&mut self, id: u64, order: Order) {
        match self.clients.get_mut(&id) {
            Some(client) if client.orders.len() < ORDERS => client.orders.push_back(order),
            Some(_) => {
                let most = ORDERS as u64;
                let limit = "orders that wait on one session";
                order.refuse(|| ServiceError::Overloaded { limit, most });
            }
            None => order.refuse(|| match self.failed.get(&id) {
                Some(failed) => ServiceError::Over(failed.why.again()),
                None => EngineError::request("the session is over").into(),
            }),
        }
    }

    /// Why tokens cannot be read, if one of them is none of the model's.
    pub(super) fn stranger(&self, tokens: &[u32]) -> Option<EngineError> {
        let vocabulary = self.runner.model().config().text.vocab_size;
        let stranger = tokens.iter().find(|&&id| id as usize >= vocabulary)?;
        Some(EngineError::request(format!(
            "token id {stranger} is not below the model's vocabulary of {vocabulary}"
        )))
    }

    /// Does everything on a session that needs no pass. True if something was done.
    pub(super) fn settle(&mut self, id: u64) -> bool {
        let mut worked = false;
        loop {
            let Some(client) = self.clients.get_mut(&id) else {
                return true;
            };
            if client.wants_verdict()
                && let Ok(meter) = self.runner.meter(client.sequence)
            {
                client.spent = meter.spent();
            }
            match with_scratch(|scratch| client.choose(scratch)) {
                Ok(true) => {
                    worked = true;
                    continue;
                }
                Ok(false) => {}
                Err(error) => {
                    self.fail(id, error);
                    return true;
                }
            }
            let needs = self.runner.needs(client.sequence);
            let read = matches!(needs, Ok(Needs::Nothing));
            let seen = matches!(needs, Ok(Needs::Keeping));
            if seen {
                // What is kept must be said before anything else can go on, whatever was ordered first.
                let about_probe =
                    |order: &Order| matches!(order, Order::Probed(_) | Order::Keep(..));
                if let Some(place) = client.orders.iter().position(about_probe)
                    && let Some(order) = client.orders.remove(place)
                {
                    client.orders.push_front(order);
                }
            }
            let now = match client.orders.front() {
                None | Some(Order::Generate { .. } | Order::Verify { .. }) => false,
                // What the probe saw takes a while to work out: that is done beside others' passes.
                Some(Order::Probed(_)) if seen && client.waits_for_report() => {
                    !matches!(self.runner.report(client.sequence), Ok(None))
                }
                Some(Order::Probed(_) | Order::Keep(..)) => seen || read,
                Some(Order::Meter(_) | Order::Output(_)) => true,
                Some(_) => read,
            };
            if !now {
                return worked;
            }
            let Some(order) = client.orders.pop_front() else {
                return worked;
            };
            worked = true;
            self.carry_out(id, order);
        }
    }

    /// An order that needs no pass.
    fn carry_out(&mut self, id: u64, order: Order) {
        let logits_fit = self.logits_fit();
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        let sequence = client.sequence;
        match order {
            Order::Probed(reply) if reply.is_closed() => {}
            Order::Probed(reply) => {
                let report = self.runner.probed(sequence);
                let _gone = reply.send(report.map_err(ServiceError::from));
            }
            Order::Keep(keep, reply) => {
                let kept = self.runner.keep(sequence, &keep);
                let _gone = reply.send(kept.map_err(ServiceError::from));
            }
            Order::Read(reply) => drop(reply.send(Ok(()))),
            Order::Append { tokens, reply } => {
                if let Some(error) = client.too_many(tokens.len()) {
                    let _gone = reply.send(Err(error.into()));
                    return;
                }
                client.append(&tokens);
                let _gone = reply.send(Ok(()));
            }
            Order::RollBack { tokens, reply } => {
                let forgotten = client
                    .roll_back(tokens)
                    .and_then(|forget| self.runner.roll_back(sequence, forget));
                let _gone = reply.send(forgotten.map_err(ServiceError::from));
            }
            Order::Fork { sampler, reply } => {
                if sampler.output() != client.sampler.output() {
                    let wrong = "a fork's sampler must have the session's output";
                    let _gone = reply.send(Err(EngineError::request(wrong).into()));
                    return;
                }
                // The answer's room is set aside for each choice.
                let full = if !self.runner.fits(client.unread()) {
                    Some((
                        "bytes of cache (cache_bytes)",
                        self.options.runner.cache_bytes,
                    ))
                } else if !logits_fit {
                    Some((
                        "bytes of kept logits (logits_bytes)",
                        self.options.logits_bytes,
                    ))
                } else {
                    None
                };
                if let Some((limit, most)) = full {
                    let _gone = reply.send(Err(ServiceError::Overloaded { limit, most }));
                    return;
                }
                match self.runner.fork(sequence) {
                    Err(error) => drop(reply.send(Err(error.into()))),
                    Ok(forked) => {
                        let (client, gone) = client.fork(forked, *sampler);
                        let ticket = self.enter(client, gone);
                        let _gone = reply.send(Ok(ticket));
                    }
                }
            }
            Order::Output(reply) => drop(reply.send(Ok(client.sampler.output().to_vec()))),
            Order::Meter(reply) => {
                let meter = self.runner.meter(sequence).cloned();
                let _gone = reply.send(meter.map_err(ServiceError::from));
            }
            // These wait for a pass.
            Order::Verify { .. } | Order::Generate { .. } => client.orders.push_front(order),
        }
    }
}
