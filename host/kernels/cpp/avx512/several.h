// Rows of several panels.
#pragma once
#include "../product.h"

namespace {

// Blocks [begin, end) for all rows: each block is read by all panels before the next one is.
template <class Line> void several_panels(const Product &p, size_t begin, size_t end) {
    for (size_t b = begin; b < end; b++)
        for (size_t row = 0; row < p.x->rows; row += p.height) any_panel<Line>(p, b, b + 1, row);
}

}  // namespace
