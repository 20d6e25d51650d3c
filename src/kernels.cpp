// SPDX-License-Identifier: Apache-2.0
// The kernels, written once and compiled for each instruction set (ADPC_ISA).
#include "kernels.h"

#include "kernels/convolution.h"
#include "kernels/depthwise.h"
#include "kernels/ends.h"
#include "kernels/interpolation.h"
#include "kernels/winograd.h"

#define ADPC_PASTE2(a, b) a##b
#define ADPC_PASTE(a, b) ADPC_PASTE2(a, b)
#define ADPC_QUOTE2(a) #a
#define ADPC_QUOTE(a) ADPC_QUOTE2(a)

namespace adpc {

const Kernels* ADPC_PASTE(kernels_, ADPC_ISA)() {
  static const Kernels table = {ADPC_QUOTE(ADPC_ISA), kChunkMacs, packed_bytes, pack, conv, tile,
                                tile_cost, winograd_bytes, winograd_floats, winograd_pack,
                                winograd, depthwise, border, resample, input, render, gate};
  return &table;
}

}  // namespace adpc
