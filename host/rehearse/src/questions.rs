//! Questions of the simulator, made of rows.

use std::collections::HashMap;

use msao_core::offload::{flag, modality};
use msao_evaluate::plan::{Cell, Purpose};
use msao_evaluate::rows::{Results, Route, Row};
use msao_evaluate::spec::Spec;
use msao_simulate::traffic::{Drawn, Guessing, Medium, Question};

/// Parts of a clip or a sound.
const PARTS: u32 = 8;
/// Pixels across that become one token of a picture: two patches of 14.
const TOKEN_PX: f64 = 28.0;
/// Between the end of one repeat and the first question of the next, in ms: nobody waits any more.
pub(crate) const APART_MS: f64 = 600_000.0;
/// Between two questions that are learned from, in ms.
const LEARNS_EVERY_MS: f64 = 200.0;
/// Tokens of a question's text, and the bytes that go up for it, where no question is of text alone.
const TEXT_TOKENS: u32 = 24;
const TEXT_BYTES: u64 = 1_000;

/// What a cell asked, repeat after repeat.
#[derive(Default)]
pub(crate) struct Asked {
    /// In the order in which they were sent.
    pub questions: Vec<Question>,
    /// By question, how long after it was due it was sent, in ms.
    pub late_ms: Vec<f64>,
}

/// Which request of a data set: link, arrivals, repeat and item.
type Request<'a> = (&'a str, &'a str, &'a str, u32, u32);

/// What is known of questions from all policies' rows.
pub(crate) struct Known<'a> {
    rows: Vec<&'a Row>,
    /// The target's own answers.
    told: HashMap<Request<'a>, &'a Row>,
    /// Share of drafts that stood, by item of a data set; and over all.
    stood: HashMap<(&'a str, u32), (u64, u64)>,
    stood_over_all: f64,
    /// Of questions of text alone.
    text_tokens: u32,
    text_bytes: u64,
}

fn request(row: &Row) -> Request<'_> {
    let key = &row.key;
    (&key.data, &key.link, &key.arrival, key.repeat, key.index)
}

/// The middle one; the lower of two.
fn middle<T: Ord + Copy>(values: impl Iterator<Item = T>) -> Option<T> {
    let mut values: Vec<T> = values.collect();
    values.sort_unstable();
    values.get(values.len().saturating_sub(1) / 2).copied()
}

