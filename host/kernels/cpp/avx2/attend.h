// What attention asks of the instruction set: its tokens' values as lines, its weights as rows. Both are f32 here,
// whatever the cache holds.
#pragma once

namespace {

// Tokens that are packed at once.
constexpr size_t TILE = 128;
// Products of 16 values that a thread does in a ns, times 16: a query's score and its weighing are one each.
constexpr size_t ATTENDED_A_NS = 24;

template <class T> using LineOf = LineF32;

// A token's values as lines of 16.
template <class T> INLINE void pack_values(const T *a, const T *, size_t dim, uint8_t *to) {
    for (size_t d = 0; d < dim; d += BLOCK) store((float *)to + d, load(a + d, first(dim - d)));
}

// Weights [at, at + 16) of a query, as its row of the product with the values holds them.
template <class T> INLINE void store_weights(uint32_t *row, size_t at, f32x16 x, T) {
    store((float *)row + at, rounded(x, (const T *)nullptr));
}

}  // namespace
