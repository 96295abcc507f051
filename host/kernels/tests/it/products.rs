//! Products and embeddings against sums in f64, for shapes that fit no register.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout)] // a test's helpers may panic

use msao_kernels::{Element, Format, gather, linear};
use proptest::prelude::*;

use crate::common::{Rows, close, matrix, numbers, on_each, stored};

/// The pairs that `linear` takes: weights, rows, results.
const PAIRS: [(Format, Element, Element); 7] = [
    (Format::F32, Element::F32, Element::F32),
    (Format::Bf16, Element::F32, Element::F32),
    (Format::Int8, Element::F32, Element::F32),
    (Format::Bf16, Element::Bf16, Element::Bf16),
    (Format::Bf16, Element::Bf16, Element::F32),
    (Format::Int8, Element::Bf16, Element::Bf16),
    (Format::Int8, Element::Bf16, Element::F32),
];

#[derive(Clone, Debug)]
struct Case {
    pair: usize,
    rows: usize,
    outputs: usize,
    inputs: usize,
    gaps: (usize, usize),
    bias: bool,
    threads: usize,
    seed: u64,
}

fn check(case: &Case) {
    let (format, element, result) = PAIRS[case.pair];
    let Case {
        rows,
        outputs,
        inputs,
        seed,
        ..
    } = *case;
    let (mut packed, weights) = matrix(outputs, inputs, format, seed);
    let bias = if case.bias {
        numbers(outputs, seed + 1)
    } else {
        vec![0.0; outputs]
    };
    if case.bias {
        packed.set_bias(&bias).unwrap();
    }
    let x = stored(&numbers(rows * inputs, seed + 2), element);
    let views = Rows::of(&x, inputs, case.gaps.0, element);
    let mut y = Rows::new(rows, outputs, case.gaps.1, result);
    // SAFETY: the buffers have the matrix's widths and the same rows.
    unsafe { linear(views.view(), &packed, y.view_mut(), case.threads) };
    let mut expected = Vec::new();
    for x in x.chunks_exact(inputs) {
        for (w, &bias) in weights.chunks_exact(inputs).zip(&bias) {
            let products = x.iter().zip(w).map(|(&x, &w)| f64::from(x) * f64::from(w));
            let (sum, size) = products.fold((0.0, 0.0), |(s, a), p| (s + p, a + p.abs()));
            // Every addition rounds what has been summed up; the errors' signs differ.
            let roundings = 8.0 + (inputs as f64).sqrt();
            expected.push((sum + f64::from(bias), 6e-8 * roundings * (size + 1.0)));
        }
    }
    close("linear", &y.values(), &expected, result);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn a_product_is_the_sum_of_its_parts(
        pair in 0..PAIRS.len(), rows in 1usize..42, outputs in 1usize..70, inputs in 1usize..150,
        gaps in (0usize..5, 0usize..5), bias: bool, threads in 1usize..4, seed in 0u64..1 << 40,
    ) {
        on_each(|| {
            check(&Case { pair, rows, outputs, inputs, gaps, bias, threads, seed });
        });
    }

}

proptest! {
    // Few: the reference is slow.
    #![proptest_config(ProptestConfig::with_cases(20))]

    #[test]
    fn shared_among_threads_it_is_the_same(
        pair in 0..PAIRS.len(), rows in prop_oneof![1usize..42, 100usize..300], outputs in 100usize..300,
        inputs in 200usize..600, bias: bool, threads in 2usize..5, seed in 0u64..1 << 40,
    ) {
        on_each(|| {
            check(&Case { pair, rows, outputs, inputs, gaps: (3, 1), bias, threads, seed });
        });
    }
}

proptest! {
    #[test]
    fn an_embedding_is_a_row_of_the_matrix(
        format in prop_oneof![Just(Format::F32), Just(Format::Bf16), Just(Format::Int8)], bf16: bool,
        outputs in 1usize..50, inputs in 1usize..100, picks in prop::collection::vec(0usize..1000, 0..20),
        seed in 0u64..1 << 40,
    ) {
        on_each(|| {
            let element = if bf16 { Element::Bf16 } else { Element::F32 };
            let (packed, weights) = matrix(outputs, inputs, format, seed);
            let ids: Vec<u32> = picks.iter().map(|pick| (pick % outputs) as u32).collect();
            let mut y = Rows::new(ids.len(), inputs, 2, element);
            // SAFETY: every id is below the outputs and `y` has a row for each.
            unsafe { gather(&packed, &ids, y.view_mut()) };
            let expected: Vec<f32> = ids.iter()
                .flat_map(|&id| &weights[id as usize * inputs..][..inputs])
                .copied()
                .collect();
            assert_eq!(y.values(), stored(&expected, element));
        });
    }
}

#[test]
fn every_row_count_and_every_pair() {
    on_each(|| {
        for pair in 0..PAIRS.len() {
            for rows in (1..=50).chain([255, 256, 257]) {
                check(&Case {
                    pair,
                    rows,
                    outputs: 37,
                    inputs: 83,
                    gaps: (1, 0),
                    bias: rows % 2 == 0,
                    threads: 2,
                    seed: rows as u64,
                });
            }
        }
    });
}

#[test]
fn a_row_alone_is_the_row_among_others_to_the_bit() {
    on_each(|| {
        // One matrix that is taken to lie in a cache, and one that is not.
        for (format, element, result) in PAIRS {
            for (outputs, inputs) in [(203, 150), (2100, 1030)] {
                let (packed, _) = matrix(outputs, inputs, format, 1);
                let x = stored(&numbers(150 * inputs, 2), element);
                let run = |first: usize, rows: usize, threads| {
                    let x = Rows::of(&x[first * inputs..][..rows * inputs], inputs, 0, element);
                    let mut y = Rows::new(rows, outputs, 0, result);
                    // SAFETY: the buffers have the matrix's widths and the same rows.
                    unsafe { linear(x.view(), &packed, y.view_mut(), threads) };
                    y.values()
                };
                let together = run(0, 150, 2);
                for (first, rows, threads) in [
                    (0, 1, 1),
                    (7, 1, 2),
                    (3, 2, 3),
                    (20, 5, 1),
                    (30, 9, 2),
                    (1, 33, 2),
                    (70, 80, 1),
                ] {
                    let part = run(first, rows, threads);
                    let same = (part.iter().zip(&together[first * outputs..]))
                        .all(|(a, b)| a.to_bits() == b.to_bits());
                    assert!(
                        same,
                        "{format:?}, {element:?}: {rows} rows from {first} on differ"
                    );
                }
            }
        }
    });
}

#[test]
fn no_rows_are_no_work() {
    on_each(|| {
        let (packed, _) = matrix(20, 30, Format::Bf16, 1);
        let (x, mut y) = (
            Rows::new(0, 30, 0, Element::Bf16),
            Rows::new(0, 20, 0, Element::Bf16),
        );
        // SAFETY: the buffers have the matrix's widths.
        unsafe { linear(x.view(), &packed, y.view_mut(), 2) };
        assert!(y.values().is_empty());
    });
}
