//! DRAFT and VERDICT: what is said for each round, in fixed fields.

use msao_core::digest::Digest;
use msao_core::sampling::{TokenLogprob, TopLogprobs};

use super::limits::{MAX_FORCED, MAX_PROPOSED, MAX_TOP_LOGPROBS, MAX_VERDICT_IDS};
use super::wire::{Reader, at_most, must, write_ids};
use super::{FrameError, Kind, SessionId};

/// A round of drafts. Places are counted in tokens of the answer, from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// The session.
    pub session: SessionId,
    /// Grows whenever the edge takes sent drafts back: rounds of an earlier one are void.
    pub epoch: u32,
    /// Grows with every DRAFT of a session, across epochs.
    pub round: u32,
    /// Tokens that the edge has committed, the forced ones included.
    pub committed: u32,
    /// Digest of those tokens ([`crate::PrefixDigest`]).
    pub prefix: Digest,
    /// Place of the first id.
    pub start: u32,
    /// Committed at the edge without the target: the target takes them as they are. They end at place `committed`. At
    /// most 1,024.
    pub forced: Vec<u32>,
    /// Drafts to be held against the target's own choices. They follow the forced ids. At most 64.
    pub proposed: Vec<u32>,
    /// No more drafts come: the rest is the target's.
    pub last: bool,
}

/// Bit of a DRAFT's flags.
const LAST: u8 = 1;

impl Draft {
    pub(super) fn check(&self) -> Result<(), FrameError> {
        let kind = Kind::Draft;
        at_most(kind, "forced", MAX_FORCED, self.forced.len())?;
        at_most(kind, "proposed", MAX_PROPOSED, self.proposed.len())?;
        let proposed_from = u64::from(self.start) + self.forced.len() as u64;
        must(
            kind,
            "start",
            "not before `committed`, less the forced ids, which end there",
            if self.forced.is_empty() {
                self.start >= self.committed
            } else {
                proposed_from == u64::from(self.committed)
            },
        )?;
        let end = proposed_from + self.proposed.len() as u64;
        let fits = end <= u64::from(u32::MAX);
        must(kind, "start", "so that all places fit 32 bits", fits)
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.session.0);
        write_ids(&[self.epoch, self.round, self.committed], out);
        out.extend_from_slice(&self.prefix.0);
        write_ids(&[self.start], out);
        out.push(if self.last { LAST } else { 0 });
        write_count(self.forced.len(), out);
        write_count(self.proposed.len(), out);
        write_ids(&self.forced, out);
        write_ids(&self.proposed, out);
    }

    pub(super) fn read(payload: &[u8]) -> Result<Self, FrameError> {
        let kind = Kind::Draft;
        let mut reader = Reader::new(kind, payload);
        let session = SessionId(reader.bytes("session")?);
        let epoch = reader.u32("epoch")?;
        let round = reader.u32("round")?;
        let committed = reader.u32("committed")?;
        let prefix = reader.digest("prefix")?;
        let start = reader.u32("start")?;
        let flags = reader.u8("flags")?;
        must(kind, "flags", "0 or 1", flags & !LAST == 0)?;
        let forced = usize::from(reader.u16("forced count")?);
        at_most(kind, "forced", MAX_FORCED, forced)?;
        let proposed = usize::from(reader.u16("proposed count")?);
        at_most(kind, "proposed", MAX_PROPOSED, proposed)?;
        let draft = Draft {
            session,
            epoch,
            round,
            committed,
            prefix,
            start,
            forced: reader.ids(forced, "forced")?,
            proposed: reader.ids(proposed, "proposed")?,
            last: flags & LAST != 0,
        };
        reader.end()?;
        draft.check()?;
        Ok(draft)
    }
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The target said so. The id that says it is not part of the answer and is in no message.
    EndOfSequence,
    /// It has as many tokens as were asked for.
    Length,
}

/// The target's next tokens.
///
/// It answers by places: the tokens from `start` on are the first `accepted` drafts that are in flight and then
/// `next`. Rounds that lie before their end are answered by it.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The session.
    pub session: SessionId,
    /// The newest epoch that the cloud knows of.
    pub epoch: u32,
    /// The newest round that the cloud had taken in; 0 before the first.
    pub round: u32,
    /// Place of the first token: verdicts follow each other without a gap.
    pub start: u32,
    /// Drafts from `start` on that the target would have chosen itself.
    pub accepted: u32,
    /// What the target chose behind them: in the place of a draft that was not accepted, or behind them all.
    pub next: Vec<u32>,
    /// Whether the target had no draft when it began: it decoded on by itself.
    pub idle: bool,
    /// Whether the answer ends behind `next`.
    pub finish: Option<Finish>,
    /// The target's log-probabilities, one entry for each accepted and each next token.
    pub logprobs: Option<Vec<TopLogprobs>>,
}

