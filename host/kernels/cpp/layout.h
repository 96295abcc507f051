// Where a weight lies in a packed matrix.
//
// A line is 64 bytes: 16 outputs at 1 (F32), 2 (Bf16) or 4 (Int8) neighbouring inputs. The lines of 16 outputs follow
// each other along the inputs and make a block, blocks follow each other along the outputs: one stream from the first
// byte to the last. Missing inputs of the last line and missing outputs of the last block are zeros.
//
// - F32: value o is output o.
// - Bf16: 32-bit value o is output o at the even input (low half) and at the odd one.
// - Int8: as the instruction set unpacks it best; its int8.h says how.
#pragma once

namespace {

INLINE size_t inputs_a_line(Format format) { return format == FORMAT_F32 ? 1 : format == FORMAT_BF16 ? 2 : 4; }
INLINE size_t lines_a_block(const Packed &w) {
    size_t inputs = inputs_a_line(w.format);
    return (w.inputs + inputs - 1) / inputs;
}
INLINE size_t blocks(const Packed &w) { return (w.outputs + BLOCK - 1) / BLOCK; }
INLINE uint8_t *block(const Packed &w, size_t number) { return w.data + number * lines_a_block(w) * LINE; }

}  // namespace
