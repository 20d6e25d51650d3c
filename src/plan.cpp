#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

#include "adpc.h"
#include "kernels.h"
#include "layout.h"
#include "maps.h"
#include "threads.h"

namespace adpc {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kMapBytes = 48;  // at most, of an active map for a cell of 1/4

std::vector<const Kernels*> available() {
  std::vector<const Kernels*> sets;
#ifdef ADPC_X86
  __builtin_cpu_init();
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("fma");
  if (avx512 && __builtin_cpu_supports("avx512bf16")) sets.push_back(kernels_avx512_bf16());
  if (avx512) sets.push_back(kernels_avx512());
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    sets.push_back(kernels_avx2());
#endif
  sets.push_back(kernels_portable());
  return sets;
}

}  // namespace
}  // namespace adpc

using namespace adpc;

// What a frame goes through: input, for each exit its operations, rendering and the gate.
struct adpc_plan {
  adpc_plan(const Kernels* kernels, Type type, int threads, int classes, int exits, int level,
            int multiple, bool entropy, const float* thresholds, const float* temperatures,
            float confident, const float* table)
      : kernels_(kernels), type_(type), classes_(classes), exits_(exits), multiple_(multiple),
        entropy_(entropy), confident_(confident),
        thresholds_(thresholds, thresholds + static_cast<size_t>(exits - 1) * classes),
        temperatures_(temperatures, temperatures + exits), table_(table, table + 3 * 256),
        layout_(kernels, type, classes, exits, level, multiple), pool_(threads) {
    for (float temperature : temperatures_) calibrated_ = calibrated_ || temperature != 1.0f;
    for (int i = 0; i < kHeadTile; ++i) compact_[i] = at(0, i);
  }

  int add_slot(int channels, int level, Type type) {
    return layout_.add_slot(channels, level, type);
  }

  void add_op(const adpc_op& op) {
    schedule_.clear();
    layout_.add_op(op);
  }

  // Begins a frame; lays out memory anew if the size is another.
  void start(const adpc_frame& frame) {
    if (!frame.image && !frame.normalised) throw std::invalid_argument("no image");
    expect_within("adaptive", frame.adaptive, 0, 2);
    expect_size(frame.height, frame.width);
    for (int e = 0; e < exits_ - 1 && frame.adaptive == 2; ++e)
      if (!frame.active[e]) throw std::invalid_argument("no active map");
    const int height = padded(frame.height), width = padded(frame.width);
    if (schedule_.empty() || height != layout_.height() || width != layout_.width())
      resize(height, width);
    if (frame.adaptive == 2) layout_.expect_nested(frame);
    frame_ = frame;
    op_ = 0;
    phase_ = progress_ = 0;
    exit_ = 0;
    map_ = nullptr;
    scores_ = ADPC_SCORES;
    given_ = -1;
    seconds_.assign(layout_.steps() + 1 + 2 * exits_, 0.0);
    result_ = {};
    interrupted_.store(false);
  }

  // Forgets the frame: nothing is left to run.
  void abandon() {
    op_ = static_cast<int>(schedule_.size());
    given_ = -1;
  }

