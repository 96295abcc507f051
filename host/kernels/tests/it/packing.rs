//! What a packed matrix holds, whatever it was packed from and in however many pieces.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout)] // a test's helpers may panic

use msao_kernels::{Element, Format, KernelError, PackedMatrix, supported};
use proptest::prelude::*;

use crate::common::{encode, numbers, on_each, stored};

const FORMATS: [Format; 3] = [Format::F32, Format::Bf16, Format::Int8];
const ELEMENTS: [Element; 3] = [Element::F32, Element::Bf16, Element::F16];

fn held(matrix: &PackedMatrix) -> Vec<f32> {
    let mut all = vec![0.0; matrix.outputs() * matrix.inputs()];
    for (row, out) in all.chunks_exact_mut(matrix.inputs()).enumerate() {
        matrix.unpack_row(row, out).unwrap();
    }
    all
}

proptest! {
    #[test]
    fn a_matrix_holds_what_was_packed(
        format in 0usize..3, element in 0usize..3, outputs in 1usize..70, inputs in 1usize..140,
        offset in 0usize..4, cuts in prop::collection::vec(0usize..70, 0..4), seed in 0u64..1 << 40,
    ) {
        on_each(|| {
            let (format, element) = (FORMATS[format], ELEMENTS[element]);
            let values = stored(&numbers(outputs * inputs, seed), element);
            let bytes = encode(&values, element);
            let row_bytes = inputs * element.size();
            let mut matrix = PackedMatrix::new(outputs, inputs, format).unwrap();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (outputs + 1)).chain([0, outputs]).collect();
            cuts.sort_unstable();
            for pair in cuts.windows(2) {
                let (first, end) = (pair[0], pair[1]);
                // Any alignment: the source starts `offset` bytes into its buffer.
                let mut source = vec![0u8; offset];
                source.extend(&bytes[first * row_bytes..end * row_bytes]);
                matrix.pack_rows(first, end - first, &source[offset..], element).unwrap();
            }
            let got = held(&matrix);
            match format {
                Format::F32 => assert_eq!(got, values),
                Format::Bf16 => assert_eq!(got, stored(&values, Element::Bf16)),
                Format::Int8 => for (got, row) in got.chunks_exact(inputs).zip(values.chunks_exact(inputs)) {
                    let scale = row.iter().fold(0f32, |a, x| a.max(x.abs())) / 127.0;
                    for (got, x) in got.iter().zip(row) {
                        assert!((got - x).abs() <= scale * 0.5001, "{} for {} at scale {}", got, x, scale);
                    }
                },
            }
        });
    }
}

#[test]
fn a_large_matrix_is_packed_by_several_threads_alike() {
    on_each(|| {
        let (outputs, inputs) = (1500, 701);
        let values = numbers(outputs * inputs, 3);
        let bytes = encode(&values, Element::F32);
        for format in FORMATS {
            let mut whole = PackedMatrix::new(outputs, inputs, format).unwrap();
            whole.pack_rows(0, outputs, &bytes, Element::F32).unwrap();
            let mut single = PackedMatrix::new(outputs, inputs, format).unwrap();
            for (row, bytes) in bytes.chunks_exact(inputs * 4).enumerate() {
                single.pack_rows(row, 1, bytes, Element::F32).unwrap();
            }
            assert_eq!(held(&whole), held(&single));
        }
    });
}

#[test]
fn int8_uses_its_whole_range_and_zeros_stay_zeros() {
    on_each(|| {
        let mut matrix = PackedMatrix::new(3, 4, Format::Int8).unwrap();
        let rows = [[-127.0, 127.0, 1.0, -1.0], [0.0; 4], [-2.0, 0.0, 1.0, 2.0]].concat();
        let bytes = encode(&rows, Element::F32);
        matrix.pack_rows(0, 3, &bytes, Element::F32).unwrap();
        let got = held(&matrix);
        assert_eq!(got[..8], rows[..8]);
        assert_eq!(got[8], -2.0);
        assert_eq!(got[9], 0.0);
    });
}

#[test]
fn wrong_shapes_are_refused() {
    if !supported() {
        let refused = PackedMatrix::new(1, 1, Format::F32);
        assert!(matches!(refused, Err(KernelError::Unsupported)));
    }
    on_each(|| {
        let refused = PackedMatrix::new(0, 5, Format::F32);
        assert!(matches!(refused, Err(KernelError::Shape { .. })));
        let refused = PackedMatrix::new(usize::MAX, 2, Format::F32);
        assert!(matches!(refused, Err(KernelError::Shape { .. })));
        let mut matrix = PackedMatrix::new(20, 3, Format::Bf16).unwrap();
        let refused = matrix.pack_rows(19, 2, &[0; 24], Element::F32);
        assert!(matches!(refused, Err(KernelError::Rows { .. })));
        let refused = matrix.pack_rows(usize::MAX, 2, &[0; 24], Element::F32);
        assert!(matches!(refused, Err(KernelError::Rows { .. })));
        let refused = matrix.pack_rows(0, 2, &[0; 23], Element::F32);
        assert!(matches!(refused, Err(KernelError::Length { .. })));
        assert!(matrix.set_bias(&[0.0; 19]).is_err());
        assert!(matrix.unpack_row(20, &mut [0.0; 3]).is_err());
        assert!(matrix.unpack_row(0, &mut [0.0; 2]).is_err());
    });
}
