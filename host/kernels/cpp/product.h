// A product of one panel's rows: blocks of outputs, and what becomes of their sums.
#pragma once
#include "layout.h"
#include "panel.h"

namespace {

struct Product {
    const View *x, *y;
    const Packed *w;
    uint32_t *panels;
    size_t height, steps;
};

INLINE void write(const View &y, size_t row, size_t column, f32x16 x, Lanes m) {
    if (y.element == F32) store((float *)y.data + row * y.stride + column, x, m);
    else store((bf16 *)y.data + row * y.stride + column, x, m);
}

// A block's sums for the rows of a panel become results.
template <int R> INLINE void finish(const Product &p, size_t number, size_t first_row, const f32x16 sums[R]) {
    const Packed &w = *p.w;
    size_t column = number * BLOCK, rows = least(R, p.x->rows - first_row);
    Lanes m = first(w.outputs - column);
    f32x16 scale = w.format == FORMAT_INT8 ? load(w.scale + column) : every(1);
    f32x16 bias = w.bias ? load(w.bias + column) : zero();
    for (size_t r = 0; r < rows; r++) write(*p.y, first_row + r, column, fmadd(sums[r], scale, bias), m);
}

// B blocks for the rows of a panel.
template <int R, int B, class Line> INLINE void some_blocks(const Product &p, size_t first_block, size_t first_row) {
    const Packed &w = *p.w;
    size_t lines = lines_a_block(w);
    f32x16 sums[B][R];
    tile<R, B, Line, R, 1, true>(block(w, first_block), lines * LINE, LINE, lines, p.panels + first_row * p.steps, sums);
    for (int b = 0; b < B; b++) finish<R>(p, first_block + b, first_row, sums[b]);
}

// Matrices up to this size are taken to lie in a cache.
constexpr size_t CACHED = 2 << 20;

// Blocks [begin, end) for the rows of a panel. From memory they come fastest as one stream, so they are taken one
// after the other as long as that keeps the multipliers ahead of the memory; from a cache, several at once.
template <int R, class Line> void one_panel(const Product &p, size_t begin, size_t end, size_t first_row) {
    constexpr int MANY = blocks_at_once(R), FEW = streams_at_once(R, Line::STEPS);
    if (FEW < MANY && blocks(*p.w) * lines_a_block(*p.w) * LINE <= CACHED)
        for (; begin + MANY <= end; begin += MANY) some_blocks<R, MANY, Line>(p, begin, first_row);
    if (FEW > 1)
        for (; begin + FEW <= end; begin += FEW) some_blocks<R, FEW, Line>(p, begin, first_row);
    for (; begin < end; begin++) some_blocks<R, 1, Line>(p, begin, first_row);
}

template <class Line> void any_panel(const Product &p, size_t begin, size_t end, size_t first_row) {
    switch (height_for(least(p.height, p.x->rows - first_row))) {
#define CASE(R) \
    case R: return one_panel<R, Line>(p, begin, end, first_row);
        PANEL_HEIGHTS(CASE)
#undef CASE
    }
}

}  // namespace
