//! The sampler against its definition: any logits, any parameters, any history.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;

use msao_core::sampling::reference::{self, Context};
use msao_core::sampling::{SampleError, Sampler, SamplingParams, Scratch, TokenMask};
use proptest::prelude::*;

#[derive(Clone, Debug)]
struct Case {
    logits: Vec<f32>,
    vocabulary: u32,
    params: SamplingParams,
    prompt: Vec<u32>,
    output: Vec<u32>,
    mask: Option<Vec<u32>>,
    output_index: u32,
}

impl Case {
    fn context(&self) -> Context<'_> {
        Context {
            params: &self.params,
            vocabulary: self.vocabulary,
            prompt: &self.prompt,
            output: &self.output,
            allowed: self.allowed(),
        }
    }

    fn allowed(&self) -> Option<TokenMask<'_>> {
        self.mask.as_deref().map(TokenMask::new)
    }

    fn sampler(&self) -> Sampler {
        let mut sampler = Sampler::new(self.params.clone(), self.vocabulary, &self.prompt).unwrap();
        self.output.iter().for_each(|id| sampler.commit(*id));
        sampler
    }
}

/// Logits of several kinds: spread, on a coarse grid (ties), nearly equal, far apart; some minus infinity.
fn logits(most: usize) -> impl Strategy<Value = Vec<f32>> {
    let kind = prop_oneof![
        Just((-12.0_f32..12.0).boxed()),
        Just((-3_i8..3).prop_map(f32::from).boxed()),
        Just((0.0_f32..1e-6).boxed()),
        Just((-1e30_f32..1e30).boxed()),
        Just(Just(0.5_f32).boxed()),
    ];
    (kind, 0.0..1.0_f64).prop_flat_map(move |(kind, masked)| {
        let masked = if masked < 0.5 { 0.0 } else { masked - 0.45 };
        let logit = (kind, prop::bool::weighted(masked))
            .prop_map(|(logit, masked)| if masked { f32::NEG_INFINITY } else { logit });
        prop::collection::vec(logit, 1..=most)
    })
}

fn params(ids: u32) -> impl Strategy<Value = SamplingParams> {
    let temperature = prop_oneof![Just(0.0), Just(1.0), 0.01..2.0_f64, Just(1e-9)];
    let top_k = prop_oneof![Just(None), (1..ids * 2 + 2).prop_map(Some)];
    let top_p = prop_oneof![Just(1.0), Just(0.0), 0.0..1.0_f64];
    let penalty = || prop_oneof![Just(0.0), -2.0..2.0_f64];
    let repetition = prop_oneof![Just(1.0), 0.1..2.0_f64];
    let bias = prop::collection::btree_map(0..ids, -100.0_f32..100.0, 0..4);
    (
        temperature,
        top_k,
        top_p,
        repetition,
        penalty(),
        penalty(),
        bias,
        any::<u64>(),
        0..4_u32,
    )
        .prop_map(
            |(
                temperature,
                top_k,
                top_p,
                repetition_penalty,
                presence_penalty,
                frequency_penalty,
                logit_bias,
                seed,
                choice,
            )| {
                SamplingParams {
                    temperature,
                    top_k,
                    top_p,
                    repetition_penalty,
                    presence_penalty,
                    frequency_penalty,
                    logit_bias,
                    seed,
                    choice,
                }
            },
        )
}

fn case(most: usize) -> impl Strategy<Value = Case> {
    logits(most).prop_flat_map(|logits| {
        let ids = logits.len() as u32;
        // Fewer ids than logits (padding), and now and then fewer logits than ids.
        let vocabulary = prop_oneof![Just(ids), 1..=ids, Just(ids + 3)];
        (Just(logits), vocabulary).prop_flat_map(|(logits, vocabulary)| {
            let history = || prop::collection::vec(0..vocabulary + 2, 0..12);
            let mask = prop::option::weighted(
                0.3,
                prop::collection::vec(any::<u32>(), 0..vocabulary as usize / 32 + 2),
            );
            (
                Just(logits),
                Just(vocabulary),
                params(vocabulary),
                history(),
                history(),
                mask,
                any::<u32>(),
            )
                .prop_map(
                    |(logits, vocabulary, params, prompt, output, mask, output_index)| Case {
                        logits,
                        vocabulary,
                        params,
                        prompt,
                        output,
                        mask,
                        output_index,
                    },
                )
        })
    })
}