impl<'a> Known<'a> {
    /// Of all timed rows with an answer.
    pub(crate) fn of(results: &'a Results) -> Known<'a> {
        let baseline = &results.manifest.spec.baseline;
        let rows = results.rows.iter();
        let rows: Vec<&Row> = rows
            .filter(|row| row.key.purpose == Purpose::Timed && row.measured.is_answered())
            .collect();
        let mut stood: HashMap<(&str, u32), (u64, u64)> = HashMap::new();
        let (mut drafted_over_all, mut accepted_over_all) = (0, 0);
        for row in &rows {
            let (Some(drafted), Some(accepted)) = (row.measured.drafted, row.measured.accepted)
            else {
                continue;
            };
            let of = stood.entry((&row.key.data, row.key.index)).or_default();
            of.0 += u64::from(drafted);
            of.1 += u64::from(accepted);
            drafted_over_all += u64::from(drafted);
            accepted_over_all += u64::from(accepted);
        }
        let alone = || {
            let all = rows.iter().filter(|row| row.measured.kind == "text");
            all.map(|row| &row.measured)
        };
        let to_cloud = |it: &&msao_evaluate::rows::Measured| it.route == Some(Route::Cloud);
        Known {
            told: (rows.iter())
                .filter(|row| {
                    row.key.policy == *baseline && row.measured.route != Some(Route::Edge)
                })
                .map(|row| (request(row), *row))
                .collect(),
            stood,
            stood_over_all: match drafted_over_all {
                0 => 1.0 - Drawn::default().doubt,
                all => accepted_over_all as f64 / all as f64,
            },
            text_tokens: middle(alone().filter_map(|it| it.prompt_tokens)).unwrap_or(TEXT_TOKENS),
            text_bytes: middle(alone().filter(to_cloud).filter_map(|it| it.bytes_up))
                .unwrap_or(TEXT_BYTES),
            rows,
        }
    }

    /// What a cell's policy learns from before it is asked anything that counts: as many questions as the specification has for that, of
    /// what it was asked over the same link, as often as it takes. One each fifth of a second.
    pub(crate) fn learned_from(&self, spec: &Spec, cell: &Cell) -> Vec<Question> {
        let rows = self.rows.iter().filter(|row| {
            let key = &row.key;
            (&key.link, &key.policy) == (&cell.link, &cell.policy)
        });
        let rows: Vec<&Row> = rows.copied().collect();
        let numbered = rows.iter().cycle().take(spec.learn as usize).enumerate();
        numbered
            .map(|(number, row)| self.question(spec, row, number as f64 * LEARNS_EVERY_MS))
            .collect()
    }

    /// What a cell asked, the first at `from_ms` or later. Empty where nothing of it was answered.
    pub(crate) fn asked(&self, spec: &Spec, cell: &Cell, from_ms: f64) -> Asked {
        let rows = self.rows.iter().filter(|row| {
            let key = &row.key;
            (&key.data, &key.link) == (&cell.data, &cell.link)
                && (&key.arrival, &key.policy) == (&cell.arrival, &cell.policy)
        });
        let mut rows: Vec<&Row> = rows.copied().collect();
        // Clients are not simulated: one that came late comes late again.
        let at_ms = |row: &Row| {
            row.measured
                .sent_ms
                .or(row.measured.arrival_ms)
                .unwrap_or(0.0)
        };
        rows.sort_by(|a, b| (a.key.repeat.cmp(&b.key.repeat)).then(at_ms(a).total_cmp(&at_ms(b))));
        let (mut begin_ms, mut end_ms, mut repeat) = (from_ms, from_ms, None);
        let mut asked = Asked::default();
        for row in rows {
            if repeat.is_some_and(|before| before != row.key.repeat) {
                begin_ms = end_ms + APART_MS;
            }
            repeat = Some(row.key.repeat);
            let arrives_ms = begin_ms + at_ms(row);
            end_ms = arrives_ms + row.measured.total_ms.unwrap_or(0.0);
            asked.questions.push(self.question(spec, row, arrives_ms));
            let due_ms = row.measured.arrival_ms.unwrap_or(f64::INFINITY);
            asked.late_ms.push((at_ms(row) - due_ms).max(0.0));
        }
        asked
    }

    fn question(&self, spec: &Spec, row: &Row, arrives_ms: f64) -> Question {
        let told = self.told.get(&request(row)).copied();
        let tokens = |row: &Row| row.measured.tokens;
        let answer_tokens = told.and_then(tokens).or(tokens(row)).unwrap_or(1).max(1);
        let prompt_tokens = row.measured.prompt_tokens.unwrap_or(self.text_tokens);
        let kinds: Vec<u8> = (row.measured.kind.split('+'))
            .filter_map(modality_of)
            .collect();
        let text_tokens = match kinds.is_empty() {
            true => prompt_tokens,
            false => self.text_tokens.min(prompt_tokens.saturating_sub(1)),
        };
        let media_tokens = prompt_tokens - text_tokens;
        let sent = told.and_then(|row| row.measured.bytes_up);
        let media_bytes = sent.map_or(0, |bytes| bytes.saturating_sub(self.text_bytes));
        let count = kinds.len().max(1) as u32;
        let (each, bytes) = (
            (media_tokens / count).max(1),
            media_bytes as f64 / f64::from(count),
        );
        let stood = self.stood.get(&(row.key.data.as_str(), row.key.index));
        let stood = match stood {
            Some((drafted, accepted)) if *drafted > 0 => *accepted as f64 / *drafted as f64,
            _ => self.stood_over_all,
        };
        let max_tokens = spec.decoding.max_tokens.max(answer_tokens);
        Question {
            arrives_ms,
            seed: row.key.seed,
            media: kinds
                .iter()
                .map(|kind| medium(*kind, each, bytes))
                .collect(),
            text_tokens: text_tokens.max(1),
            max_tokens,
            // The simulator knows no higher ones.
            temperature: spec.decoding.temperature.min(2.0),
            flags: flag::STREAMED,
            guessing: Guessing::Drawn(Drawn {
                doubt: (1.0 - stood).clamp(0.0, 1.0),
                ..Drawn::default()
            }),
            ..Question::plain(0, text_tokens.max(1), answer_tokens)
        }
    }
}

fn modality_of(name: &str) -> Option<u8> {
    match name {
        "image" => Some(modality::IMAGE),
        "video" => Some(modality::VIDEO),
        "audio" => Some(modality::AUDIO),
        _ => None,
    }
}

/// A medium of which the answer needs everything.
fn medium(modality: u8, tokens: u32, bytes: f64) -> Medium {
    let parts = match modality {
        modality::IMAGE => 1,
        _ => PARTS.min(tokens),
    };
    let side = (f64::from(tokens) / f64::from(parts)).sqrt() * TOKEN_PX;
    let side = match modality {
        modality::AUDIO => 0,
        _ => side.round().max(1.0) as u32,
    };
    Medium {
        modality,
        tokens,
        frames: parts,
        width_px: side,
        height_px: side,
        duration_ms: match modality {
            modality::IMAGE => 0.0,
            _ => 1000.0 * f64::from(parts),
        },
        bytes,
        cached: false,
        necessity: 1.0,
        mas: 0.0,
        unusual: 0.0,
    }
}