  int run(double slice_s, uint8_t* ids, uint8_t* confidence, const uint8_t* previous_ids,
          const uint8_t* previous_confidence) {
    ids_ = ids;
    confidence_ = confidence;
    previous_ids_ = previous_ids;
    previous_confidence_ = previous_confidence;
    const auto slice = std::chrono::duration<double>(std::clamp(slice_s, 1e-4, 1e6));
    const auto end = Clock::now() + std::chrono::duration_cast<Clock::duration>(slice);
    auto now = Clock::now();
    auto stop = [&] {
      return interrupted_.load(std::memory_order_relaxed) || Clock::now() >= end;
    };
    while (op_ < static_cast<int>(schedule_.size())) {
      const Item item = schedule_[op_];
      if (item.what == kRender && !(ids_ && confidence_)) return ADPC_FINISHED;
      int total = 0, grain = 1;
      if (!prepare(item, &total, &grain)) {  // no further phase
        ++op_;
        phase_ = progress_ = 0;
        if (item.what == kGate) return exit_;
        continue;
      }
      grain_ = grain;
      total_ = total;
      const int chunks = (total + grain - 1) / grain;
      progress_ = pool_.run(
          [](void* plan, int chunk, int thread) {
            static_cast<adpc_plan*>(plan)->work(chunk, thread);
          },
          this, progress_, chunks, item.what == kGate && phase_ == kListing, stop);
      const auto then = now;
      now = Clock::now();
      seconds_[seconds_of(item)] += std::chrono::duration<double>(now - then).count();
      if (progress_ < chunks) {
        interrupted_.store(false);
        return ADPC_PAUSED;
      }
      ++phase_;
      progress_ = 0;
    }
    return ADPC_FINISHED;
  }

  void interrupt() { interrupted_.store(true); }

  const adpc_exit& result() const { return result_; }

  void read_scores(float* scores) const {
    if (given_ < 0) return;
    const Slot& slot = layout_.slot(given_);  // the next one's may be of another size
    const View& view = slot.view;
    const int rows = layout_.rows(slot.level), columns = layout_.columns(slot.level);
    for (int k = 0; k < classes_; ++k)
      for (int y = 0; y < rows; ++y)
        for (int x = 0; x < columns; ++x)
          *scores++ = static_cast<const float*>(
              view.data)[(y * view.pitch + x) * view.stride + k];
  }

  void seconds(double* seconds, int count) const {
    for (int i = 0; i < std::min(count, static_cast<int>(seconds_.size())); ++i)
      seconds[i] = seconds_[i];
  }

  int64_t bytes_for(int height, int width) {
    expect_size(height, width);
    const int rows = padded(height), columns = padded(width);
    const int64_t cells = static_cast<int64_t>(rows) * columns;
    int64_t bytes = layout_.bytes_for(rows, columns);
    bytes += cells / 3 * static_cast<int64_t>(sizeof(Position));  // lists of all, from 1/2 on
    bytes += cells / 16 * kMapBytes * exits_;
    return bytes;
  }

  int64_t memory_bytes() const {
    int64_t total = layout_.bytes();
    for (const Map& map : maps_) total += map.bytes();
    return total;
  }

  void poison() {
    layout_.poison();
    for (auto& map : inverse_temperature_) std::fill(map.begin(), map.end(), std::nanf(""));
    std::fill(block_sum_.begin(), block_sum_.end(), std::nanf(""));
    std::fill(block_count_.begin(), block_count_.end(), -1000000);
  }

  const Kernels* kernels() const { return kernels_; }

 private:
  enum What { kInput, kOp, kRender, kGate };
  struct Item {
    What what;
    int op;
    bool rescaled = false;  // an exit whose scores have another scale than those before
  };

  int seconds_of(const Item& item) const {
    if (item.what == kInput) return layout_.steps();
    const adpc_op& spec = layout_.ops()[item.op].spec;
    if (item.what == kOp) return spec.step;
    return layout_.steps() + spec.exit_index + (item.what == kGate ? exits_ : 0);
  }

  int padded(int edge) const { return (edge + multiple_ - 1) / multiple_ * multiple_; }

  void expect_size(int height, int width) const {
    for (int edge : {height, width}) {
      expect_within("pixels an edge", edge, 1, ADPC_MAX_EDGE);
      expect_within("padded pixels an edge", padded(edge), 1, ADPC_MAX_EDGE);
    }
  }

