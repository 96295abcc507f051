// The kernels for AVX-512 F, BW, VL, DQ, VBMI and BF16.
#include "base.h"

#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512bf16,avx2,fma,f16c")

#include "avx512/simd.h"
#include "avx512/panel.h"
#include "avx512/tile.h"
#include "avx512/attend.h"
#include "avx512/several.h"

#include "table.h"

extern const Kernels AVX512_KERNELS = KERNELS;
