// Int8 weights: how they are stored, and how a line becomes registers.
//
// Bytes are two's complement, the 16 outputs' first inputs, then their second ones and so on: a step is widened from
// where it lies, which was faster than shuffling an output's four bytes apart.
#pragma once

namespace {

// The byte of a line that holds output `o` at input `k` of the line's four.
INLINE size_t int8_place(size_t o, size_t k) { return k * 16 + o; }
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

// Lines of 16 outputs' four neighbouring inputs, put in order.
INLINE void order_int8(uint8_t *lines, size_t count) {
    const __m128i order = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    for (size_t l = 0; l < count; l++) {
        __m128i *line = (__m128i *)(lines + l * LINE), x[4];
        for (int i = 0; i < 4; i++) x[i] = _mm_shuffle_epi8(_mm_load_si128(line + i), order);
        // Now four outputs' inputs k in 32-bit value k.
        __m128i a = _mm_unpacklo_epi32(x[0], x[1]), b = _mm_unpacklo_epi32(x[2], x[3]);
        __m128i c = _mm_unpackhi_epi32(x[0], x[1]), d = _mm_unpackhi_epi32(x[2], x[3]);
        _mm_store_si128(line, _mm_unpacklo_epi64(a, b));
        _mm_store_si128(line + 1, _mm_unpackhi_epi64(a, b));
        _mm_store_si128(line + 2, _mm_unpacklo_epi64(c, d));
        _mm_store_si128(line + 3, _mm_unpackhi_epi64(c, d));
    }
}

struct LineInt8 {
    static constexpr int STEPS = 4;
    INLINE void step(const uint8_t *w, int k, __m256 out[2]) const {
        for (int h = 0; h < 2; h++) {
            __m128i bytes = _mm_loadl_epi64((const __m128i *)(w + k * BLOCK + h * 8));
            out[h] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
        }
    }
};

}  // namespace
