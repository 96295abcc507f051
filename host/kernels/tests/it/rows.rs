//! Normalisation, the MLP's gate and residuals against f64, value by value.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout)] // a test's helpers may panic

use msao_kernels::{Element, add, gated_silu, rms_norm};
use proptest::prelude::*;

use crate::common::{Rows, close, encode, numbers, on_each, stored};

fn elements() -> impl Strategy<Value = Element> {
    prop_oneof![Just(Element::F32), Just(Element::Bf16)]
}

proptest! {
    #[test]
    fn a_normalised_row_has_the_weights_size(
        element in elements(), rows in 0usize..6, width in 1usize..130, gap in 0usize..4, in_place: bool,
        seed in 0u64..1 << 40,
    ) {
        on_each(|| {
            let values = stored(&numbers(rows * width, seed), element);
            let weights = stored(&numbers(width, seed + 1), element);
            let bytes = encode(&weights, element);
            let mut x = Rows::of(&values, width, gap, element);
            let mut y = Rows::new(rows, width, 1, element);
            let eps = 1e-6f32;
            let (from, to) = if in_place { (x.view(), x.view_mut()) } else { (x.view(), y.view_mut()) };
            // SAFETY: both buffers have these rows and the weight has the width.
            unsafe { rms_norm(from, bytes.as_ptr().cast(), eps, to) };
            let mut expected = Vec::new();
            for row in values.chunks_exact(width) {
                let mean = row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / width as f64;
                let scale = 1.0 / (mean + f64::from(eps)).sqrt();
                for (&x, &w) in row.iter().zip(&weights) {
                    let y = f64::from(x) * scale * f64::from(w);
                    expected.push((y, y.abs() * 2e-6));
                }
            }
            close("rms_norm", &if in_place { x.values() } else { y.values() }, &expected, element);
        });
    }

    #[test]
    fn a_gate_opens_with_its_sigmoid(
        element in elements(), rows in 0usize..6, width in prop_oneof![1usize..130, 3000usize..6000], gap in 0usize..4,
        threads in 1usize..4, seed in 0u64..1 << 40,
    ) {
        on_each(|| {
            let values: Vec<f32> = numbers(rows * 2 * width, seed).iter().map(|x| x * 30.0).collect();
            let values = stored(&values, element);
            let x = Rows::of(&values, 2 * width, gap, element);
            let mut y = Rows::new(rows, width, 2, element);
            // SAFETY: the buffers have these rows, the gates twice the width.
            unsafe { gated_silu(x.view(), y.view_mut(), threads) };
            let mut expected = Vec::new();
            for row in values.chunks_exact(2 * width) {
                let (gates, ups) = row.split_at(width);
                for (&gate, &up) in gates.iter().zip(ups) {
                    let gate = f64::from(gate);
                    let silu = gate / (1.0 + (-gate).exp());
                    // In bf16 two roundings: of silu, and of the product.
                    let rounding = if element == Element::F32 { 2e-6 } else { 2f64.powi(-8) };
                    let y = silu * f64::from(up);
                    // Where e^-gate overflows f32, silu is 0.
                    expected.push((y, y.abs() * rounding + 1e-33));
                }
            }
            close("gated_silu", &y.values(), &expected, element);
        });
    }

    #[test]
    fn a_sum_is_rounded_once(
        element in elements(), rows in 0usize..6, width in 1usize..130, gaps in (0usize..4, 0usize..4),
        seed in 0u64..1 << 40,
    ) {
        on_each(|| {
            let a = stored(&numbers(rows * width, seed), element);
            let b = stored(&numbers(rows * width, seed + 1), element);
            let mut x = Rows::of(&a, width, gaps.0, element);
            let y = Rows::of(&b, width, gaps.1, element);
            // SAFETY: both buffers have these rows and this width.
            unsafe { add(x.view_mut(), y.view()) };
            let sums: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
            assert_eq!(x.values(), stored(&sums, element));
        });
    }
}

#[test]
fn extremes_stay_what_they_are() {
    on_each(|| {
        let gates = [
            f32::NEG_INFINITY,
            -1e30,
            -100.0,
            0.0,
            100.0,
            1e30,
            f32::INFINITY,
            f32::NAN,
        ];
        let values: Vec<f32> = gates.iter().copied().chain([1.0; 8]).collect();
        let x = Rows::of(&values, 16, 0, Element::F32);
        let mut y = Rows::new(1, 8, 0, Element::F32);
        // SAFETY: one row of 8 gates and 8 ups.
        unsafe { gated_silu(x.view(), y.view_mut(), 1) };
        let got = y.values();
        // As torch's: -inf / inf is not a number.
        assert!(got[0].is_nan() || got[0] == 0.0);
        assert!(got[1].abs() < 1e-5 && got[2].abs() < 1e-5, "{got:?}");
        assert_eq!(got[3..7], [0.0, 100.0, 1e30, f32::INFINITY]);
        assert!(got[7].is_nan());
    });
}
