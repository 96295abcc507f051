// y = x W^T + b, plainly.
#include "layout.h"

namespace {
float at(const View &x, size_t row, size_t k) {
    if (x.element == F32) return ((const float *)x.data)[row * x.stride + k];
    return _mm512_cvtss_f32(load((const bf16 *)x.data + row * x.stride + k, 1));
}
}  // namespace

extern "C" void msao_unpack_row(const Packed *from, size_t row, float *out);

extern "C" void msao_linear(const View *x, const Packed *w, const View *y, size_t) {
    static thread_local Scratch scratch;
    float *weights = (float *)scratch.at_least(w->inputs * 4);
    for (size_t o = 0; o < w->outputs; o++) {
        msao_unpack_row(w, o, weights);
        for (size_t row = 0; row < x->rows; row++) {
            float sum = 0;
            for (size_t k = 0; k < w->inputs; k++) sum += at(*x, row, k) * weights[k];
            if (w->bias) sum += w->bias[o];
            if (y->element == F32) ((float *)y->data)[row * y->stride + o] = sum;
            else store((bf16 *)y->data + row * y->stride + o, _mm512_set1_ps(sum), 1);
        }
    }
}
