//! A pass: what goes into it, and who gets what it gives.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::Engine;
use crate::error::EngineError;
use crate::logits::Logits;
use crate::runner::{SequenceId, Work};
use crate::service::choose::{Share, hand_out, untreated};
use crate::service::client::Rows;

/// Rows of a prompt that are read in any pass that reads at all: with fewer, reading would hardly get on.
pub(super) const FEWEST_ROWS: usize = 16;
/// Weight of a new pass in how long a row takes.
const ROW_WEIGHT: f64 = 0.3;

/// How much of prompts a pass may read.
pub(super) struct Allowance {
    /// Rows, through however many layers.
    rows: usize,
    /// Rows through all layers that there is time for.
    whole: f64,
}

impl Allowance {
    /// Rows of a prompt whose rows go through this share of the layers.
    pub fn rows(&self, share: f64) -> usize {
        ((self.whole / share) as usize).min(self.rows)
    }

    fn take(&mut self, rows: usize, share: f64) {
        self.rows = self.rows.saturating_sub(rows);
        self.whole -= rows as f64 * share;
    }
}

impl Engine {
    /// One pass over what is ready and as much of the prompts as may go with it. True if there was anything to run.
    pub(super) fn pass(
        &mut self,
        ready: &[(u64, SequenceId, Rows)],
        reading: &[(u64, SequenceId, usize)],
    ) -> bool {
        let mut batch: Vec<(SequenceId, Work)> = Vec::with_capacity(ready.len() + reading.len());
        for (_, sequence, rows) in ready {
            let work = match rows {
                Rows::Append(tokens) => Work::Append(tokens),
                Rows::Extend(tokens) => Work::Extend(tokens),
            };
            batch.push((*sequence, work));
        }
        let mut allowance = self.allowance(ready.is_empty());
        let mut chunks = Vec::new();
        let mut probed = Vec::new();
        for &(id, sequence, left) in reading {
            let share = self.runner.share_of_layers(sequence);
            let most = allowance.rows(share);
            if most == 0 {
                break;
            }
            let rows = left.min(most);
            allowance.take(rows, share);
            if self.runner.is_probed(sequence) {
                probed.push((id, sequence, rows));
            } else {
                chunks.push(id);
                batch.push((sequence, Work::Read(rows)));
            }
        }
        let owners: Vec<u64> = ready.iter().map(|(id, _, _)| *id).chain(chunks).collect();
        let any = !batch.is_empty() || !probed.is_empty();
        if !batch.is_empty() {
            self.run(&owners, &batch, ready);
        }
        for (id, sequence, rows) in probed {
            self.run(&[id], &[(sequence, Work::Read(rows))], &[]);
        }
        any
    }

    /// How much of prompts the next pass may read; `idle`: nobody decodes in it.
    pub(super) fn allowance(&self, idle: bool) -> Allowance {
        let options = &self.options;
        let (slice, most) = if idle {
            (options.idle_prompt_slice, options.idle_prompt_rows)
        } else {
            (options.prompt_slice, options.prompt_rows)
        };
        let (rows, whole) = if self.row_seconds > 0.0 {
            let whole = slice.as_secs_f64() / self.row_seconds;
            (most, whole.max(FEWEST_ROWS as f64))
        } else {
            // No prompt has been read yet: nobody knows how long a row takes.
            let first = options.prompt_rows.max(FEWEST_ROWS);
            (most.min(first), f64::INFINITY)
        };
        Allowance {
            rows: rows.max(1),
            whole,
        }
    }

