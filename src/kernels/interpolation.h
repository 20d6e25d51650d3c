// SPDX-License-Identifier: Apache-2.0
// Values at positions between others: interpolated, upsampled, pooled, added up.
#pragma once

#include "vectors.h"

namespace adpc {
namespace {

// Inactive positions that someone reads

template <int N, class T>
ALWAYS_INLINE void border_channels(const BorderArgs& a, const float* const* donors,
                                   const float* weights, int count, float total, int channel,
                                   const T* residual, T* out) {
  F<N> y = load<N>(a.shift + channel) + load<N>(a.bias + channel) * splat<N>(total);
  for (int e = 0; e < count; ++e) y += splat<N>(weights[e]) * load<N>(donors[e] + channel);
  if (residual) y += load<N>(residual + channel);
  store<N>(out + channel, a.relu ? rectified<N>(y) : y);
}

constexpr int kMaxWindow = 81;

template <class T>
void border_as(const BorderArgs& a, int first, int last) {
  const float* donors[kMaxWindow];
  float weights[kMaxWindow];
  const int channels = a.octets * kOctet;
  for (int i = first; i < last; ++i) {
    int count = 0;
    float total = 0.0f;
    for (int n = a.begin[i]; n < a.end[i]; ++n) {
      donors[count] = a.donors + static_cast<int64_t>(a.neighbours[n].donor) * channels;
      weights[count] = a.window[a.neighbours[n].tap];
      total += weights[count++];
    }
    T* out = cell_of<T>(a.out, a.at[i]);
    const T* residual = a.residual.data ? cell_of<const T>(a.residual, a.at[i]) : nullptr;
    int c = 0;
    for (; c + kWide <= channels; c += kWide)
      border_channels<kWide, T>(a, donors, weights, count, total, c, residual, out);
    for (; c < channels; c += kNarrow)
      border_channels<kNarrow, T>(a, donors, weights, count, total, c, residual, out);
  }
}

void border(Type type, const BorderArgs& a, int first, int last) {
  if (type == kFloat32) border_as<float>(a, first, last);
  else border_as<bf16>(a, first, last);
}

// Resampling

constexpr int kMaxTaps = 3;
constexpr int kMaxReads = kMaxSources * kMaxTaps * kMaxTaps + 1;

template <class T>
ALWAYS_INLINE int reads_of(const Source& source, Position q, const T** from, float* weights) {
  const int y = row_of(q), x = column_of(q), taps = source.taps;
  if (taps == 1) {
    *from = cell_of<const T>(source.view, q);
    *weights = 1.0f;
    return 1;
  }
  const T* corner = static_cast<const T*>(source.view.data) +
                    (source.rows.start[y] * source.view.pitch + source.columns.start[x]) *
                        source.view.stride;
  int count = 0;
  for (int ty = 0; ty < taps; ++ty)
    for (int tx = 0; tx < taps; ++tx) {
      const float w = source.rows.weight[y * taps + ty] * source.columns.weight[x * taps + tx];
      if (w == 0.0f) continue;  // may lie beyond the map, or where nothing was computed
      from[count] = corner + (ty * source.view.pitch + tx) * source.view.stride;
      weights[count++] = w;
    }
  return count;
}

template <int N, class T>
ALWAYS_INLINE void mix(const T* const* from, const float* weights, int count, int channel,
                       const float* bias, bool relu, T* out) {
  F<N> y = bias ? load<N>(bias + channel) : F<N>{};
  for (int e = 0; e < count; ++e) y += splat<N>(weights[e]) * load<N>(from[e] + channel);
  store<N>(out + channel, relu ? rectified<N>(y) : y);
}

template <class T>
ALWAYS_INLINE void mix_all(const T* const* from, const float* weights, int count, int octets,
                           const float* bias, bool relu, T* out) {
  int c = 0;
  for (; c + kWide <= octets * kOctet; c += kWide)
    mix<kWide, T>(from, weights, count, c, bias, relu, out);
  for (; c < octets * kOctet; c += kNarrow)
    mix<kNarrow, T>(from, weights, count, c, bias, relu, out);
}

template <class T>
void resample_as(const ResampleArgs& a, int first, int last) {
  const T* from[kMaxReads];
  float weights[kMaxReads];
  for (int i = first; i < last; ++i) {
    T* out = cell_of<T>(a.out, a.out_at[i]);
    int count = 0;
    if (a.add_to_output) {
      from[0] = out;
      weights[count++] = 1.0f;
    }
    for (int s = 0; s < a.source_count; ++s) {
      const Source& source = a.sources[s];
      count += reads_of<T>(source, a.in_at[i], from + count, weights + count);
      if (!a.concatenate) continue;
      mix_all<T>(from, weights, count, source.octets, nullptr, a.relu,
                 out + source.out_octet * kOctet);
      count = 0;
    }
    if (!a.concatenate) mix_all<T>(from, weights, count, a.octets, a.bias, a.relu, out);
  }
}

void resample(Type type, const ResampleArgs& a, int first, int last) {
  if (type == kFloat32) resample_as<float>(a, first, last);
  else resample_as<bf16>(a, first, last);
}

}  // namespace
}  // namespace adpc