/// Bits of a VERDICT's flags.
const IDLE: u8 = 1;
const LOGPROBS: u8 = 2;
const FINISH: u8 = 4 | 8;
const END_OF_SEQUENCE: u8 = 4;
const LENGTH: u8 = 8;

impl Verdict {
    /// Tokens that it commits.
    pub fn tokens(&self) -> usize {
        self.next.len() + self.accepted as usize
    }

    pub(super) fn check(&self) -> Result<(), FrameError> {
        let kind = Kind::Verdict;
        at_most(kind, "accepted", MAX_VERDICT_IDS, self.accepted as usize)?;
        at_most(kind, "accepted and next", MAX_VERDICT_IDS, self.tokens())?;
        let says = self.tokens() > 0 || self.finish.is_some();
        must(kind, "next", "not empty where nothing is accepted", says)?;
        let end = u64::from(self.start) + self.tokens() as u64;
        let fits = end <= u64::from(u32::MAX);
        must(kind, "start", "so that all places fit 32 bits", fits)?;
        let Some(logprobs) = &self.logprobs else {
            return Ok(());
        };
        let each = logprobs.len() == self.tokens();
        must(kind, "logprobs", "one for each token", each)?;
        for place in logprobs {
            at_most(kind, "top_logprobs", MAX_TOP_LOGPROBS, place.top.len())?;
            let mut all = place.top.iter().chain([&place.chosen]);
            // Not-a-number is not at most 0 either.
            let logs = all.all(|told| told.logprob <= 0.0);
            must(kind, "logprobs", "at most 0", logs)?;
        }
        Ok(())
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let finish = match self.finish {
            None => 0,
            Some(Finish::EndOfSequence) => END_OF_SEQUENCE,
            Some(Finish::Length) => LENGTH,
        };
        let idle = if self.idle { IDLE } else { 0 };
        let told = if self.logprobs.is_some() { LOGPROBS } else { 0 };
        out.extend_from_slice(&self.session.0);
        write_ids(&[self.epoch, self.round, self.start], out);
        out.push(idle | told | finish);
        write_count(self.accepted as usize, out);
        write_count(self.next.len(), out);
        write_ids(&self.next, out);
        for place in self.logprobs.iter().flatten() {
            write_logprob(&place.chosen, out);
            out.push(place.top.len() as u8);
            place.top.iter().for_each(|told| write_logprob(told, out));
        }
    }

    pub(super) fn read(payload: &[u8]) -> Result<Self, FrameError> {
        let kind = Kind::Verdict;
        let mut reader = Reader::new(kind, payload);
        let session = SessionId(reader.bytes("session")?);
        let epoch = reader.u32("epoch")?;
        let round = reader.u32("round")?;
        let start = reader.u32("start")?;
        let flags = reader.u8("flags")?;
        let known = flags & !(IDLE | LOGPROBS | FINISH) == 0 && flags & FINISH != FINISH;
        must(kind, "flags", "bits of this version", known)?;
        let accepted = u32::from(reader.u16("accepted")?);
        at_most(kind, "accepted", MAX_VERDICT_IDS, accepted as usize)?;
        let count = usize::from(reader.u16("next count")?);
        let tokens = accepted as usize + count;
        at_most(kind, "accepted and next", MAX_VERDICT_IDS, tokens)?;
        let next = reader.ids(count, "next")?;
        let logprobs = if flags & LOGPROBS == 0 {
            None
        } else {
            Some(
                (0..tokens)
                    .map(|_| read_place(&mut reader))
                    .collect::<Result<_, _>>()?,
            )
        };
        reader.end()?;
        let verdict = Verdict {
            session,
            epoch,
            round,
            start,
            accepted,
            next,
            idle: flags & IDLE != 0,
            finish: match flags & FINISH {
                END_OF_SEQUENCE => Some(Finish::EndOfSequence),
                LENGTH => Some(Finish::Length),
                _ => None,
            },
            logprobs,
        };
        verdict.check()?;
        Ok(verdict)
    }
}

fn read_place(reader: &mut Reader) -> Result<TopLogprobs, FrameError> {
    let chosen = read_logprob(reader)?;
    let count = usize::from(reader.u8("top_logprobs count")?);
    at_most(Kind::Verdict, "top_logprobs", MAX_TOP_LOGPROBS, count)?;
    let top = (0..count)
        .map(|_| read_logprob(reader))
        .collect::<Result<_, _>>()?;
    Ok(TopLogprobs { chosen, top })
}

fn read_logprob(reader: &mut Reader) -> Result<TokenLogprob, FrameError> {
    Ok(TokenLogprob {
        id: reader.u32("logprobs")?,
        logprob: reader.f64("logprobs")?,
    })
}

fn write_logprob(told: &TokenLogprob, out: &mut Vec<u8>) {
    write_ids(&[told.id], out);
    out.extend_from_slice(&told.logprob.to_le_bytes());
}

/// A count that [`Draft::check`] or [`Verdict::check`] has held against its limit, which 16 bits hold.
fn write_count(count: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&(count as u16).to_le_bytes());
}
