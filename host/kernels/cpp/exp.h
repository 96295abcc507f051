// Exponentials of sixteen values.
#pragma once

namespace {

// e^x, to two units in the last place: 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2] (Cephes' expf).
INLINE f32x16 exp(f32x16 x) {
    // In this order NaN stays NaN. Below -104 the result is 0.
    x = max(every(-104.0f), x);
    x = min(every(89.0f), x);
    f32x16 n = nearest(times(x, every(1.44269504088896341f)));
    f32x16 r = fnmadd(n, every(0.693359375f), x);
    r = fnmadd(n, every(-2.12194440e-4f), r);
    f32x16 y = every(1.9875691500e-4f);
    y = fmadd(y, r, every(1.3981999507e-3f));
    y = fmadd(y, r, every(8.3334519073e-3f));
    y = fmadd(y, r, every(4.1665795894e-2f));
    y = fmadd(y, r, every(1.6666665459e-1f));
    y = fmadd(y, r, every(5.0000001201e-1f));
    y = fmadd(y, times(r, r), plus(r, every(1.0f)));
    return times_power(y, n);
}

// 2^x for x <= 0, and NaN for NaN: Cephes' exp2f, without its care for large results.
INLINE f32x16 exp2(f32x16 x) {
    x = max(every(-151.0f), x);  // 0 from there on
    f32x16 n = nearest(x), r = minus(x, n);
    f32x16 y = every(1.535336188319500e-4f);
    y = fmadd(y, r, every(1.339887440266574e-3f));
    y = fmadd(y, r, every(9.618437357674640e-3f));
    y = fmadd(y, r, every(5.550332471162809e-2f));
    y = fmadd(y, r, every(2.402264791363012e-1f));
    y = fmadd(y, r, every(6.931472028550421e-1f));
    y = fmadd(y, r, every(1.0f));
    return times_power(y, n);
}

}  // namespace
