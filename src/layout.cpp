// SPDX-License-Identifier: Apache-2.0
#include "layout.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

#include <algorithm>
#include <cstring>
#include <stdexcept>

namespace adpc {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kPage = size_t{2} << 20;  // large pages, if the system gives them
constexpr size_t kEdgeBytes = size_t{2} << 20;  // of a map whose edges are cleared at once

std::vector<float> padded(const float* values, int count) {
  std::vector<float> result(static_cast<size_t>(octets_of(count)) * kOctet, 0.0f);
  if (values) std::copy(values, values + count, result.begin());
  return result;
}

}  // namespace

void Buffer::reserve(size_t bytes) {
  if (bytes <= bytes_) return;
  const size_t unit = bytes >= kPage ? kPage : kAlignment;
  const size_t rounded = (bytes + unit - 1) / unit * unit;
  data_.reset();
  bytes_ = 0;
  data_.reset(std::aligned_alloc(unit, rounded));
  if (!data_) throw std::bad_alloc();
#ifdef __linux__
  if (unit == kPage) madvise(data_.get(), rounded, MADV_HUGEPAGE);
#endif
  bytes_ = rounded;
}

Layout::Layout(const Kernels* kernels, Type type, int classes, int exits, int scores_level,
               int multiple)
    : kernels_(kernels), type_(type), classes_(classes), exits_(exits), multiple_(multiple),
      scores_level_(scores_level) {
  add_slot(3, 1, type);
  slots_[ADPC_IMAGE].level = 0;
  slots_[ADPC_IMAGE].stride = 4;
  slots_[ADPC_IMAGE].written = true;
  add_slot(classes, scores_level, kFloat32);
  slots_[ADPC_SCORES].scores = true;
}

int Layout::add_slot(int channels, int level, Type type) {
  expect_within("channels", channels, 1, kMaxChannels);
  expect_within("level", level, 1, ADPC_MAX_LEVEL);
  expect_within("type", type, kFloat32, kBFloat16);
  Slot slot{};
  slot.channels = channels;
  slot.level = level;
  slot.type = type;
  slot.stride = octets_of(channels) * kOctet;
  slots_.push_back(slot);
  return static_cast<int>(slots_.size()) - 1;
}

void Layout::add_op(const adpc_op& spec) {
  if (!can_compute(spec)) throw std::invalid_argument("operation");
  shared_ = false;
  Op op;
  op.spec = spec;
  Slot& out = slots_[spec.output];
  op.octets = octets_of(out.channels);
  if (spec.kind == ADPC_INVERTED) {
    add_inverted(op);
  } else if (spec.kind == ADPC_RESAMPLE) {
    if (spec.shift) op.bias_and_shift = padded(spec.shift, out.channels);
    op.macs = 4.0 * 9 * spec.source_count * op.octets;
  } else {
    const int out_channels = spec.kind == ADPC_HEAD ? spec.head_channels : out.channels;
    const int taps = spec.kernel * spec.kernel;
    op.octets = octets_of(out_channels);
    Slot& in = slots_[spec.input];
    in.margin = std::max(in.margin, spec.kernel / 2);
    op.in_channels = in.channels;
    op.bias = padded(spec.bias, out_channels);
    op.shift = padded(spec.shift, out_channels);
    op.bias_and_shift = op.bias;
    for (size_t i = 0; i < op.shift.size(); ++i) op.bias_and_shift[i] += op.shift[i];
    if (spec.depthwise) {
      pack_depthwise(op.weight, spec.weight, taps, out_channels);
      op.macs = 4.0 * taps * op.octets * kOctet;  // of the time: it waits for memory
    } else {
      pack(op.weight, spec.weight, taps, out_channels, op.in_channels);
      op.macs = static_cast<double>(taps) * op.in_channels * op.octets * kOctet;
      if (spec.kind == ADPC_CONV && spec.kernel == 3 && spec.stride == 1 &&
          in.type == kFloat32 && in.stride % kOctet == 0)
        pack_winograd(op, spec.weight);
    }
    if (spec.kind == ADPC_HEAD) {
      pack(op.head_weight, spec.head_weight, 1, classes_, out_channels);
      op.head_bias = padded(spec.head_bias, classes_);
      op.macs += static_cast<double>(out_channels) * (12 + octets_of(classes_) * kOctet);
    }
    if (spec.reach > 0) {
      reach_ = std::max(reach_, spec.reach);
      op.given_window.assign(
          spec.window, spec.window + static_cast<size_t>(spec.window_edge) * spec.window_edge);
    }
  }
  op.spec.weight = op.spec.bias = op.spec.shift = op.spec.window = nullptr;  // the caller's
  op.spec.head_weight = op.spec.head_bias = op.spec.expand_weight = op.spec.expand_bias = nullptr;
  steps_ = std::max(steps_, spec.step + 1);
  if (spec.masked || spec.gives_exit)
    masked_levels_ = std::max(masked_levels_, out.level - kFinest + 1);
  ops_.push_back(std::move(op));
  out.written = true;
  if (spec.gives_exit) {
    out.scores = true;
    scores_level_ = out.level;
    last_exit_ = spec.exit_index;
  }
}

