// The kernels, written once and compiled for each instruction set (ADPC_ISA).
//
// Nothing of the standard library with code in it is used here: an inline function that the linker
// takes from this file would need the instruction set wherever else it is called.
#include "kernels.h"

#include <string.h>
#if defined(__AVX512BF16__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

#define ADPC_PASTE2(a, b) a##b
#define ADPC_PASTE(a, b) ADPC_PASTE2(a, b)
#define ADPC_QUOTE2(a) #a
#define ADPC_QUOTE(a) ADPC_QUOTE2(a)

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

// Vectors wider than a register compile to code that goes through memory: nothing here is wider
// than kWide.

// The registers: how many octets of output channels are computed at once, and at how many
// positions, so that the accumulators fill them.

#if defined(__AVX512F__)
constexpr int kWide = 16, kMaxOctets = 8;
constexpr int kTile[kMaxOctets + 1] = {0, 8, 8, 8, 8, 8, 8, 6, 6};
#elif defined(__AVX2__)
constexpr int kWide = 8, kMaxOctets = 3;
constexpr int kTile[kMaxOctets + 1] = {0, 8, 4, 3};
#else
constexpr int kWide = 4, kMaxOctets = 2;
constexpr int kTile[kMaxOctets + 1] = {0, 6, 3};
#endif

constexpr int kNarrow = kWide < kOctet ? kWide : kOctet;  // divides every number of channels

// Output channels are computed in blocks of nearly equal width.
ALWAYS_INLINE int block_count(int octets) { return (octets + kMaxOctets - 1) / kMaxOctets; }
ALWAYS_INLINE int block_begin(int octets, int block) { return octets * block / block_count(octets); }

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

// Convolution

