//! Attention, rotation and the cache's write against plain loops in f64.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout)] // a test's helpers may panic

use msao_kernels::{Element, HeadShape, Span, attend, rotate_and_store};
use proptest::prelude::*;

use crate::common::{Rows, close, encode, numbers, on_each, stored};

#[derive(Clone, Debug)]
struct Case {
    element: Element,
    shape: HeadShape,
    /// Rows of this pass and tokens held before it.
    spans: Vec<(usize, usize)>,
    window: Option<usize>,
    threads: usize,
    seed: u64,
}

/// The pools' values, `[slots, kv_heads, dim]`, and each span's slots: runs of 16 in a shuffled order.
fn pools(case: &Case) -> (Vec<f32>, Vec<f32>, Vec<Vec<u32>>) {
    let tokens: usize = case
        .spans
        .iter()
        .map(|(rows, held)| (rows + held).div_ceil(16))
        .sum();
    let mut runs: Vec<u32> = (0..tokens as u32 + 3).collect();
    let order = numbers(runs.len(), case.seed + 9);
    runs.sort_by(|&a, &b| order[a as usize].total_cmp(&order[b as usize]));
    let mut runs = runs.into_iter();
    let slots = case.spans.iter().map(|(rows, held)| {
        let count = rows + held;
        let blocks = runs.by_ref().take(count.div_ceil(16));
        blocks
            .flat_map(|run| run * 16..(run + 1) * 16)
            .take(count)
            .collect()
    });
    let slots = slots.collect();
    let size = (tokens + 3) * 16 * case.shape.kv_heads * case.shape.dim;
    let keys = stored(&numbers(size, case.seed + 1), case.element);
    let values = stored(&numbers(size, case.seed + 2), case.element);
    (keys, values, slots)
}

fn check(case: &Case) {
    let (keys, values, slots) = pools(case);
    check_with(case, &keys, &values, &slots);
}

fn check_with(case: &Case, keys: &[f32], values: &[f32], slots: &[Vec<u32>]) {
    let HeadShape {
        heads,
        kv_heads,
        dim,
    } = case.shape;
    let rows: usize = case.spans.iter().map(|(rows, _)| rows).sum();
    let query = stored(&numbers(rows * heads * dim, case.seed + 3), case.element);
    let q = Rows::of(&query, heads * dim, 5, case.element);
    let mut out = Rows::new(rows, heads * dim, 3, case.element);
    let mut spans = Vec::new();
    let mut first_row = 0;
    for (&(rows, _), slots) in case.spans.iter().zip(slots) {
        spans.push(Span {
            first_row,
            rows,
            slots,
        });
        first_row += rows;
    }
    let (k, v) = (encode(keys, case.element), encode(values, case.element));
    // SAFETY: the buffers have these shapes and every slot lies in the pools.
    unsafe {
        attend(
            q.view(),
            case.shape,
            k.as_ptr().cast(),
            v.as_ptr().cast(),
            &spans,
            case.window,
            out.view_mut(),
            case.threads,
        );
    }
    let mut expected = Vec::new();
    for span in &spans {
        for i in 0..span.rows {
            let end = span.slots.len() - span.rows + i + 1;
            let begin = case.window.map_or(0, |window| end.saturating_sub(window));
            for h in 0..heads {
                let q = &query[((span.first_row + i) * heads + h) * dim..][..dim];
                let at = |slot: u32| (slot as usize * kv_heads + h / (heads / kv_heads)) * dim;
                let seen = &span.slots[begin..end];
                let score = |&slot: &u32| {
                    let k = &keys[at(slot)..][..dim];
                    let dot: f64 = q
                        .iter()
                        .zip(k)
                        .map(|(&q, &k)| f64::from(q) * f64::from(k))
                        .sum();
                    dot / (dim as f64).sqrt()
                };
                let scores: Vec<f64> = seen.iter().map(score).collect();
                let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores
                    .iter()
                    .map(|&s| {
                        if s == f64::NEG_INFINITY {
                            0.0
                        } else {
                            (s - largest).exp()
                        }
                    })
                    .collect();
                let sum: f64 = weights.iter().sum();
                for d in 0..dim {
                    let parts = weights
                        .iter()
                        .zip(seen)
                        .map(|(&w, &slot)| w / sum.max(1e-300) * f64::from(values[at(slot) + d]));
                    let (y, size) = parts.fold((0.0, 0.0), |(y, a), p| (y + p, a + p.abs()));
                    // Scores are some units off in the last place; in bf16 a weight is rounded for its product.
                    let error = if case.element == Element::F32 {
                        2e-5
                    } else {
                        2f64.powi(-8)
                    };
                    expected.push((y, error * size + 1e-7));
                }
            }
        }
    }
    close("attend", &out.values(), &expected, case.element);
}

