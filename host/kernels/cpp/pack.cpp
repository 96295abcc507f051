// Packs weights from rows, and gives rows back.
#include "layout.h"

namespace {

float value(const uint8_t *source, size_t i, Element element) {
    if (element == F32) {
        float x;
        std::memcpy(&x, source + 4 * i, 4);
        return x;
    }
    uint16_t bits;
    std::memcpy(&bits, source + 2 * i, 2);
    return element == BF16 ? _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128((int)bits << 16))) : _cvtsh_ss(bits);
}

uint16_t to_bf16(float x) {
    return (uint16_t)_mm_extract_epi16((__m128i)_mm_cvtneps_pbh(_mm_set_ss(x)), 0);
}

void pack_row(const Packed &w, size_t row, const uint8_t *source, Element element) {
    uint8_t *to = block(w, row / BLOCK);
    size_t o = row % BLOCK;
    float scale = 0;
    if (w.format == FORMAT_INT8) {
        float largest = 0;
        for (size_t k = 0; k < w.inputs; k++) largest = std::fmax(largest, std::fabs(value(source, k, element)));
        w.scale[row] = scale = largest / 127;
    }
    for (size_t k = 0; k < w.inputs; k++) {
        float x = value(source, k, element);
        if (w.format == FORMAT_F32) {
            ((float *)to)[k * 16 + o] = x;
        } else if (w.format == FORMAT_BF16) {
            ((bf16 *)to)[k / 2 * 32 + 2 * o + k % 2] = to_bf16(x);
        } else {
            int q = scale > 0 ? (int)std::nearbyint(x / scale) : 0;
            to[k / 4 * LINE + int8_place(o, k % 4)] = (uint8_t)(q < 0 ? 0x80 | -q : q);
        }
    }
}

float unpacked(const Packed &w, size_t row, size_t k) {
    const uint8_t *from = block(w, row / BLOCK);
    size_t o = row % BLOCK;
    if (w.format == FORMAT_F32) return ((const float *)from)[k * 16 + o];
    if (w.format == FORMAT_BF16) return value(from, k / 2 * 32 + 2 * o + k % 2, BF16);
    uint8_t byte = from[k / 4 * LINE + int8_place(o, k % 4)];
    float magnitude = (float)(byte & 0x7f) * w.scale[row];
    return byte & 0x80 ? -magnitude : magnitude;
}

}  // namespace

extern "C" void msao_pack_rows(const Packed *to, size_t first_row, size_t rows, const uint8_t *source,
                               Element element) {
    size_t row_bytes = to->inputs * (element == F32 ? 4 : 2);
    for (size_t row = 0; row < rows; row++) pack_row(*to, first_row + row, source + row * row_bytes, element);
}

extern "C" void msao_unpack_row(const Packed *from, size_t row, float *out) {
    for (size_t k = 0; k < from->inputs; k++) out[k] = unpacked(*from, row, k);
}

extern "C" void msao_gather(const Packed *w, const uint32_t *ids, const View *y) {
    for (size_t row = 0; row < y->rows; row++) {
        for (size_t k = 0; k < w->inputs; k++) {
            float x = unpacked(*w, ids[row], k);
            if (y->element == F32) ((float *)y->data)[row * y->stride + k] = x;
            else ((bf16 *)y->data)[row * y->stride + k] = to_bf16(x);
        }
    }
}
