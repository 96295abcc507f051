// A tile of attention: some tokens' keys and values, packed once, against panels of queries.
//
// Tokens take the place that outputs have in a product (tile.h): keys are transposed so that a register holds 16
// tokens, values so that it holds 16 of a head's values. Softmax runs along with it (Milakov and Gimelshein 2018; Dao
// et al. 2022): a query keeps its largest score so far, the sum of its weights and its weighted sum of values, and
// shrinks the latter two when a larger score comes.
#pragma once
#include "exp.h"
#include "panel.h"

namespace {

// Where a head's keys or values lie in a pool.
template <class T> struct Pool {
    const T *data;     // the head's values in slot 0
    size_t token;      // values from slot to slot
    INLINE const T *at(uint32_t slot) const { return data + slot * token; }
};

// Keys [16-token block][step] and values [step][16-value block] of a tile's tokens, as lines.
template <class T> struct TokenTile {
    uint8_t *keys, *values;
    size_t tokens, dim;

    size_t key_lines() const { return (dim + A_STEP<T> - 1) / A_STEP<T>; }
    size_t value_lines() const { return (tokens + A_STEP<T> - 1) / A_STEP<T>; }
    static size_t bytes(size_t dim) { return round_up(dim, BLOCK) * TILE * 4; }

    void pack(const Pool<T> &k, const Pool<T> &v, const uint32_t *slots);
};

template <class T> void TokenTile<T>::pack(const Pool<T> &k, const Pool<T> &v, const uint32_t *slots) {
    const T *rows[BLOCK];
    for (size_t t = 0; t < tokens; t += BLOCK) {
        size_t here = least(tokens - t, BLOCK);
        for (size_t i = 0; i < here; i++) rows[i] = k.at(slots[t + i]);
        make_panel(rows, here, dim, BLOCK, key_lines(), (uint32_t *)(keys + t / BLOCK * key_lines() * LINE));
    }
    for (size_t line = 0; line < value_lines(); line++) {
        size_t t = line * A_STEP<T>;
        const T *a = v.at(slots[t]), *b = A_STEP<T> == 2 && t + 1 < tokens ? v.at(slots[t + 1]) : nullptr;
        pack_values(a, b, dim, values + line * (round_up(dim, BLOCK) / BLOCK) * LINE);
    }
}

// The next tile, asked for while this one is computed: a few lines at a time, since only so many can be on the way.
template <class T> struct Ahead {
    Pool<T> keys, values;
    const uint32_t *slots;
    size_t count, dim;

    INLINE void fetch(const Pool<T> &pool, size_t begin, size_t end) const {
        for (size_t t = begin; t < least(end, count); t++)
            for (size_t byte = 0; byte < dim * sizeof(T); byte += LINE)
                _mm_prefetch((const char *)pool.at(slots[t]) + byte, _MM_HINT_T1);
    }
};

// Queries that are worked on together, and what they have seen so far.
struct QueryPanel {
    uint32_t *panel;        // [steps][height]
    float *largest, *sum;   // [height]: of the scores times log2(e), of the weights
    float *weighted;        // [height, dim padded to 16]
    size_t height, rows;
};

// Tokens of a tile that a query sees.
struct Seen {
    size_t begin, end;
};

// Scores and weights of a panel over a tile, kept between the two products.
struct alignas(64) Work {
    float scores[HIGHEST][TILE];
    uint32_t weights[HIGHEST][TILE];  // [row][step], as values of the element
    float shrink[32];
};

// Scores of one query become weights, in T; its largest score and the sum of its weights are brought up to date.
template <class T>
INLINE void soften(const float *scores, const Seen &seen, size_t blocks, float scale, QueryPanel &q, size_t r,
                   Work &work) {
    const f32x16 never = every(-INFINITY);
    f32x16 x[TILE / BLOCK], most = never;
    bool whole = seen.begin == 0 && seen.end >= blocks * BLOCK;
    for (size_t b = 0; b < blocks; b++) {
        x[b] = times(load(scores + b * BLOCK), every(scale));
        if (!whole) x[b] = within(x[b], b * BLOCK, seen.begin, seen.end, never);
        most = max(most, x[b]);
    }
    float before = q.largest[r], now = std::fmax(before, largest(most));
    q.largest[r] = now;
    // Where nothing counts yet, any finite number makes all weights 0 instead of NaN.
    float from = now == -INFINITY ? 0 : now;
    f32x16 sum = zero();
    for (size_t b = 0; b < blocks; b++) {
        f32x16 weight = exp2(minus(x[b], every(from)));
        sum = plus(sum, weight);
        store_weights(work.weights[r], b * BLOCK, weight, T());
    }
    work.shrink[r] = before - from;
    q.sum[r] = total(sum) + q.sum[r] * lowest(exp2(every(before - from)));
}

// Adds the tile's weighted values [d, d + 16 B).
template <int R, int B, class T>
INLINE void weigh(QueryPanel &q, const TokenTile<T> &tokens, size_t d, const Work &work, const Ahead<T> &ahead) {
    size_t padded = round_up(tokens.dim, BLOCK), end = d + B * BLOCK;
    ahead.fetch(ahead.values, TILE * d / padded, TILE * end / padded);
    f32x16 sums[B][R];
    tile<R, B, LineOf<T>, 1, TILE, false>(tokens.values + d / BLOCK * LINE, LINE, padded / BLOCK * LINE,
                                                        tokens.value_lines(), work.weights[0], sums);
    for (size_t r = 0; r < q.rows; r++) {
        f32x16 shrink = every(work.shrink[r]);
        float *to = q.weighted + r * padded + d;
        for (int b = 0; b < B; b++)
            store(to + b * BLOCK, fmadd(load(to + b * BLOCK), shrink, sums[b][r]));
    }
}

// Brings a panel up to date with a tile of which its row r sees seen[r].
template <int R, class T>
void panel_over_tile(QueryPanel &q, const TokenTile<T> &tokens, const Seen *seen, float scale, Work &work,
                         const Ahead<T> &ahead) {
    using Line = LineOf<T>;
    size_t blocks = (tokens.tokens + BLOCK - 1) / BLOCK;
    constexpr int B = blocks_at_once(R);
    // The tile has room for whole groups of blocks; scores that no token has are not looked at.
    for (size_t first_block = 0; first_block < blocks; first_block += B) {
        ahead.fetch(ahead.keys, first_block * BLOCK, (first_block + B) * BLOCK);
        f32x16 sums[B][R];
        size_t block = tokens.key_lines() * LINE;
        tile<R, B, Line, R, 1, false>(tokens.keys + first_block * block, block, LINE, tokens.key_lines(), q.panel, sums);
#pragma GCC unroll 4
        for (int b = 0; b < B; b++)
#pragma GCC unroll 24
            for (int r = 0; r < R; r++) store(work.scores[r] + (first_block + b) * BLOCK, sums[b][r]);
    }
    for (size_t r = 0; r < q.rows; r++) soften<T>(work.scores[r], seen[r], blocks, scale, q, r, work);
    for (size_t r = 0; r < q.rows; r += 16)
        store(work.shrink + r, exp2(load(work.shrink + r)));
    size_t padded = round_up(tokens.dim, BLOCK);
    size_t d = 0;
    for (; d + B * BLOCK <= padded; d += B * BLOCK) weigh<R, B>(q, tokens, d, work, ahead);
    for (; d < padded; d += BLOCK) weigh<R, 1>(q, tokens, d, work, ahead);
}

template <class T>
void any_panel_over_tile(QueryPanel &q, const TokenTile<T> &tokens, const Seen *seen, float scale, Work &work,
                         const Ahead<T> &ahead) {
    switch (q.height) {
#define CASE(R) \
    case R: return panel_over_tile<R, T>(q, tokens, seen, scale, work, ahead);
        PANEL_HEIGHTS(CASE)
#undef CASE
    }
}

}  // namespace