fn shapes() -> impl Strategy<Value = HeadShape> {
    let dims = prop_oneof![
        Just(64usize),
        Just(128),
        (1usize..40).prop_map(|half| 2 * half)
    ];
    (1usize..4, 1usize..9, dims).prop_map(|(kv_heads, group, dim)| HeadShape {
        heads: kv_heads * group,
        kv_heads,
        dim,
    })
}

fn elements() -> impl Strategy<Value = Element> {
    prop_oneof![Just(Element::F32), Just(Element::Bf16)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    #[test]
    fn every_row_sees_its_own_past(
        element in elements(), shape in shapes(),
        spans in prop::collection::vec((1usize..20, 0usize..300), 1..5),
        window in prop_oneof![Just(None), (1usize..400).prop_map(Some)], threads in 1usize..4, seed in 0u64..1 << 40,
    ) {
        let case = Case { element, shape, spans, window, threads, seed };
        on_each(|| check(&case));
    }

    #[test]
    fn keys_are_turned_and_stored(
        element in elements(), shape in shapes(), rows in 1usize..9, seed in 0u64..1 << 40,
    ) {
        on_each(|| {
            check_rotation(element, shape, rows, seed);
        });
    }
}

fn check_rotation(element: Element, shape: HeadShape, rows: usize, seed: u64) {
    let HeadShape {
        heads,
        kv_heads,
        dim,
    } = shape;
    let width = (heads + 2 * kv_heads) * dim;
    let x = stored(&numbers(rows * width, seed), element);
    let mut qkv = Rows::of(&x, width, 3, element);
    let (cos, sin) = (numbers(rows * dim, seed + 1), numbers(rows * dim, seed + 2));
    let slots: Vec<u32> = (0..rows as u32)
        .map(|row| (rows as u32 - row) * 2 - 1)
        .collect();
    let pool = 2 * rows;
    let mut keys = Rows::new(pool, kv_heads * dim, 0, element);
    let mut values = Rows::new(pool, kv_heads * dim, 0, element);
    let (before_keys, before_values) = (keys.values(), values.values());
    // SAFETY: the buffers have these shapes, every slot lies in the pools and is named once.
    unsafe {
        rotate_and_store(
            qkv.view_mut(),
            cos.as_ptr(),
            sin.as_ptr(),
            shape,
            &slots,
            keys.view_mut().data,
            values.view_mut().data,
        );
    }
    let turned = |row: usize, head: usize| -> Vec<(f64, f64)> {
        let x = &x[row * width + head * dim..][..dim];
        (0..dim)
            .map(|i| {
                let other = if i < dim / 2 {
                    -x[i + dim / 2]
                } else {
                    x[i - dim / 2]
                };
                let y = f64::from(x[i]) * f64::from(cos[row * dim + i])
                    + f64::from(other) * f64::from(sin[row * dim + i]);
                (y, 1e-6)
            })
            .collect()
    };
    let got = qkv.values();
    let (got_keys, got_values) = (keys.values(), values.values());
    for row in 0..rows {
        for head in 0..heads {
            close(
                "query",
                &got[row * width + head * dim..][..dim],
                &turned(row, head),
                element,
            );
        }
        for head in 0..kv_heads {
            let at = (slots[row] as usize * kv_heads + head) * dim;
            close(
                "key",
                &got_keys[at..][..dim],
                &turned(row, heads + head),
                element,
            );
            let from = row * width + (heads + kv_heads + head) * dim;
            assert_eq!(got_values[at..][..dim], x[from..][..dim]);
        }
        // Slots that were not named stay as they were.
        let other = (slots[row] as usize - 1) * kv_heads * dim;
        let same = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(same(
            &got_keys[other..][..kv_heads * dim],
            &before_keys[other..][..kv_heads * dim]
        ));
        assert!(same(
            &got_values[other..][..kv_heads * dim],
            &before_values[other..][..kv_heads * dim]
        ));
    }
}

const QWEN: HeadShape = HeadShape {
    heads: 14,
    kv_heads: 2,
    dim: 64,
};

#[test]
fn long_contexts_are_split_and_put_together() {
    on_each(|| {
        for element in [Element::F32, Element::Bf16] {
            for (spans, threads) in [
                (vec![(1, 5000)], 2),
                (vec![(3, 2500)], 4),
                (vec![(1, 6000), (2, 10), (1, 3000)], 3),
            ] {
                for window in [None, Some(2100)] {
                    check(&Case {
                        element,
                        shape: QWEN,
                        spans: spans.clone(),
                        window,
                        threads,
                        seed: 5,
                    });
                }
            }
        }
    });
}

#[test]
fn prompts_see_only_what_lies_before() {
    on_each(|| {
        for element in [Element::F32, Element::Bf16] {
            for (rows, held) in [(300, 0), (257, 130), (16, 700)] {
                let spans = vec![(rows, held), (1, 40)];
                check(&Case {
                    element,
                    shape: QWEN,
                    spans,
                    window: None,
                    threads: 2,
                    seed: 6,
                });
            }
        }
    });
}

#[test]
fn scores_of_minus_infinity_weigh_nothing() {
    on_each(|| {
        // Keys so large that scores overflow to -inf (their sign is against every query's sum) and to values that do not.
        let shape = HeadShape {
            heads: 1,
            kv_heads: 1,
            dim: 2,
        };
        for (element, below) in [
            (Element::F32, 0),
            (Element::F32, 5),
            (Element::Bf16, 5),
            (Element::Bf16, 6),
        ] {
            let slots: Vec<u32> = (0..6).collect();
            let keys: Vec<f32> = (0..6)
                .flat_map(|t| {
                    if t < below {
                        [-3e38, -3e38]
                    } else {
                        [0.5, 0.25]
                    }
                })
                .collect();
            let values: Vec<f32> = (0..12).map(|i| i as f32).collect();
            let (k, v) = (encode(&keys, element), encode(&values, element));
            let q = Rows::of(&[2.0, 2.0], 2, 0, element);
            let mut out = Rows::new(1, 2, 0, element);
            let spans = [Span {
                first_row: 0,
                rows: 1,
                slots: &slots,
            }];
            // SAFETY: the buffers have these shapes and every slot lies in the pools.
            unsafe {
                attend(
                    q.view(),
                    shape,
                    k.as_ptr().cast(),
                    v.as_ptr().cast(),
                    &spans,
                    None,
                    out.view_mut(),
                    1,
                )
            };
            let expected = match below {
                0 => [5.0, 6.0],
                5 => [10.0, 11.0],
                _ => [0.0, 0.0],
            };
            for (got, expected) in out.values().iter().zip(expected) {
                assert!(
                    (got - expected).abs() < 1e-5,
                    "{got} instead of {expected} with {below} of 6 at -inf"
                );
            }
        }
    });
}

#[test]
fn rows_that_no_span_names_stay() {
    on_each(|| {
        let q = Rows::of(&numbers(3 * 128, 1), 128, 0, Element::F32);
        let mut out = Rows::of(&[7.0; 3 * 128], 128, 0, Element::F32);
        let (shape, pool) = (
            HeadShape {
                heads: 2,
                kv_heads: 1,
                dim: 64,
            },
            numbers(4 * 64, 2),
        );
        let spans = [Span {
            first_row: 1,
            rows: 1,
            slots: &[2, 0],
        }];
        let data = pool.as_ptr().cast();
        // SAFETY: the buffers have these shapes and every slot lies in the pools.
        unsafe { attend(q.view(), shape, data, data, &spans, None, out.view_mut(), 2) };
        let got = out.values();
        assert!(got[..128].iter().chain(&got[256..]).all(|&x| x == 7.0));
        assert!(got[128..256].iter().all(|&x| x != 7.0));
    });
}
