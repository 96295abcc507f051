//! The proof that draws follow their probabilities and do not know of each other.
//!
//! [`chi_square_rows`] draws through [`Sampler`] and compares the counts with the [`reference`](super::reference)
//! by Pearson's chi-square test. Cells that expect fewer than 5 draws are pooled; a draw of an id that should never
//! come makes the statistic infinite. All draws are fixed, so a row is a fact about this code and not a sample: a
//! p-value below some 1e-4 in a table this long means a fault.

use std::collections::BTreeMap;

use super::gamma::chi_square_p_value;
use super::noise::Noise;
use super::params::SamplingParams;
use super::reference::{Context, distribution};
use super::sampler::{Place, SampleError, Sampler, Scratch};
use super::transform::TokenMask;

/// One test.
#[derive(Clone, Debug, PartialEq)]
pub struct ChiSquareRow {
    /// What was drawn, and what differed from draw to draw.
    pub name: String,
    /// Draws, or pairs of draws.
    pub draws: u64,
    /// Cells after pooling, less one.
    pub degrees_of_freedom: u64,
    /// Pearson's statistic: the sum of (observed - expected)^2 / expected.
    pub statistic: f64,
    /// The probability of a statistic at least this large if the draws follow their probabilities.
    pub p_value: f64,
}

/// What changes from one draw to the next.
#[derive(Clone, Copy, Debug)]
enum Vary {
    Seed,
    OutputIndex,
    Choice,
    All,
}

