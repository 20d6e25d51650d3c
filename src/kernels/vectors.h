// SPDX-License-Identifier: Apache-2.0
// Vectors of floats in any width, and what the kernels do with them. Like all of this folder it is
// compiled for each instruction set, in a namespace without a name: what the linker merges of
// several instruction sets would need the widest of them wherever it is called. For the same reason
// nothing of the standard library that has code in it is used.
#pragma once

#include "../kernels.h"

#include <string.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace adpc {
namespace {

#define ALWAYS_INLINE inline __attribute__((always_inline))

struct bf16 {
  uint16_t bits;
};

// Vectors of N floats and what goes with them

template <int N>
struct Vector;
#define ADPC_VECTOR(N)                                                       \
  template <>                                                                \
  struct Vector<N> {                                                         \
    typedef float F __attribute__((vector_size(4 * N)));                     \
    typedef int32_t I __attribute__((vector_size(4 * N)));                   \
    typedef uint32_t U __attribute__((vector_size(4 * N)));                  \
    typedef uint16_t H __attribute__((vector_size(2 * N)));                  \
    typedef float LoadF __attribute__((vector_size(4 * N), aligned(4), may_alias)); \
    typedef uint16_t LoadH __attribute__((vector_size(2 * N), aligned(2), may_alias)); \
  };
ADPC_VECTOR(4)
ADPC_VECTOR(8)
ADPC_VECTOR(16)

template <int N>
using F = typename Vector<N>::F;
template <int N>
using I = typename Vector<N>::I;
template <int N>
using U = typename Vector<N>::U;

template <int N>
ALWAYS_INLINE F<N> splat(float x) {
  return x - F<N>{};  // exact for either zero, so that it compiles to a broadcast
}
template <int N>
ALWAYS_INLINE F<N> load(const float* from) {
  return *reinterpret_cast<const typename Vector<N>::LoadF*>(from);
}
template <int N>
ALWAYS_INLINE F<N> load(const bf16* from) {
  const typename Vector<N>::H half = *reinterpret_cast<const typename Vector<N>::LoadH*>(from);
  return (F<N>)(__builtin_convertvector(half, U<N>) << 16);
}
template <int N>
ALWAYS_INLINE void store(float* to, F<N> x) {
  *reinterpret_cast<typename Vector<N>::LoadF*>(to) = x;
}
template <int N>
ALWAYS_INLINE void store(bf16* to, F<N> x) {
#ifdef __AVX512BF16__
  if constexpr (N == 16) {
    const __m256bh half = _mm512_cvtneps_pbh((__m512)x);
    memcpy(to, &half, sizeof half);
    return;
  } else if constexpr (N == 8) {
    const __m128bh half = _mm256_cvtneps_pbh((__m256)x);
    memcpy(to, &half, sizeof half);
    return;
  }
#endif
  U<N> bits = (U<N>)x;  // to nearest, ties to even
  bits = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  *reinterpret_cast<typename Vector<N>::LoadH*>(to) =
      __builtin_convertvector(bits, typename Vector<N>::H);
}
template <int N>
ALWAYS_INLINE F<N> larger(F<N> a, F<N> b) {
  return a > b ? a : b;
}
template <int N>
ALWAYS_INLINE F<N> rectified(F<N> x) {
  return F<N>{} > x ? F<N>{} : x;  // in this order, so that NaN stays NaN
}
template <int M, int N>
ALWAYS_INLINE F<M> lower(F<N> x) {  // the first M
  F<M> part;
  memcpy(&part, &x, sizeof part);
  return part;
}
#ifdef __AVX512F__
template <>
ALWAYS_INLINE F<8> lower<8, 16>(F<16> x) {
  return (F<8>)_mm512_castps512_ps256((__m512)x);
}
#endif
ALWAYS_INLINE float to_float(float x) { return x; }
ALWAYS_INLINE float to_float(bf16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}
template <int N>
ALWAYS_INLINE I<N> counting() {
  I<N> lanes = I<N>{};
  for (int i = 0; i < N; ++i) lanes[i] = i;
  return lanes;
}
ALWAYS_INLINE int smaller_of(int a, int b) { return a < b ? a : b; }

// Vectors wider than a register compile to code that goes through memory: nothing is wider than
// this. (And what takes somewhat less than a millisecond.)
#if defined(__AVX512F__)
constexpr int kWide = 16;
constexpr double kChunkMacs = 40e6;
#elif defined(__AVX2__)
constexpr int kWide = 8;
constexpr double kChunkMacs = 30e6;
#elif defined(__aarch64__)  // eight a cycle at most, at 2 GHz
constexpr int kWide = 4;
constexpr double kChunkMacs = 10e6;
#else
constexpr int kWide = 4;
constexpr double kChunkMacs = 5e6;
#endif
constexpr int kNarrow = kWide < kOctet ? kWide : kOctet;  // divides every number of channels

// e^x for x <= 0, to a unit in the last place or two; 0 below the smallest normal number.
template <int N>
ALWAYS_INLINE F<N> exp_negative(F<N> x) {
  constexpr float kLog2E = 1.44269504f, kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to whole numbers
  const F<N> lowest = splat<N>(-87.0f);
  const F<N> clamped = larger<N>(x, lowest);
  const F<N> shifted = clamped * splat<N>(kLog2E) + splat<N>(kRound);
  const F<N> n = shifted - splat<N>(kRound);
  const F<N> r = (clamped - n * splat<N>(kLn2High)) - n * splat<N>(kLn2Low);
  F<N> p = splat<N>(1.9875691500e-4f);  // the polynomial of Cephes' expf
  p = p * r + splat<N>(1.3981999507e-3f);
  p = p * r + splat<N>(8.3334519073e-3f);
  p = p * r + splat<N>(4.1665795894e-2f);
  p = p * r + splat<N>(1.6666665459e-1f);
  p = p * r + splat<N>(5.0000001201e-1f);
  p = p * (r * r) + r + splat<N>(1.0f);
  const F<N> power = (F<N>)(((I<N>)shifted << 23) + 0x3f800000);
  return x < lowest ? F<N>{} : p * power;
}

template <class T>
ALWAYS_INLINE T* cell_of(const View& view, Position q) {
  return static_cast<T*>(view.data) + (row_of(q) * view.pitch + column_of(q)) * view.stride;
}

}  // namespace
}  // namespace adpc
