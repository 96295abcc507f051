// What crosses the border to Rust; the same structs stand in src/ffi.rs.
#pragma once
#include <cstddef>
#include <cstdint>

enum Element : uint32_t { F32 = 0, BF16 = 1, F16 = 2 };
enum Format : uint32_t { FORMAT_F32 = 0, FORMAT_BF16 = 1, FORMAT_INT8 = 2 };
enum Instructions : uint32_t { AVX512 = 0, AVX2 = 1 };

// Rows of `width` values, `stride` values apart.
struct View {
    void *data;
    size_t rows, width, stride;
    Element element;
};

// A weight matrix [outputs, inputs] in blocks of 16 outputs; the layout is told in layout.h.
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

// The kernels of one instruction set. A matrix is read by the set that packed it: Int8's bytes differ.
struct Kernels {
    void (*pack_rows)(const Packed *to, size_t first_row, size_t rows, const uint8_t *source, Element element);
    void (*unpack_row)(const Packed *from, size_t row, float *out);
    void (*linear)(const View *x, const Packed *w, const View *y, size_t threads);
    void (*gather)(const Packed *w, const uint32_t *ids, const View *y);
    void (*rms_norm)(const View *x, const void *weight, float eps, const View *y);
    void (*gated_silu)(const View *gate_up, const View *y, size_t threads);
    void (*add)(const View *x, const View *y);
    void (*rotate_and_store)(const View *qkv, const float *cos, const float *sin, const HeadShape *shape,
                             const uint32_t *slots, void *keys, void *values);
    void (*attend)(const View *q, const HeadShape *shape, const void *keys, const void *values, const Span *spans,
                   size_t span_count, size_t window, const View *out, size_t threads);
};

// Those of a set, or null where they are not built or the CPU lacks the instructions.
extern "C" const Kernels *msao_kernels(Instructions set);
