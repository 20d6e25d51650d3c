// SPDX-License-Identifier: Apache-2.0
// 3x3 convolution of stride 1 by Winograd's F(2x2, 3x3): four outputs of a 2x2 tile from 16
// products for each pair of channels and not 36 (Lavin and Gray, arXiv:1509.09308).
#pragma once

#include "convolution.h"

namespace adpc {
namespace {

// By the narrower of input and output, in octets; measured, the worst of several sizes and of the
// instruction sets of this width. A layer that is dense takes it below 4, a masked one below the
// mean number of active positions in a tile.
double tile_cost(int in_octets, int octets) {
#if defined(__AVX2__) || defined(__AVX512F__)
  constexpr double kCost[] = {9, 9, 4.6, 3.6, 3.0, 2.7, 2.5, 2.45, 2.4, 2.3, 2.3, 2.3, 2.2};
#else
  constexpr double kCost[] = {9, 9, 2.8, 2.8, 2.4, 2.3, 2.2, 2.2, 2.2, 2.1, 2.1, 2.1, 2.1};
#endif
  constexpr int kLast = sizeof(kCost) / sizeof(kCost[0]) - 1;
  return kCost[smaller_of(smaller_of(in_octets, octets), kLast)];
}

// Sixteen matrices (of the elements of a transformed tile), each packed as a 1x1 convolution.
size_t winograd_bytes(int in_channels, int octets) {
  return 16 * packed_bytes(kFloat32, 1, in_channels, octets);
}

// G g G^T of each kernel; `scratch` holds (out_channels, in_channels) floats.
void winograd_pack(const float* weights, int out_channels, int in_channels, float* scratch,
                   void* packed) {
  constexpr float G[4][3] = {{1, 0, 0}, {0.5f, 0.5f, 0.5f}, {0.5f, -0.5f, 0.5f}, {0, 0, 1}};
  const int octets = (out_channels + kOctet - 1) / kOctet;
  const size_t bytes = packed_bytes(kFloat32, 1, in_channels, octets);
  const int64_t pairs = static_cast<int64_t>(out_channels) * in_channels;
  for (int e = 0; e < 16; ++e) {
    for (int64_t i = 0; i < pairs; ++i) {
      double sum = 0.0;
      for (int y = 0; y < 3; ++y)
        for (int x = 0; x < 3; ++x)
          sum += static_cast<double>(G[e / 4][y]) * G[e % 4][x] * weights[9 * i + 3 * y + x];
      scratch[i] = static_cast<float>(sum);
    }
    pack(kFloat32, scratch, 1, out_channels, in_channels, static_cast<char*>(packed) + e * bytes);
  }
}

// Elements of a transformed batch lie this many floats apart: not a multiple of the page size,
// whose 16 streams would share the same few lines of the first-level cache.
ALWAYS_INLINE int64_t winograd_pitch(int channels) {
  return static_cast<int64_t>(kWinogradTiles) * channels + 16;
}

size_t winograd_floats(int octets) { return 16 * winograd_pitch(octets * kOctet); }

// B^T d B of N channels.
template <int N>
ALWAYS_INLINE void transform_input(const float* const* cell, int channel, float* to,
                                   int64_t pitch) {
  F<N> d[4][4];
#pragma GCC unroll 4
  for (int x = 0; x < 4; ++x) {
    const F<N> c0 = load<N>(cell[x] + channel), c1 = load<N>(cell[4 + x] + channel);
    const F<N> c2 = load<N>(cell[8 + x] + channel), c3 = load<N>(cell[12 + x] + channel);
    d[0][x] = c0 - c2;
    d[1][x] = c1 + c2;
    d[2][x] = c2 - c1;
    d[3][x] = c1 - c3;
  }
#pragma GCC unroll 4
  for (int y = 0; y < 4; ++y) {
    store<N>(to, d[y][0] - d[y][2]);
    store<N>(to + pitch, d[y][1] + d[y][2]);
    store<N>(to + 2 * pitch, d[y][2] - d[y][1]);
    store<N>(to + 3 * pitch, d[y][1] - d[y][3]);
    to += 4 * pitch;
  }
}

// The outputs of one tile: where they go, or null.
struct TileOutputs {
  float* out[4];
  const float* residual[4];
  float* donors[4];
};

// A^T m A of N channels; then bias, residual and ReLU.
template <int N>
ALWAYS_INLINE void transform_output(const ConvArgs& a, const TileOutputs& tile, int channel,
                                    const float* from, int64_t pitch) {
  F<N> m[2][4];
#pragma GCC unroll 4
  for (int x = 0; x < 4; ++x) {
    const float* column = from + x * pitch;
    const F<N> c0 = load<N>(column), c1 = load<N>(column + 4 * pitch);
    const F<N> c2 = load<N>(column + 8 * pitch), c3 = load<N>(column + 12 * pitch);
    m[0][x] = c0 + c1 + c2;
    m[1][x] = c1 - c2 - c3;
  }
  const F<N> bias = load<N>(a.bias + channel);
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k) {
    if (!tile.out[k]) continue;
    const F<N>* row = m[k / 2];
    F<N> y = k % 2 == 0 ? row[0] + row[1] + row[2] : row[1] - row[2] - row[3];
    if (tile.donors[k]) store<N>(tile.donors[k] + channel, y);
    y += bias;
    if (tile.residual[k]) y += load<N>(tile.residual[k] + channel);
    store<N>(tile.out[k] + channel, a.relu ? rectified<N>(y) : y);
  }
}

ALWAYS_INLINE Tile tile_of(const WinogradArgs& a, int index) {
  if (a.tiles) return a.tiles[index];
  const int across = (a.columns + 1) / 2;
  const int y = index / across * 2, x = index % across * 2;
  const bool right = x + 1 < a.columns, below = y + 1 < a.rows;
  return {at(y, x), {0, right ? 0 : -1, below ? 0 : -1, right && below ? 0 : -1}};
}

// The cells that a tile reads. What no active position depends on may hold anything, which would
// spread through the transform: zeros are read in its place.
ALWAYS_INLINE void cells_read(const WinogradArgs& a, Position at, const float** cell) {
  const View& in = a.conv.in;
  const float* data = static_cast<const float*>(in.data);
  const int top = row_of(at) - 1, left = column_of(at) - 1;
  const bool inside = top >= 0 && left >= 0 && top + 4 <= a.rows && left + 4 <= a.columns;
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j) {
      const int y = top + i, x = left + j;
      const bool there = inside || (y >= 0 && x >= 0 && y < a.rows && x < a.columns);
      const bool read = there && (!a.needed || a.needed[y * a.columns + x]);
      cell[4 * i + j] = read ? data + (y * in.pitch + x) * in.stride : a.zeros;
    }
}

