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

// B blocks for the rows of a panel.
template <int R, int B, class Line> INLINE void some_blocks(const Product &p, size_t first_block, size_t first_row) {
    const Packed &w = *p.w;
    size_t lines = lines_a_block(w), rows = least(R, p.x->rows - first_row);
    f32x16 sums[B][R];
    tile<R, B, Line, R, 1, true>(block(w, first_block), lines * LINE, LINE, lines, p.panels + first_row * p.steps, sums);
    for (int b = 0; b < B; b++) {
        size_t column = (first_block + b) * BLOCK;
        __mmask16 m = first(w.outputs - column);
        f32x16 scale = w.format == FORMAT_INT8 ? load(w.scale + column) : _mm512_set1_ps(1);
        f32x16 bias = w.bias ? load(w.bias + column) : _mm512_setzero_ps();
        for (size_t r = 0; r < rows; r++)
            write(*p.y, first_row + r, column, _mm512_fmadd_ps(sums[b][r], scale, bias), m);
    }
}

// Matrices up to this size are taken to lie in a cache.
constexpr size_t CACHED = 2 << 20;

// Blocks [begin, end) for the rows of a panel. From memory they come fastest as one stream, so they are taken one
// after the other as long as that keeps the multipliers ahead of the memory; from a cache, several at once.
template <int R, class Line> void one_panel(const Product &p, size_t begin, size_t end, size_t first_row) {
    constexpr int MANY = blocks_at_once(R), FEW = Line::STEPS > 1 && R == 1 ? 2 : 1;
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

// Blocks [begin, end) for all rows: of several panels each block is read by all before the next one is.
template <class Line> void all_rows(const Product &p, size_t begin, size_t end) {
    if (p.x->rows <= p.height) return any_panel<Line>(p, begin, end, 0);
    for (size_t b = begin; b < end; b++)
        for (size_t row = 0; row < p.x->rows; row += p.height) any_panel<Line>(p, b, b + 1, row);
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
        return all_rows<Line>(p, 0, all);
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
        all_rows<Line>(p, all * me / team, all * (me + 1) / team);
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
