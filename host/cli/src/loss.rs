//! What holding weights coarser costs: `msao model inspect DIR --quantize int8 --against f32`.

use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::Path;

use anyhow::{Context, Result};
use msao_core::chat::{Content, Message};
use msao_core::inputs::ModelInputs;
use msao_core::sampling::{Sampler, SamplingParams};
use msao_engine::{GenerateOptions, Model, Precision, generate};
use msao_processor::Processor;
use serde::Serialize;

use crate::Holding;
use crate::format::bytes;

/// What is asked: the model's own answers are what both ways of holding it are compared on.
const QUESTIONS: [&str; 8] = [
    "What is seven plus eight?",
    "Describe the scene.",
    "Name the opposite of large.",
    "Write a short story about a lighthouse keeper and a storm.",
    "Which letter comes after K? Explain your answer.",
    "List the steps needed to make a cup of tea.",
    "Translate \"good morning, how are you?\" into French.",
    "Why is the sky blue?",
];
/// Tokens of each answer.
const ANSWER: usize = 48;

/// The difference between two ways of holding a model, over the places of the exact one's greedy answers.
#[derive(Clone, Debug, Serialize)]
pub struct Loss {
    /// How the one compared is held.
    pub quantized: String,
    /// How the one it is compared with is held.
    pub against: String,
    /// Bytes of weights of both.
    pub weight_bytes: [u64; 2],
    /// Places compared.
    pub places: usize,
    /// Share of places at which both like the same token best.
    pub agreement: f64,
    /// Mean Kullback-Leibler divergence of the quantised distribution from the exact one, in nats a token.
    pub divergence: f64,
    /// What the answers' tokens cost the quantised model more than the exact one, in nats a token.
    pub added_cross_entropy: f64,
    /// Largest difference of a logit.
    pub largest_logit_difference: f32,
}

/// Compares on text alone: eight questions in the model's chat template, answered greedily by the exact one.
pub fn measure(dir: &Path, holding: &Holding, against: Precision) -> Result<Loss> {
    let processor = Processor::load(dir)?;
    let vocabulary = processor.tokenizer().vocab_size();
    let prompts = QUESTIONS
        .iter()
        .map(|question| {
            let message = Message {
                role: "user".into(),
                content: Content::Text((*question).into()),
            };
            Ok(processor.prepare(&[message], &[])?.inputs)
        })
        .collect::<Result<Vec<ModelInputs>>>()?;
    // One after the other, so that both need not fit into memory together.
    let exact = Holding {
        precision: against,
        quantize: None,
        ..holding.clone()
    };
    let model = exact.load(dir)?;
    let held = [0, model.weight_bytes()];
    let against = model.precision().to_owned();
    let mut answers = Vec::with_capacity(prompts.len());
    for inputs in &prompts {
        let tokens = answer(&model, inputs, vocabulary as u32)?;
        let rows = read(&model, inputs, &tokens)?;
        answers.push((tokens, rows));
    }
    drop(model);
    let model = holding.load(dir)?;
    let width = model.config().text.vocab_size;
    let mut loss = Loss {
        quantized: format!("int8 with {} activations", model.precision()),
        against,
        weight_bytes: [model.weight_bytes(), held[1]],
        places: 0,
        agreement: 0.0,
        divergence: 0.0,
        added_cross_entropy: 0.0,
        largest_logit_difference: 0.0,
    };
    for (inputs, (tokens, exact)) in prompts.iter().zip(&answers) {
        let coarse = read(&model, inputs, tokens)?;
        let rows = exact.chunks(width).zip(coarse.chunks(width));
        for ((exact, coarse), &token) in rows.zip(tokens) {
            // Padding behind the tokenizer's last id is nobody's choice.
            let exact = exact.get(..vocabulary).unwrap_or(exact);
            let coarse = coarse.get(..vocabulary).unwrap_or(coarse);
            loss.add(exact, coarse, token as usize);
        }
    }
    let places = loss.places.max(1) as f64;
    loss.agreement /= places;
    loss.divergence /= places;
    loss.added_cross_entropy /= places;
    Ok(loss)
}

