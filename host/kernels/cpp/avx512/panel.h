// Rows of activations as panels: a step is an f32 value or a pair of bf16 (../panel.h).
#pragma once

namespace {

// Heights for which the inner loop is compiled.
#define PANEL_HEIGHTS(F) \
    F(1) F(2) F(3) F(4) F(5) F(6) F(7) F(8) F(9) F(10) F(11) F(12) F(13) F(14) F(15) F(16) F(20) F(24)
constexpr size_t HIGHEST = 24;

INLINE size_t height_for(size_t rows) { return rows <= 16 ? rows : rows <= 20 ? 20 : 24; }

// Values that a step of rows of T takes.
template <class T> constexpr size_t A_STEP = 4 / sizeof(T);

// 32-bit values [at, at + 16) of a row of `values` elements, zeros behind its end.
INLINE __m512i load_steps(const float *row, size_t at, size_t values) {
    return at >= values ? _mm512_setzero_si512() : _mm512_maskz_loadu_epi32(first(values - at), row + at);
}
INLINE __m512i load_steps(const bf16 *row, size_t at, size_t values) {
    if (2 * at >= values) return _mm512_setzero_si512();
    size_t left = values - 2 * at;
    return _mm512_maskz_loadu_epi16(left >= 32 ? ~0u : (1u << left) - 1, row + 2 * at);
}

// Sixteen steps of sixteen whole rows, turned in registers: no loop here may be left rolled up, or they go to the stack.
template <class T> INLINE void whole_square(const T *const *rows, size_t at, size_t height, uint32_t *panel) {
    __m512i r[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) r[i] = _mm512_loadu_si512((const uint32_t *)rows[i] + at);
    transpose(r);
#pragma GCC unroll 16
    for (int c = 0; c < 16; c++) _mm512_storeu_si512(panel + c * height, r[c]);
}

// `count` rows of `values` elements as a panel of height `height` and `steps` steps; what is missing is zero.
template <class T>
void make_panel(const T *const *rows, size_t count, size_t values, size_t height, size_t steps, uint32_t *panel) {
    if (height == 1) {
        for (size_t at = 0; at < steps; at += 16)
            _mm512_mask_storeu_epi32(panel + at, first(steps - at), load_steps(rows[0], at, values));
        return;
    }
    for (size_t group = 0; group < height; group += 16) {
        __mmask16 lanes = first(height - group);
        size_t here = count > group ? least(count - group, 16) : 0;
        for (size_t at = 0; at < steps; at += 16) {
            if (here == 16 && (at + 16) * (4 / sizeof(T)) <= values) {
                whole_square(rows + group, at, height, panel + at * height + group);
                continue;
            }
            __m512i r[16];
            for (size_t i = 0; i < 16; i++)
                r[i] = i < here ? load_steps(rows[group + i], at, values) : _mm512_setzero_si512();
            transpose(r);
            size_t columns = least(steps - at, 16);
            for (size_t c = 0; c < columns; c++)
                _mm512_mask_storeu_epi32(panel + (at + c) * height + group, lanes, r[c]);
        }
    }
}

}  // namespace
