// Rows of several panels.
//
// A block's lines and a panel together are larger than the first cache, and many panels larger than the second. So the
// product is cut along the inputs and along the rows: a cut of a block's lines stays in the first cache while panels
// pass, the panels' cut stays in the second while blocks pass. Sums wait in memory from cut to cut, as they are: the
// order of additions stays.
#pragma once
#include "../product.h"

namespace {

// From so many panels on a cut is expanded to f32 once instead of by each of them.
constexpr size_t EXPANDED_FROM = 4;
// Steps a cut, at most: up to 28 of 32 KiB with the panel's part.
constexpr size_t steps_a_cut(int steps_a_line, bool expanded) { return steps_a_line == 1 || expanded ? 256 : 512; }
// Rows and blocks that are worked on together where there are many rows: 200 KiB of panels and of sums.
constexpr size_t ROWS_TOGETHER = 12 * HIGHEST, BLOCKS_TOGETHER = 16;
// Up to so many rows the panels stay in the second cache anyway, and memory gives blocks in their order fastest.
constexpr size_t FEW_ROWS = 24;

// Steps [begin, end) of a block, which `lines` hold, for the rows of a panel; `sums` [R, 16] of what came before.
template <int R, class Line>
void one_cut(const Product &p, size_t number, size_t first_row, size_t begin, size_t end, const uint8_t *lines,
             float *sums, Others ask) {
    const uint32_t *panel = p.panels + first_row * p.steps + begin * R;
    f32x16 part[1][R];
#pragma GCC unroll 6
    for (int r = 0; r < R; r++) part[0][r] = begin > 0 ? load(sums + r * BLOCK) : zero();
    tile_with<R, 1, Line, R, 1, true>(lines, 0, LINE, (end - begin) / Line::STEPS, panel, part, ask);
    if (end == p.steps) return finish<R>(p, number, first_row, part[0]);
#pragma GCC unroll 6
    for (int r = 0; r < R; r++) store(sums + r * BLOCK, part[0][r]);
}

template <class Line> void expand(const uint8_t *lines, size_t count, float *to) {
    const Line line;
    for (size_t l = 0; l < count; l++)
#pragma GCC unroll 4
        for (int s = 0; s < Line::STEPS; s++, to += BLOCK) {
            __m256 step[2];
            line.step(lines + l * LINE, s, step);
            _mm256_store_ps(to, step[0]), _mm256_store_ps(to + 8, step[1]);
        }
}

// Steps [begin, end) of a block, which `lines` hold, for rows [first_row, end_row). `next`: the `next_bytes` that will
// be wanted afterwards.
template <class Line>
void panels_over_cut(const Product &p, size_t number, size_t first_row, size_t end_row, size_t begin, size_t end,
                     const uint8_t *lines, float *sums, const uint8_t *next, size_t next_bytes) {
    size_t panels = (end_row - first_row + p.height - 1) / p.height, shares = least(panels, 8), share = 0;
    size_t asked = next_bytes / ((end - begin) / Line::STEPS * shares);  // bytes a line
    for (size_t row = first_row; row < end_row; row += p.height, share++, sums += HIGHEST * BLOCK) {
        // They come in the meantime, some with each of the first panels; the others ask for the panel behind them.
        Others ask = {next + share * (next_bytes / shares), asked};
        if (share >= shares)
            ask = {(const uint8_t *)(p.panels + (row + p.height) * p.steps + begin * p.height),
                   p.height * sizeof(float) * Line::STEPS};
        switch (height_for(least(p.height, p.x->rows - row))) {
#define CASE(R) \
    case R: one_cut<R, Line>(p, number, row, begin, end, lines, sums, ask); break;
            PANEL_HEIGHTS(CASE)
#undef CASE
        }
    }
}

// Blocks [begin, end) for all rows.
template <class Line> void several_panels(const Product &p, size_t begin, size_t end) {
    static thread_local Scratch scratch;
    constexpr size_t S = Line::STEPS;
    size_t rows = p.x->rows;
    bool many = rows > FEW_ROWS, expanded = S > 1 && rows >= EXPANDED_FROM * p.height;
    size_t rows_together = many ? ROWS_TOGETHER / p.height * p.height : rows, together = many ? BLOCKS_TOGETHER : 1;
    size_t a_block = (least(rows, rows_together) / p.height + 1) * HIGHEST * BLOCK;
    size_t most = steps_a_cut(S, expanded), cuts = (p.steps + most - 1) / most;
    size_t each = round_up((p.steps + cuts - 1) / cuts, S);
    float *sums = (float *)scratch.at_least((together * a_block + most * BLOCK) * sizeof(float));
    float *wide = sums + together * a_block;
    for (size_t row = 0; row < rows; row += rows_together) {
        size_t end_row = least(row + rows_together, rows);
        for (size_t first = begin; first < end; first += together) {
            size_t last = least(first + together, end);
            for (size_t from = 0; from < p.steps; from += each) {
                size_t to = least(from + each, p.steps), bytes = (to - from) / S * LINE;
                for (size_t b = first; b < last; b++) {
                    const uint8_t *lines = block(*p.w, b) + from / S * LINE;
                    const uint8_t *next = b + 1 < last    ? block(*p.w, b + 1) + from / S * LINE
                                          : to < p.steps ? block(*p.w, first) + to / S * LINE
                                                          : block(*p.w, last);
                    float *here = sums + (b - first) * a_block;
                    if (expanded) {
                        expand<Line>(lines, (to - from) / S, wide);
                        panels_over_cut<LineF32>(p, b, row, end_row, from, to, (uint8_t *)wide, here, next, bytes);
                    } else {
                        panels_over_cut<Line>(p, b, row, end_row, from, to, lines, here, next, bytes);
                    }
                }
            }
        }
    }
}

}  // namespace