// One block of output channels at up to kTile positions.
template <int OCTETS, class In, class Out>
ALWAYS_INLINE void conv_tile(const ConvArgs& a, const typename Dot<In>::Weight* w, int octet,
                             int first, int count) {
  constexpr int N = kWide, WIDE = OCTETS * kOctet / N, HALF = OCTETS * kOctet % N != 0;
  constexpr int TILE = kTile[OCTETS], H = HALF ? kOctet : 4;
  typedef Dot<In> D;
  const In* cell[TILE];
  const int64_t stride = a.in.stride, pitch = a.in.pitch * stride, pad = a.kernel / 2;
  for (int p = 0; p < TILE; ++p) {  // what is beyond the list repeats its last position
    const Position q = a.in_at[first + smaller_of(p, count - 1)];
    cell[p] = static_cast<const In*>(a.in.data) + (row_of(q) * a.stride - pad) * pitch +
              (column_of(q) * a.stride - pad) * stride;
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
      store<N>(out + v * N, a.relu ? larger<N>(y, F<N>{}) : y);
    }
    if constexpr (HALF) {
      F<H> y = rest[p];
      if (donors) store<H>(donors + WIDE * N, y);
      y += load<H>(bias + WIDE * N);
      if (residual) y += load<H>(residual + WIDE * N);
      store<H>(out + WIDE * N, a.relu ? larger<H>(y, F<H>{}) : y);
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
#if defined(__AVX2__) || defined(__AVX512F__)
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

// Inactive positions that someone reads

template <class T>
ALWAYS_INLINE T* cell_of(const View& view, Position q) {
  return static_cast<T*>(view.data) + (row_of(q) * view.pitch + column_of(q)) * view.stride;
}

template <int N, class T>
ALWAYS_INLINE void border_channels(const BorderArgs& a, const float* const* donors,
                                   const float* weights, int count, float total, int channel,
                                   const T* residual, T* out) {
  F<N> y = load<N>(a.shift + channel) + load<N>(a.bias + channel) * splat<N>(total);
  for (int e = 0; e < count; ++e) y += splat<N>(weights[e]) * load<N>(donors[e] + channel);
  if (residual) y += load<N>(residual + channel);
  store<N>(out + channel, a.relu ? larger<N>(y, F<N>{}) : y);
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
  store<N>(out + channel, relu ? larger<N>(y, F<N>{}) : y);
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

// Both ends

template <class T>
void input_as(const InputArgs& a, int first_row, int last_row) {
  const float *red = a.table, *green = a.table + 256, *blue = a.table + 512;
  for (int y = first_row; y < last_row; ++y) {
    T* out = cell_of<T>(a.out, at(y, 0));
    const int width = y < a.height ? a.width : 0;
    if (a.normalised) {
      const int64_t plane = static_cast<int64_t>(a.height) * a.width;
      const float* value = a.normalised + static_cast<int64_t>(y) * a.width;
      for (int x = 0; x < width; ++x, ++value, out += 4)
        store<4>(out, F<4>{value[0], value[plane], value[2 * plane], 0.0f});
      for (int x = width; x < a.padded_width; ++x, out += 4) store<4>(out, F<4>{});
      continue;
    }
    const uint8_t* pixel = a.image + y * a.row_bytes;
    for (int x = 0; x < width; ++x, pixel += a.pixel_bytes, out += 4)
      store<4>(out, F<4>{red[pixel[a.red]], green[pixel[a.green]], blue[pixel[a.blue]], 0.0f});
    for (int x = width; x < a.padded_width; ++x, out += 4) store<4>(out, F<4>{});
  }
}

void input(Type type, const InputArgs& a, int first_row, int last_row) {
  if (type == kFloat32) input_as<float>(a, first_row, last_row);
  else input_as<bf16>(a, first_row, last_row);
}

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

constexpr int kMaxClasses = 256;
constexpr int kScale = 4;  // pixels for one cell of the scores, on either axis
// The two cells between which a pixel lies, and how near it is to them: corners not aligned.
constexpr int kFirst[kScale] = {-1, -1, 0, 0};
constexpr float kNearFirst[kScale] = {0.375f, 0.125f, 0.875f, 0.625f};

// Some cells of one row of pixels: class ids and confidence of a cell's four pixels in one word.
// `between` holds the class scores, interpolated in rows: (classes, width), from a cell before on.
template <int N>
ALWAYS_INLINE void render_cells(const RenderArgs& a, const float* between, int width, int cell,
                                uint32_t* all_ids, uint32_t* all_confidence, F<N>* sum,
                                I<N>* count) {
  float score[kMaxClasses][N];
  U<N> ids = U<N>{}, confidence = U<N>{};
  for (int px = 0; px < kScale; ++px) {
    F<N> top = splat<N>(-3.0e38f);
    I<N> best = I<N>{};
    for (int k = 0; k < a.classes; ++k) {
      const float* left = between + k * width + kFirst[px] + 1;
      const F<N> x = load<N>(left) * splat<N>(kNearFirst[px]) +
                     load<N>(left + 1) * splat<N>(1.0f - kNearFirst[px]);
      store<N>(score[k], x);
      const I<N> better = x > top;
      top = better ? x : top;
      best = better ? I<N>{} + k : best;
    }
    F<N> total = F<N>{};
    for (int k = 0; k < a.classes; ++k) total += exp_negative<N>(load<N>(score[k]) - top);
    const F<N> probability = splat<N>(1.0f) / total;
    const I<N> inside = (counting<N>() + cell) * kScale + px < a.width;
    *sum += inside ? probability : F<N>{};
    *count -= inside & (probability >= splat<N>(a.threshold));  // true is -1
    const F<N> rounded = probability * splat<N>(255.0f) + splat<N>(12582912.0f);
    ids |= (U<N>)best << (8 * px);
    confidence |= ((U<N>)rounded & 0xff) << (8 * px);
  }
  memcpy(all_ids, &ids, sizeof ids);
  memcpy(all_confidence, &confidence, sizeof confidence);
}

// Sixteen cells of one row, so 64 x 4 pixels.
void render_block(const RenderArgs& a, int row, int block) {
  constexpr int N = kWide, WIDTH = 2 * kRenderBlock;  // 18 are used
  const int first = block * kRenderBlock;
  float plane[3][kMaxClasses][WIDTH], between[kMaxClasses][WIDTH];
  for (int dy = -1; dy <= 1; ++dy) {
    const int y = row + dy < 0 ? 0 : smaller_of(row + dy, a.rows - 1);
    for (int i = 0; i < kRenderBlock + 2; ++i) {
      const int x = first + i - 1 < 0 ? 0 : smaller_of(first + i - 1, a.columns - 1);
      const float* from = cell_of<const float>(a.scores, at(y, x));
      for (int k = 0; k < a.classes; ++k) plane[dy + 1][k][i] = from[k];
    }
  }
  F<N> sum = F<N>{};
  I<N> count = I<N>{};
  for (int py = 0; py < kScale && row * kScale + py < a.height; ++py) {
    const float near = kNearFirst[py];
    for (int k = 0; k < a.classes; ++k) {
      const float *upper = plane[kFirst[py] + 1][k], *under = plane[kFirst[py] + 2][k];
      for (int i = 0; i < kRenderBlock + 2; i += N)
        store<N>(between[k] + i, load<N>(upper + i) * splat<N>(near) +
                                     load<N>(under + i) * splat<N>(1.0f - near));
    }
    uint32_t ids[kRenderBlock], confidence[kRenderBlock];
    for (int i = 0; i < kRenderBlock; i += N)
      render_cells<N>(a, &between[0][i], WIDTH, first + i, ids + i, confidence + i, &sum, &count);
    const int64_t pixel = static_cast<int64_t>(row * kScale + py) * a.width + first * kScale;
    const int bytes = smaller_of(kRenderBlock * kScale, a.width - first * kScale);
    if (bytes > 0) {
      memcpy(a.ids + pixel, ids, bytes);
      memcpy(a.confidence + pixel, confidence, bytes);
    }
  }
  float block_sum = 0.0f;
  int32_t block_count = 0;
  for (int i = 0; i < N; ++i) {
    block_sum += sum[i];
    block_count += count[i];
  }
  const int blocks = (a.columns + kRenderBlock - 1) / kRenderBlock;
  a.block_sum[row * blocks + block] = block_sum;
  a.block_count[row * blocks + block] = block_count;
}

void render(const RenderArgs& a, int first_row, int last_row) {
  const int blocks = (a.columns + kRenderBlock - 1) / kRenderBlock;
  for (int row = first_row; row < last_row; ++row)
    for (int block = 0; block < blocks; ++block) {
      bool changed = a.changed == nullptr;
      const int last = smaller_of((block + 1) * kRenderBlock, a.columns);
      for (int x = block * kRenderBlock; x < last && !changed; ++x)
        changed = a.changed[row * a.columns + x] != 0;
      if (changed) render_block(a, row, block);
    }
}

void gate(const GateArgs& a, int first, int last) {
  constexpr int N = kNarrow;
  const I<N> lanes = counting<N>();
  const F<N> lowest = splat<N>(-3.0e38f);
  for (int i = first; i < last; ++i) {
    const float* scores = cell_of<const float>(a.scores, a.at[i]);
    F<N> tops = lowest;
    for (int k = 0; k < a.classes; k += N)
      tops = larger<N>(tops, lanes + k < a.classes ? load<N>(scores + k) : lowest);
    float top = tops[0];
    for (int k = 1; k < N; ++k) top = tops[k] > top ? tops[k] : top;
    F<N> totals = F<N>{}, weighted = F<N>{};
    for (int k = 0; k < a.classes; k += N) {
      const F<N> below = load<N>(scores + k) - splat<N>(top);
      const F<N> e = lanes + k < a.classes ? exp_negative<N>(larger<N>(
                                                 below < F<N>{} ? below : F<N>{}, lowest))
                                           : F<N>{};
      totals += e;
      weighted += e * (lanes + k < a.classes ? below : F<N>{});
    }
    float total = 0.0f, mean = 0.0f;
    for (int k = 0; k < N; ++k) {
      total += totals[k];
      mean += weighted[k];
    }
    const bool active = a.entropy ? __builtin_logf(total) - mean / total >= a.threshold
                                  : 1.0f / total <= a.threshold;
    a.active[row_of(a.at[i]) * a.columns + column_of(a.at[i])] = active;
  }
}

}  // namespace

const Kernels* ADPC_PASTE(kernels_, ADPC_ISA)() {
  static const Kernels table = {ADPC_QUOTE(ADPC_ISA), packed_bytes, pack, conv, tile, border,
                                resample, input, render, gate};
  return &table;
}

}  // namespace adpc