impl Loss {
    /// Adds one place to the sums.
    fn add(&mut self, exact: &[f32], coarse: &[f32], token: usize) {
        let (p, q) = (log_softmax(exact), log_softmax(coarse));
        self.places += 1;
        self.agreement += f64::from(u8::from(best(exact) == best(coarse)));
        self.divergence += p
            .iter()
            .zip(&q)
            .map(|(p, q)| p.exp() * (p - q))
            .sum::<f64>();
        if let (Some(p), Some(q)) = (p.get(token), q.get(token)) {
            self.added_cross_entropy += p - q;
        }
        let differences = exact.iter().zip(coarse).map(|(a, b)| (a - b).abs());
        self.largest_logit_difference = differences.fold(self.largest_logit_difference, f32::max);
    }

    /// The loss in words.
    pub fn describe(&self) -> Result<String> {
        let mut out = String::new();
        let [coarse, exact] = self.weight_bytes;
        writeln!(
            out,
            "{} against {}, {} places of greedy answers to {} text questions",
            self.quantized,
            self.against,
            self.places,
            QUESTIONS.len()
        )?;
        writeln!(
            out,
            "  weights                {} instead of {}",
            bytes(coarse),
            bytes(exact)
        )?;
        writeln!(
            out,
            "  same best token        {:.2} % of places",
            100.0 * self.agreement
        )?;
        writeln!(
            out,
            "  divergence             {:.5} nats a token",
            self.divergence
        )?;
        writeln!(
            out,
            "  added cross-entropy    {:.5} nats a token",
            self.added_cross_entropy
        )?;
        write!(
            out,
            "  largest logit change   {:.3}",
            self.largest_logit_difference
        )?;
        Ok(out)
    }
}

fn answer(model: &Model, inputs: &ModelInputs, vocabulary: u32) -> Result<Vec<u32>> {
    let params = SamplingParams {
        temperature: 0.0,
        ..Default::default()
    };
    let mut sampler = Sampler::new(params, vocabulary, &inputs.input_ids)?;
    let options = GenerateOptions {
        max_new_tokens: ANSWER,
        ..Default::default()
    };
    let answer = generate(model, inputs, &mut sampler, &options, &mut |_| {
        ControlFlow::Continue(())
    })?;
    Ok(answer.tokens)
}

/// Logits after the prompt and after each token but the last.
fn read(model: &Model, inputs: &ModelInputs, tokens: &[u32]) -> Result<Vec<f32>> {
    let mut sequence = model.start()?;
    let mut rows = model.prefill(inputs, &mut sequence)?;
    let before = tokens
        .split_last()
        .map(|(_, before)| before)
        .context("the model answered with nothing")?;
    if !before.is_empty() {
        rows.extend(model.extend(before, &mut sequence)?);
    }
    Ok(rows)
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let largest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits.iter().map(|&x| (f64::from(x) - largest).exp()).sum();
    let norm = largest + sum.ln();
    logits.iter().map(|&x| f64::from(x) - norm).collect()
}

fn best(logits: &[f32]) -> usize {
    let better = |best: (usize, f32), (id, &logit): (usize, &f32)| {
        if logit > best.1 { (id, logit) } else { best }
    };
    logits
        .iter()
        .enumerate()
        .fold((0, f32::NEG_INFINITY), better)
        .0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_distribution_costs_and_an_equal_one_does_not() {
        let mut loss = Loss {
            quantized: String::new(),
            against: String::new(),
            weight_bytes: [1, 2],
            places: 0,
            agreement: 0.0,
            divergence: 0.0,
            added_cross_entropy: 0.0,
            largest_logit_difference: 0.0,
        };
        loss.add(&[1.0, 2.0, 0.5], &[1.0, 2.0, 0.5], 1);
        assert_eq!((loss.agreement, loss.places), (1.0, 1));
        assert!(loss.divergence.abs() < 1e-12);
        loss.add(&[0.0, 1.0], &[1.0, 0.0], 1);
        assert_eq!(loss.agreement, 1.0);
        // KL between (s, 1 - s) and its mirror image, s = sigmoid(1): 2 s - 1.
        let s = 1.0 / (1.0 + (-1f64).exp());
        assert!((loss.divergence - (2.0 * s - 1.0)).abs() < 1e-9);
        assert!((loss.added_cross_entropy - 1.0).abs() < 1e-9);
        assert_eq!(loss.largest_logit_difference, 1.0);
    }
}
