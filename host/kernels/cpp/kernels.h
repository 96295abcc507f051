// What crosses the border to Rust; the same structs stand in src/ffi.rs.
#pragma once
#include <cstddef>
#include <cstdint>

enum Element : uint32_t { F32 = 0, BF16 = 1, F16 = 2 };
enum Format : uint32_t { FORMAT_F32 = 0, FORMAT_BF16 = 1, FORMAT_INT8 = 2 };

// Rows of `width` values, `stride` values apart.
struct View {
    void *data;
    size_t rows, width, stride;
    Element element;
};

// A weight matrix [outputs, inputs] in blocks of 16 outputs; the layout is told in pack.cpp.
struct Packed {
    uint8_t *data;
    float *scale;  // one an output, Int8 only
    const float *bias;  // one an output, or null; both padded to whole blocks
    size_t outputs, inputs;
    Format format;
};

struct HeadShape {
    size_t heads, kv_heads, dim;
};

// One sequence's rows; the last `rows` of the `tokens` that `slots` lists.
struct Span {
    size_t first_row, rows;
    const uint32_t *slots;
    size_t tokens;
};
