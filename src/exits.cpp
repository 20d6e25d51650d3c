// SPDX-License-Identifier: Apache-2.0
// Exits: from class scores to what is published, and to the positions that the next exit computes.
#include <algorithm>
#include <cstring>

#include "plan.h"

using namespace adpc;

void adpc_plan::attribute(const Op& op, int first, int last) {
  int active, needed;
  const Position* positions = positions_of(op, &active, &needed);
  const float inverse = 1.0f / temperatures_[op.spec.exit_index - 1];
  const int level = level_of_scores(), columns = layout_.columns(level);
  float* made = inverse_temperature_[level - kFinest].data();
  if (!jobs_[job_].rescaled) {
    for (; first < last; ++first)
      made[row_of(positions[first]) * columns + column_of(positions[first])] = inverse;
    return;
  }
  // A finer map: what this exit did not compute is that of the coarser cell it lies in.
  const Map* map = map_of(op);
  const uint8_t* computed = map ? map->level(level).is_active.data() : nullptr;
  const float* coarser = inverse_temperature_[level + 1 - kFinest].data();
  for (; first < last; ++first)
    made[first] = !computed || computed[first]
                      ? inverse
                      : coarser[(first / columns / 2) * (columns / 2) + first % columns / 2];
}

void adpc_plan::render(int first, int last) {
  const int level = level_of_scores(), scale = 1 << level;
  RenderArgs args{};
  args.scores = layout_.slot(scores_).view;
  if (calibrated_) args.inverse_temperature = inverse_temperature_[level - kFinest].data();
  args.classes = classes_;
  args.scale = scale;
  args.rows = layout_.rows(level);
  args.columns = layout_.columns(level);
  args.height = frame_.height;
  args.width = frame_.width;
  args.ids = ids_;
  args.confidence = confidence_;
  args.threshold = confident_;
  args.block_sum = block_sum_.data();
  args.block_count = block_count_.data();
  // What did not change is copied. A cell that was computed anew has changed, whatever came out
  // (its temperature is another one), and all around it, as far as it is interpolated. At a
  // finer scale than before all is interpolated anew.
  if (map_ && !map_->full() && previous_ids_ && !jobs_[job_].rescaled) {
    args.changed = map_->level(level).is_needed.data();
    const int64_t pitch = frame_.width;
    const int64_t from = std::min(scale * first, frame_.height) * pitch;
    const int64_t to = std::min(scale * last, frame_.height) * pitch;
    std::memcpy(ids_ + from, previous_ids_ + from, to - from);
    std::memcpy(confidence_ + from, previous_confidence_ + from, to - from);
  }
  kernels_->render(args, first, last);
}

// Whether another exit follows that computes less.
bool adpc_plan::gates(const Op& op) const {
  return op.spec.exit_index < exits_ && frame_.adaptive;
}

void adpc_plan::gate(const Op& op, int first, int last) {
  GateArgs args{};
  const int level = level_of_scores();
  args.scores = layout_.slot(scores_).view;
  args.classes = classes_;
  args.at = map_ ? map_->level(level).at.data() : layout_.all(level).data();
  args.active = active_.data();
  args.columns = layout_.columns(level);
  args.entropy = entropy_;
  args.thresholds = thresholds_.data() + static_cast<size_t>(op.spec.exit_index - 1) * classes_;
  kernels_->gate(args, first, last);
}

void adpc_plan::list(const Op& op, int first, int last) {
  const uint8_t* active =
      frame_.adaptive == 2 ? frame_.active[op.spec.exit_index - 1] : active_.data();
  for (; first < last; ++first) next_map(op).build(active, level_of_scores(), first);
}

void adpc_plan::finish_exit(const Op& op) {
  ++exit_;
  given_ = scores_;
  if (gates(op)) map_ = &next_map(op);
  result_ = {};
  const int level = level_of_scores();
  const int blocks = (layout_.columns(level) + kRenderBlock - 1) / kRenderBlock;
  for (int b = 0; b < layout_.rows(level) * blocks; ++b) {
    result_.confidence_sum += block_sum_[b];
    result_.confident_pixels += block_count_[b];
  }
  for (int i = 0; i < kLevels; ++i) {
    const int level = kFinest + i;
    result_.positions[i] = static_cast<int64_t>(layout_.all(level).size());
    const Map* map = map_ && map_->has(level) ? map_ : nullptr;
    result_.active[i] = map ? map->level(level).active : result_.positions[i];
    result_.needed[i] = map ? static_cast<int64_t>(map->level(level).at.size())
                            : result_.positions[i];
  }
}

void adpc_plan::read_scores(float* scores) const {
  if (given_ < 0) return;
  const Slot& slot = layout_.slot(given_);  // the next one's may be of another size
  const View& view = slot.view;
  const int rows = layout_.rows(slot.level), columns = layout_.columns(slot.level);
  for (int k = 0; k < classes_; ++k)
    for (int y = 0; y < rows; ++y)
      for (int x = 0; x < columns; ++x)
        *scores++ =
            static_cast<const float*>(view.data)[(y * view.pitch + x) * view.stride + k];
}
