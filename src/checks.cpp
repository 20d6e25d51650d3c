// SPDX-License-Identifier: Apache-2.0
// What can be computed: everything else is refused, so that no kernel reads or writes beyond what
// it was given.
#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

#include "layout.h"

namespace adpc {
namespace {

bool within(int value, int low, int high) { return value >= low && value <= high; }

}  // namespace

void expect_within(const char* name, int value, int low, int high) {
  if (!within(value, low, high))
    throw std::invalid_argument("expected " + std::string(name) + " from " + std::to_string(low) +
                                " to " + std::to_string(high) + ", got " + std::to_string(value));
}

void expect_numbers(const char* name, const float* values, int count) {
  const auto is_nan = [](float value) { return std::isnan(value); };
  if (count > 0 && (!values || std::any_of(values, values + count, is_nan)))
    throw std::invalid_argument("expected " + std::string(name) + ", got none or NaN");
}

bool Layout::can_compute(const adpc_op& op) const {
  const int count = static_cast<int>(slots_.size());
  if (!within(op.kind, ADPC_CONV, ADPC_INVERTED) || !within(op.exit_index, 1, exits_) ||
      !within(op.step, 0, kMaxSteps) || !within(op.source_count, 0, ADPC_MAX_SOURCES) ||
      !within(op.output, ADPC_SCORES, count - 1))
    return false;
  const Slot& out = slots_[op.output];
  if (out.written && !op.gives_exit) return false;  // what was there may still be read
  bool readable = true;
  for_inputs(op, [&](int slot) {
    readable = readable && within(slot, 0, count - 1) && slot != op.output &&
               slots_[slot].written;
  });
  if (!readable) return false;
  if ((op.gives_exit || op.masked) && (out.level < kFinest || multiple_ % (1 << out.level)))
    return false;
  if (op.gives_exit && !can_give_exit(op)) return false;
  if (op.masked && out.level >= kFinest + kLevels) return false;
  if (op.kind == ADPC_CONV || op.kind == ADPC_INVERTED) return can_convolve(op);
  return (op.kind == ADPC_HEAD ? can_convolve(op) : op.source_count > 0) && can_resample(op);
}

// Exits come in order. What an exit is given in was an exit's before, or was made to carry its
// scores over and for nothing else: that is left out where nothing is masked.
bool Layout::can_give_exit(const adpc_op& op) const {
  const Slot& out = slots_[op.output];
  if (out.type != kFloat32 || out.channels != classes_ || out.level > scores_level_ ||
      op.exit_index <= last_exit_)
    return false;
  bool free = true;
  for (const Op& other : ops_) {
    if (out.scores || !out.written) break;
    const adpc_op& spec = other.spec;
    if (spec.output == op.output)
      free = free && spec.kind == ADPC_RESAMPLE && spec.source_count == 1 &&
             slots_[spec.sources[0]].scores;
    for_inputs(spec, [&](int slot) { free = free && slot != op.output; });
  }
  return free;
}

void Layout::expect_nested(const adpc_frame& frame) const {
  const uint8_t* before = nullptr;
  int coarser = 0;
  for (const Op& op : ops_) {
    if (!op.spec.gives_exit || op.spec.exit_index >= exits_) continue;
    const int level = slots_[op.spec.output].level;
    const int height = rows(level), width = columns(level), finer = before ? coarser - level : 0;
    const uint8_t* active = frame.active[op.spec.exit_index - 1];
    for (int y = 0; y < height && before; ++y)
      for (int x = 0; x < width; ++x)
        if (active[y * width + x] && !before[(y >> finer) * (width >> finer) + (x >> finer)])
          throw std::invalid_argument("expected active maps, each within the one before");
    before = active;
    coarser = level;
  }
}

bool Layout::can_convolve(const adpc_op& op) const {
  const Slot &in = slots_[op.input], &out = slots_[op.output];
  const bool head = op.kind == ADPC_HEAD, inverted = op.kind == ADPC_INVERTED;
  if (!op.weight || in.type != type_ || !within(op.kernel, 1, kMaxKernel) ||
      !within(out.level, in.level, ADPC_MAX_LEVEL) || op.stride != 1 << (out.level - in.level))
    return false;
  if (out.type != type_ && out.type != kFloat32) return false;
  if (!head && op.residual >= 0) {
    const Slot& residual = slots_[op.residual];
    if (residual.level != out.level || residual.type != out.type ||
        residual.channels != out.channels || residual.stride != out.stride)
      return false;
  }
  if (op.masked && op.kernel > 3) return false;
  if (!within(op.reach, 0, kMaxReach)) return false;
  if (op.reach > 0 && (!op.window || !within(op.window_edge, 1, 2 * kMaxReach + 1) ||
                       op.window_edge % 2 == 0 || op.needed))
    return false;
  if ((head || inverted) && (!op.head_weight || !within(op.head_channels, 1, kMaxChannels)))
    return false;
  if (head)
    return !op.depthwise && op.stride == 1 && out.type == kFloat32 && out.channels == classes_;
  if (!inverted && !op.depthwise) return true;
  const bool whole = in.stride % kOctet == 0;  // not the image
  if (op.masked || (op.kernel != 3 && op.kernel != 5)) return false;
  if (inverted)
    return type_ == kFloat32 && in.level > 0 &&
           (op.expand_weight || (whole && op.head_channels == in.channels));
  return whole && op.residual < 0 && out.type == type_ && in.channels == out.channels;
}

bool Layout::can_resample(const adpc_op& op) const {
  const Slot& out = slots_[op.output];
  const bool head = op.kind == ADPC_HEAD;
  const int octets = octets_of(head ? op.head_channels : out.channels);
  int total = 0;
  for (int s = 0; s < op.source_count; ++s) {
    const Slot& source = slots_[op.sources[s]];
    const int own = octets_of(source.channels);
    total += own;
    if (source.type != (head ? type_ : out.type) || source.stride % kOctet ||
        source.level < out.level - (op.pooled ? 1 : 0) || (!op.concatenate && own != octets))
      return false;
  }
  return !op.concatenate || (!head && total == octets);
}

}  // namespace adpc
