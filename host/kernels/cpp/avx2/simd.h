// Sixteen values at a time in two registers: loads and stores of either element, arithmetic, transposes.
#pragma once

namespace {

struct f32x16 {
    __m256 low, high;
};
// Some of the sixteen values, from the first on: there are no mask registers, so tails go through memory.
struct Lanes {
    size_t count;
};

INLINE Lanes first(size_t n) { return {n >= 16 ? 16 : n}; }

INLINE __m256 widen(__m128i x) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16)); }

// To the nearest bf16, ties to even, in the upper half of each value's 32 bits.
INLINE __m256i nearest_bf16(__m256 x) {
    __m256i bits = _mm256_castps_si256(x);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i up = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    // Rounding could carry a NaN into infinity.
    __m256 nan = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
    return _mm256_castps_si256(_mm256_blendv_ps(_mm256_castsi256_ps(up), _mm256_set1_ps(NAN), nan));
}
INLINE __m256i narrow(f32x16 x) {
    __m256i low = _mm256_srli_epi32(nearest_bf16(x.low), 16), high = _mm256_srli_epi32(nearest_bf16(x.high), 16);
    return _mm256_permute4x64_epi64(_mm256_packus_epi32(low, high), 0xd8);
}

INLINE __m128i half(const void *p) { return _mm_loadu_si128((const __m128i *)p); }

INLINE f32x16 load(const float *p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
INLINE f32x16 load(const bf16 *p) { return {widen(half(p)), widen(half(p + 8))}; }
INLINE f32x16 load(const f16 *p) { return {_mm256_cvtph_ps(half(p)), _mm256_cvtph_ps(half(p + 8))}; }
template <class T> INLINE f32x16 load(const T *p, Lanes m) {
    if (m.count == 16) return load(p);
    alignas(32) T part[16] = {};
    std::memcpy(part, p, m.count * sizeof(T));
    return load(part);
}

INLINE void store(float *p, f32x16 x) { _mm256_storeu_ps(p, x.low), _mm256_storeu_ps(p + 8, x.high); }
INLINE void store(bf16 *p, f32x16 x) { _mm256_storeu_si256((__m256i *)p, narrow(x)); }
template <class T> INLINE void store(T *p, f32x16 x, Lanes m) {
    if (m.count == 16) return store(p, x);
    alignas(32) T part[16];
    store(part, x);
    std::memcpy(p, part, m.count * sizeof(T));
}

// x as it is after being stored and loaded again.
INLINE f32x16 rounded(f32x16 x, const float *) { return x; }
INLINE f32x16 rounded(f32x16 x, const bf16 *) {
    const __m256i upper = _mm256_set1_epi32((int)0xffff0000);
    return {_mm256_castsi256_ps(_mm256_and_si256(nearest_bf16(x.low), upper)),
            _mm256_castsi256_ps(_mm256_and_si256(nearest_bf16(x.high), upper))};
}

INLINE f32x16 zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
INLINE f32x16 every(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
INLINE f32x16 plus(f32x16 a, f32x16 b) { return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)}; }
INLINE f32x16 minus(f32x16 a, f32x16 b) { return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)}; }
INLINE f32x16 times(f32x16 a, f32x16 b) { return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)}; }
INLINE f32x16 over(f32x16 a, f32x16 b) { return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)}; }
INLINE f32x16 fmadd(f32x16 a, f32x16 b, f32x16 c) {
    return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
INLINE f32x16 fnmadd(f32x16 a, f32x16 b, f32x16 c) {
    return {_mm256_fnmadd_ps(a.low, b.low, c.low), _mm256_fnmadd_ps(a.high, b.high, c.high)};
}
INLINE f32x16 magnitude(f32x16 x) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return {_mm256_andnot_ps(sign, x.low), _mm256_andnot_ps(sign, x.high)};
}
// Where either is NaN, the second.
INLINE f32x16 max(f32x16 a, f32x16 b) { return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)}; }
INLINE f32x16 min(f32x16 a, f32x16 b) { return {_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)}; }
INLINE f32x16 nearest(f32x16 x) {
    constexpr int EVEN = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    return {_mm256_round_ps(x.low, EVEN), _mm256_round_ps(x.high, EVEN)};
}

// x 2^n for whole n in [-252, 254], rounded once: in two factors, since the result may lie beyond normal numbers.
INLINE __m256 times_power(__m256 x, __m256 n) {
    const __m256i bias = _mm256_set1_epi32(127);
    __m256i whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1), rest = _mm256_sub_epi32(whole, half);
    __m256 a = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
    __m256 b = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23));
    return _mm256_mul_ps(_mm256_mul_ps(x, a), b);
}
INLINE f32x16 times_power(f32x16 x, f32x16 n) { return {times_power(x.low, n.low), times_power(x.high, n.high)}; }

INLINE float lowest(f32x16 x) { return _mm256_cvtss_f32(x.low); }
INLINE float total(f32x16 x) {
    __m256 a = _mm256_add_ps(x.low, x.high);
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}
INLINE float largest(f32x16 x) {
    __m256 a = _mm256_max_ps(x.low, x.high);
    __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_max_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_max_ss(b, _mm_movehdup_ps(b)));
}

// x where its number, counted from `at`, lies in [begin, end), and `other` elsewhere.
INLINE __m256 within(__m256 x, size_t at, size_t begin, size_t end, __m256 other) {
    __m256i number = _mm256_add_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32((int)at));
    __m256i before = _mm256_cmpgt_epi32(_mm256_set1_epi32((int)begin), number);
    __m256i in = _mm256_andnot_si256(before, _mm256_cmpgt_epi32(_mm256_set1_epi32((int)end), number));
    return _mm256_blendv_ps(other, x, _mm256_castsi256_ps(in));
}
INLINE f32x16 within(f32x16 x, size_t at, size_t begin, size_t end, f32x16 other) {
    return {within(x.low, at, begin, end, other.low), within(x.high, at + 8, begin, end, other.high)};
}

// Rows of eight values become columns.
INLINE void transpose(__m256 r[8]) {
    __m256 t[8];
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    // Now rows i..i+3, column 4 l + c of lane l, in r[i + c].
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {
        r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
        r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
        r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) {
        t[c] = _mm256_permute2f128_ps(r[c], r[c + 4], 0x20);
        t[c + 4] = _mm256_permute2f128_ps(r[c], r[c + 4], 0x31);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) r[i] = t[i];
}

}  // namespace
