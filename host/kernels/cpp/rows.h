// Operations on rows: normalisation, the gate of the MLP, residuals, rotary positions and the cache's write.
#pragma once
#include "exp.h"

namespace {

template <class T> void rms_norm(const View &x, const T *weight, float eps, const View &y) {
    for (size_t row = 0; row < x.rows; row++) {
        const T *from = (const T *)x.data + row * x.stride;
        T *to = (T *)y.data + row * y.stride;
        f32x16 squares = zero(), more = zero();
        size_t i = 0;
        for (; i + 32 <= x.width; i += 32) {
            f32x16 a = load(from + i), b = load(from + i + 16);
            squares = fmadd(a, a, squares);
            more = fmadd(b, b, more);
        }
        for (; i < x.width; i += 16) {
            f32x16 a = load(from + i, first(x.width - i));
            squares = fmadd(a, a, squares);
        }
        float mean = total(plus(squares, more)) / (float)x.width;
        f32x16 scale = every(1.0f / std::sqrt(mean + eps));
        for (i = 0; i < x.width; i += 16) {
            Lanes m = first(x.width - i);
            store(to + i, times(times(load(from + i, m), scale), load(weight + i, m)), m);
        }
    }
}

template <class T> INLINE f32x16 silu(f32x16 x) {
    f32x16 one = every(1.0f);
    f32x16 y = over(x, plus(one, exp(minus(zero(), x))));
    return rounded(y, (const T *)nullptr);
}

// Columns [begin, end) of all rows.
template <class T> void gated_silu(const View &x, const View &y, size_t begin, size_t end) {
    for (size_t row = 0; row < y.rows; row++) {
        const T *gate = (const T *)x.data + row * x.stride, *up = gate + y.width;
        T *to = (T *)y.data + row * y.stride;
        for (size_t i = begin; i < end; i += 16) {
            Lanes m = first(end - i);
            store(to + i, times(silu<T>(load(gate + i, m)), load(up + i, m)), m);
        }
    }
}

template <class T> void add(const View &x, const View &y) {
    for (size_t row = 0; row < x.rows; row++) {
        T *to = (T *)x.data + row * x.stride;
        const T *from = (const T *)y.data + row * y.stride;
        for (size_t i = 0; i < x.width; i += 16) {
            Lanes m = first(x.width - i);
            store(to + i, plus(load(to + i, m), load(from + i, m)), m);
        }
    }
}

template <class T> INLINE void turn(const T *head, const float *cos, const float *sin, size_t dim, T *to) {
    size_t half = dim / 2;
    for (size_t i = 0; i < half; i += 16) {
        Lanes m = first(half - i);
        f32x16 a = load(head + i, m), b = load(head + half + i, m);
        f32x16 c = fnmadd(b, load(sin + i, m), times(a, load(cos + i, m)));
        f32x16 d = fmadd(a, load(sin + half + i, m), times(b, load(cos + half + i, m)));
        store(to + i, c, m);
        store(to + half + i, d, m);
    }
}

template <class T>
void rotate_and_store(const View &qkv, const float *cos, const float *sin, const HeadShape &shape,
                      const uint32_t *slots, T *keys, T *values) {
    size_t dim = shape.dim, token = shape.kv_heads * dim;
    for (size_t row = 0; row < qkv.rows; row++) {
        T *q = (T *)qkv.data + row * qkv.stride, *k = q + shape.heads * dim, *v = k + token;
        const float *c = cos + row * dim, *s = sin + row * dim;
        for (size_t h = 0; h < shape.heads; h++) turn(q + h * dim, c, s, dim, q + h * dim);
        T *slot = keys + slots[row] * token;
        for (size_t h = 0; h < shape.kv_heads; h++) turn(k + h * dim, c, s, dim, slot + h * dim);
        std::memcpy(values + slots[row] * token, v, token * sizeof(T));
    }
}

void rms_norm(const View *x, const void *weight, float eps, const View *y) {
    if (x->element == F32) rms_norm(*x, (const float *)weight, eps, *y);
    else rms_norm(*x, (const bf16 *)weight, eps, *y);
}

void gated_silu(const View *x, const View *y, size_t threads) {
    auto part = x->element == F32 ? gated_silu<float> : gated_silu<bf16>;
    // A value takes about half a ns.
    if (threads <= 1 || y->rows * y->width / 2 < SHARED_FROM_NS) return part(*x, *y, 0, y->width);
#pragma omp parallel num_threads(threads)
    {
        size_t team = omp_get_num_threads(), me = omp_get_thread_num();
        size_t each = round_up((y->width + team - 1) / team, 32), begin = least(me * each, y->width);
        part(*x, *y, begin, least(begin + each, y->width));
    }
}

void add(const View *x, const View *y) {
    if (x->element == F32) add<float>(*x, *y);
    else add<bf16>(*x, *y);
}

void rotate_and_store(const View *qkv, const float *cos, const float *sin, const HeadShape *shape,
                      const uint32_t *slots, void *keys, void *values) {
    if (qkv->element == F32) rotate_and_store(*qkv, cos, sin, *shape, slots, (float *)keys, (float *)values);
    else rotate_and_store(*qkv, cos, sin, *shape, slots, (bf16 *)keys, (bf16 *)values);
}

}  // namespace