ALWAYS_INLINE void transform_tile(const WinogradArgs& a, Position at, float* to, int channels) {
  const float* cell[16];
  cells_read(a, at, cell);
  const int64_t pitch = winograd_pitch(channels);
  int c = 0;
  for (; c + kWide <= channels; c += kWide) transform_input<kWide>(cell, c, to + c, pitch);
  for (; c < channels; c += kNarrow) transform_input<kNarrow>(cell, c, to + c, pitch);
}

ALWAYS_INLINE void finish_tile(const ConvArgs& a, const Tile& tile, const float* from) {
  TileOutputs outputs;
  for (int k = 0; k < 4; ++k) {
    const int y = row_of(tile.at) + k / 2, x = column_of(tile.at) + k % 2;
    const int donor = a.donor && tile.number[k] >= 0 ? a.donor[tile.number[k]] : -1;
    outputs.out[k] = nullptr;
    outputs.residual[k] = nullptr;
    outputs.donors[k] = nullptr;
    if (tile.number[k] < 0) continue;
    outputs.out[k] = static_cast<float*>(a.out.data) + (y * a.out.pitch + x) * a.out.stride;
    if (a.residual.data)
      outputs.residual[k] = static_cast<const float*>(a.residual.data) +
                            (y * a.residual.pitch + x) * a.residual.stride;
    if (donor >= 0) outputs.donors[k] = a.donors + static_cast<int64_t>(donor) * a.octets * kOctet;
  }
  const int channels = a.octets * kOctet;
  const int64_t pitch = winograd_pitch(channels);
  int c = 0;
  for (; c + kWide <= channels; c += kWide)
    transform_output<kWide>(a, outputs, c, from + c, pitch);
  for (; c < channels; c += kNarrow)
    transform_output<kNarrow>(a, outputs, c, from + c, pitch);
}

// Tiles from `first` to `last`, a batch at a time.
void winograd(const WinogradArgs& a, int first, int last) {
  const ConvArgs& conv = a.conv;
  const int in = (conv.in_channels + kOctet - 1) / kOctet * kOctet, out = conv.octets * kOctet;
  float* transformed = a.scratch;
  float* products = transformed + 16 * winograd_pitch(in);
  Position compact[kWinogradTiles];
  for (int i = 0; i < kWinogradTiles; ++i) compact[i] = at(0, i);
  ConvArgs product{};
  product.in = {nullptr, 0, in};
  product.out = {nullptr, 0, out};
  product.in_at = product.out_at = compact;
  product.bias = a.zeros;
  product.kernel = product.stride = 1;
  product.in_channels = conv.in_channels;
  product.octets = conv.octets;
  const size_t bytes = packed_bytes(kFloat32, 1, conv.in_channels, conv.octets);
  for (; first < last; first += kWinogradTiles) {
    const int count = smaller_of(kWinogradTiles, last - first);
    for (int t = 0; t < count; ++t)
      transform_tile(a, tile_of(a, first + t).at, transformed + t * in, in);
    for (int e = 0; e < 16; ++e) {
      product.in.data = transformed + e * winograd_pitch(in);
      product.out.data = products + e * winograd_pitch(out);
      product.weights = static_cast<const char*>(conv.weights) + e * bytes;
      conv_as<float, float>(kFloat32, product, 0, count);
    }
    for (int t = 0; t < count; ++t)
      finish_tile(conv, tile_of(a, first + t), products + t * out);
  }
}

}  // namespace
}  // namespace adpc
