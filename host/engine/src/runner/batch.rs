//! One pass over many sequences: what each adds to the batch, and what becomes of it.

use msao_core::meter::Phase;

use super::{Piece, Runner, Running, SequenceId, Task, Work, give_way, unknown};
use crate::error::{EngineError, Result};
use crate::logits::Logits;
use crate::pass::{Input, Part};

impl Runner {
    /// Runs one pass over a batch, in which no sequence is named twice. Returns for each entry the logits after its
    /// tokens, `vocab_size` values a row: one row for each token of [`Work::Extend`]; for [`Work::Read`] one row when
    /// the prompt has been read to its end, else none.
    ///
    /// When it fails no sequence has changed.
    pub fn run(&mut self, batch: &[(SequenceId, Work)]) -> Result<Logits> {
        let mut taken: Vec<(SequenceId, Running)> = Vec::with_capacity(batch.len());
        for (id, _) in batch {
            match self.sequences.remove(id) {
                Some(running) => taken.push((*id, running)),
                None => {
                    self.sequences.extend(taken);
                    return Err(unknown(*id));
                }
            }
        }
        let result = self.run_taken(batch, &mut taken);
        self.sequences.extend(taken);
        result
    }

    fn run_taken(
        &mut self,
        batch: &[(SequenceId, Work)],
        taken: &mut [(SequenceId, Running)],
    ) -> Result<Logits> {
        // Pieces of prompts: rows and their positions, made before any state is borrowed.
        let mut pieces = Vec::with_capacity(batch.len());
        for ((_, running), (id, work)) in taken.iter().zip(batch) {
            match (work, &running.reading) {
                (Work::Read(most), Some(reading)) => pieces.push(Some(reading.piece(*most)?)),
                (Work::Extend(tokens) | Work::Append(tokens), None) if !tokens.is_empty() => {
                    self.model
                        .check_room(running.state.tokens() + tokens.len(), 0)?;
                    if running.state.added() + tokens.len() > running.reserve {
                        return Err(EngineError::request(format!(
                            "{} more tokens behind {} are more than the {} that room was set aside for",
                            tokens.len(),
                            running.state.added(),
                            running.reserve
                        )));
                    }
                    pieces.push(None);
                }
                (Work::Extend(_) | Work::Append(_), None) => {
                    return Err(EngineError::request("no tokens to go on with"));
                }
                (Work::Extend(_) | Work::Append(_), Some(_)) => {
                    return Err(EngineError::request(format!(
                        "sequence {} has not read its prompt yet",
                        id.0
                    )));
                }
                (Work::Read(_), None) => {
                    return Err(EngineError::request(format!(
                        "sequence {} has read its prompt",
                        id.0
                    )));
                }
            }
        }
        let more: Vec<[usize; 2]> = (taken.iter().zip(batch).zip(&pieces))
            .map(|(((_, running), (_, work)), piece)| running.adds(work, piece.as_ref()))
            .collect();
        // Counted anew as prefixes give way: a block that nobody else holds any more need not be copied.
        give_way(&mut self.prefixes, &mut self.pool, |pool| {
            let tables = taken.iter().map(|(_, running)| &running.state.tables);
            pool.blocks_for_all(tables.zip(more.iter().copied()))
        });
        self.check_memory(Task::Pass)?;
        if taken.iter().any(|(_, running)| running.probing()) {
            return match (taken, pieces.as_slice()) {
                ([(_, running)], [Some(piece)]) => self.run_probing(running, piece),
                _ => Err(EngineError::request(
                    "a prompt that is probed must be read in a batch of its own",
                )),
            };
        }
        let mut parts: Vec<Part> = Vec::with_capacity(batch.len());
        for (((_, running), (_, work)), piece) in taken.iter_mut().zip(batch).zip(&pieces) {
            parts.push(match (work, piece) {
                (Work::Extend(tokens), _) => Part {
                    state: &mut running.state,
                    input: Input::Tokens(tokens),
                    phase: Phase::Decode,
                    wanted: tokens.len(),
                },
                (Work::Append(tokens), _) => Part {
                    state: &mut running.state,
                    input: Input::Tokens(tokens),
                    phase: Phase::Decode,
                    wanted: 1,
                },
                (Work::Read(_), Some(piece)) => Part {
                    state: &mut running.state,
                    input: Input::Embedded {
                        x: &piece.x,
                        axes: piece.axes.each_ref().map(Vec::as_slice),
                    },
                    phase: Phase::Prefill,
                    wanted: usize::from(piece.last),
                },
                (Work::Read(_), None) => {
                    return Err(EngineError::request("a piece of a prompt went missing"));
                }
            });
        }
        let logits = self.model.pass(&mut self.pool, &mut parts)?;
        drop(parts);
        #[cfg(test)]
        assert!(
            batch.iter().all(|(id, _)| self.trip != Some(*id)),
            "on purpose"
        );
        for ((_, running), piece) in taken.iter_mut().zip(&pieces) {
            if let Some(piece) = piece {
                self.has_read(running, piece);
            }
        }
        Ok(logits)
    }

    /// Runs the layers of one region over a piece of a prompt that is probed.
    fn run_probing(&mut self, running: &mut Running, piece: &Piece) -> Result<Logits> {
        let Some(probe) = running
            .reading
            .as_mut()
            .and_then(|reading| reading.probe.as_mut())
        else {
            return Ok(Logits::nothing(1));
        };
        let (model, pool) = (&self.model, &mut self.pool);
        let logits = probe.advance(model, pool, &mut running.state, piece)?;
        self.has_read(running, piece);
        Ok(logits)
    }

    /// Moves a prompt on by a piece that has been read.
    fn has_read(&mut self, running: &mut Running, piece: &Piece) {
        let Some(reading) = &mut running.reading else {
            return;
        };
        reading.read += piece.rows;
        if let Some(probe) = &mut reading.probe
            && probe.looking()
        {
            if reading.read == reading.prompt.keep.len() {
                probe.stop_looking();
            }
            return;
        }
        if reading.read < reading.prompt.keep.len() {
            return;
        }
        running.state.end_prompt(reading.prompt.positions.next);
        if self.prefixes.keeps_any()
            && let Some(chain) = reading.read_whole()
        {
            self.prefixes
                .put(chain, &mut self.pool, &running.state.tables);
        }
        running.reading = None;
    }
}

impl Running {
    /// Tokens that its work adds in each region.
    fn adds(&self, work: &Work, piece: Option<&Piece>) -> [usize; 2] {
        let rows = match (work, piece) {
            (Work::Read(_), Some(piece)) => piece.rows,
            (Work::Read(_), None) => 0,
            (Work::Extend(tokens) | Work::Append(tokens), _) => tokens.len(),
        };
        let probe = self
            .reading
            .as_ref()
            .and_then(|reading| reading.probe.as_ref());
        match probe {
            Some(probe) if probe.going_on() => [0, rows],
            Some(_) => [rows, 0],
            None => [rows; 2],
        }
    }
}
