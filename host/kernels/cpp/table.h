// The algorithms for the instruction set whose registers were included before, as a table.
#pragma once
#include "attend.h"
#include "linear.h"
#include "pack.h"
#include "rows.h"
#include "unpack.h"

namespace {

constexpr Kernels KERNELS = {pack_rows,  unpack_row, linear, gather, rms_norm,
                             gated_silu, add,        rotate_and_store, attend};

}  // namespace