impl Vary {
    const EACH: [(Self, &'static str); 4] = [
        (Self::Seed, "by seed"),
        (Self::OutputIndex, "by output index"),
        (Self::Choice, "by choice"),
        (Self::All, "by all three"),
    ];

    /// Neighbouring draws differ by 1 in what varies: the hardest case for a generator.
    fn place(self, draw: u64) -> Place {
        let fixed = Place {
            seed: 0x6d73_616f,
            choice: 0,
            output_index: 0,
        };
        match self {
            Self::Seed => Place {
                seed: draw,
                ..fixed
            },
            Self::OutputIndex => Place {
                output_index: draw as u32,
                ..fixed
            },
            Self::Choice => Place {
                choice: draw as u32,
                ..fixed
            },
            Self::All => Place {
                seed: draw >> 12,
                choice: (draw & 3) as u32,
                output_index: (draw >> 2 & 1023) as u32,
            },
        }
    }
}

/// Ids of [`logits`]; the last two are padding that no tokenizer id reaches.
const IDS: u32 = 26;
const VOCABULARY: u32 = 24;
const PROMPT: [u32; 4] = [0, 3, 3, 20];
const OUTPUT: [u32; 6] = [1, 1, 1, 4, 5, 0];
/// Every third id is not allowed.
const MASK: [u32; 1] = [0b0110_1101_1011_0110_1101_1011];

/// Probabilities at temperature 1 between 0.3 and 1e-4, two ids that tie, and one that cannot come.
fn logits() -> Vec<f32> {
    (0..IDS)
        .map(|id| match id {
            7 => f32::NEG_INFINITY,
            9 => -0.34 * 8.0,
            _ => -0.34 * (id * 7 % IDS) as f32,
        })
        .collect()
}

/// The cases of the table, each with its name and whether the mask is on.
fn cases() -> Vec<(&'static str, SamplingParams, bool)> {
    let default = SamplingParams::default;
    let bias = BTreeMap::from([(0, -2.0), (5, 1.5), (7, 10.0), (11, -100.0)]);
    vec![
        ("T 1", default(), false),
        (
            "T 0.3",
            SamplingParams {
                temperature: 0.3,
                ..default()
            },
            false,
        ),
        (
            "T 0.7",
            SamplingParams {
                temperature: 0.7,
                ..default()
            },
            false,
        ),
        (
            "T 2",
            SamplingParams {
                temperature: 2.0,
                ..default()
            },
            false,
        ),
        (
            "top-k 5",
            SamplingParams {
                top_k: Some(5),
                ..default()
            },
            false,
        ),
        (
            "top-p 0.9",
            SamplingParams {
                top_p: 0.9,
                ..default()
            },
            false,
        ),
        (
            "T 1.3, top-k 12, top-p 0.8",
            SamplingParams {
                temperature: 1.3,
                top_k: Some(12),
                top_p: 0.8,
                ..default()
            },
            false,
        ),
        (
            "repetition 1.4",
            SamplingParams {
                repetition_penalty: 1.4,
                ..default()
            },
            false,
        ),
        (
            "presence 0.8, frequency 0.4",
            SamplingParams {
                presence_penalty: 0.8,
                frequency_penalty: 0.4,
                ..default()
            },
            false,
        ),
        (
            "bias",
            SamplingParams {
                logit_bias: bias.clone(),
                ..default()
            },
            false,
        ),
        ("mask", default(), true),
        (
            "all of these",
            SamplingParams {
                temperature: 0.8,
                top_k: Some(10),
                top_p: 0.95,
                repetition_penalty: 1.2,
                presence_penalty: 0.3,
                frequency_penalty: -0.2,
                logit_bias: bias,
                ..default()
            },
            true,
        ),
    ]
}

/// The whole table: each case of sampling parameters with all coordinates varied, one case with each coordinate
/// varied alone, and pairs of neighbouring draws against independence. `draws` a row (half as many pairs).
///
/// A case that the sampler refuses, which is a fault of its own, has an infinite statistic.
pub fn chi_square_rows(draws: u64) -> Vec<ChiSquareRow> {
    let mut rows = Vec::new();
    for (name, params, masked) in cases() {
        let case = Case::new(params, masked);
        let name = format!("{name}, by all three");
        rows.push(row(
            &name,
            case.and_then(|case| case.marginal(&name, Vary::All, draws)),
        ));
    }
    for (vary, how) in Vary::EACH.into_iter().take(3) {
        let name = format!("T 1, {how}");
        let case = Case::new(SamplingParams::default(), false);
        rows.push(row(
            &name,
            case.and_then(|case| case.marginal(&name, vary, draws)),
        ));
    }
    for (vary, how) in Vary::EACH {
        let name = format!("pairs of tokens, T 1, {how}");
        let case = Case::new(SamplingParams::default(), false);
        rows.push(row(
            &name,
            case.and_then(|case| case.pairs(&name, vary, draws / 2)),
        ));
    }
    for (vary, how) in Vary::EACH {
        rows.push(noise_pairs(
            &format!("pairs of noise, {how}"),
            draws / 2,
            |draw| {
                let Place {
                    seed,
                    choice,
                    output_index,
                } = vary.place(draw);
                Noise::at(seed, choice, output_index).bits(0)
            },
        ));
    }
    let noise = Noise::at(0x6d73_616f, 0, 0);
    rows.push(noise_pairs(
        "pairs of noise, by token id",
        draws / 2,
        |draw| noise.bits(draw as u32),
    ));
    rows
}

fn row(name: &str, result: Result<ChiSquareRow, SampleError>) -> ChiSquareRow {
    result.unwrap_or_else(|refused| ChiSquareRow {
        name: format!("{name}: {refused}"),
        draws: 0,
        degrees_of_freedom: 0,
        statistic: f64::INFINITY,
        p_value: 0.0,
    })
}

/// One distribution to draw from.
struct Case {
    sampler: Sampler,
    logits: Vec<f32>,
    mask: Option<TokenMask<'static>>,
    probabilities: Vec<f64>,
}

impl Case {
    fn new(params: SamplingParams, masked: bool) -> Result<Self, SampleError> {
        let logits = logits();
        let mask = masked.then(|| TokenMask::new(&MASK));
        let context = Context {
            params: &params,
            vocabulary: VOCABULARY,
            prompt: &PROMPT,
            output: &OUTPUT,
            allowed: mask,
        };
        let expected = distribution(&context, &logits).ok_or(SampleError::NothingLeft)?;
        let probabilities = expected.log_p.iter().map(|log_p| log_p.exp()).collect();
        let mut sampler =
            Sampler::new(params, VOCABULARY, &PROMPT).map_err(|_| SampleError::NothingLeft)?;
        OUTPUT.iter().for_each(|id| sampler.commit(*id));
        Ok(Self {
            sampler,
            logits,
            mask,
            probabilities,
        })
    }

    fn draw(&self, place: Place, scratch: &mut Scratch) -> Result<usize, SampleError> {
        Ok(self
            .sampler
            .pick_at(&self.logits, place, self.mask, scratch)?
            .id as usize)
    }