    /// Runs a batch and hands out what it gave. Where the batch as a whole fails, as for want of device memory, each entry
    /// is tried by itself, and those that fail alone end. A panic ends all of them: what they hold may be half changed.
    fn run(
        &mut self,
        owners: &[u64],
        batch: &[(SequenceId, Work)],
        ready: &[(u64, SequenceId, Rows)],
    ) {
        let rows: usize = batch
            .iter()
            .map(|(_, work)| match work {
                Work::Read(rows) => *rows,
                Work::Extend(tokens) | Work::Append(tokens) => tokens.len(),
            })
            .sum();
        self.shared.passes.fetch_add(1, Ordering::Relaxed);
        self.shared.rows.fetch_add(rows as u64, Ordering::Relaxed);
        let read = self.read_by(batch);
        let mut began = Instant::now();
        let done = self.with_room(true, |engine| {
            began = Instant::now();
            engine.runner.run(batch)
        });
        let done = match done {
            Ok(logits) => self.guarded(|engine| {
                engine.hand_out(owners, ready, &logits);
                Ok(())
            }),
            Err(error) => Err(error),
        };
        self.took = began.elapsed();
        if done.is_ok() {
            self.learn(&read);
        }
        for (id, _, _) in ready {
            if let Some(client) = self.clients.get_mut(id) {
                client.served = client.orders.is_empty().then(Instant::now);
            }
        }
        match done {
            Ok(()) => {}
            Err(error @ EngineError::Panicked(_)) => self.fail_all(owners, error),
            Err(error) => match owners {
                [alone] => self.fail(*alone, error),
                _ => {
                    for (index, (id, entry)) in owners.iter().zip(batch).enumerate() {
                        let entry = std::slice::from_ref(entry);
                        let ready = ready.get(index).map(std::slice::from_ref);
                        self.run(&[*id], entry, ready.unwrap_or_default());
                    }
                }
            },
        }
    }

    /// The pieces of prompts in a batch: rows, and the share of the layers that they go through.
    fn read_by(&self, batch: &[(SequenceId, Work)]) -> Vec<(usize, f64)> {
        let pieces = batch.iter().filter_map(|(id, work)| match work {
            Work::Read(rows) => Some((*rows, self.runner.share_of_layers(*id))),
            Work::Extend(_) | Work::Append(_) => None,
        });
        pieces.collect()
    }

    /// Learns from the last pass, which read these pieces, how long a row takes.
    fn learn(&mut self, read: &[(usize, f64)]) {
        let rows: usize = read.iter().map(|(rows, _)| rows).sum();
        let whole: f64 = read.iter().map(|(rows, share)| *rows as f64 * share).sum();
        // A few rows cost what the weights cost, and say nothing of a row.
        if rows < FEWEST_ROWS || whole <= 0.0 {
            return;
        }
        let seconds = self.took.as_secs_f64() / whole;
        self.row_seconds = match self.row_seconds {
            0.0 => seconds,
            known => known + ROW_WEIGHT * (seconds - known),
        };
    }

    /// Gives every owner the logits of its entry and takes back what it read in vain.
    fn hand_out(&mut self, owners: &[u64], ready: &[(u64, SequenceId, Rows)], logits: &Logits) {
        let width = self.runner.model().config().text.vocab_size;
        let places: BTreeMap<u64, usize> = owners.iter().copied().zip(0..).collect();
        let mut shares: Vec<Share> = self
            .clients
            .iter_mut()
            .filter_map(|(id, client)| {
                let place = *places.get(id)?;
                let rows = ready.get(place).map(|(_, _, rows)| rows);
                if let Some(Rows::Extend(_)) = rows
                    && let Ok(meter) = self.runner.meter(client.sequence)
                {
                    client.spent = meter.spent();
                }
                Some(Share {
                    id: *id,
                    client,
                    rows,
                    logits: logits.of(place),
                    forget: untreated(),
                })
            })
            .collect();
        let threads = tch::get_num_threads().max(1) as usize;
        hand_out(&mut shares, width, threads);
        let taken: Vec<_> = shares
            .into_iter()
            .map(|share| (share.id, share.client.sequence, share.forget))
            .collect();
        for (id, sequence, forget) in taken {
            let done = forget.and_then(|forget| match forget {
                0 => Ok(()),
                _ => self.runner.roll_back(sequence, forget),
            });
            if let Err(error) = done {
                self.fail(id, error);
            }
        }
    }
}
