// Int8 weights: how they are stored, and how a line becomes registers.
//
// Bytes are two's complement, an output's four inputs lie together. A step puts one of the four at the top of its 32
// bits: as an integer that is the weight times 2^24, exact in f32, and the row's scale takes the 2^24 out again. (Sums
// overflow from 2^24 times smaller values on: activations of 1e28.)
#pragma once

namespace {

// What a sum is to be multiplied with beside the row's scale.
constexpr float INT8_UNIT = 1.0f / (1 << 24);

// The byte of a line that holds output `o` at input `k` of the line's four.
INLINE size_t int8_place(size_t o, size_t k) { return o * 4 + k; }
INLINE float int8_value(uint8_t byte) { return (float)(int8_t)byte; }

// x / scale as bytes, for a scale of 0 zeros.
INLINE void store_int8(uint8_t *to, f32x16 x, float scale, Lanes m) {
    const __m256i most = _mm256_set1_epi32(127);
    auto quantised = [&](__m256 x) __attribute__((always_inline)) {
        __m256i q = _mm256_cvtps_epi32(_mm256_div_ps(x, _mm256_set1_ps(scale)));
        return _mm256_max_epi32(_mm256_min_epi32(q, most), _mm256_sub_epi32(_mm256_setzero_si256(), most));
    };
    __m256i words = _mm256_packs_epi32(quantised(x.low), quantised(x.high));
    words = _mm256_permute4x64_epi64(words, 0xd8);
    __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    if (!(scale > 0)) bytes = _mm_setzero_si128();
    std::memcpy(to, &bytes, m.count);
}

// They are in order.
INLINE void order_int8(uint8_t *, size_t) {}

// Where the bytes come from that make step k: byte k of each 32 bits, with zeros (0x80) below it.
struct Int8Places {
    alignas(32) uint8_t of[4][32];
    constexpr Int8Places() : of() {
        for (int k = 0; k < 4; k++)
            for (int i = 0; i < 32; i++) of[k][i] = (uint8_t)(i % 4 == 3 ? i % 16 / 4 * 4 + k : 0x80);
    }
};
constexpr Int8Places INT8_PLACES;

struct LineInt8 {
    static constexpr int STEPS = 4;
    INLINE void step(const uint8_t *w, int k, __m256 out[2]) const {
        const __m256i *place = (const __m256i *)again(INT8_PLACES.of[k]);
        for (int h = 0; h < 2; h++) {
            __m256i bytes = _mm256_load_si256((const __m256i *)w + h);
            bytes = k == 0 ? _mm256_slli_epi32(bytes, 24) : _mm256_shuffle_epi8(bytes, _mm256_load_si256(place));
            out[h] = _mm256_cvtepi32_ps(bytes);
        }
    }
};

}  // namespace