void Layout::add_inverted(Op& op) {
  const adpc_op& spec = op.spec;
  const int inner = spec.head_channels, taps = spec.kernel * spec.kernel;
  const int out = slots_[spec.output].channels;
  op.in_channels = slots_[spec.input].channels;
  if (!spec.expand_weight) {
    int& margin = slots_[spec.input].margin;
    margin = std::max(margin, spec.kernel / 2);
  }
  op.bias = padded(spec.bias, inner);
  op.head_bias = padded(spec.head_bias, out);
  if (spec.expand_weight) op.expand_bias = padded(spec.expand_bias, inner);
  for (int first = 0; first < octets_of(inner); first += kGroupOctets) {
    Group group;
    group.first = first;
    group.octets = std::min(kGroupOctets, octets_of(inner) - first);
    const int channel = first * kOctet, count = std::min(group.octets * kOctet, inner - channel);
    if (spec.expand_weight)
      pack(group.expand, spec.expand_weight + static_cast<size_t>(channel) * op.in_channels, 1,
           count, op.in_channels);
    pack_depthwise(group.depthwise, spec.weight + static_cast<size_t>(channel) * taps, taps,
                   count);
    std::vector<float> part(static_cast<size_t>(out) * count);
    for (int o = 0; o < out; ++o)
      std::copy_n(spec.head_weight + static_cast<size_t>(o) * inner + channel, count,
                  part.data() + static_cast<size_t>(o) * count);
    pack(group.project, part.data(), 1, out, count);
    op.groups.push_back(std::move(group));
  }
}

void Layout::pack(Buffer& to, const float* weight, int taps, int out, int in) {
  to.reserve(kernels_->packed_bytes(type_, taps, in, octets_of(out)));
  kernels_->pack(type_, weight, taps, out, in, to.data());
}

void Layout::pack_winograd(Op& op, const float* weight) {
  op.tile_cost = kernels_->tile_cost(octets_of(op.in_channels), op.octets);
  if (op.tile_cost >= 4.0) op.tile_cost = 0.0;  // not even where all four are computed
  if (op.tile_cost == 0.0) return;
  const int out = slots_[op.spec.output].channels;
  std::vector<float> scratch(static_cast<size_t>(out) * op.in_channels);
  op.winograd.reserve(kernels_->winograd_bytes(op.in_channels, op.octets));
  kernels_->winograd_pack(weight, out, op.in_channels, scratch.data(), op.winograd.data());
}

void Layout::pack_depthwise(Buffer& to, const float* weight, int taps, int channels) {
  const size_t width = static_cast<size_t>(octets_of(channels)) * kOctet;
  to.reserve(taps * width * sizeof(float));
  float* packed = reinterpret_cast<float*>(to.data());
  std::fill(packed, packed + taps * width, 0.0f);
  for (int tap = 0; tap < taps; ++tap)
    for (int c = 0; c < channels; ++c) packed[tap * width + c] = weight[c * taps + tap];
}

// Slots that are never needed at the same time share a buffer, if it has the same geometry, so
// that the zeros around the map stay.
void Layout::share_buffers() {
  const int count = static_cast<int>(ops_.size());
  std::vector<int> last(slots_.size(), -1);
  for (int i = 0; i < count; ++i) {
    for_inputs(ops_[i].spec, [&](int slot) { last[slot] = i; });
  }
  buffers_.clear();
  for (Slot& slot : slots_) slot.buffer = -1;
  auto same = [&](int buffer, const Slot& slot) {
    const Slot& shape = slots_[buffers_[buffer]];
    return shape.level == slot.level && shape.type == slot.type && shape.stride == slot.stride &&
           shape.margin == slot.margin;
  };
  std::vector<int> free;
  auto take = [&](int index) {
    Slot& slot = slots_[index];
    for (size_t i = 0; i < free.size(); ++i)
      if (same(free[i], slot)) {
        slot.buffer = free[i];
        free.erase(free.begin() + static_cast<int64_t>(i));
        return;
      }
    slot.buffer = static_cast<int>(buffers_.size());
    buffers_.push_back(index);
  };
  for (int i = 0; i < static_cast<int>(slots_.size()); ++i)
    if (i == ADPC_IMAGE || slots_[i].scores) take(i);
  for (int i = 0; i < count; ++i) {
    const adpc_op& spec = ops_[i].spec;
    // What is also the input is read after it has been written; an inverted residual, too, reads
    // its input around a cell that it has written already.
    const int residual = spec.kind == ADPC_CONV ? spec.residual : -1;
    const bool in_place = residual >= 0 && residual != spec.input && last[residual] == i &&
                          !slots_[residual].scores &&
                          slots_[residual].margin == slots_[spec.output].margin;
    if (!slots_[spec.output].scores) {
      if (in_place) slots_[spec.output].buffer = slots_[residual].buffer;
      else take(spec.output);
    }
    for_inputs(spec, [&](int slot) {
      if (last[slot] != i || slots_[slot].scores || (in_place && slot == residual)) return;
      if (std::find(free.begin(), free.end(), slots_[slot].buffer) == free.end())
        free.push_back(slots_[slot].buffer);
    });
  }
  for (Op& op : ops_) widen_window(op);
  shared_ = true;
  height_ = width_ = 0;
}

