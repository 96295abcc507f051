// The kernels for AVX2, FMA and F16C.
#include "base.h"

#pragma GCC target("avx2,fma,f16c")

#include "avx2/simd.h"
#include "avx2/panel.h"
#include "avx2/tile.h"
#include "avx2/attend.h"
#include "avx2/several.h"

#include "table.h"

extern const Kernels AVX2_KERNELS = KERNELS;
