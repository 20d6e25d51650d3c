// What can be computed: everything else is refused, so that no kernel reads or writes beyond what
// it was given.
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
  if (op.gives_exit &&
      (out.type != kFloat32 || out.channels != classes_ || out.level > scores_level_))
    return false;
  if (op.masked && out.level >= kFinest + kLevels) return false;
  if (op.kind == ADPC_CONV || op.kind == ADPC_INVERTED) return can_convolve(op);
  return (op.kind == ADPC_HEAD ? can_convolve(op) : op.source_count > 0) && can_resample(op);
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
  if (op.reach > 0 && (!op.window || !within(op.window_edge, 1, 2 * kMaxReach + 1) || op.needed))
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