void Layout::widen_window(Op& op) const {
  if (op.given_window.empty()) return;
  const int edge = 2 * reach_ + 1, given = op.spec.window_edge, margin = (edge - given) / 2;
  op.window.assign(static_cast<size_t>(edge) * edge, 0.0f);
  for (int y = 0; y < given; ++y)
    for (int x = 0; x < given; ++x)
      if (y + margin >= 0 && y + margin < edge && x + margin >= 0 && x + margin < edge)
        op.window[(y + margin) * edge + x + margin] = op.given_window[y * given + x];
}

void Layout::resize(int height, int width, int threads) {
  if (!shared_) share_buffers();
  if (height == height_ && width == width_) return;
  height_ = width_ = 0;  // should memory be missing, the next frame tries again
  place_slots(height, width);
  place_scratch(height, width, threads);
  for (int level = 1; level <= ADPC_MAX_LEVEL; ++level) {
    auto& positions = all_[level];
    const int rows = cells_of(height, level), columns = cells_of(width, level);
    positions.clear();
    positions.reserve(static_cast<size_t>(rows) * columns);
    for (int y = 0; y < rows; ++y)
      for (int x = 0; x < columns; ++x) positions.push_back(at(y, x));
  }
  for (Op& op : ops_) {
    if (op.spec.kind == ADPC_CONV || op.spec.kind == ADPC_INVERTED) continue;
    const int level = slots_[op.spec.output].level;
    for (int s = 0; s < op.spec.source_count; ++s) {
      const int source = slots_[op.spec.sources[s]].level;
      const bool pooled = op.spec.pooled != 0;
      int taps = 1;
      for (int pass = 0; pass < 2; ++pass) {  // once the wider axis is known
        op.rows[s] = AxisTable(cells_of(height, source), cells_of(height, level), pooled, taps);
        op.columns[s] = AxisTable(cells_of(width, source), cells_of(width, level), pooled, taps);
        taps = std::max(op.rows[s].taps(), op.columns[s].taps());
      }
    }
  }
  height_ = height;
  width_ = width;
}

int64_t Layout::bytes_for(int height, int width) {
  if (!shared_) share_buffers();
  size_t bytes = donor_bytes(height, width);
  for (int index : buffers_) bytes += slot_bytes(slots_[index], height, width);
  return static_cast<int64_t>(bytes);
}

size_t Layout::slot_bytes(const Slot& slot, int height, int width) {
  const size_t cells = static_cast<size_t>(cells_of(height, slot.level) + 2 * slot.margin) *
                       (cells_of(width, slot.level) + 2 * slot.margin);
  const size_t size = cells * slot.stride * size_of(slot.type);
  return (size + kAlignment - 1) / kAlignment * kAlignment;
}

size_t Layout::donor_bytes(int height, int width) const {
  size_t bytes = kAlignment;
  for (const Op& op : ops_) {
    const int level = slots_[op.spec.output].level;
    if (op.spec.kind == ADPC_CONV && op.spec.masked && op.spec.reach > 0)
      bytes = std::max(bytes, static_cast<size_t>(cells_of(height, level)) *
                                  cells_of(width, level) * op.octets * kOctet * sizeof(float));
  }
  return bytes;
}

void Layout::place_slots(int height, int width) {
  std::vector<size_t> offsets;
  size_t bytes = 0;
  for (int index : buffers_) {
    offsets.push_back(bytes);
    bytes += slot_bytes(slots_[index], height, width);
  }
  arena_.reserve(bytes);
  for (Slot& slot : slots_) {
    slot.view = {};
    if (slot.buffer < 0) continue;
    const int64_t pitch = cells_of(width, slot.level) + 2 * slot.margin;
    char* base = arena_.data() + offsets[slot.buffer];
    slot.view = {base + slot.margin * (pitch + 1) * slot.stride * size_of(slot.type), pitch,
                 slot.stride};
  }
}

