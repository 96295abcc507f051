// Sixteen values at a time: loads and stores of either element, transposes, exp.
//
// Everything below is compiled for AVX-512. The standard headers come first, so that no function of theirs that the
// linker could share with other code is.
#pragma once
#include <cfloat>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <immintrin.h>
#include <omp.h>

#include "kernels.h"

#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512bf16,avx2,fma,f16c")

namespace {

using f32x16 = __m512;
using bf16 = uint16_t;
using f16 = struct { uint16_t bits; };

#define INLINE inline __attribute__((always_inline))

INLINE __mmask16 first(size_t n) { return n >= 16 ? 0xffff : (__mmask16)((1u << n) - 1); }

INLINE f32x16 widen(__m256i x) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16)); }
INLINE __m256i narrow(f32x16 x) { return (__m256i)_mm512_cvtneps_pbh(x); }

INLINE f32x16 load(const float *p) { return _mm512_loadu_ps(p); }
INLINE f32x16 load(const bf16 *p) { return widen(_mm256_loadu_si256((const __m256i *)p)); }
INLINE f32x16 load(const f16 *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }
INLINE f32x16 load(const float *p, __mmask16 m) { return _mm512_maskz_loadu_ps(m, p); }
INLINE f32x16 load(const bf16 *p, __mmask16 m) { return widen(_mm256_maskz_loadu_epi16(m, p)); }
INLINE f32x16 load(const f16 *p, __mmask16 m) { return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(m, p)); }

INLINE void store(float *p, f32x16 x) { _mm512_storeu_ps(p, x); }
INLINE void store(bf16 *p, f32x16 x) { _mm256_storeu_si256((__m256i *)p, narrow(x)); }
INLINE void store(float *p, f32x16 x, __mmask16 m) { _mm512_mask_storeu_ps(p, m, x); }
INLINE void store(bf16 *p, f32x16 x, __mmask16 m) { _mm256_mask_storeu_epi16(p, m, narrow(x)); }

// x as it is after being stored and loaded again.
INLINE f32x16 rounded(f32x16 x, const float *) { return x; }
INLINE f32x16 rounded(f32x16 x, const bf16 *) { return widen(narrow(x)); }

// e^x, to two units in the last place: 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2] (Cephes' expf).
INLINE f32x16 exp(f32x16 x) {
    // In this order NaN stays NaN. Below -104 the result is 0.
    x = _mm512_max_ps(_mm512_set1_ps(-104.0f), x);
    x = _mm512_min_ps(_mm512_set1_ps(89.0f), x);
    f32x16 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504088896341f)), 8);
    f32x16 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
    f32x16 y = _mm512_set1_ps(1.9875691500e-4f);
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(1.3981999507e-3f));
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(8.3334519073e-3f));
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(4.1665795894e-2f));
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(1.6666665459e-1f));
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(5.0000001201e-1f));
    y = _mm512_fmadd_ps(y, _mm512_mul_ps(r, r), _mm512_add_ps(r, _mm512_set1_ps(1.0f)));
    return _mm512_scalef_ps(y, n);
}

// 2^x for x <= 0, and NaN for NaN: Cephes' exp2f, without its care for large results.
INLINE f32x16 exp2(f32x16 x) {
    x = _mm512_max_ps(_mm512_set1_ps(-151.0f), x);  // 0 from there on
    f32x16 n = _mm512_roundscale_ps(x, 8), r = _mm512_sub_ps(x, n);
    f32x16 y = _mm512_set1_ps(1.535336188319500e-4f);
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(1.339887440266574e-3f));
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(9.618437357674640e-3f));
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(5.550332471162809e-2f));
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(2.402264791363012e-1f));
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(6.931472028550421e-1f));
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(y, n);
}

// Rows of sixteen 32-bit values become columns.
INLINE void transpose(__m512i r[16]) {
    __m512i t[16];
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    // Now rows i..i+3, column 4 l + c of lane l, in r[i + c].
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    // And a transpose of the lanes: rows 0, 4, 8, 12 against lanes.
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) {
        __m512i a = _mm512_shuffle_i32x4(r[c], r[c + 4], 0x88), b = _mm512_shuffle_i32x4(r[c], r[c + 4], 0xdd);
        __m512i d = _mm512_shuffle_i32x4(r[c + 8], r[c + 12], 0x88), e = _mm512_shuffle_i32x4(r[c + 8], r[c + 12], 0xdd);
        t[c] = _mm512_shuffle_i32x4(a, d, 0x88);
        t[c + 8] = _mm512_shuffle_i32x4(a, d, 0xdd);
        t[c + 4] = _mm512_shuffle_i32x4(b, e, 0x88);
        t[c + 12] = _mm512_shuffle_i32x4(b, e, 0xdd);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) r[i] = t[i];
}

// Memory that a thread keeps for the next call.
class Scratch {
    void *data = nullptr;
    size_t size = 0;

  public:
    ~Scratch() { std::free(data); }
    void *at_least(size_t bytes) {
        if (bytes > size) {
            std::free(data);
            size = (bytes + bytes / 4 + 4095) / 4096 * 4096;
            data = std::aligned_alloc(4096, size);
            if (!data) std::abort();  // as Rust's own allocations do
        }
        return data;
    }
};

// A parallel region costs about 1 us while the team is awake; work that takes one thread less than this stays with it.
constexpr size_t SHARED_FROM_NS = 4000;

INLINE size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }
INLINE size_t least(size_t a, size_t b) { return a < b ? a : b; }

}  // namespace
