// Compiled without any special instructions: this is what decides whether the rest may run.
#include "kernels.h"

extern const Kernels AVX512_KERNELS, AVX2_KERNELS;

static bool has(Instructions set) {
    __builtin_cpu_init();
    switch (set) {
    case AVX512:
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512bf16");
    case AVX2:
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    }
    return false;
}

extern "C" const Kernels *msao_kernels(Instructions set) {
    if (!has(set)) return nullptr;
    return set == AVX512 ? &AVX512_KERNELS : &AVX2_KERNELS;
}
