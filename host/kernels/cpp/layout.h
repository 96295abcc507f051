// Where a weight lies in a packed matrix.
//
// A line is 64 bytes: 16 outputs at 1 (F32), 2 (Bf16) or 4 (Int8) neighbouring inputs. The lines of 16 outputs follow
// each other along the inputs and make a block, blocks follow each other along the outputs: one stream from the first
// byte to the last. Missing inputs of the last line and missing outputs of the last block are zeros.
//
// - F32: value o is output o.
// - Bf16: 32-bit value o is output o at the even input (low half) and at the odd one, as vdpbf16ps wants it.
// - Int8: a byte is a sign and seven bits of magnitude, so that the magnitude can index a table of bf16 values. A
//   128-bit lane holds four outputs: their first two inputs, then their last two, which is what unpacking a lane's low
//   and high half to words gives in Bf16's order.
#pragma once
#include "simd.h"

namespace {

constexpr size_t BLOCK = 16, LINE = 64;

INLINE size_t inputs_a_line(Format format) { return format == FORMAT_F32 ? 1 : format == FORMAT_BF16 ? 2 : 4; }
INLINE size_t lines_a_block(const Packed &w) {
    size_t inputs = inputs_a_line(w.format);
    return (w.inputs + inputs - 1) / inputs;
}
INLINE size_t blocks(const Packed &w) { return (w.outputs + BLOCK - 1) / BLOCK; }
INLINE uint8_t *block(const Packed &w, size_t number) { return w.data + number * lines_a_block(w) * LINE; }

// The byte of an Int8 line that holds output `o` at input `k` of the line's four.
INLINE size_t int8_place(size_t o, size_t k) { return o / 4 * 16 + k / 2 * 8 + o % 4 * 2 + k % 2; }

}  // namespace
