// SPDX-License-Identifier: Apache-2.0
// Convolution over lists of positions.
#pragma once

#include "vectors.h"

namespace adpc {
namespace {

// The registers: how many octets of output channels are computed at once, and at how many
// positions, so that the accumulators fill them.
#if defined(__AVX512F__)
constexpr int kMaxOctets = 8;
constexpr int kTile[kMaxOctets + 1] = {0, 8, 8, 8, 8, 8, 8, 6, 6};
#elif defined(__AVX2__)
constexpr int kMaxOctets = 3;
constexpr int kTile[kMaxOctets + 1] = {0, 10, 5, 4};
#elif defined(__aarch64__)  // 16 of 30, 24 of 37 and 24 of 35 instructions are fmla; none spills
constexpr int kMaxOctets = 3;
constexpr int kTile[kMaxOctets + 1] = {0, 8, 6, 4};
#else
constexpr int kMaxOctets = 2;
constexpr int kTile[kMaxOctets + 1] = {0, 6, 3};
#endif

// Output channels are computed in blocks of nearly equal width.
ALWAYS_INLINE int block_count(int octets) { return (octets + kMaxOctets - 1) / kMaxOctets; }
ALWAYS_INLINE int block_begin(int octets, int block) {
  return octets * block / block_count(octets);
}

// How features of a type meet their weights: `step` input channels at a time.

template <class T>
struct Dot {
  typedef float Weight;
  static constexpr int step = 1;
  template <int N>
  static ALWAYS_INLINE F<N> weights(const float* w) {
    return load<N>(w);
  }
  template <int N>
  static ALWAYS_INLINE F<N> broadcast(const T* x) {
    return splat<N>(to_float(*x));
  }
  template <int N>
  static ALWAYS_INLINE F<N> add(F<N> sum, F<N> w, F<N> x) {
    return sum + w * x;
  }
};

#ifdef __AVX512BF16__
template <>
struct Dot<bf16> {  // pairs of input channels
  typedef bf16 Weight;
  static constexpr int step = 2;
  template <int N>
  static ALWAYS_INLINE F<N> weights(const bf16* w) {
    F<N> pairs;
    memcpy(&pairs, w, sizeof pairs);
    return pairs;
  }
  template <int N>
  static ALWAYS_INLINE F<N> broadcast(const bf16* x) {
    float pair;
    memcpy(&pair, x, sizeof pair);
    return splat_bits<N>(pair);
  }
  template <int N>
  static ALWAYS_INLINE F<N> splat_bits(float pair) {
    if constexpr (N == 16) return (F<N>)_mm512_set1_ps(pair);
    else return (F<N>)_mm256_set1_ps(pair);
  }
  template <int N>
  static ALWAYS_INLINE F<N> add(F<N> sum, F<N> w, F<N> x) {
    if constexpr (N == 16)
      return (F<N>)_mm512_dpbf16_ps((__m512)sum, (__m512bh)(__m512)w, (__m512bh)(__m512)x);
    else
      return (F<N>)_mm256_dpbf16_ps((__m256)sum, (__m256bh)(__m256)w, (__m256bh)(__m256)x);
  }
};
#endif

int steps(Type type, int in_channels) {
  const int step = type == kFloat32 ? Dot<float>::step : Dot<bf16>::step;
  return (in_channels + step - 1) / step;
}

size_t packed_bytes(Type type, int taps, int in_channels, int octets) {
  const size_t lane = type == kFloat32 ? sizeof(Dot<float>::Weight) * Dot<float>::step
                                       : sizeof(Dot<bf16>::Weight) * Dot<bf16>::step;
  return lane * taps * steps(type, in_channels) * octets * kOctet;
}

template <class T>
void pack_as(const float* weights, int taps, int out_channels, int in_channels, void* packed) {
  typedef typename Dot<T>::Weight Weight;
  constexpr int step = Dot<T>::step;
  Weight* to = static_cast<Weight*>(packed);
  const int octets = (out_channels + kOctet - 1) / kOctet;
  for (int block = 0; block < block_count(octets); ++block)
    for (int tap = 0; tap < taps; ++tap)
      for (int c = 0; c < in_channels; c += step)
        for (int o = block_begin(octets, block) * kOctet;
             o < block_begin(octets, block + 1) * kOctet; ++o)
          for (int s = 0; s < step; ++s) {
            float w = 0.0f;
            if (o < out_channels && c + s < in_channels)
              w = weights[(static_cast<size_t>(o) * in_channels + c + s) * taps + tap];
            if (sizeof(T) == sizeof(bf16)) {  // the same rounding on every machine
              bf16 rounded[4];
              store<4>(rounded, splat<4>(w));
              if constexpr (sizeof(Weight) == sizeof(bf16)) {
                *to++ = rounded[0];
                continue;
              }
              w = to_float(rounded[0]);
            }
            if constexpr (sizeof(Weight) == sizeof(float)) *to++ = w;
          }
}

void pack(Type type, const float* weights, int taps, int out_channels, int in_channels,
          void* packed) {
  if (type == kFloat32) pack_as<float>(weights, taps, out_channels, in_channels, packed);
  else pack_as<bf16>(weights, taps, out_channels, in_channels, packed);
}

// One block of output channels at up to kTile positions.
template <int OCTETS, class In, class Out>
ALWAYS_INLINE void conv_tile(const ConvArgs& a, const typename Dot<In>::Weight* w, int octet,
                             int first, int count) {
  constexpr int N = kWide, WIDE = OCTETS * kOctet / N, HALF = OCTETS * kOctet % N != 0;
  constexpr int TILE = kTile[OCTETS], H = HALF ? kOctet : 4;
  typedef Dot<In> D;
  const In* cell[TILE];
  const int64_t stride = a.in.stride, pitch = a.in.pitch * stride, pad = (a.kernel - 1) / 2;
  for (int p = 0; p < TILE; ++p) {  // what is beyond the list repeats its last position
    const Position q = a.in_at[first + smaller_of(p, count - 1)];
    cell[p] = static_cast<const In*>(a.in.data) + (row_of(q) * a.stride - pad) * pitch +
              (column_of(q) * a.stride - pad) * stride;
  }
  for (int p = 0; p < count && a.residual.data; ++p) {  // it will have come by the time it is added
    const Position q = a.out_at[first + p];
    const Out* residual = static_cast<const Out*>(a.residual.data) +
                          (row_of(q) * a.residual.pitch + column_of(q)) * a.residual.stride;
    for (int c = 0; c < OCTETS * kOctet; c += 64 / static_cast<int>(sizeof(Out)))
      __builtin_prefetch(residual + octet * kOctet + c, 1);  // mostly the output, too
  }
  F<N> sum[TILE][WIDE ? WIDE : 1];
  F<H> rest[TILE];
#pragma GCC unroll 16
  for (int p = 0; p < TILE; ++p) {
#pragma GCC unroll 8
    for (int v = 0; v < WIDE; ++v) sum[p][v] = F<N>{};
    rest[p] = F<H>{};
  }
  const int channels = a.in_channels;
  for (int ky = 0; ky < a.kernel; ++ky)
    for (int kx = 0; kx < a.kernel; ++kx) {
      const int64_t offset = ky * pitch + kx * stride;
      const In* x[TILE];
#pragma GCC unroll 16
      for (int p = 0; p < TILE; ++p) x[p] = cell[p] + offset;
      for (int c = 0; c < channels; c += D::step) {
        F<N> wide[WIDE ? WIDE : 1];
        F<H> half = F<H>{};
#pragma GCC unroll 8
        for (int v = 0; v < WIDE; ++v) wide[v] = D::template weights<N>(w + v * N * D::step);
        if constexpr (HALF) half = D::template weights<H>(w + WIDE * N * D::step);
        w += OCTETS * kOctet * D::step;
#pragma GCC unroll 16
        for (int p = 0; p < TILE; ++p) {
          const F<N> xs = D::template broadcast<N>(x[p] + c);
#pragma GCC unroll 8
          for (int v = 0; v < WIDE; ++v)
            sum[p][v] = D::template add<N>(sum[p][v], wide[v], xs);
          if constexpr (HALF) rest[p] = D::template add<H>(rest[p], half, lower<H, N>(xs));
        }
      }
    }
  const int channel = octet * kOctet;
  const float* bias = a.bias + channel;
#pragma GCC unroll 16
  for (int p = 0; p < TILE; ++p) {
    if (p >= count) break;
    const Position q = a.out_at[first + p];
    Out* out = static_cast<Out*>(a.out.data) +
               (row_of(q) * a.out.pitch + column_of(q)) * a.out.stride + channel;
    const Out* residual = nullptr;
    if (a.residual.data)
      residual = static_cast<const Out*>(a.residual.data) +
                 (row_of(q) * a.residual.pitch + column_of(q)) * a.residual.stride + channel;
    float* donors = nullptr;
    if (a.donor && a.donor[first + p] >= 0)
      donors = a.donors + static_cast<int64_t>(a.donor[first + p]) * a.octets * kOctet + channel;
#pragma GCC unroll 8
    for (int v = 0; v < WIDE; ++v) {
      F<N> y = sum[p][v];
      if (donors) store<N>(donors + v * N, y);
      y += load<N>(bias + v * N);
      if (residual) y += load<N>(residual + v * N);
      store<N>(out + v * N, a.relu ? rectified<N>(y) : y);
    }
    if constexpr (HALF) {
      F<H> y = rest[p];
      if (donors) store<H>(donors + WIDE * N, y);
      y += load<H>(bias + WIDE * N);
      if (residual) y += load<H>(residual + WIDE * N);
      store<H>(out + WIDE * N, a.relu ? rectified<H>(y) : y);
    }
  }
}

template <int OCTETS, class In, class Out>
void conv_block(const ConvArgs& a, const void* weights, int octet, int first, int last) {
  const auto* w = static_cast<const typename Dot<In>::Weight*>(weights);
  for (int i = first; i < last; i += kTile[OCTETS])
    conv_tile<OCTETS, In, Out>(a, w, octet, i, smaller_of(kTile[OCTETS], last - i));
}

template <class In, class Out>
void conv_as(Type type, const ConvArgs& a, int first, int last) {
  const char* weights = static_cast<const char*>(a.weights);
  for (int block = 0; block < block_count(a.octets); ++block) {
    const int octet = block_begin(a.octets, block);
    const int octets = block_begin(a.octets, block + 1) - octet;
    switch (octets) {
      case 1: conv_block<1, In, Out>(a, weights, octet, first, last); break;
      case 2: conv_block<2, In, Out>(a, weights, octet, first, last); break;
#if defined(__AVX2__) || defined(__AVX512F__) || defined(__aarch64__)
      case 3: conv_block<3, In, Out>(a, weights, octet, first, last); break;
#endif
#ifdef __AVX512F__
      case 4: conv_block<4, In, Out>(a, weights, octet, first, last); break;
      case 5: conv_block<5, In, Out>(a, weights, octet, first, last); break;
      case 6: conv_block<6, In, Out>(a, weights, octet, first, last); break;
      case 7: conv_block<7, In, Out>(a, weights, octet, first, last); break;
      case 8: conv_block<8, In, Out>(a, weights, octet, first, last); break;
#endif
    }
    weights += packed_bytes(type, a.kernel * a.kernel, a.in_channels, octets);
  }
}

void conv(Type in, Type out, const ConvArgs& a, int first, int last) {
  if (in == kFloat32) conv_as<float, float>(in, a, first, last);
  else if (out == kBFloat16) conv_as<bf16, bf16>(in, a, first, last);
  else conv_as<bf16, float>(in, a, first, last);
}

int tile(int octets) {
  int most = 1;
  for (int block = 0; block < block_count(octets); ++block) {
    const int n = kTile[block_begin(octets, block + 1) - block_begin(octets, block)];
    if (n > most) most = n;
  }
  return most;
}

}  // namespace
}  // namespace adpc
