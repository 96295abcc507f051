// Attention over the paged cache: cuts it into pieces of about the same work, and puts their results together.
#pragma once
#include "attend_tile.h"

namespace {

// Some rows of a span with the heads that share a key head, over some of its tokens.
struct Piece {
    const Span *span;
    size_t kv_head, row, rows;  // rows within the span
    size_t begin, end;          // tokens
    float *partial;             // [queries] largest, [queries] sum, [queries, padded]; null where it is the only piece
};

struct Call {
    const View *q, *out;
    HeadShape shape;
    const void *keys, *values;
    const Span *spans;
    size_t span_count, window, threads;

    size_t group() const { return shape.heads / shape.kv_heads; }
    size_t padded() const { return round_up(shape.dim, BLOCK); }
    // So many rows that a tile of tokens is worth its packing.
    size_t rows_a_piece() const { return group() >= 112 ? 1 : 112 / group(); }
    size_t partial_floats(size_t queries) const { return round_up(queries * (2 + padded()), 16); }
    // Tokens that row `row` of a span sees.
    Seen seen(const Span &span, size_t row) const {
        size_t end = span.tokens - span.rows + row + 1;
        return {end > window ? end - window : 0, end};
    }
};

// A thread's memory for a piece.
template <class T> struct Place {
    TokenTile<T> tokens;
    Work *work;
    uint32_t *queries;
    float *largest, *sum, *weighted;

    Place(const Call &c, Scratch &scratch) {
        size_t dim = c.shape.dim, tile = TokenTile<T>::bytes(dim);
        size_t most = round_up(c.group() * c.rows_a_piece(), HIGHEST) + HIGHEST;
        size_t total = 2 * tile + sizeof(Work) + most * 4 * (2 * c.padded() + 2);
        uint8_t *p = (uint8_t *)scratch.at_least(total);
        tokens = {p, p + tile, 0, dim};
        work = (Work *)(p + 2 * tile);
        weighted = (float *)(p + 2 * tile + sizeof(Work));
        queries = (uint32_t *)(weighted + most * c.padded());
        largest = (float *)(queries + most * c.padded());
        sum = largest + most;
    }
};

// largest, sum and weighted of `place` for all queries of a piece.
template <class T> void accumulate(const Call &c, const Piece &piece, Place<T> &place) {
    size_t dim = c.shape.dim, group = c.group(), queries = piece.rows * group, padded = c.padded();
    size_t height = panel_height(queries), steps = place.tokens.key_lines(), token = c.shape.kv_heads * dim;
    const Span &span = *piece.span;
    Pool<T> keys = {(const T *)c.keys + piece.kv_head * dim, token};
    Pool<T> values = {(const T *)c.values + piece.kv_head * dim, token};
    Ahead<T> start = {keys, values, span.slots + piece.begin, least(TILE, piece.end - piece.begin), dim};
    start.fetch(keys, 0, TILE);
    start.fetch(values, 0, TILE);
    for (size_t i = 0; i < queries; i += height) {
        size_t rows = least(height, queries - i);
        const T *from[HIGHEST];
        for (size_t r = 0; r < rows; r++) {
            size_t row = span.first_row + piece.row + (i + r) / group, head = piece.kv_head * group + (i + r) % group;
            from[r] = (const T *)c.q->data + row * c.q->stride + head * dim;
        }
        make_panel(from, rows, dim, height_for(rows), steps, place.queries + i * steps);
    }
    for (size_t i = 0; i < queries; i++) place.largest[i] = -INFINITY, place.sum[i] = 0;
    std::memset(place.weighted, 0, queries * padded * 4);
    float scale = 1.44269504f / std::sqrt((float)dim);  // weights are powers of two
    for (size_t t = piece.begin; t < piece.end; t += TILE) {
        place.tokens.tokens = least(TILE, piece.end - t);
        place.tokens.pack(keys, values, span.slots + t);
        size_t next = least(t + TILE, piece.end);
        Ahead<T> ahead = {keys, values, span.slots + next, least(TILE, piece.end - next), dim};
        for (size_t i = 0; i < queries; i += height) {
            size_t rows = least(height, queries - i);
            Seen seen[HIGHEST];
            bool any = false;
            for (size_t r = 0; r < rows; r++) {
                Seen all = c.seen(span, piece.row + (i + r) / group);
                seen[r] = {all.begin > t ? least(all.begin - t, TILE) : 0, all.end > t ? least(all.end - t, TILE) : 0};
                any |= seen[r].begin < seen[r].end;
            }
            if (!any) continue;
            QueryPanel q = {place.queries + i * steps, place.largest + i, place.sum + i, place.weighted + i * padded,
                            height_for(rows), rows};
            any_panel_over_tile(q, place.tokens, seen, scale, *place.work, ahead);
            ahead.count = 0;
        }
    }
}

template <class T>
void write(const Call &c, const Piece &piece, size_t query, const float *weighted, float sum) {
    size_t row = piece.span->first_row + piece.row + query / c.group();
    size_t head = piece.kv_head * c.group() + query % c.group();
    T *to = (T *)c.out->data + row * c.out->stride + head * c.shape.dim;
    f32x16 share = every(sum == 0 ? 0 : 1 / sum);
    for (size_t d = 0; d < c.shape.dim; d += BLOCK)
        store(to + d, times(load(weighted + d), share), first(c.shape.dim - d));
}

template <class T> void run(const Call &c, const Piece &piece, Place<T> &place) {
    accumulate(c, piece, place);
    size_t queries = piece.rows * c.group();
    if (piece.partial) {
        std::memcpy(piece.partial, place.largest, queries * 4);
        std::memcpy(piece.partial + queries, place.sum, queries * 4);
        std::memcpy(piece.partial + 2 * queries, place.weighted, queries * c.padded() * 4);
        return;
    }
    for (size_t i = 0; i < queries; i++) write<T>(c, piece, i, place.weighted + i * c.padded(), place.sum[i]);
}

// Puts `count` pieces over one range of tokens together; their partial results are changed.
template <class T> void merge(const Call &c, const Piece *pieces, size_t count) {
    size_t queries = pieces->rows * c.group(), padded = c.padded();
    for (size_t i = 0; i < queries; i++) {
        float largest = -INFINITY, sum = 0, *total = pieces->partial + 2 * queries + i * padded;
        for (size_t n = 0; n < count; n++) largest = std::fmax(largest, pieces[n].partial[i]);
        if (largest == -INFINITY) largest = 0;
        for (size_t n = 0; n < count; n++) {
            const float *partial = pieces[n].partial, *from = partial + 2 * queries + i * padded;
            f32x16 share = exp2(every(partial[i] - largest));
            sum += partial[queries + i] * lowest(share);
            for (size_t d = 0; d < padded; d += BLOCK) {
                f32x16 before = n ? load(total + d) : zero();
                store(total + d, fmadd(load(from + d), share, before));
            }
        }
        write<T>(c, *pieces, i, total, sum);
    }
}

constexpr size_t WHOLE = (size_t)1 << 60;  // more tokens than there are

struct Plan {
    Piece *pieces;
    size_t count, partial_floats, time_ns;
};

// Cuts the work; with `pieces` null only counts. `most`: tokens that a piece may have.
void plan(const Call &c, size_t most, float *partial, Plan &plan) {
    plan.count = plan.partial_floats = plan.time_ns = 0;
    for (size_t s = 0; s < c.span_count; s++) {
        const Span &span = c.spans[s];
        for (size_t row = 0; row < span.rows; row += c.rows_a_piece()) {
            size_t rows = least(c.rows_a_piece(), span.rows - row), queries = rows * c.group();
            size_t begin = c.seen(span, row).begin, end = c.seen(span, row + rows - 1).end;
            size_t parts = (end - begin + most - 1) / most, each = round_up((end - begin + parts - 1) / parts, BLOCK);
            // A token costs its packing, and two products of a register or two a query.
            plan.time_ns += c.shape.kv_heads * (end - begin) * c.padded() * (queries + 4) / ATTENDED_A_NS;
            for (size_t head = 0; head < c.shape.kv_heads; head++) {
                for (size_t t = begin; t < end; t += each) {
                    float *here = each < end - begin ? partial + plan.partial_floats : nullptr;
                    if (plan.pieces) plan.pieces[plan.count] = {&span, head, row, rows, t, least(t + each, end), here};
                    if (each < end - begin) plan.partial_floats += c.partial_floats(queries);
                    plan.count++;
                }
            }
        }
    }
}

// Pieces from `number` on over the same rows and head.
size_t together(const Plan &plan, size_t number) {
    const Piece *pieces = plan.pieces + number;
    size_t count = 1;
    while (number + count < plan.count && pieces[count].span == pieces->span && pieces[count].row == pieces->row &&
           pieces[count].kv_head == pieces->kv_head)
        count++;
    return count;
}

template <class T> void attend(const Call &c) {
    static thread_local Scratch planned, mine;
    Plan whole = {nullptr, 0, 0, 0};
    float none = 0;
    plan(c, WHOLE, &none, whole);
    bool share = c.threads > 1 && whole.time_ns >= SHARED_FROM_NS;
    size_t most = WHOLE;
    if (share && whole.count < 4 * c.threads) {
        // Few pieces: long contexts are cut so that there are about four a thread.
        size_t tokens = 0;
        for (size_t s = 0; s < c.span_count; s++) {
            const Span &span = c.spans[s];
            for (size_t row = 0; row < span.rows; row += c.rows_a_piece())
                tokens += c.shape.kv_heads * (c.seen(span, row).end - c.seen(span, row).begin);
        }
        most = tokens / (4 * c.threads) > 512 ? tokens / (4 * c.threads) : 512;
        plan(c, most, &none, whole);
    }
    size_t list = round_up(whole.count * sizeof(Piece), LINE);
    uint8_t *memory = (uint8_t *)planned.at_least(list + whole.partial_floats * 4 + LINE);
    whole.pieces = (Piece *)memory;
    plan(c, most, (float *)(memory + list), whole);
    if (!share) {
        Place<T> place(c, mine);
        for (size_t i = 0; i < whole.count; i++) run(c, whole.pieces[i], place);
        return;
    }
#pragma omp parallel num_threads(c.threads)
    {
        static thread_local Scratch scratch;
        Place<T> place(c, scratch);
#pragma omp for schedule(dynamic, 1)
        for (size_t i = 0; i < whole.count; i++) run(c, whole.pieces[whole.count - 1 - i], place);
        if (whole.partial_floats) {
#pragma omp for schedule(dynamic, 1)
            for (size_t i = 0; i < whole.count; i++) {
                bool leads = i == 0 || together(whole, i - 1) == 1;
                if (leads && whole.pieces[i].partial) merge<T>(c, whole.pieces + i, together(whole, i));
            }
        }
    }
}

void attend(const View *q, const HeadShape *shape, const void *keys, const void *values, const Span *spans,
            size_t span_count, size_t window, const View *out, size_t threads) {
    Call call = {q, out, *shape, keys, values, spans, span_count, window, threads};
    if (q->element == F32) attend<float>(call);
    else attend<bf16>(call);
}

}  // namespace
