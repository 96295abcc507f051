//! Which instructions run, and that a matrix stays with those that packed it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout)] // a test's helpers may panic

use msao_kernels::{Element, Format, Instructions, KernelError, instructions, linear, supported};

use crate::common::{Rows, matrix, numbers, on_each};

#[test]
fn the_best_that_the_cpu_has_runs() {
    let best = Instructions::ALL.into_iter().find(|set| set.available());
    assert_eq!(instructions(), best);
    assert_eq!(supported(), best.is_some());
}

#[test]
fn others_run_only_where_they_are_asked_for() {
    let before = instructions();
    for set in Instructions::ALL {
        let mut called = false;
        let result = set.with(|| {
            called = true;
            instructions()
        });
        if set.available() {
            assert_eq!(result.unwrap(), Some(set));
        } else {
            assert!(matches!(result, Err(KernelError::Unsupported)) && !called);
        }
        assert_eq!(instructions(), before);
    }
}

#[test]
fn a_matrix_is_multiplied_by_those_that_packed_it() {
    let before = instructions();
    on_each(|| {
        let (packed, _) = matrix(40, 70, Format::Int8, 1);
        let x = Rows::of(&numbers(3 * 70, 2), 70, 0, Element::F32);
        let product = || {
            let mut y = Rows::new(3, 40, 0, Element::F32);
            // SAFETY: the buffers have the matrix's widths and the same rows.
            unsafe { linear(x.view(), &packed, y.view_mut(), 1) };
            y.values()
        };
        let expected = product();
        for other in Instructions::ALL {
            assert!(other.with(product).is_ok_and(|got| got == expected) || !other.available());
        }
    });
    assert_eq!(instructions(), before);
}