    fn marginal(&self, name: &str, vary: Vary, draws: u64) -> Result<ChiSquareRow, SampleError> {
        let mut scratch = Scratch::default();
        let mut counts = vec![0; self.probabilities.len()];
        for draw in 0..draws {
            count(&mut counts, self.draw(vary.place(draw), &mut scratch)?);
        }
        Ok(pearson(name, draws, &counts, &self.probabilities))
    }

    /// Draws 2t and 2t+1 as one: their probabilities multiply if they do not know of each other.
    fn pairs(&self, name: &str, vary: Vary, pairs: u64) -> Result<ChiSquareRow, SampleError> {
        let mut scratch = Scratch::default();
        let p = &self.probabilities;
        let probabilities: Vec<f64> = p
            .iter()
            .flat_map(|a| p.iter().map(move |b| a * b))
            .collect();
        let mut counts = vec![0; probabilities.len()];
        for pair in 0..pairs {
            let first = self.draw(vary.place(2 * pair), &mut scratch)?;
            let second = self.draw(vary.place(2 * pair + 1), &mut scratch)?;
            count(&mut counts, first * p.len() + second);
        }
        Ok(pearson(name, pairs, &counts, &probabilities))
    }
}

/// Draws 2t and 2t+1 of the noise's 53 bits, as a point on a grid of 16 by 16.
fn noise_pairs(name: &str, pairs: u64, bits: impl Fn(u64) -> u64) -> ChiSquareRow {
    let cell = |draw| (bits(draw) >> 49) as usize;
    let mut counts = vec![0; 256];
    for pair in 0..pairs {
        count(&mut counts, cell(2 * pair) * 16 + cell(2 * pair + 1));
    }
    pearson(name, pairs, &counts, &[1.0 / 256.0; 256])
}

fn count(counts: &mut [u64], cell: usize) {
    if let Some(count) = counts.get_mut(cell) {
        *count += 1;
    }
}

fn pearson(name: &str, draws: u64, counts: &[u64], probabilities: &[f64]) -> ChiSquareRow {
    const LEAST_EXPECTED: f64 = 5.0;
    let mut cells = 0;
    let mut statistic = 0.0;
    let mut add = |observed: f64, expected: f64| {
        cells += 1;
        statistic += (observed - expected).powi(2) / expected;
    };
    let (mut pooled_observed, mut pooled_expected) = (0.0, 0.0);
    let mut impossible = false;
    for (&count, probability) in counts.iter().zip(probabilities) {
        let (observed, expected) = (count as f64, probability * draws as f64);
        if expected >= LEAST_EXPECTED {
            add(observed, expected);
        } else {
            impossible |= count > 0 && *probability == 0.0;
            pooled_observed += observed;
            pooled_expected += expected;
        }
    }
    if pooled_expected > 0.0 {
        add(pooled_observed, pooled_expected);
    }
    if impossible {
        statistic = f64::INFINITY;
    }
    let degrees_of_freedom = u64::saturating_sub(cells, 1);
    let p_value = chi_square_p_value(statistic, degrees_of_freedom.max(1));
    ChiSquareRow {
        name: name.to_owned(),
        draws,
        degrees_of_freedom,
        statistic,
        p_value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_distribution_is_found() {
        let good = pearson("two cells", 1000, &[498, 502], &[0.5, 0.5]);
        assert!(good.p_value > 0.8 && good.degrees_of_freedom == 1);
        assert!(pearson("two cells", 1000, &[600, 400], &[0.5, 0.5]).p_value < 1e-9);
        assert_eq!(
            pearson("two cells", 1000, &[500, 499, 1], &[0.5, 0.5, 0.0]).p_value,
            0.0
        );
    }

    #[test]
    fn the_cases_are_what_they_say() {
        for (name, params, masked) in cases() {
            let case = Case::new(params, masked).unwrap();
            let possible = case.probabilities.iter().filter(|p| **p > 0.0).count();
            assert!(possible >= 4, "{name}: {possible}");
            assert!(
                (case.probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-12,
                "{name}"
            );
            assert_eq!(case.probabilities.len(), VOCABULARY as usize);
            assert_eq!(case.probabilities[7], 0.0);
        }
    }
}