  void resize(int height, int width) {
    schedule_.clear();  // should memory be missing, the next frame tries again
    layout_.resize(height, width, pool_.size());
    int octets = 0;
    for (const Op& op : layout_.ops()) octets = std::max(octets, op.octets);
    zeros_.assign(static_cast<size_t>(octets) * kOctet, 0.0f);
    const int rows = layout_.rows(kFinest), columns = layout_.columns(kFinest);
    for (Map& map : maps_) map.resize(rows, columns, layout_.masked_levels(), layout_.reach());
    active_.resize(static_cast<size_t>(rows) * columns);
    for (auto& map : inverse_temperature_)
      if (calibrated_) map.resize(static_cast<size_t>(rows) * columns);
    const size_t blocks_in_row = (columns + kRenderBlock - 1) / kRenderBlock;
    const size_t blocks = rows * blocks_in_row;
    block_sum_.assign(blocks, 0.0f);
    block_count_.assign(blocks, 0);
    int level = layout_.slot(ADPC_SCORES).level;
    std::vector<Item> schedule{{kInput, -1}};
    for (int i = 0; i < static_cast<int>(layout_.ops().size()); ++i) {
      schedule.push_back({kOp, i});
      const adpc_op& spec = layout_.ops()[i].spec;
      if (!spec.gives_exit) continue;
      const bool rescaled = layout_.slot(spec.output).level != level;
      level = layout_.slot(spec.output).level;
      schedule.push_back({kRender, i, rescaled});
      schedule.push_back({kGate, i});
    }
    schedule_.swap(schedule);
  }

  // Positions of an operation

  const Map* map_of(const Op& op) const {
    return op.spec.masked && map_ && !map_->full() ? map_ : nullptr;
  }

  const Position* positions_of(const Op& op, int* active, int* needed) const {
    const int level = layout_.slot(op.spec.output).level;
    const Map* map = map_of(op);
    const std::vector<Position>& at = map ? map->level(level).at : layout_.all(level);
    *needed = static_cast<int>(at.size());
    *active = map && !op.spec.needed ? map->level(level).active : *needed;
    return at.data();
  }

  // Class scores that are carried over to a finer scale: of no use if all are computed anew.
  bool carries(const Op& op) const {
    return layout_.slot(op.spec.output).scores && !op.spec.gives_exit;
  }

  // Log2 of the scale of the latest exit's scores.
  int level_of_scores() const { return layout_.slot(scores_).level; }

  // Says how much there is to do in this phase; false after the last one.
  bool prepare(const Item& item, int* total, int* grain) {
    double macs = 200.0;
    switch (item.what) {
      case kInput:
        if (phase_ > 0) return false;
        *total = layout_.height();
        macs = 8.0 * layout_.width();
        break;
      case kOp: {
        const Op& op = layout_.ops()[item.op];
        if (op.spec.kind == ADPC_INVERTED) {
          const int rows = layout_.rows(layout_.slot(op.spec.output).level);
          *total = (rows + op.band_rows - 1) / op.band_rows;
          *grain = 1;
          return phase_ == 0;
        }
        int active, needed;
        positions_of(op, &active, &needed);
        if (carries(op) && (!map_ || map_->full())) active = 0;
        const bool border = op.spec.kind == ADPC_CONV && op.spec.reach > 0 && map_of(op);
        if (phase_ > (border ? 1 : 0)) return false;
        *total = phase_ == 0 ? active : needed - active;
        macs = phase_ == 0 ? op.macs : 64.0 * op.octets;
        break;
      }
      case kRender:
        scores_ = layout_.ops()[item.op].spec.output;
        if (phase_ == 0 && !calibrated_) phase_ = kRendering;
        if (phase_ == kMaking) {
          int needed;
          positions_of(layout_.ops()[item.op], total, &needed);
          if (item.rescaled) *total = static_cast<int>(layout_.all(level_of_scores()).size());
          *grain = 65536;
          return true;
        }
        if (phase_ > kRendering) return false;
        *total = layout_.rows(level_of_scores());
        macs = 50.0 * layout_.columns(level_of_scores()) * classes_ *
               (1 << 2 * level_of_scores());
        break;
      case kGate:
        return prepare_gate(total, grain);
    }
    const int share = *total / (4 * pool_.size());
    *grain = std::max(std::min(static_cast<int>(kernels_->chunk_macs / macs), share),
                      std::max(1, *total >> 20));  // so that the pool can count the chunks
    if (item.what == kOp && layout_.ops()[item.op].spec.kind == ADPC_CONV && phase_ == 0) {
      const int tile = kernels_->tile(layout_.ops()[item.op].octets);
      *grain = (*grain + tile - 1) / tile * tile;
    }
    return true;
  }

