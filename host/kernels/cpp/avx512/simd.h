// Sixteen values at a time in one register: loads and stores of either element, arithmetic, transposes.
#pragma once

namespace {

using f32x16 = __m512;
using Lanes = __mmask16;  // some of a register's values, from the first on

INLINE Lanes first(size_t n) { return n >= 16 ? 0xffff : (__mmask16)((1u << n) - 1); }

INLINE f32x16 widen(__m256i x) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16)); }
INLINE __m256i narrow(f32x16 x) { return (__m256i)_mm512_cvtneps_pbh(x); }

INLINE f32x16 load(const float *p) { return _mm512_loadu_ps(p); }
INLINE f32x16 load(const bf16 *p) { return widen(_mm256_loadu_si256((const __m256i *)p)); }
INLINE f32x16 load(const f16 *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }
INLINE f32x16 load(const float *p, Lanes m) { return _mm512_maskz_loadu_ps(m, p); }
INLINE f32x16 load(const bf16 *p, Lanes m) { return widen(_mm256_maskz_loadu_epi16(m, p)); }
INLINE f32x16 load(const f16 *p, Lanes m) { return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(m, p)); }

INLINE void store(float *p, f32x16 x) { _mm512_storeu_ps(p, x); }
INLINE void store(bf16 *p, f32x16 x) { _mm256_storeu_si256((__m256i *)p, narrow(x)); }
INLINE void store(float *p, f32x16 x, Lanes m) { _mm512_mask_storeu_ps(p, m, x); }
INLINE void store(bf16 *p, f32x16 x, Lanes m) { _mm256_mask_storeu_epi16(p, m, narrow(x)); }

// x as it is after being stored and loaded again.
INLINE f32x16 rounded(f32x16 x, const float *) { return x; }
INLINE f32x16 rounded(f32x16 x, const bf16 *) { return widen(narrow(x)); }

INLINE f32x16 zero() { return _mm512_setzero_ps(); }
INLINE f32x16 every(float x) { return _mm512_set1_ps(x); }
INLINE f32x16 plus(f32x16 a, f32x16 b) { return _mm512_add_ps(a, b); }
INLINE f32x16 minus(f32x16 a, f32x16 b) { return _mm512_sub_ps(a, b); }
INLINE f32x16 times(f32x16 a, f32x16 b) { return _mm512_mul_ps(a, b); }
INLINE f32x16 over(f32x16 a, f32x16 b) { return _mm512_div_ps(a, b); }
INLINE f32x16 fmadd(f32x16 a, f32x16 b, f32x16 c) { return _mm512_fmadd_ps(a, b, c); }
INLINE f32x16 fnmadd(f32x16 a, f32x16 b, f32x16 c) { return _mm512_fnmadd_ps(a, b, c); }
INLINE f32x16 magnitude(f32x16 x) { return _mm512_abs_ps(x); }
// Where either is NaN, the second.
INLINE f32x16 max(f32x16 a, f32x16 b) { return _mm512_max_ps(a, b); }
INLINE f32x16 min(f32x16 a, f32x16 b) { return _mm512_min_ps(a, b); }
INLINE f32x16 nearest(f32x16 x) { return _mm512_roundscale_ps(x, 8); }
// x 2^n for whole n.
INLINE f32x16 times_power(f32x16 x, f32x16 n) { return _mm512_scalef_ps(x, n); }
INLINE float total(f32x16 x) { return _mm512_reduce_add_ps(x); }
INLINE float largest(f32x16 x) { return _mm512_reduce_max_ps(x); }
INLINE float lowest(f32x16 x) { return _mm512_cvtss_f32(x); }

// x where its number, counted from `at`, lies in [begin, end), and `other` elsewhere.
INLINE f32x16 within(f32x16 x, size_t at, size_t begin, size_t end, f32x16 other) {
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m512i number = _mm512_add_epi32(lane, _mm512_set1_epi32((int)at));
    __mmask16 in = _mm512_cmpge_epi32_mask(number, _mm512_set1_epi32((int)begin)) &
                   _mm512_cmplt_epi32_mask(number, _mm512_set1_epi32((int)end));
    return _mm512_mask_blend_ps(in, other, x);
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

}  // namespace
