//! Drafting and rolling back equals never having drafted.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

use msao_core::sampling::{Sampler, SamplingParams, Scratch};
use proptest::prelude::*;

const IDS: u32 = 12;

fn params() -> impl Strategy<Value = SamplingParams> {
    (
        0.1..2.0_f64,
        0.5..2.0_f64,
        -2.0..2.0_f64,
        -2.0..2.0_f64,
        any::<u64>(),
    )
        .prop_map(
            |(temperature, repetition_penalty, presence_penalty, frequency_penalty, seed)| {
                SamplingParams {
                    temperature,
                    repetition_penalty,
                    presence_penalty,
                    frequency_penalty,
                    seed,
                    ..SamplingParams::default()
                }
            },
        )
}

fn tokens() -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(0..IDS, 0..10)
}

/// Logits that depend on what came before, as a model's do.
fn logits(prompt: &[u32], output: &[u32]) -> Vec<f32> {
    let state = prompt.iter().chain(output).fold(17_u64, |state, &id| {
        (state ^ u64::from(id))
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .rotate_left(29)
    });
    (0..u64::from(IDS))
        .map(|id| (state.wrapping_mul(2 * id + 3) >> 40) as f32 / (1 << 24) as f32 * 4.0)
        .collect()
}

fn next(sampler: &Sampler, prompt: &[u32]) -> u32 {
    let index = sampler.output().len() as u32;
    sampler
        .pick(
            &logits(prompt, sampler.output()),
            index,
            None,
            &mut Scratch::default(),
        )
        .unwrap()
        .id
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rolling_back_equals_never_having_drafted(
        params in params(),
        prompt in tokens(),
        committed in tokens(),
        drafts in prop::collection::vec(tokens(), 0..4),
    ) {
        let mut plain = Sampler::new(params, IDS, &prompt).unwrap();
        committed.iter().for_each(|id| plain.commit(*id));
        let mut drafted = plain.clone();
        for draft in drafts {
            draft.iter().for_each(|id| drafted.commit(*id));
            drafted.rollback_to(committed.len()).unwrap();
        }
        prop_assert_eq!(drafted.output(), &committed[..]);
        for _ in 0..8 {
            let (a, b) = (next(&plain, &prompt), next(&drafted, &prompt));
            prop_assert_eq!(a, b);
            plain.commit(a);
            drafted.commit(b);
        }
        prop_assert_eq!(plain, drafted);
    }

    /// Whatever is drafted, the target commits what it would have picked alone.
    #[test]
    fn the_committed_tokens_do_not_depend_on_the_draft(
        params in params(),
        prompt in tokens(),
        drafts in prop::collection::vec(tokens(), 12),
    ) {
        let mut alone = Sampler::new(params, IDS, &prompt).unwrap();
        let mut target = alone.clone();
        while alone.output().len() < 12 {
            let id = next(&alone, &prompt);
            alone.commit(id);
        }
        for draft in drafts {
            // One round: commit the draft, then verify it place by place; the first difference rolls the rest back.
            let start = target.output().len();
            draft.iter().for_each(|id| target.commit(*id));
            let drafted = target.output().to_vec();
            target.rollback_to(start).unwrap();
            for proposed in &drafted[start..] {
                let id = next(&target, &prompt);
                target.commit(id);
                if id != *proposed {
                    break;
                }
            }
            let bonus = next(&target, &prompt);
            target.commit(bonus);
        }
        target.rollback_to(12).unwrap();
        prop_assert_eq!(target.output(), alone.output());
    }
}

#[test]
fn a_rollback_forward_is_refused() {
    let mut sampler = Sampler::new(SamplingParams::default(), IDS, &[]).unwrap();
    sampler.commit(3);
    assert!(sampler.rollback_to(2).is_err());
    assert_eq!(sampler.output(), [3]);
    sampler.rollback_to(0).unwrap();
    assert!(sampler.output().is_empty());
}
