// Packs weights from rows of any element.
#pragma once
#include "layout.h"

namespace {

// Largest magnitude of a row.
template <class S> float largest(const S *row, size_t count) {
    f32x16 most = zero();
    for (size_t k = 0; k < count; k += 16) most = max(most, magnitude(load(row + k, first(count - k))));
    return largest(most);
}

// A row in the format's values, with zeros up to the end of its last line.
template <class S> void convert(const S *row, size_t count, const Packed &w, float scale, uint8_t *to) {
    size_t whole = lines_a_block(w) * inputs_a_line(w.format);
    for (size_t k = 0; k < whole; k += 16) {
        f32x16 x = k < count ? load(row + k, first(count - k)) : zero();
        Lanes m = first(whole - k);
        if (w.format == FORMAT_F32) store((float *)to + k, x, m);
        else if (w.format == FORMAT_BF16) store((bf16 *)to + k, x, m);
        else store_int8(to + k, x, scale, m);
    }
}

// Some rows of a block, from values as the format has them.
void place(const Packed &w, size_t row, size_t rows, const uint8_t *const *values) {
    uint8_t *to = block(w, row / BLOCK);
    size_t lines = lines_a_block(w), padded = lines * inputs_a_line(w.format);
    if (row % BLOCK == 0 && (rows == BLOCK || row + rows == w.outputs)) {
        // A line is a row of dwords turned on its side, whatever the dwords hold.
        make_panel((const float *const *)values, rows, lines, BLOCK, lines, (uint32_t *)to);
        if (w.format == FORMAT_INT8) order_int8(to, lines);
        return;
    }
    for (size_t i = 0; i < rows; i++) {
        size_t o = (row + i) % BLOCK;
        for (size_t k = 0; k < padded; k++) {
            if (w.format == FORMAT_F32) ((float *)to)[k * 16 + o] = ((const float *)values[i])[k];
            else if (w.format == FORMAT_BF16) ((bf16 *)to)[k / 2 * 32 + 2 * o + k % 2] = ((const bf16 *)values[i])[k];
            else to[k / 4 * LINE + int8_place(o, k % 4)] = values[i][k];
        }
    }
}

// Rows that lie in one block.
template <class S> void pack_block(const Packed &w, size_t row, size_t rows, const S *source, uint8_t *scratch) {
    const uint8_t *values[BLOCK];
    size_t bytes = round_up(w.inputs * 4, LINE);
    for (size_t i = 0; i < rows; i++) {
        const S *from = source + i * w.inputs;
        uint8_t *to = scratch + i * bytes;
        float scale = 0;
        if (w.format == FORMAT_INT8) w.scale[row + i] = scale = largest(from, w.inputs) / 127;
        convert(from, w.inputs, w, scale, to);
        values[i] = to;
    }
    place(w, row, rows, values);
}

template <class S> void pack_rows(const Packed &w, size_t first_row, size_t rows, const S *source) {
    size_t begin = first_row / BLOCK, end = (first_row + rows + BLOCK - 1) / BLOCK, bytes = rows * w.inputs * sizeof(S);
    int threads = bytes < (1 << 20) ? 1 : omp_get_max_threads();
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        static thread_local Scratch scratch;
        uint8_t *values = (uint8_t *)scratch.at_least(BLOCK * round_up(w.inputs * 4, LINE));
        // The threads write the blocks that they will read, so the memory lies near them.
#pragma omp for schedule(static)
        for (size_t b = begin; b < end; b++) {
            size_t from = b * BLOCK > first_row ? b * BLOCK : first_row;
            size_t to = least((b + 1) * BLOCK, first_row + rows);
            pack_block(w, from, to - from, source + (from - first_row) * w.inputs, values);
        }
    }
}

void pack_rows(const Packed *to, size_t first_row, size_t rows, const uint8_t *source, Element element) {
    if (rows == 0) return;
    switch (element) {
    case F32: return pack_rows(*to, first_row, rows, (const float *)source);
    case BF16: return pack_rows(*to, first_row, rows, (const bf16 *)source);
    case F16: return pack_rows(*to, first_row, rows, (const f16 *)source);
    }
}

}  // namespace
