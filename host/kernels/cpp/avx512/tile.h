// The inner loop of every product: a stream of weight lines against a panel of rows, sums in registers.
//
// A line (../layout.h) becomes one register a step: 16 outputs at one input (f32 rows) or at a pair of inputs (bf16
// rows). Each row's value of that step is broadcast from the panel, so no sum ever runs across a register. A panel is
// [steps][R] 32-bit values: what the loop wants next always lies behind what it had.
#pragma once

namespace {

// Two products of bf16 pairs a lane.
INLINE f32x16 multiply_add(f32x16 sum, __m512i w, const uint32_t *x, bf16) {
    return _mm512_dpbf16_ps(sum, (__m512bh)w, (__m512bh)_mm512_set1_epi32((int)*x));
}
INLINE f32x16 multiply_add(f32x16 sum, __m512i w, const uint32_t *x, float) {
    return _mm512_fmadd_ps(_mm512_castsi512_ps(w), _mm512_castsi512_ps(_mm512_set1_epi32((int)*x)), sum);
}

// How a line becomes registers: STEPS of them, for rows of type X.
struct LineF32 {
    using X = float;
    static constexpr int STEPS = 1;
    INLINE void expand(const uint8_t *w, __m512i out[1]) const { out[0] = _mm512_load_si512(w); }
};

struct LineBf16 {
    using X = bf16;
    static constexpr int STEPS = 1;
    INLINE void expand(const uint8_t *w, __m512i out[1]) const { out[0] = _mm512_load_si512(w); }
};

// A pair of bf16 as two registers of f32.
INLINE void split(__m512i pairs, __m512i out[2]) {
    out[0] = _mm512_slli_epi32(pairs, 16);
    out[1] = _mm512_and_si512(pairs, _mm512_set1_epi32((int)0xffff0000));
}

struct LineBf16Wide {
    using X = float;
    static constexpr int STEPS = 2;
    INLINE void expand(const uint8_t *w, __m512i out[2]) const { split(_mm512_load_si512(w), out); }
};

}  // namespace

#include "int8.h"

namespace {

template <class X> struct Lines;
template <> struct Lines<float> { using Bf16 = LineBf16Wide; using Int8 = LineInt8Wide; };
template <> struct Lines<bf16> { using Bf16 = LineBf16; using Int8 = LineInt8; };
// For rows of X.
template <class X> using LineBf16For = typename Lines<X>::Bf16;
template <class X> using LineInt8For = typename Lines<X>::Int8;

// So many lines ahead of the one in work memory is asked for: a few hundred cycles, whatever a line takes.
constexpr size_t AHEAD = 64;

// Blocks that few rows take at once: an instruction's result takes four to six cycles, so as many sums must be under
// way. Never several sums of one output: the order of additions, and so the result's last bits, is the same for any R.
constexpr int blocks_at_once(int rows) { return rows >= 8 ? 1 : rows >= 4 ? 2 : 4; }
// The same where they come from memory, which gives a single stream fastest: no more than the multipliers need.
constexpr int streams_at_once(int rows, int steps) { return steps > 1 && rows == 1 ? 2 : 1; }

// sums[b][r] = the products of block b's `lines` lines with row r of the panel. Blocks lie `block` bytes and their
// lines `line_bytes` bytes apart; the panel's steps lie STEP and its rows ROW values apart.
template <int R, int B, class Line, int STEP, int ROW, bool FROM_MEMORY>
INLINE void tile(const uint8_t *w, size_t block, size_t line_bytes, size_t lines, const uint32_t *panel,
                 f32x16 sums[B][R]) {
    constexpr int S = Line::STEPS;
    const Line line;
    f32x16 acc[B][R];
    // Every loop over sums is unrolled: one that is not would put them into memory.
#pragma GCC unroll 4
    for (int b = 0; b < B; b++)
#pragma GCC unroll 24
        for (int r = 0; r < R; r++) acc[b][r] = _mm512_setzero_ps();
    for (size_t l = 0; l < lines; l++, w += line_bytes, panel += S * STEP) {
        // Behind the end of these blocks' lines stand the next blocks' ones.
        const uint8_t *ahead = w + AHEAD * LINE + (l + AHEAD < lines ? 0 : (B - 1) * block);
#pragma GCC unroll 4
        for (int b = 0; b < B; b++) {
            if (FROM_MEMORY) _mm_prefetch((const char *)ahead + b * block, _MM_HINT_T0);
            __m512i step[S];
            line.expand(w + b * block, step);
#pragma GCC unroll 4
            for (int s = 0; s < S; s++)
#pragma GCC unroll 24
                for (int r = 0; r < R; r++)
                    acc[b][r] = multiply_add(acc[b][r], step[s], panel + s * STEP + r * ROW, typename Line::X());
        }
    }
#pragma GCC unroll 4
    for (int b = 0; b < B; b++)
#pragma GCC unroll 24
        for (int r = 0; r < R; r++) sums[b][r] = acc[b][r];
}

}  // namespace
