// Gives rows of packed weights back: embeddings, and what a test compares with.
#pragma once
#include "layout.h"

namespace {

// What output `o` of a block holds at input `k`, before scaling.
INLINE float value(Format format, const uint8_t *block, size_t o, size_t k) {
    if (format == FORMAT_F32) return ((const float *)block)[k * 16 + o];
    if (format == FORMAT_BF16) {
        uint32_t bits = (uint32_t)((const bf16 *)block)[k / 2 * 32 + 2 * o + k % 2] << 16;
        return _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128((int)bits)));
    }
    return int8_value(block[k / 4 * LINE + int8_place(o, k % 4)]);
}

template <class T> void unpack(const Packed &w, size_t row, T *out) {
    const uint8_t *from = block(w, row / BLOCK);
    f32x16 scale = every(w.format == FORMAT_INT8 ? w.scale[row] : 1);
    for (size_t k = 0; k < w.inputs; k += 16) {
        alignas(64) float values[16];
        size_t count = least(w.inputs - k, 16);
        for (size_t i = 0; i < count; i++) values[i] = value(w.format, from, row % BLOCK, k + i);
        store(out + k, times(load(values), scale), first(count));
    }
}

void unpack_row(const Packed *from, size_t row, float *out) { unpack(*from, row, out); }

void gather(const Packed *w, const uint32_t *ids, const View *y) {
    for (size_t row = 0; row < y->rows; row++) {
        if (y->element == F32) unpack(*w, ids[row], (float *)y->data + row * y->stride);
        else unpack(*w, ids[row], (bf16 *)y->data + row * y->stride);
    }
}

}  // namespace