  void work(int chunk, int thread) {
    const Item& item = schedule_[op_];
    const int first = chunk * grain_, last = std::min(first + grain_, total_);
    switch (item.what) {
      case kInput: work_input(first, last); break;
      case kOp: {
        const Op& op = layout_.ops()[item.op];
        if (op.spec.kind == ADPC_RESAMPLE) work_resample(item.op, first, last);
        else if (op.spec.kind == ADPC_HEAD) work_head(item.op, first, last, thread);
        else if (op.spec.kind == ADPC_INVERTED) work_inverted(op, first, thread);
        else if (op.spec.depthwise) work_depthwise(op, first, last);
        else if (phase_ == 0) work_conv(op, first, last);
        else work_border(op, first, last);
        break;
      }
      case kRender:
        if (phase_ == kMaking) work_making(layout_.ops()[item.op], first, last);
        else work_render(first, last);
        break;
      case kGate: work_gate(first, last); break;
    }
  }

  void work_input(int first, int last) {
    InputArgs args{};
    args.image = frame_.image;
    args.normalised = frame_.normalised;
    args.row_bytes = frame_.row_bytes;
    args.pixel_bytes = frame_.pixel_bytes;
    args.red = frame_.red;
    args.green = frame_.green;
    args.blue = frame_.blue;
    args.height = frame_.height;
    args.width = frame_.width;
    args.padded_width = layout_.width();
    args.out = layout_.slot(ADPC_IMAGE).view;
    args.table = table_.data();
    kernels_->input(type_, args, first, last);
  }

  ConvArgs conv_args(const Op& op) {
    ConvArgs args{};
    args.in = layout_.slot(op.spec.input).view;
    args.out = layout_.slot(op.spec.output).view;
    if (op.spec.kind == ADPC_CONV && op.spec.residual >= 0)
      args.residual = layout_.slot(op.spec.residual).view;
    args.weights = op.weight.data();
    args.bias = op.bias_and_shift.data();
    args.kernel = op.spec.kernel;
    args.stride = op.spec.stride;
    args.in_channels = op.in_channels;
    args.octets = op.octets;
    args.relu = op.spec.relu;
    return args;
  }

  void work_conv(const Op& op, int first, int last) {
    int active, needed;
    ConvArgs args = conv_args(op);
    args.in_at = args.out_at = positions_of(op, &active, &needed);
    const Map* map = map_of(op);
    if (map && op.spec.reach > 0) {
      args.donor = map->level(layout_.slot(op.spec.output).level).donor.data();
      args.donors = layout_.donors();
    }
    kernels_->conv(type_, layout_.slot(op.spec.output).type, args, first, last);
  }

  void work_depthwise(const Op& op, int first, int last) {
    int active, needed;
    ConvArgs args = conv_args(op);
    args.in_at = args.out_at = positions_of(op, &active, &needed);
    kernels_->depthwise(type_, args, first, last);
  }

