// What all instruction sets share. A set's unit (avx512.cpp, avx2.cpp) includes this first, then its registers, then
// the algorithms, which are written for sixteen values at a time whatever a register holds.
//
// What stands here and in the standard headers is compiled before a unit asks for its instructions, so that no
// function that the linker could share with other code contains them. All that follows is in anonymous namespaces.
#pragma once
#include <cfloat>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <immintrin.h>
#include <omp.h>

#include "kernels.h"

namespace {

using bf16 = uint16_t;
using f16 = struct { uint16_t bits; };

#define INLINE inline __attribute__((always_inline))

INLINE size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }
INLINE size_t least(size_t a, size_t b) { return a < b ? a : b; }

// Outputs in a block, and bytes in a line of packed weights (layout.h).
constexpr size_t BLOCK = 16, LINE = 64;

// A parallel region costs about 1 us while the team is awake; work that takes one thread less than this stays with it.
constexpr size_t SHARED_FROM_NS = 4000;

// Memory that a thread keeps for the next call.
class Scratch {
    void *data = nullptr;
    size_t size = 0;

  public:
    ~Scratch() { std::free(data); }
    void *at_least(size_t bytes) {
        if (bytes > size) {
            std::free(data);
            size = (bytes + bytes / 4 + 4095) / 4096 * 4096;
            data = std::aligned_alloc(4096, size);
            if (!data) std::abort();  // as Rust's own allocations do
        }
        return data;
    }
};

}  // namespace
