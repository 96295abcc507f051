// What attention asks of the instruction set: its tokens' values as lines, its weights as rows.
#pragma once

namespace {

// Tokens that are packed at once.
constexpr size_t TILE = 128;
// Products of a register with a query that a thread does in a ns, times 16.
constexpr size_t ATTENDED_A_NS = 48;

template <class T> struct TokenLines { using Line = LineF32; };
template <> struct TokenLines<bf16> { using Line = LineBf16; };
template <class T> using LineOf = typename TokenLines<T>::Line;

// Two tokens' values [0, 32) as two lines.
INLINE void value_pairs(const bf16 *a, const bf16 *b, uint8_t *to) {
    const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37,
                                         5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
    __m512i x = _mm512_loadu_si512(a), y = _mm512_loadu_si512(b);
    _mm512_store_si512(to, _mm512_permutex2var_epi16(x, low, y));
    _mm512_store_si512(to + LINE, _mm512_permutex2var_epi16(x, high, y));
}

INLINE __m512i value_line(const float *a, const float *, __mmask16 m) { return _mm512_castps_si512(load(a, m)); }
INLINE __m512i value_line(const bf16 *a, const bf16 *b, __mmask16 m) {
    __m512i even = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, a));
    if (!b) return even;
    return _mm512_or_si512(even, _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, b)), 16));
}

// The values of a token (f32) or of two (bf16; `b` may be null) as lines of 16.
template <class T> INLINE void pack_values(const T *a, const T *b, size_t dim, uint8_t *to) {
    size_t d = 0;
    if constexpr (A_STEP<T> == 2)
        if (b)
            for (; d + 2 * BLOCK <= dim; d += 2 * BLOCK) value_pairs(a + d, b + d, to + d / BLOCK * LINE);
    for (; d < dim; d += BLOCK) {
        __m512i x = value_line(a + d, b ? b + d : nullptr, first(dim - d));
        _mm512_store_si512(to + d / BLOCK * LINE, x);
    }
}

// Weights [at, at + 16) of a query, as its row of the product with the values holds them.
INLINE void store_weights(uint32_t *row, size_t at, f32x16 x, float) { _mm512_storeu_ps((float *)row + at, x); }
INLINE void store_weights(uint32_t *row, size_t at, f32x16 x, bf16) { store((bf16 *)row + at, x); }

}  // namespace