  // A band of an inverted residual, some of its channels at a time, so that what is many times as
  // wide as input and output stays in the cache.
  void work_inverted(const Op& op, int band, int thread) {
    const Slot &in = layout_.slot(op.spec.input), &out = layout_.slot(op.spec.output);
    const int stride = op.spec.stride, pad = (op.spec.kernel - 1) / 2;
    const int rows = layout_.rows(in.level), columns = layout_.columns(in.level);
    const int out_columns = layout_.columns(out.level);
    const int first = band * op.band_rows;
    const int last = std::min(first + op.band_rows, layout_.rows(out.level));
    const int top = first * stride - pad, bottom = (last - 1) * stride + op.spec.kernel - pad;
    const int begin = std::max(0, top), end = std::min(rows, bottom);  // of the input's rows
    const int count = (last - first) * out_columns;
    const Position* in_at = layout_.all(in.level).data() + static_cast<size_t>(begin) * columns;
    const Position* out_at = layout_.all(out.level).data();
    out_at += static_cast<size_t>(first) * out_columns;
    const int64_t pitch = columns + 2 * pad;
    for (const Group& group : op.groups) {
      const int64_t width = group.octets * kOctet;
      const int channel = group.first * kOctet;
      float* wide = layout_.band(thread);
      float* filtered = wide + (bottom - top) * pitch * width;
      ConvArgs args{};
      args.in = in.view;
      args.kernel = args.stride = 1;
      args.octets = group.octets;
      args.relu = true;
      View seen = in.view;  // by the depthwise convolution
      if (op.expand_bias.empty()) {
        seen.data = static_cast<float*>(in.view.data) + channel;
      } else {
        for (int y = top; y < bottom; ++y) {  // what lies around the map is zero
          float* row = wide + (y - top) * pitch * width;
          const bool inside = y >= 0 && y < rows;
          std::fill_n(row, (inside ? pad : pitch) * width, 0.0f);
          if (inside) std::fill_n(row + (pad + columns) * width, pad * width, 0.0f);
        }
        seen = {wide + (pad - top * pitch) * width, pitch, width};
        args.out = seen;
        args.in_at = args.out_at = in_at;
        args.weights = group.expand.data();
        args.bias = op.expand_bias.data() + channel;
        args.in_channels = op.in_channels;
        kernels_->conv(kFloat32, kFloat32, args, 0, (end - begin) * columns);
      }
      args.in = seen;
      args.out = {filtered - first * out_columns * width, out_columns, width};
      args.in_at = args.out_at = out_at;
      args.weights = group.depthwise.data();
      args.bias = op.bias.data() + channel;
      args.kernel = op.spec.kernel;
      args.stride = stride;
      kernels_->depthwise(kFloat32, args, 0, count);
      const bool initial = group.first == 0;
      args.in = args.out;
      args.out = out.view;
      if (!initial) args.residual = out.view;
      else if (op.spec.residual >= 0) args.residual = layout_.slot(op.spec.residual).view;
      args.weights = group.project.data();
      args.bias = initial ? op.head_bias.data() : zeros_.data();
      args.kernel = args.stride = 1;
      args.in_channels = std::min(static_cast<int>(width), op.spec.head_channels - channel);
      args.octets = op.octets;
      args.relu = false;
      kernels_->conv(kFloat32, kFloat32, args, 0, count);
    }
  }

  void work_border(const Op& op, int first, int last) {
    const Positions& positions = map_of(op)->level(layout_.slot(op.spec.output).level);
    BorderArgs args{};
    args.out = layout_.slot(op.spec.output).view;
    if (op.spec.residual >= 0) args.residual = layout_.slot(op.spec.residual).view;
    args.at = positions.at.data() + positions.active;
    args.begin = positions.begin.data();
    args.end = positions.end[op.spec.reach].data();
    args.neighbours = positions.neighbours.data();
    args.window = op.window.data();
    args.donors = layout_.donors();
    args.bias = op.bias.data();
    args.shift = op.shift.data();
    args.octets = op.octets;
    args.relu = op.spec.relu;
    kernels_->border(layout_.slot(op.spec.output).type, args, first, last);
  }

  ResampleArgs resample_args(int index) const {
    const Op& op = layout_.ops()[index];
    ResampleArgs args{};
    args.source_count = op.spec.source_count;
    args.concatenate = op.spec.concatenate;
    args.octets = op.octets;
    args.relu = op.spec.relu;
    int octet = 0;
    for (int s = 0; s < op.spec.source_count; ++s) {
      const Slot& slot = layout_.slot(op.spec.sources[s]);
      const AxisTable &rows = op.rows[s], &columns = op.columns[s];
      const int octets = octets_of(slot.channels);
      args.sources[s] = {slot.view, rows.axis(), columns.axis(), rows.taps(), octets, octet};
      octet += octets;
    }
    return args;
  }

