//! What the machine gives at best, to hold the kernels against: its memory's reading and its multipliers.

use std::time::Instant;

use memmap2::{Advice, MmapMut};
use msao_kernels::{Element, Instructions};

/// Seconds that `work` takes on each of `threads` threads at once, the fastest of some runs.
fn fastest(threads: usize, seconds: f64, work: impl Fn(usize) + Sync) -> f64 {
    let (mut best, start) = (f64::INFINITY, Instant::now());
    while start.elapsed().as_secs_f64() < seconds {
        let pass = Instant::now();
        std::thread::scope(|scope| {
            for thread in 1..threads {
                let work = &work;
                scope.spawn(move || work(thread));
            }
            work(0);
        });
        best = best.min(pass.elapsed().as_secs_f64());
    }
    best
}

/// GB/s at which threads sum a few hundred MB in huge pages.
pub fn read_bandwidth(threads: usize, seconds: f64) -> f64 {
    let mut memory = MmapMut::map_anon(320 << 20).expect("memory");
    // A wish: small pages are only slower.
    let _ = memory.advise(Advice::HugePage);
    memory.fill(1);
    let part = memory.len() / threads / 256 * 256;
    let time = fastest(threads, seconds, |thread| {
        let bytes = memory.get(thread * part..(thread + 1) * part);
        std::hint::black_box(msao_kernels::sum_stream(bytes.expect("a part of it")));
    });
    (part * threads) as f64 / time / 1e9
}

/// GF/s at which threads multiply and add in registers, in the way in which `set` multiplies rows of `element`.
pub fn peak(set: Instructions, element: Element, threads: usize, seconds: f64) -> f64 {
    const ROUNDS: usize = 1 << 20;
    let flops = match (set, element) {
        (Instructions::Avx2, _) => 16,
        (Instructions::Avx512, Element::F32) => 32,
        (Instructions::Avx512, _) => 64,
    };
    let time = fastest(threads, seconds, |_| {
        let rounds = std::hint::black_box(ROUNDS);
        // SAFETY: the caller has asked whether the set is available.
        let result = unsafe {
            match (set, element) {
                (Instructions::Avx2, _) => avx2_products(rounds),
                (Instructions::Avx512, Element::F32) => avx512_products(rounds),
                (Instructions::Avx512, _) => avx512_pairs(rounds),
            }
        };
        std::hint::black_box(result);
    });
    (ROUNDS * SUMS * flops * threads) as f64 / time / 1e9
}

/// So many products are under way that none waits for another.
const SUMS: usize = 12;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::SUMS;

    #[target_feature(enable = "avx2,fma")]
    pub fn avx2_products(rounds: usize) -> f32 {
        let (mut sums, x) = ([_mm256_setzero_ps(); SUMS], _mm256_set1_ps(0.5));
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, x, x);
            }
        }
        let whole = sums.into_iter().fold(x, |a, b| _mm256_add_ps(a, b));
        _mm256_cvtss_f32(whole)
    }

    #[target_feature(enable = "avx512f")]
    pub fn avx512_products(rounds: usize) -> f32 {
        let (mut sums, x) = ([_mm512_setzero_ps(); SUMS], _mm512_set1_ps(0.5));
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, x, x);
            }
        }
        let whole = sums.into_iter().fold(x, |a, b| _mm512_add_ps(a, b));
        _mm512_cvtss_f32(whole)
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    pub fn avx512_pairs(rounds: usize) -> f32 {
        let x = _mm512_set1_ps(0.5);
        let (mut sums, pairs) = ([x; SUMS], _mm512_cvtne2ps_pbh(x, x));
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, pairs, pairs);
            }
        }
        let whole = sums.into_iter().fold(x, |a, b| _mm512_add_ps(a, b));
        _mm512_cvtss_f32(whole)
    }
}

#[cfg(target_arch = "x86_64")]
use x86::{avx2_products, avx512_pairs, avx512_products};

#[cfg(not(target_arch = "x86_64"))]
mod absent {
    // Not reached: the kernels are not supported there.
    pub unsafe fn avx2_products(_: usize) -> f32 {
        0.0
    }
    pub use avx2_products as avx512_products;
    pub use avx2_products as avx512_pairs;
}

#[cfg(not(target_arch = "x86_64"))]
use absent::{avx2_products, avx512_pairs, avx512_products};
