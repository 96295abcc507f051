// Rows of activations as panels: a step is one value as f32, whatever the rows' element (../panel.h).
#pragma once

namespace {

// Heights for which the inner loop is compiled: sums of six rows, two registers each, leave four of the sixteen.
#define PANEL_HEIGHTS(F) F(1) F(2) F(3) F(4) F(5) F(6)
constexpr size_t HIGHEST = 6;

INLINE size_t height_for(size_t rows) { return rows; }

// Values that a step of rows of T takes.
template <class T> constexpr size_t A_STEP = 1;

INLINE __m256 eight(const float *p) { return _mm256_loadu_ps(p); }
INLINE __m256 eight(const bf16 *p) { return widen(half(p)); }

// Values [at, at + 8) of a row of `values`, zeros behind its end.
template <class T> INLINE __m256 load_steps(const T *row, size_t at, size_t values) {
    if (at + 8 <= values) return eight(row + at);
    alignas(32) T part[8] = {};
    if (at < values) std::memcpy(part, row + at, (values - at) * sizeof(T));
    return eight(part);
}

// `count` rows of `values` elements as a panel of height `height`, at most 8 or a multiple of it, and `steps` steps;
// what is missing is zero.
template <class T>
void make_panel(const T *const *rows, size_t count, size_t values, size_t height, size_t steps, uint32_t *panel) {
    float *to = (float *)panel;
    if (height == 1) {
        for (size_t at = 0; at < steps; at += 8) {
            __m256 x = load_steps(rows[0], at, values);
            if (at + 8 <= steps) _mm256_storeu_ps(to + at, x);
            else std::memcpy(to + at, &x, (steps - at) * 4);
        }
        return;
    }
    for (size_t group = 0; group < height; group += 8) {
        size_t lanes = least(height - group, 8), here = count > group ? least(count - group, 8) : 0;
        for (size_t at = 0; at < steps; at += 8) {
            __m256 r[8];
#pragma GCC unroll 8
            for (size_t i = 0; i < 8; i++)
                r[i] = i < here ? load_steps(rows[group + i], at, values) : _mm256_setzero_ps();
            transpose(r);
            float *column = to + at * height + group;
            // A step of fewer than eight values is written with what comes behind it, and the next one over that.
            if ((at + 7) * height + group + 8 <= steps * height) {
#pragma GCC unroll 8
                for (size_t c = 0; c < 8; c++) _mm256_storeu_ps(column + c * height, r[c]);
            } else {
                for (size_t c = 0; c < least(steps - at, 8); c++) std::memcpy(column + c * height, &r[c], lanes * 4);
            }
        }
    }
}

}  // namespace