  void work_resample(int index, int first, int last) {
    const Op& op = layout_.ops()[index];
    int active, needed;
    ResampleArgs args = resample_args(index);
    args.out = layout_.slot(op.spec.output).view;
    args.in_at = args.out_at = positions_of(op, &active, &needed);
    if (!op.bias_and_shift.empty()) args.bias = op.bias_and_shift.data();
    kernels_->resample(layout_.slot(op.spec.output).type, args, first, last);
  }

  // A head whose hidden channels are many: a few positions at a time, from the convolution of
  // the finest branch over the upsampled others to the scores.
  void work_head(int index, int first, int last, int thread) {
    const Op& op = layout_.ops()[index];
    int active, needed;
    const Position* positions = positions_of(op, &active, &needed);
    const int channels = op.octets * kOctet;
    const View hidden = {layout_.hidden(channels, thread), 0, channels};
    ConvArgs conv = conv_args(op);
    conv.out = hidden;
    conv.out_at = compact_;
    conv.relu = false;
    ResampleArgs resample = resample_args(index);
    resample.out = hidden;
    resample.out_at = compact_;
    resample.relu = true;
    resample.add_to_output = true;
    ConvArgs scores{};
    scores.in = hidden;
    scores.out = layout_.slot(op.spec.output).view;
    scores.in_at = compact_;
    scores.weights = op.head_weight.data();
    scores.bias = op.head_bias.data();
    scores.kernel = scores.stride = 1;
    scores.in_channels = op.spec.head_channels;
    scores.octets = octets_of(classes_);
    for (; first < last; first += kHeadTile) {
      const int count = std::min(kHeadTile, last - first);
      conv.in_at = resample.in_at = scores.out_at = positions + first;
      kernels_->conv(type_, type_, conv, 0, count);
      kernels_->resample(type_, resample, 0, count);
      kernels_->conv(type_, kFloat32, scores, 0, count);
    }
  }

