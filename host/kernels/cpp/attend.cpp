// Attention over the paged cache, plainly.
#include "simd.h"

namespace {
template <class T>
void attend(const View &q, const HeadShape &shape, const T *keys, const T *values, const Span &span, size_t window,
            const View &out) {
    static thread_local Scratch scratch;
    float *weights = (float *)scratch.at_least(span.tokens * 4);
    size_t dim = shape.dim, token = shape.kv_heads * dim, group = shape.heads / shape.kv_heads;
    for (size_t row = 0; row < span.rows; row++) {
        size_t end = span.tokens - span.rows + row + 1, begin = end > window ? end - window : 0;
        for (size_t h = 0; h < shape.heads; h++) {
            const T *query = (const T *)q.data + (span.first_row + row) * q.stride + h * dim;
            T *to = (T *)out.data + (span.first_row + row) * out.stride + h * dim;
            float largest = -INFINITY, sum = 0;
            for (size_t t = begin; t < end; t++) {
                const T *key = keys + span.slots[t] * token + h / group * dim;
                f32x16 score = _mm512_setzero_ps();
                for (size_t i = 0; i < dim; i += 16)
                    score = _mm512_fmadd_ps(load(query + i, first(dim - i)), load(key + i, first(dim - i)), score);
                weights[t] = _mm512_reduce_add_ps(score) / std::sqrt((float)dim);
                largest = std::fmax(largest, weights[t]);
            }
            for (size_t t = begin; t < end; t++) {
                weights[t] = weights[t] == -INFINITY ? 0 : std::exp(weights[t] - largest);
                sum += weights[t];
            }
            for (size_t i = 0; i < dim; i += 16) {
                f32x16 y = _mm512_setzero_ps();
                for (size_t t = begin; t < end; t++) {
                    const T *value = values + span.slots[t] * token + h / group * dim;
                    y = _mm512_fmadd_ps(_mm512_set1_ps(weights[t]), load(value + i, first(dim - i)), y);
                }
                store(to + i, _mm512_mul_ps(y, _mm512_set1_ps(sum > 0 ? 1 / sum : 0)), first(dim - i));
            }
        }
    }
}
}  // namespace

extern "C" void msao_attend(const View *q, const HeadShape *shape, const void *keys, const void *values,
                            const Span *spans, size_t span_count, size_t window, const View *out, size_t) {
    for (size_t s = 0; s < span_count; s++) {
        if (q->element == F32)
            attend(*q, *shape, (const float *)keys, (const float *)values, spans[s], window, *out);
        else attend(*q, *shape, (const bf16 *)keys, (const bf16 *)values, spans[s], window, *out);
    }
}
