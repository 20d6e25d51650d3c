// SPDX-License-Identifier: Apache-2.0
// Both ends of the network: the image, and what becomes of class scores.
#pragma once

#include "vectors.h"

namespace adpc {
namespace {

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

// The two cells between which a pixel lies, and how near it is to them: corners not aligned.
template <int SCALE>
constexpr int first_of(int pixel) {
  return pixel < SCALE / 2 ? -1 : 0;
}
template <int SCALE>
constexpr float near_first(int pixel) {
  return 1.0f - ((static_cast<float>(pixel) + 0.5f) / SCALE - 0.5f - first_of<SCALE>(pixel));
}

template <int N, int SCALE>
ALWAYS_INLINE F<N> at_pixel(const float* between, int px) {
  const float* left = between + first_of<SCALE>(px) + 1;
  return load<N>(left) * splat<N>(near_first<SCALE>(px)) +
         load<N>(left + 1) * splat<N>(1.0f - near_first<SCALE>(px));
}

// 2^x for x <= 0, to 4e-6 of it, which is far below a step of the published confidence; exactly 1
// for 0.
template <int N>
ALWAYS_INLINE F<N> power_of_two(F<N> x) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to whole numbers
  const F<N> clamped = larger<N>(x, splat<N>(-126.0f));
  const F<N> shifted = clamped + splat<N>(kRound);
  const F<N> r = clamped - (shifted - splat<N>(kRound));
  F<N> p = splat<N>(9.58284565e-3f) * r + splat<N>(5.59064442e-2f);  // fitted, with p(0) = 1
  p = p * r + splat<N>(2.40240988e-1f);
  p = p * r + splat<N>(6.93124191e-1f);
  p = p * r + splat<N>(1.0f);
  return (F<N>)((I<N>)p + ((I<N>)shifted << 23));
}

// Some cells of one row of pixels: class ids and confidence of four pixels, from `pixel` on, of
// each cell in one word. `between` holds the class scores, interpolated in rows: (classes, width),
// from a cell before on; and then the inverse temperature, if there is one.
template <int N, int SCALE>
ALWAYS_INLINE void render_cells(const RenderArgs& a, const float* between, int width, int cell,
                                int pixel, uint32_t* all_ids, uint32_t* all_confidence,
                                F<N>* sum, I<N>* count) {
  float score[kMaxClasses][4][N];
  F<N> top[4];
  I<N> best[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    top[i] = splat<N>(-__builtin_inff());
    best[i] = I<N>{};
  }
  for (int k = 0; k < a.classes; ++k) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const F<N> x = at_pixel<N, SCALE>(between + k * width, pixel + i);
      store<N>(score[k][i], x);
      best[i] = x > top[i] ? I<N>{} + k : best[i];
      top[i] = larger<N>(x, top[i]);
    }
  }
  U<N> ids = U<N>{}, confidence = U<N>{};
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const int px = pixel + i;
    F<N> scale = splat<N>(1.44269504f), total = F<N>{};  // of the exponents, to base 2
    if (a.inverse_temperature) scale *= at_pixel<N, SCALE>(between + a.classes * width, px);
    for (int k = 0; k < a.classes; ++k)
      total += power_of_two<N>((load<N>(score[k][i]) - top[i]) * scale);
    const F<N> probability = splat<N>(1.0f) / total;
    const I<N> inside = (counting<N>() + cell) * SCALE + px < a.width;
    *sum += inside ? probability : F<N>{};
    *count -= inside & (probability >= splat<N>(a.threshold));  // true is -1
    const F<N> rounded = probability * splat<N>(255.0f) + splat<N>(12582912.0f);
    ids |= (U<N>)best[i] << (8 * i);
    confidence |= ((U<N>)rounded & 0xff) << (8 * i);
  }
  constexpr int words = SCALE / 4;
  for (int i = 0; i < N; ++i) {
    all_ids[i * words] = ids[i];
    all_confidence[i * words] = confidence[i];
  }
}

// Tells whether all scores of sixteen cells are finite: what is rendered would not show it. (Padding
// channels are 0, or they are not finite where what they were computed from is not.)
ALWAYS_INLINE bool all_finite(const RenderArgs& a, int row, int first) {
  constexpr int N = kNarrow;
  const int last = smaller_of(first + kRenderBlock, a.columns);
  I<N> strange = I<N>{};
  for (int x = first; x < last; ++x) {
    const float* from = cell_of<const float>(a.scores, at(row, x));
    for (int k = 0; k < a.classes; k += N)
      strange |= load<N>(from + k) * splat<N>(0.0f) != F<N>{};
  }
  int any = 0;
  for (int i = 0; i < N; ++i) any |= strange[i];
  return any == 0;
}