  // Rendering: first who made the prediction of which cell, then the image.
  enum { kMaking = 0, kRendering = 1 };
  void work_making(const Op& op, int first, int last) {
    int active, needed;
    const Position* positions = positions_of(op, &active, &needed);
    const float inverse = 1.0f / temperatures_[op.spec.exit_index - 1];
    const int level = level_of_scores(), columns = layout_.columns(level);
    float* made = inverse_temperature_[level - kFinest].data();
    if (!schedule_[op_].rescaled) {
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

  void work_render(int first, int last) {
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
    if (map_ && !map_->full() && previous_ids_ && !schedule_[op_].rescaled) {
      args.changed = map_->level(level).is_needed.data();
      const int64_t pitch = frame_.width;
      const int64_t from = std::min(scale * first, frame_.height) * pitch;
      const int64_t to = std::min(scale * last, frame_.height) * pitch;
      std::memcpy(ids_ + from, previous_ids_ + from, to - from);
      std::memcpy(confidence_ + from, previous_confidence_ + from, to - from);
    }
    kernels_->render(args, first, last);
  }

  // The gate: first every active position by itself, then the lists at all levels.
  enum { kScoring = 1, kListing = 2 };
  bool prepare_gate(int* total, int* grain) {
    if (phase_ == 0) {
      ++exit_;
      phase_ = kScoring;
    }
    const bool last = gate_index() >= exits_ - 1;
    const bool gated = !last && frame_.adaptive == 1;
    const int level = level_of_scores(), cells = static_cast<int>(layout_.all(level).size());
    if (phase_ == kScoring) {
      *total = gated ? (map_ ? map_->level(level).active : cells) : 0;
      *grain = 2048;
      if (progress_ == 0 && gated) std::fill(active_.begin(), active_.end(), 0);
      return true;
    }
    if (phase_ == kListing) {
      *total = !last && frame_.adaptive ? next_map().parts() : 0;
      return true;
    }
    if (!last && frame_.adaptive) map_ = &next_map();
    finish_exit();
    return false;
  }

  int gate_index() const { return layout_.ops()[schedule_[op_].op].spec.exit_index - 1; }
  Map& next_map() { return maps_[gate_index() % 2]; }

  void work_gate(int first, int last) {
    const int index = gate_index();
    if (phase_ == kListing) {
      const uint8_t* active = frame_.adaptive == 2 ? frame_.active[index] : active_.data();
      for (; first < last; ++first) next_map().build(active, level_of_scores(), first);
      return;
    }
    GateArgs args{};
    const int level = level_of_scores();
    args.scores = layout_.slot(scores_).view;
    args.classes = classes_;
    args.at = map_ ? map_->level(level).at.data() : layout_.all(level).data();
    args.active = active_.data();
    args.columns = layout_.columns(level);
    args.entropy = entropy_;
    args.thresholds = thresholds_.data() + static_cast<size_t>(index) * classes_;
    kernels_->gate(args, first, last);
  }

  void finish_exit() {
    result_ = {};
    given_ = scores_;
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

  // The network
  const Kernels* kernels_;
  const Type type_;
  const int classes_, exits_, multiple_;
  const bool entropy_;
  const float confident_;
  const std::vector<float> thresholds_;    // (exits - 1, classes)
  const std::vector<float> temperatures_;  // of each exit
  bool calibrated_ = false;  // a temperature is not 1
  const std::vector<float> table_;
  Layout layout_;
  Position compact_[kHeadTile];  // cells side by side
  std::vector<float> zeros_;     // a bias that adds nothing

  // An image size
  std::vector<Item> schedule_;
  Map maps_[2];
  std::vector<uint8_t> active_;
  // of the exit that computed a cell last, at 1/4 and 1/8
  std::vector<float> inverse_temperature_[kCoarsestScores - kFinest + 1];
  std::vector<float> block_sum_;
  std::vector<int32_t> block_count_;

  // A frame
  adpc_frame frame_{};
  int op_ = 0, phase_ = 0, progress_ = 0, exit_ = 0;
  int grain_ = 1, total_ = 0;
  const Map* map_ = nullptr;  // null: everything is active
  int scores_ = ADPC_SCORES;  // slot of the exit that is or was rendered last
  int given_ = -1;            // of the last one that the caller has; -1: none of this frame
  std::vector<double> seconds_;
  adpc_exit result_{};
  uint8_t *ids_ = nullptr, *confidence_ = nullptr;
  const uint8_t *previous_ids_ = nullptr, *previous_confidence_ = nullptr;

  std::atomic<bool> interrupted_{false};
  ThreadPool pool_;  // last: its threads end first
};

int64_t adpc_layout() {
  return ((sizeof(adpc_op) << 10 | sizeof(adpc_frame)) << 10 | sizeof(adpc_exit)) << 8 |
         ADPC_VERSION;
}

adpc_plan* adpc_create(const char* isa, int32_t type, int32_t threads, int32_t classes,
                       int32_t exits, int32_t level, int32_t multiple, int32_t entropy,
                       const float* thresholds, const float* temperatures, float confident,
                       const float* table, char* error, int32_t error_size) {
  const auto say = [&](const std::string& problem) {
    if (error && error_size > 0) std::snprintf(error, error_size, "%s", problem.c_str());
  };
  try {
    expect_within("type", type, kFloat32, kBFloat16);
    expect_within("threads", threads, 1, kMaxThreads);
    expect_within("classes", classes, 1, kMaxClasses);
    expect_within("exits", exits, 1, ADPC_MAX_EXITS);
    expect_within("level", level, kFinest, kCoarsestScores);
    expect_within("multiple", multiple, 1, ADPC_MAX_EDGE);
    if (multiple % (1 << level)) throw std::invalid_argument("scores would have no whole sizes");
    expect_numbers("thresholds", thresholds, (exits - 1) * classes);
    expect_numbers("temperatures", temperatures, exits);
    expect_numbers("a table of normalised values", table, 3 * 256);
    expect_numbers("a confident share", &confident, 1);
    for (int i = 0; i < exits; ++i)
      if (!(temperatures[i] > 0.0f) || !std::isfinite(1.0f / temperatures[i]))
        throw std::invalid_argument("expected positive temperatures, and their inverses finite");
    for (const Kernels* kernels : available())
      if (!isa || std::strcmp(isa, kernels->name) == 0)
        return new adpc_plan(kernels, static_cast<Type>(type), threads, classes, exits, level,
                             multiple, entropy != 0, thresholds, temperatures, confident, table);
    say("expected an instruction set of this machine (" + std::string(adpc_instruction_sets()) +
        "), got " + isa);
  } catch (const std::exception& problem) {  // nonsense, no memory, no thread
    say(problem.what());
  }
  return nullptr;
}

void adpc_destroy(adpc_plan* plan) { delete plan; }

int32_t adpc_add_slot(adpc_plan* plan, int32_t channels, int32_t level, int32_t type) {
  if (!plan) return -1;
  try {
    return plan->add_slot(channels, level, static_cast<Type>(type));
  } catch (const std::exception&) {
    return -1;
  }
}

int32_t adpc_add_op(adpc_plan* plan, const adpc_op* op) {
  if (!plan || !op) return -1;
  try {
    plan->add_op(*op);
    return 0;
  } catch (const std::exception&) {
    return -1;
  }
}

int32_t adpc_start(adpc_plan* plan, const adpc_frame* frame) {
  if (!plan) return -1;
  try {
    if (!frame) throw std::invalid_argument("no frame");
    plan->start(*frame);
    return 0;
  } catch (const std::exception&) {  // no memory, or what cannot be computed
    plan->abandon();
    return -1;
  }
}

int32_t adpc_run(adpc_plan* plan, double slice_s, uint8_t* ids, uint8_t* confidence,
                 const uint8_t* previous_ids, const uint8_t* previous_confidence) {
  if (!plan) return ADPC_FINISHED;
  const bool previous = previous_ids && previous_confidence;
  return plan->run(std::isnan(slice_s) ? 0.0 : slice_s, ids, confidence,
                   previous ? previous_ids : nullptr, previous ? previous_confidence : nullptr);
}

void adpc_interrupt(adpc_plan* plan) {
  if (plan) plan->interrupt();
}

void adpc_last_exit(const adpc_plan* plan, adpc_exit* result) {
  if (plan && result) *result = plan->result();
}

void adpc_read_scores(const adpc_plan* plan, float* scores) {
  if (plan && scores) plan->read_scores(scores);
}

void adpc_seconds(const adpc_plan* plan, double* seconds, int32_t count) {
  if (plan && seconds) plan->seconds(seconds, count);
}

int64_t adpc_memory_bytes(const adpc_plan* plan) { return plan ? plan->memory_bytes() : -1; }

int64_t adpc_bytes_for(adpc_plan* plan, int32_t height, int32_t width) {
  if (!plan) return -1;
  try {
    return plan->bytes_for(height, width);
  } catch (const std::exception&) {
    return -1;
  }
}

void adpc_poison(adpc_plan* plan) {
  if (plan) plan->poison();
}

const char* adpc_instruction_sets() {
  static const std::string names = [] {
    std::string all;
    for (const Kernels* kernels : available())
      all += std::string(all.empty() ? "" : " ") + kernels->name;
    return all;
  }();
  return names.c_str();
}

const char* adpc_instruction_set(const adpc_plan* plan) {
  return plan ? plan->kernels()->name : nullptr;
}
