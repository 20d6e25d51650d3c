// SPDX-License-Identifier: Apache-2.0
// Convolution of each channel by itself, over lists of positions.
#pragma once

#include "vectors.h"

namespace adpc {
namespace {

constexpr int kDepthTile = 4;  // positions that share what is loaded of the weights

// N channels at up to kDepthTile positions.
template <int N, int KERNEL, class T>
ALWAYS_INLINE void depthwise_channels(const ConvArgs& a, const T* const* cell, T* const* out,
                                      int count, int channel) {
  const int64_t stride = a.in.stride, pitch = a.in.pitch * stride;
  const float* w = static_cast<const float*>(a.weights) + channel;
  F<N> sum[kDepthTile];
#pragma GCC unroll 4
  for (int p = 0; p < kDepthTile; ++p) sum[p] = load<N>(a.bias + channel);
  for (int ky = 0; ky < KERNEL; ++ky)
#pragma GCC unroll 5
    for (int kx = 0; kx < KERNEL; ++kx) {
      const F<N> weight = load<N>(w);
      const int64_t offset = ky * pitch + kx * stride + channel;
      w += a.octets * kOctet;
#pragma GCC unroll 4
      for (int p = 0; p < kDepthTile; ++p) sum[p] += weight * load<N>(cell[p] + offset);
    }
#pragma GCC unroll 4
  for (int p = 0; p < kDepthTile; ++p) {
    if (p >= count) break;
    store<N>(out[p] + channel, a.relu ? rectified<N>(sum[p]) : sum[p]);
  }
}

template <int KERNEL, class T>
void depthwise_as(const ConvArgs& a, int first, int last) {
  const int64_t stride = a.in.stride, pitch = a.in.pitch * stride, pad = (KERNEL - 1) / 2;
  for (int i = first; i < last; i += kDepthTile) {
    const int count = smaller_of(kDepthTile, last - i);
    const T* cell[kDepthTile];
    T* out[kDepthTile];
    for (int p = 0; p < kDepthTile; ++p) {  // what is beyond the list repeats its last position
      const int q = i + smaller_of(p, count - 1);
      cell[p] = static_cast<const T*>(a.in.data) + (row_of(a.in_at[q]) * a.stride - pad) * pitch +
                (column_of(a.in_at[q]) * a.stride - pad) * stride;
      out[p] = cell_of<T>(a.out, a.out_at[q]);
    }
    int c = 0;
    for (; c + kWide <= a.octets * kOctet; c += kWide)
      depthwise_channels<kWide, KERNEL, T>(a, cell, out, count, c);
    for (; c < a.octets * kOctet; c += kNarrow)
      depthwise_channels<kNarrow, KERNEL, T>(a, cell, out, count, c);
  }
}

void depthwise(Type type, const ConvArgs& a, int first, int last) {
  if (type == kFloat32) {
    if (a.kernel == 3) depthwise_as<3, float>(a, first, last);
    else depthwise_as<5, float>(a, first, last);
  } else {
    if (a.kernel == 3) depthwise_as<3, bf16>(a, first, last);
    else depthwise_as<5, bf16>(a, first, last);
  }
}

}  // namespace
}  // namespace adpc
