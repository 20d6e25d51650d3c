// SPDX-License-Identifier: Apache-2.0
// What a network is made of, and where its features lie in memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "adpc.h"
#include "kernels.h"
#include "maps.h"

namespace adpc {

constexpr int kHeadTile = 48;  // positions whose hidden channels of a head are held at once
constexpr int kGroupOctets = 6;  // channels of an inverted residual that are computed at once
constexpr size_t kBandBytes = size_t{320} << 10;  // for these, so that they stay in the cache

constexpr int kMaxChannels = 1 << 16, kMaxKernel = 7, kMaxSteps = 1 << 16;
constexpr int kMaxThreads = 4096;

inline int octets_of(int channels) { return (channels + kOctet - 1) / kOctet; }
inline size_t size_of(Type type) { return type == kFloat32 ? 4 : 2; }

// Memory that is aligned and grows only.
class Buffer {
 public:
  void reserve(size_t bytes);
  char* data() const { return static_cast<char*>(data_.get()); }
  size_t bytes() const { return bytes_; }

 private:
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  std::unique_ptr<void, Free> data_;
  size_t bytes_ = 0;
};

// A feature map.
struct Slot {
  int channels, level;
  Type type;
  int stride;         // elements from cell to cell
  int margin = 1;     // cells of zeros around the map
  bool scores = false;  // keeps its values from operation to operation
  bool written = false;
  View view;            // none if nobody writes it
  int buffer = -1;      // of those with the same geometry
};

// Some of the channels within an inverted residual: octets from `first` on, and their weights.
struct Group {
  int first, octets;
  Buffer expand, depthwise, project;
};

// An operation as it was added, with its weights packed.
struct Op {
  adpc_op spec;
  std::vector<float> bias_and_shift, bias, shift, head_bias, expand_bias;
  std::vector<float> given_window, window;  // the latter as wide as the network's widest
  Buffer weight, head_weight;
  Buffer winograd;         // the same weights, transformed; empty where that never is faster
  double tile_cost = 0.0;  // time of a 2x2 tile by Winograd, that of a position by itself being 1
  int in_channels = 0, octets = 0;
  double macs = 0.0;                        // for one position
  AxisTable rows[ADPC_MAX_SOURCES], columns[ADPC_MAX_SOURCES];
  std::vector<Group> groups;  // INVERTED
  int band_rows = 0;          // of its output
};

// Calls for each slot that an operation reads.
template <class Each>
void for_inputs(const adpc_op& spec, Each each) {
  if (spec.kind != ADPC_RESAMPLE) each(spec.input);
  const bool convolves = spec.kind == ADPC_CONV || spec.kind == ADPC_INVERTED;
  if (convolves && spec.residual >= 0) each(spec.residual);
  if (!convolves)
    for (int s = 0; s < spec.source_count; ++s) each(spec.sources[s]);
}

// Throws std::invalid_argument, with what was expected and what came.
void expect_within(const char* name, int value, int low, int high);
// And this where one of them is NaN, or there are none.
void expect_numbers(const char* name, const float* values, int count);

class Layout {
 public:
  // multiple: of the images' sizes, in pixels.
  Layout(const Kernels* kernels, Type type, int classes, int exits, int scores_level,
         int multiple);

  // Both throw std::invalid_argument for what cannot be computed.
  int add_slot(int channels, int level, Type type);
  void add_op(const adpc_op& spec);
  // Gives every slot its place for padded images of this size, and as many threads.
  void resize(int height, int width, int threads);
  // Buffers of features: zeros around the maps, row by row, with so many rows to a chunk.
  int buffers() const { return static_cast<int>(buffers_.size()); }
  int edge_rows(int buffer) const;
  int edge_grain(int buffer) const;
  void clear_edges(int buffer, int first, int last);
  // Throws std::invalid_argument for active maps that are not each within the one before.
  void expect_nested(const adpc_frame& frame) const;
  // Overwrites all features with nonsense.
  void poison();
  int64_t bytes() const;
  // Bytes of the features of padded images of a size.
  int64_t bytes_for(int height, int width);

  const std::vector<Op>& ops() const { return ops_; }
  const Slot& slot(int index) const { return slots_[index]; }
  int steps() const { return steps_; }
  int reach() const { return reach_; }  // of the widest interpolation
  int masked_levels() const { return masked_levels_; }  // from the finest on
  // Cells of a level of the padded image.
  int rows(int level) const { return cells_of(height_, level); }
  int columns(int level) const { return cells_of(width_, level); }
  int height() const { return height_; }
  int width() const { return width_; }
  // All positions of a level, from 1.
  const std::vector<Position>& all(int level) const { return all_[level]; }
  float* donors() const { return reinterpret_cast<float*>(donors_.data()); }
  // A thread's hidden channels, kHeadTile cells of `channels` each.
  char* hidden(int channels, int thread) const {
    return hidden_.data() + size_of(type_) * channels * kHeadTile * static_cast<size_t>(thread);
  }

  // A thread's tiles, before and after Winograd's products.
  float* transformed(int thread) const {
    return reinterpret_cast<float*>(transformed_.data()) +
           transformed_floats_ * static_cast<size_t>(thread);
  }
  // A thread's channels within an inverted residual: kBandBytes or more of cells of a group
  // before, then after the depthwise convolution.
  float* band(int thread) const {
    return reinterpret_cast<float*>(bands_.data()) + band_floats_ * static_cast<size_t>(thread);
  }

 private:
  bool can_compute(const adpc_op& spec) const;
  bool can_give_exit(const adpc_op& spec) const;
  bool can_convolve(const adpc_op& spec) const;
  bool can_resample(const adpc_op& spec) const;
  void add_inverted(Op& op);
  void pack(Buffer& to, const float* weight, int taps, int out, int in);
  void pack_winograd(Op& op, const float* weight);
  void pack_depthwise(Buffer& to, const float* weight, int taps, int channels);
  void share_buffers();
  void widen_window(Op& op) const;
  static size_t slot_bytes(const Slot& slot, int height, int width);
  size_t donor_bytes(int height, int width) const;
  void place_slots(int height, int width);
  void place_scratch(int height, int width, int threads);

  const Kernels* kernels_;
  const Type type_;
  const int classes_, exits_, multiple_;
  std::vector<Slot> slots_;
  std::vector<Op> ops_;
  int reach_ = 0, steps_ = 0, masked_levels_ = 1, scores_level_, last_exit_ = 0;
  bool shared_ = false;
  std::vector<int> buffers_;  // of each a slot that has its geometry

  int height_ = 0, width_ = 0;
  Buffer arena_, donors_, hidden_, bands_, transformed_;
  size_t band_floats_ = 0, transformed_floats_ = 0;
  std::vector<Position> all_[ADPC_MAX_LEVEL + 1];
};

}  // namespace adpc
