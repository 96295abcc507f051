// Int8 weights: how they are stored, and how a line becomes registers.
//
// A byte is a sign and seven bits of magnitude, so that the magnitude can index a table of bf16 values. A 128-bit lane
// holds four outputs: their first two inputs, then their last two, which is what unpacking a lane's low and high half
// to words gives in Bf16's order.
#pragma once

namespace {

// The byte of a line that holds output `o` at input `k` of the line's four.
INLINE size_t int8_place(size_t o, size_t k) { return o / 4 * 16 + k / 2 * 8 + o % 4 * 2 + k % 2; }
INLINE float int8_value(uint8_t byte) { return (float)(byte & 0x80 ? -(byte & 0x7f) : byte); }

// x / scale as bytes, for a scale of 0 zeros.
INLINE void store_int8(uint8_t *to, f32x16 x, float scale, Lanes m) {
    __mmask16 scaled = scale > 0 ? 0xffff : 0;
    __m512i q = _mm512_maskz_cvtps_epi32(scaled, _mm512_div_ps(x, _mm512_set1_ps(scale)));
    __m512i sign = _mm512_and_si512(_mm512_srli_epi32(q, 24), _mm512_set1_epi32(0x80));
    __m512i magnitude = _mm512_min_epu32(_mm512_abs_epi32(q), _mm512_set1_epi32(127));
    _mm_mask_storeu_epi8(to, m, _mm512_cvtepi32_epi8(_mm512_or_si512(sign, magnitude)));
}

// Lines of 16 outputs' four neighbouring inputs, put in order.
void order_int8(uint8_t *lines, size_t count) {
    const __m512i order = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15));
    for (size_t l = 0; l < count; l++) {
        uint8_t *line = lines + l * LINE;
        _mm512_store_si512(line, _mm512_shuffle_epi8(_mm512_load_si512(line), order));
    }
}

// The two bytes of every bf16 from 0 to 127.
struct Int8Tables {
    alignas(64) uint8_t low[128], high[128];
    constexpr Int8Tables() : low(), high() {
        for (int m = 1; m < 128; m++) {
            int exponent = 0;
            while (m >> (exponent + 1)) exponent++;
            int bits = (127 + exponent) << 7 | ((m << (7 - exponent)) & 0x7f);
            low[m] = (uint8_t)bits;
            high[m] = (uint8_t)(bits >> 8);
        }
    }
};
constexpr Int8Tables INT8_TABLES;

// Integers up to 127 are exact in bf16; the row's scale is applied to the sum.
struct LineInt8 {
    using X = bf16;
    static constexpr int STEPS = 2;
    __m512i low0, low1, high0, high1;
    INLINE LineInt8() {
        low0 = _mm512_load_si512(INT8_TABLES.low), low1 = _mm512_load_si512(INT8_TABLES.low + 64);
        high0 = _mm512_load_si512(INT8_TABLES.high), high1 = _mm512_load_si512(INT8_TABLES.high + 64);
    }
    INLINE void expand(const uint8_t *w, __m512i out[2]) const {
        __m512i bytes = _mm512_load_si512(w);
        // The index is the low seven bits; the eighth is the sign.
        __m512i low = _mm512_permutex2var_epi8(low0, bytes, low1);
        __m512i high = _mm512_permutex2var_epi8(high0, bytes, high1);
        high = _mm512_ternarylogic_epi32(high, bytes, _mm512_set1_epi8((char)0x80), 0xf8);
        out[0] = _mm512_unpacklo_epi8(low, high);
        out[1] = _mm512_unpackhi_epi8(low, high);
    }
};

struct LineInt8Wide : LineInt8 {
    using X = float;
    static constexpr int STEPS = 4;
    INLINE LineInt8Wide() {}  // an implicit one would not be compiled for these instructions
    INLINE void expand(const uint8_t *w, __m512i out[4]) const {
        __m512i pairs[2];
        LineInt8::expand(w, pairs);
        split(pairs[0], out);
        split(pairs[1], out + 2);
    }
};

}  // namespace
