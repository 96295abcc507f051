// y = x W^T + b: blocks of outputs are shared among the threads, each block is read once for all rows.
#include "panel.h"
#include "tile.h"

namespace {

struct Product {
    const View *x, *y;
    const Packed *w;
    uint32_t *panels;
    size_t height, steps;
};

INLINE void write(const View &y, size_t row, size_t column, f32x16 x, __mmask16 m) {
    if (y.element == F32) store((float *)y.data + row * y.stride + column, x, m);
    else store((bf16 *)y.data + row * y.stride + column, x, m);
}

template <int R, class Line> void one_panel(const Product &p, size_t block_number, size_t first_row) {
    const Packed &w = *p.w;
    f32x16 sums[R];
    tile<R, Line, R, 1, true>(block(w, block_number), LINE, lines_a_block(w), p.panels + first_row * p.steps, sums);
    size_t column = block_number * BLOCK, rows = least(R, p.x->rows - first_row);
    __mmask16 m = first(w.outputs - column);
    f32x16 scale = w.format == FORMAT_INT8 ? load(w.scale + column) : _mm512_set1_ps(1);
    f32x16 bias = w.bias ? load(w.bias + column) : _mm512_setzero_ps();
    for (size_t r = 0; r < rows; r++) write(*p.y, first_row + r, column, _mm512_fmadd_ps(sums[r], scale, bias), m);
}

template <class Line> void any_panel(const Product &p, size_t block_number, size_t first_row) {
    switch (height_for(least(p.height, p.x->rows - first_row))) {
#define CASE(R) \
    case R: return one_panel<R, Line>(p, block_number, first_row);
        PANEL_HEIGHTS(CASE)
#undef CASE
    }
}

template <class Line> void some_blocks(const Product &p, size_t begin, size_t end) {
    for (size_t b = begin; b < end; b++)
        for (size_t row = 0; row < p.x->rows; row += p.height) any_panel<Line>(p, b, row);
}

// Panels number `me`, `me + team`, ...
template <class X> void some_panels(const Product &p, size_t me, size_t team) {
    for (size_t row = me * p.height; row < p.x->rows; row += team * p.height) {
        size_t rows = least(p.height, p.x->rows - row);
        const X *from[HIGHEST];
        for (size_t r = 0; r < rows; r++) from[r] = (const X *)p.x->data + (row + r) * p.x->stride;
        make_panel(from, rows, p.w->inputs, height_for(rows), p.steps, p.panels + row * p.steps);
    }
}

template <class Line> void linear(const View &x, const Packed &w, const View &y, size_t threads) {
    static thread_local Scratch scratch;
    Product p = {&x, &y, &w, nullptr, panel_height(x.rows), lines_a_block(w) * Line::STEPS};
    p.panels = (uint32_t *)scratch.at_least((x.rows + HIGHEST) * p.steps * sizeof(uint32_t));
    size_t all = blocks(w);
    // What one thread needs, in ns, for weights that lie in a cache: it multiplies three registers a ns, and reads a
    // line in no less than two thirds of one.
    size_t lines = all * lines_a_block(w), time = lines * (x.rows * Line::STEPS > 2 ? x.rows * Line::STEPS : 2) / 3;
    if (threads <= 1 || time < SHARED_FROM_NS) {
        some_panels<typename Line::X>(p, 0, 1);
        return some_blocks<Line>(p, 0, all);
    }
    bool many = x.rows > p.height;
    if (!many) some_panels<typename Line::X>(p, 0, 1);
#pragma omp parallel num_threads(threads)
    {
        size_t team = omp_get_num_threads(), me = omp_get_thread_num();
        if (many) {
            some_panels<typename Line::X>(p, me, team);
#pragma omp barrier
        }
        some_blocks<Line>(p, all * me / team, all * (me + 1) / team);
    }
}

}  // namespace

extern "C" void msao_linear(const View *x, const Packed *w, const View *y, size_t threads) {
    if (x->rows == 0) return;
    bool wide = x->element == F32;
    switch (w->format) {
    case FORMAT_F32: return linear<LineF32>(*x, *w, *y, threads);
    case FORMAT_BF16: return wide ? linear<LineBf16Wide>(*x, *w, *y, threads) : linear<LineBf16>(*x, *w, *y, threads);
    case FORMAT_INT8: return wide ? linear<LineInt8Wide>(*x, *w, *y, threads) : linear<LineInt8>(*x, *w, *y, threads);
    }
}
