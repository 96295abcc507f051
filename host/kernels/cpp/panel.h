// Rows of activations as panels, [steps][R] 32-bit values: what the inner loop broadcasts (tile.h). An instruction
// set's own panel.h says what a step is, which heights its inner loop is compiled for, and makes panels.
#pragma once

namespace {

// How many rows a panel takes of `rows`: all panels about the same, so that none is nearly empty.
INLINE size_t panel_height(size_t rows) {
    size_t panels = (rows + HIGHEST - 1) / HIGHEST;
    return height_for((rows + panels - 1) / panels);
}

}  // namespace