fn check(case: &Case) -> Result<(), TestCaseError> {
    let got = case.sampler().pick(
        &case.logits,
        case.output_index,
        case.allowed(),
        &mut Scratch::default(),
    );
    let Some(wanted) = reference::distribution(&case.context(), &case.logits) else {
        prop_assert_eq!(got, Err(SampleError::NothingLeft));
        return Ok(());
    };
    // Where the sum meets top-p to the last digits, the order of adding decides which ids are left.
    prop_assume!(wanted.top_p_distance > 1e-12);
    let got = got.unwrap();
    let scores = reference::perturbed(&case.context(), &case.logits, case.output_index).unwrap();
    let best = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let score = scores[got.id as usize];
    prop_assert!(
        best - score < 1e-9,
        "picked {} at {}, best is {}",
        got.id,
        score,
        best
    );
    if got.margin > 1e-9 {
        prop_assert_eq!(
            Some(got.id),
            reference::pick(&case.context(), &case.logits, case.output_index)
        );
    }

    let close = |a: f64, b: f64| (a - b).abs() <= 1e-9 * a.abs().max(1.0) || a == b;
    let log_p = &wanted.log_p;
    prop_assert!(
        close(got.logprob, log_p[got.id as usize]),
        "{} {}",
        got.logprob,
        log_p[got.id as usize]
    );
    let top1 = log_p
        .iter()
        .copied()
        .fold(f64::NEG_INFINITY, f64::max)
        .exp();
    prop_assert!(close(got.top1, top1), "{} {}", got.top1, top1);
    let entropy: f64 = log_p
        .iter()
        .filter(|l| l.exp() > 0.0)
        .map(|l| -l * l.exp())
        .sum();
    prop_assert!(close(got.entropy, entropy), "{} {}", got.entropy, entropy);

    if case.params.temperature > 0.0 {
        let mut others = scores.clone();
        others.remove(got.id as usize);
        let second = others.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let margin = if second > f64::NEG_INFINITY {
            score - second
        } else {
            f64::INFINITY
        };
        // Scores of +-1e30 lose what the margin is made of.
        prop_assert!(
            (got.margin - margin.max(0.0)).abs() <= 1e-9 + 1e-12 * second.abs()
                || got.margin == margin,
            "{} {}",
            got.margin,
            margin
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn small_vocabularies(case in case(40)) {
        check(&case)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn larger_vocabularies(case in case(3000)) {
        check(&case)?;
    }

    #[test]
    fn scratch_carries_nothing_over(first in case(600), second in case(600)) {
        let pick = |case: &Case, scratch: &mut Scratch| {
            case.sampler().pick(&case.logits, case.output_index, case.allowed(), scratch)
        };
        let mut used = Scratch::default();
        let _ = pick(&first, &mut used);
        prop_assert_eq!(pick(&second, &mut used), pick(&second, &mut Scratch::default()));
    }

    #[test]
    fn any_bits_give_a_pick_or_an_error(
        bits in prop::collection::vec(any::<u32>(), 0..50),
        params in params(50),
    ) {
        let logits: Vec<f32> = bits.into_iter().map(f32::from_bits).collect();
        let sampler = Sampler::new(params, 50, &[1, 2]).unwrap();
        match sampler.pick(&logits, 0, None, &mut Scratch::default()) {
            Ok(pick) => prop_assert!((pick.id as usize) < logits.len() && !pick.logprob.is_nan()),
            Err(SampleError::NotALogit { id, .. }) => {
                let logit = logits[id as usize];
                prop_assert!(logit.is_nan() || logit == f32::INFINITY);
            }
            Err(other) => prop_assert_eq!(other, SampleError::NothingLeft),
        }
    }
}

/// A vocabulary of a real model: the paths that sort a part must agree with those that sort all.
#[test]
fn a_real_vocabulary() {
    let logits: Vec<f32> = (0..152_064_u64)
        .map(|id| {
            let mixed = id.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            ((mixed >> 40) as f32 / (1 << 24) as f32).powi(3) * 25.0
        })
        .collect();
    for (temperature, top_k, top_p) in [
        (1.0, None, 1.0),
        (0.7, None, 0.95),
        (2.0, None, 0.9),
        (1.0, Some(50), 1.0),
        (0.8, Some(2000), 0.8),
    ] {
        let params = SamplingParams {
            temperature,
            top_k,
            top_p,
            seed: 5,
            ..SamplingParams::default()
        };
        for output_index in 0..2 {
            let case = Case {
                logits: logits.clone(),
                vocabulary: 151_665,
                params: params.clone(),
                prompt: vec![],
                output: vec![],
                mask: None,
                output_index,
            };
            check(&case).unwrap();
        }
    }
}

#[test]
fn errors_are_values() {
    let sampler = Sampler::new(SamplingParams::default(), 4, &[]).unwrap();
    let mut scratch = Scratch::default();
    let mut pick = |logits: &[f32], mask: Option<&[u32]>| {
        sampler.pick(logits, 0, mask.map(TokenMask::new), &mut scratch)
    };
    assert_eq!(pick(&[], None), Err(SampleError::NothingLeft));
    assert_eq!(
        pick(&[f32::NEG_INFINITY; 4], None),
        Err(SampleError::NothingLeft)
    );
    assert_eq!(pick(&[0.0; 4], Some(&[])), Err(SampleError::NothingLeft));
    assert_eq!(pick(&[0.0; 4], Some(&[0b100])).unwrap().id, 2);
    assert!(matches!(
        pick(&[0.0, f32::NAN], None),
        Err(SampleError::NotALogit { id: 1, .. })
    ));
    // Padding past the tokenizer's end may hold anything.
    assert!(pick(&[0.0, 0.0, 0.0, 0.0, f32::NAN], None).unwrap().id < 4);
    let bias = BTreeMap::from([(4, 1.0)]);
    assert!(
        Sampler::new(
            SamplingParams {
                logit_bias: bias,
                ..SamplingParams::default()
            },
            4,
            &[]
        )
        .is_err()
    );
}
