// The inner loop of every product: a stream of weight lines against a panel of rows, sums in registers.
//
// A line (../layout.h) becomes two registers a step: 16 outputs at one input, as f32. Each row's value of that step is
// broadcast from the panel, so no sum ever runs across a register. A panel is [steps][R] values: what the loop wants
// next always lies behind what it had.
#pragma once

namespace {

// The same address, but the compiler cannot know: what lies there is loaded once more instead of being kept in one of
// the few registers, from where it would push sums into memory.
template <class T> INLINE const T *again(const T *p) {
    asm volatile("" : "+r"(p));
    return p;
}

// How a line becomes registers: STEPS times two of them.
struct LineF32 {
    static constexpr int STEPS = 1;
    INLINE void step(const uint8_t *w, int, __m256 out[2]) const {
        out[0] = _mm256_load_ps((const float *)w);
        out[1] = _mm256_load_ps((const float *)w + 8);
    }
};

alignas(32) constexpr uint32_t UPPER[8] = {0xffff0000, 0xffff0000, 0xffff0000, 0xffff0000,
                                           0xffff0000, 0xffff0000, 0xffff0000, 0xffff0000};

struct LineBf16 {
    static constexpr int STEPS = 2;
    INLINE void step(const uint8_t *w, int k, __m256 out[2]) const {
        const __m256i *upper = (const __m256i *)again(UPPER);
        for (int h = 0; h < 2; h++) {
            __m256i pairs = _mm256_load_si256((const __m256i *)w + h);
            pairs = k == 0 ? _mm256_slli_epi32(pairs, 16) : _mm256_and_si256(pairs, _mm256_load_si256(upper));
            out[h] = _mm256_castsi256_ps(pairs);
        }
    }
};

}  // namespace

#include "int8.h"

namespace {

// For rows of X.
template <class X> using LineBf16For = LineBf16;
template <class X> using LineInt8For = LineInt8;

// So many lines ahead of the one in work memory is asked for: a few hundred cycles, whatever a line takes.
constexpr size_t AHEAD = 64;

// Blocks that few rows take at once: a product takes four cycles and two begin in each, so eight registers of sums
// must be under way. Never several sums of one output: the order of additions, and so the result's last bits, is the
// same for any R.
constexpr int blocks_at_once(int rows) { return rows >= 4 ? 1 : rows >= 2 ? 2 : 4; }
// The same where they come from memory, which gives a single stream fastest: no more than the multipliers need.
constexpr int streams_at_once(int rows, int steps) { return rows == 1 && steps > 2 ? 2 : 1; }

// What is asked for while the lines are worked on: nothing; what stands AHEAD, of B blocks `block` bytes apart; or
// `each` bytes a step from `at` on, lines that others will want.
struct Nothing {
    template <int B> INLINE void ask(const uint8_t *, size_t, size_t, size_t, int) const {}
};
struct Stream {
    template <int B> INLINE void ask(const uint8_t *w, size_t block, size_t l, size_t lines, int b) const {
        // Behind the end of these blocks' lines stand the next blocks' ones.
        const uint8_t *ahead = w + AHEAD * LINE + (l + AHEAD < lines ? 0 : (B - 1) * block);
        _mm_prefetch((const char *)ahead + b * block, _MM_HINT_T0);
    }
};
struct Others {
    const uint8_t *at;
    size_t each;
    template <int B> INLINE void ask(const uint8_t *, size_t, size_t l, size_t, int) const {
        _mm_prefetch((const char *)at + l * each, _MM_HINT_T1);
    }
};

// sums[b][r] = the products of block b's `lines` lines with row r of the panel, added to what they are if GO_ON. Blocks
// lie `block` bytes and their lines `line_bytes` bytes apart; the panel's steps lie STEP and its rows ROW values apart.
template <int R, int B, class Line, int STEP, int ROW, bool GO_ON, class Ask>
INLINE void tile_with(const uint8_t *w, size_t block, size_t line_bytes, size_t lines, const uint32_t *panel,
                      f32x16 sums[B][R], const Ask &ask) {
    constexpr int S = Line::STEPS;
    const Line line;
    __m256 acc[B][R][2];
    // Every loop over sums is unrolled: one that is not would put them into memory.
#pragma GCC unroll 4
    for (int b = 0; b < B; b++)
#pragma GCC unroll 6
        for (int r = 0; r < R; r++) {
            acc[b][r][0] = GO_ON ? sums[b][r].low : _mm256_setzero_ps();
            acc[b][r][1] = GO_ON ? sums[b][r].high : _mm256_setzero_ps();
        }
    for (size_t l = 0; l < lines; l++, w += line_bytes, panel += S * STEP) {
#pragma GCC unroll 4
        for (int b = 0; b < B; b++) {
            ask.template ask<B>(w, block, l, lines, b);
#pragma GCC unroll 4
            for (int s = 0; s < S; s++) {
                const float *rows = again((const float *)panel + s * STEP);
                __m256 step[2];
                line.step(again(w + b * block), s, step);
#pragma GCC unroll 6
                for (int r = 0; r < R; r++) {
                    __m256 x = _mm256_broadcast_ss(rows + r * ROW);
                    acc[b][r][0] = _mm256_fmadd_ps(step[0], x, acc[b][r][0]);
                    acc[b][r][1] = _mm256_fmadd_ps(step[1], x, acc[b][r][1]);
                }
            }
        }
    }
#pragma GCC unroll 4
    for (int b = 0; b < B; b++)
#pragma GCC unroll 6
        for (int r = 0; r < R; r++) sums[b][r] = {acc[b][r][0], acc[b][r][1]};
}

template <int R, int B, class Line, int STEP, int ROW, bool FROM_MEMORY>
INLINE void tile(const uint8_t *w, size_t block, size_t line_bytes, size_t lines, const uint32_t *panel,
                 f32x16 sums[B][R]) {
    if (FROM_MEMORY) tile_with<R, B, Line, STEP, ROW, false>(w, block, line_bytes, lines, panel, sums, Stream());
    else tile_with<R, B, Line, STEP, ROW, false>(w, block, line_bytes, lines, panel, sums, Nothing());
}

}  // namespace
