// y = x W^T + b: blocks of outputs are shared among the threads, each block is read once for all rows.
#pragma once
#include "product.h"

namespace {

// Blocks [begin, end) for all rows.
template <class Line> void all_rows(const Product &p, size_t begin, size_t end) {
    if (p.x->rows <= p.height) any_panel<Line>(p, begin, end, 0);
    else several_panels<Line>(p, begin, end);
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

template <class X, class Line> void linear(const View &x, const Packed &w, const View &y, size_t threads) {
    static thread_local Scratch scratch;
    Product p = {&x, &y, &w, nullptr, panel_height(x.rows), lines_a_block(w) * Line::STEPS};
    p.panels = (uint32_t *)scratch.at_least((x.rows + HIGHEST) * p.steps * sizeof(uint32_t));
    size_t all = blocks(w);
    // What one thread needs, in ns, for weights that lie in a cache: it multiplies three times 16 values a ns, and
    // reads a line in no less than two thirds of one.
    size_t lines = all * lines_a_block(w), time = lines * (x.rows * Line::STEPS > 2 ? x.rows * Line::STEPS : 2) / 3;
    if (threads <= 1 || time < SHARED_FROM_NS) {
        some_panels<X>(p, 0, 1);
        return all_rows<Line>(p, 0, all);
    }
    bool many = x.rows > p.height;
    if (!many) some_panels<X>(p, 0, 1);
#pragma omp parallel num_threads(threads)
    {
        size_t team = omp_get_num_threads(), me = omp_get_thread_num();
        if (many) {
            some_panels<X>(p, me, team);
#pragma omp barrier
        }
        all_rows<Line>(p, all * me / team, all * (me + 1) / team);
    }
}

void linear(const View *x, const Packed *w, const View *y, size_t threads) {
    if (x->rows == 0) return;
    bool wide = x->element == F32;
    switch (w->format) {
    case FORMAT_F32: return linear<float, LineF32>(*x, *w, *y, threads);
    case FORMAT_BF16:
        return wide ? linear<float, LineBf16For<float>>(*x, *w, *y, threads)
                    : linear<bf16, LineBf16For<bf16>>(*x, *w, *y, threads);
    case FORMAT_INT8:
        return wide ? linear<float, LineInt8For<float>>(*x, *w, *y, threads)
                    : linear<bf16, LineInt8For<bf16>>(*x, *w, *y, threads);
    }
}

}  // namespace