int Layout::edge_rows(int buffer) const {
  const Slot& slot = slots_[buffers_[buffer]];
  return cells_of(height_, slot.level) + 2 * slot.margin;
}

int Layout::edge_grain(int buffer) const {
  const Slot& slot = slots_[buffers_[buffer]];
  const size_t row = static_cast<size_t>(slot.view.pitch) * slot.stride * size_of(slot.type);
  return static_cast<int>(std::max<size_t>(1, kEdgeBytes / row));
}

// New memory is mapped as it is touched: here, by all threads, rather than by who computes first.
void Layout::clear_edges(int buffer, int first, int last) {
  const Slot& slot = slots_[buffers_[buffer]];
  const int rows = cells_of(height_, slot.level), margin = slot.margin;
  const size_t cell = slot.stride * size_of(slot.type), side = margin * cell;
  const size_t row = static_cast<size_t>(slot.view.pitch) * cell;
  char* start = static_cast<char*>(slot.view.data) - margin * row - side;
  for (; first < last; ++first) {
    char* here = start + first * row;
    if (first < margin || first >= margin + rows) {
      std::memset(here, 0, row);
    } else {
      std::memset(here, 0, side);
      std::memset(here + row - side, 0, side);
    }
  }
}

void Layout::place_scratch(int height, int width, int threads) {
  int hidden = 0;
  band_floats_ = transformed_floats_ = 0;
  for (Op& op : ops_) {
    if (op.tile_cost > 0.0)
      transformed_floats_ =
          std::max(transformed_floats_, kernels_->winograd_floats(octets_of(op.in_channels)) +
                                            kernels_->winograd_floats(op.octets));
    if (op.spec.kind == ADPC_INVERTED) {
      const int pitch = cells_of(width, slots_[op.spec.input].level) + op.spec.kernel - 1;
      const size_t row = static_cast<size_t>(pitch) * kGroupOctets * kOctet;
      const int fit = static_cast<int>(kBandBytes / (row * sizeof(float)));
      op.band_rows = std::max(1, (fit - op.spec.kernel) / op.spec.stride + 1);
      const int read = (op.band_rows - 1) * op.spec.stride + op.spec.kernel;
      band_floats_ = std::max(band_floats_, row * (read + op.band_rows));
    }
    if (op.spec.kind == ADPC_HEAD) hidden = std::max(hidden, op.octets * kOctet);
  }
  donors_.reserve(donor_bytes(height, width));
  bands_.reserve(std::max(band_floats_ * sizeof(float) * threads, kAlignment));
  transformed_.reserve(std::max(transformed_floats_ * sizeof(float) * threads, kAlignment));
  hidden_.reserve(std::max<size_t>(
      kAlignment, size_of(type_) * hidden * kHeadTile * static_cast<size_t>(threads)));
}

void Layout::poison() {
  for (const Buffer* scratch : {&donors_, &hidden_, &bands_, &transformed_})
    std::fill_n(scratch->data(), scratch->bytes(), '\xff');  // not a number in either type
  for (const Slot& slot : slots_) {
    if (!slot.view.data) continue;
    const int rows = cells_of(height_, slot.level), columns = cells_of(width_, slot.level);
    for (int y = 0; y < rows; ++y) {
      char* row = static_cast<char*>(slot.view.data) +
                  y * slot.view.pitch * slot.view.stride * size_of(slot.type);
      const int64_t values = columns * slot.view.stride;
      for (int64_t i = 0; i < values; ++i) {  // a large number: 1e30 in either type
        if (slot.type == kFloat32) reinterpret_cast<float*>(row)[i] = 1e30f;
        else reinterpret_cast<uint16_t*>(row)[i] = 0x7149;
      }
    }
  }
}

int64_t Layout::bytes() const {
  size_t total = 0;
  for (const Buffer* buffer : {&arena_, &donors_, &hidden_, &bands_, &transformed_})
    total += buffer->bytes();
  for (const Op& op : ops_) {
    total += op.weight.bytes() + op.head_weight.bytes() + op.winograd.bytes();
    for (const Group& group : op.groups)
      total += group.expand.bytes() + group.depthwise.bytes() + group.project.bytes();
  }
  for (const auto& positions : all_)
    total += positions.capacity() * sizeof(Position);
  return static_cast<int64_t>(total);
}

}  // namespace adpc