// Sixteen cells of one row.
template <int SCALE>
void render_block(const RenderArgs& a, int row, int block) {
  constexpr int N = kWide, WIDTH = 2 * kRenderBlock, WORDS = SCALE / 4;  // 18 are used
  const int first = block * kRenderBlock;
  const int planes = a.classes + (a.inverse_temperature ? 1 : 0);
  float plane[3][kMaxClasses + 1][WIDTH], between[kMaxClasses + 1][WIDTH];
  for (int dy = -1; dy <= 1; ++dy) {
    const int y = row + dy < 0 ? 0 : smaller_of(row + dy, a.rows - 1);
    for (int i = 0; i < kRenderBlock + 2; ++i) {
      const int x = first + i - 1 < 0 ? 0 : smaller_of(first + i - 1, a.columns - 1);
      const float* from = cell_of<const float>(a.scores, at(y, x));
      for (int k = 0; k < a.classes; ++k) plane[dy + 1][k][i] = from[k];
      if (a.inverse_temperature)
        plane[dy + 1][a.classes][i] = a.inverse_temperature[y * a.columns + x];
    }
  }
  F<N> sum = F<N>{};
  I<N> count = I<N>{};
  for (int py = 0; py < SCALE && row * SCALE + py < a.height; ++py) {
    const float near = near_first<SCALE>(py);
    for (int k = 0; k < planes; ++k) {
      const float *upper = plane[first_of<SCALE>(py) + 1][k];
      const float* under = plane[first_of<SCALE>(py) + 2][k];
      for (int i = 0; i < kRenderBlock + 2; i += N)
        store<N>(between[k] + i, load<N>(upper + i) * splat<N>(near) +
                                     load<N>(under + i) * splat<N>(1.0f - near));
    }
    uint32_t ids[kRenderBlock * WORDS], confidence[kRenderBlock * WORDS];
    for (int i = 0; i < kRenderBlock; i += N)
      for (int word = 0; word < WORDS; ++word)
        render_cells<N, SCALE>(a, &between[0][i], WIDTH, first + i, 4 * word,
                               ids + i * WORDS + word, confidence + i * WORDS + word, &sum,
                               &count);
    const int64_t pixel = static_cast<int64_t>(row * SCALE + py) * a.width + first * SCALE;
    const int bytes = smaller_of(kRenderBlock * SCALE, a.width - first * SCALE);
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
  a.block_sum[row * blocks + block] = all_finite(a, row, first) ? block_sum : __builtin_nanf("");
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
      if (!changed) continue;
      if (a.scale == 4) render_block<4>(a, row, block);
      else render_block<8>(a, row, block);
    }
}

void gate(const GateArgs& a, int first, int last) {
  constexpr int N = kNarrow;
  const I<N> lanes = counting<N>();
  const F<N> lowest = splat<N>(-__builtin_inff());
  for (int i = first; i < last; ++i) {
    const float* scores = cell_of<const float>(a.scores, a.at[i]);
    F<N> tops = lowest;
    for (int k = 0; k < a.classes; k += N)
      tops = larger<N>(tops, lanes + k < a.classes ? load<N>(scores + k) : lowest);
    float top = tops[0];
    for (int k = 1; k < N; ++k) top = tops[k] > top ? tops[k] : top;
    int best = 0;
    while (best + 1 < a.classes && scores[best] != top) ++best;
    const float threshold = a.thresholds[best];
    F<N> totals = F<N>{}, weighted = F<N>{};
    for (int k = 0; k < a.classes; k += N) {
      F<N> below = load<N>(scores + k) - splat<N>(top);
      below = larger<N>(below < F<N>{} ? below : F<N>{}, splat<N>(-3.0e38f));  // finite, too
      const F<N> e = lanes + k < a.classes ? exp_negative<N>(below) : F<N>{};
      totals += e;
      weighted += e * below;
    }
    float total = 0.0f, mean = 0.0f;
    for (int k = 0; k < N; ++k) {
      total += totals[k];
      mean += weighted[k];
    }
    const bool active = a.entropy ? __builtin_logf(total) - mean / total >= threshold
                                  : 1.0f / total <= threshold;
    a.active[row_of(a.at[i]) * a.columns + column_of(a.at[i])] = active;
  }
}

}  // namespace
}  // namespace adpc
