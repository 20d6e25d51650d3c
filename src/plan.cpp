#ifdef __linux__
#include <sys/mman.h>
#endif

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "adpc.h"
#include "kernels.h"
#include "maps.h"
#include "threads.h"

namespace adpc {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kSizeMultiple = 32;
constexpr size_t kAlignment = 64;
constexpr int kHeadTile = 48;         // positions whose hidden channels of a head are held at once
constexpr double kChunkMacs = 40e6;   // float32 with AVX-512: below a millisecond

int octets_of(int channels) { return (channels + kOctet - 1) / kOctet; }
size_t size_of(Type type) { return type == kFloat32 ? 4 : 2; }

// Memory that is aligned and grows only.
class Buffer {
 public:
  void* reserve(size_t bytes) {
    if (bytes > bytes_) {
      constexpr size_t kPage = size_t{2} << 20;  // large pages, if the system gives them
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
    return data_.get();
  }
  char* data() const { return static_cast<char*>(data_.get()); }
  size_t bytes() const { return bytes_; }

 private:
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  std::unique_ptr<void, Free> data_;
  size_t bytes_ = 0;
};

struct Slot {
  int channels, level;
  Type type;
  int stride;          // elements from cell to cell
  View view;
  size_t buffer = 0;   // of those with the same geometry
};

// An operation as it was added, with its weights packed.
struct Op {
  adpc_op spec;
  std::vector<float> bias_and_shift, bias, shift, head_bias;
  std::vector<float> given_window, window;  // the latter as wide as the plan's widest
  std::vector<uint8_t> weight, head_weight;  // aligned by hand
  int in_channels = 0, octets = 0;
  double macs = 0.0;   // for one position
};

void* aligned(std::vector<uint8_t>& bytes) {
  void* p = bytes.data();
  size_t space = bytes.size();
  return std::align(kAlignment, 1, p, space);
}

std::vector<float> padded(const float* values, int count) {
  std::vector<float> result(static_cast<size_t>(octets_of(count)) * kOctet, 0.0f);
  if (values) std::copy(values, values + count, result.begin());
  return result;
}

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
  adpc_plan(const Kernels* kernels, Type type, int threads, int classes, bool entropy,
            const float* thresholds, float confident, const float* table)
      : kernels_(kernels), type_(type), classes_(classes), entropy_(entropy),
        confident_(confident), table_(table, table + 3 * 256), pool_(threads) {
    std::copy(thresholds, thresholds + ADPC_EXITS - 1, thresholds_);
    add_slot(3, 0, type);
    slots_[ADPC_IMAGE].stride = 4;
    add_slot(classes, kFinest, kFloat32);
    const bool wide = kernels->tile(4) >= 8;  // a guess at the instruction set's speed
    chunk_macs_ = kChunkMacs * (wide ? 1.0 : std::strcmp(kernels->name, "avx2") ? 0.1 : 0.7);
  }

  int add_slot(int channels, int level, Type type) {
    slots_.push_back({channels, level, type, octets_of(channels) * kOctet, {}, 0});
    return static_cast<int>(slots_.size()) - 1;
  }

  void add_op(const adpc_op& spec) {
    ops_.emplace_back();
    Op& op = ops_.back();
    op.spec = spec;
    const Slot& out = slots_[spec.output];
    op.octets = octets_of(out.channels);
    if (spec.kind == ADPC_RESAMPLE) {
      if (spec.shift) op.bias_and_shift = padded(spec.shift, out.channels);
      op.macs = 4.0 * 9 * spec.source_count * op.octets;
    } else {
      const int out_channels = spec.kind == ADPC_HEAD ? spec.head_channels : out.channels;
      const int taps = spec.kernel * spec.kernel;
      op.octets = octets_of(out_channels);
      op.in_channels = slots_[spec.input].channels;
      op.bias = padded(spec.bias, out_channels);
      op.shift = padded(spec.shift, out_channels);
      op.bias_and_shift = op.bias;
      for (size_t i = 0; i < op.shift.size(); ++i) op.bias_and_shift[i] += op.shift[i];
      pack(op.weight, spec.weight, taps, out_channels, op.in_channels);
      op.macs = static_cast<double>(taps) * op.in_channels * op.octets * kOctet;
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
    op.spec.head_weight = op.spec.head_bias = nullptr;
    steps_ = std::max(steps_, spec.step + 1);
    planned_ = false;
  }

  // Begins a frame; lays out memory anew if the size is another.
  void start(const adpc_frame& frame) {
    if (!planned_) plan_buffers();
    const int height = (frame.height + kSizeMultiple - 1) / kSizeMultiple * kSizeMultiple;
    const int width = (frame.width + kSizeMultiple - 1) / kSizeMultiple * kSizeMultiple;
    if (height != height_ || width != width_) lay_out(height, width);
    frame_ = frame;
    op_ = 0;
    phase_ = progress_ = 0;
    exit_ = 0;
    map_ = nullptr;
    seconds_.assign(steps_ + 1 + 2 * ADPC_EXITS, 0.0);
    result_ = {};
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
    auto stop = [&] { return interrupted_.load(std::memory_order_relaxed) || Clock::now() >= end; };
    while (op_ < static_cast<int>(schedule_.size())) {
      const Item item = schedule_[op_];
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
          this, progress_, chunks, stop);
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
    const View& view = slots_[ADPC_SCORES].view;
    const int rows = height_ >> kFinest, columns = width_ >> kFinest;
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

  int64_t memory_bytes() const {
    int64_t total = static_cast<int64_t>(arena_.bytes() + donors_.bytes() + hidden_.bytes());
    for (const Op& op : ops_)
      total += static_cast<int64_t>(op.weight.size() + op.head_weight.size());
    for (const auto& positions : all_) total += static_cast<int64_t>(positions.capacity()) * 4;
    for (const Map& map : maps_) total += map.bytes();
    return total;
  }

  void poison() {
    for (const Slot& slot : slots_) {
      if (!slot.view.data) continue;
      const int rows = height_ >> slot.level, columns = width_ >> slot.level;
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

  const Kernels* kernels() const { return kernels_; }

 private:
  enum What { kInput, kOp, kRender, kGate };
  struct Item {
    What what;
    int op;
  };

  int seconds_of(const Item& item) const {
    if (item.what == kInput) return steps_;
    const adpc_op& spec = ops_[item.op].spec;
    if (item.what == kOp) return spec.step;
    return steps_ + spec.exit_index + (item.what == kGate ? ADPC_EXITS : 0);
  }

  void pack(std::vector<uint8_t>& to, const float* weight, int taps, int out, int in) {
    to.resize(kernels_->packed_bytes(type_, taps, in, octets_of(out)) + kAlignment);
    kernels_->pack(type_, weight, taps, out, in, aligned(to));
  }

  // Slots that are never needed at the same time share a buffer, if it has the same geometry, so
  // that the zeros around the map stay.
  void plan_buffers() {
    schedule_.clear();
    schedule_.push_back({kInput, -1});
    const int count = static_cast<int>(ops_.size());
    std::vector<int> last(slots_.size(), -1);
    for (int i = 0; i < count; ++i) {
      for_inputs(ops_[i].spec, [&](int slot) { last[slot] = i; });
      schedule_.push_back({kOp, i});
      if (ops_[i].spec.gives_exit) {
        schedule_.push_back({kRender, i});
        schedule_.push_back({kGate, i});
      }
    }
    buffers_.clear();
    auto same = [&](size_t buffer, const Slot& slot) {
      const Slot& shape = slots_[buffers_[buffer]];
      return shape.level == slot.level && shape.type == slot.type && shape.stride == slot.stride;
    };
    std::vector<size_t> free;
    auto take = [&](int index) {
      Slot& slot = slots_[index];
      for (size_t i = 0; i < free.size(); ++i)
        if (same(free[i], slot)) {
          slot.buffer = free[i];
          free.erase(free.begin() + static_cast<int64_t>(i));
          return;
        }
      slot.buffer = buffers_.size();
      buffers_.push_back(index);
    };
    take(ADPC_IMAGE);
    take(ADPC_SCORES);
    for (int i = 0; i < count; ++i) {
      const adpc_op& spec = ops_[i].spec;
      const int residual = spec.kind == ADPC_CONV ? spec.residual : -1;
      const bool in_place = residual >= 0 && last[residual] == i &&
                            slots_[residual].stride == slots_[spec.output].stride;
      if (spec.output != ADPC_SCORES) {
        if (in_place) slots_[spec.output].buffer = slots_[residual].buffer;
        else take(spec.output);
      }
      for_inputs(spec, [&](int slot) {
        if (last[slot] != i || slot == ADPC_SCORES || (in_place && slot == residual)) return;
        if (std::find(free.begin(), free.end(), slots_[slot].buffer) == free.end())
          free.push_back(slots_[slot].buffer);
      });
    }
    for (Op& op : ops_) widen_window(op);
    planned_ = true;
    height_ = width_ = 0;
  }

  void widen_window(Op& op) const {
    const int edge = 2 * reach_ + 1, given = op.spec.window_edge, margin = (edge - given) / 2;
    op.window.assign(static_cast<size_t>(edge) * edge, 0.0f);
    for (int y = 0; y < given && !op.given_window.empty(); ++y)
      for (int x = 0; x < given; ++x)
        if (y + margin >= 0 && y + margin < edge && x + margin >= 0 && x + margin < edge)
          op.window[(y + margin) * edge + x + margin] = op.given_window[y * given + x];
  }

  template <class Each>
  static void for_inputs(const adpc_op& spec, Each each) {
    if (spec.kind != ADPC_RESAMPLE) each(spec.input);
    if (spec.kind == ADPC_CONV && spec.residual >= 0) each(spec.residual);
    if (spec.kind != ADPC_CONV)
      for (int s = 0; s < spec.source_count; ++s) each(spec.sources[s]);
  }

  void lay_out(int height, int width) {
    height_ = width_ = 0;  // should memory be missing, the next frame tries again
    std::vector<size_t> offsets;
    size_t bytes = 0;
    auto cells = [&](int level) {
      return static_cast<size_t>((height >> level) + 2) * ((width >> level) + 2);
    };
    for (int index : buffers_) {
      const Slot& slot = slots_[index];
      offsets.push_back(bytes);
      const size_t size = cells(slot.level) * slot.stride * size_of(slot.type);
      bytes += (size + kAlignment - 1) / kAlignment * kAlignment;
    }
    arena_.reserve(bytes + kAlignment);
    for (Slot& slot : slots_) {
      const int64_t pitch = (width >> slot.level) + 2;
      char* base = arena_.data() + offsets[slot.buffer];
      slot.view = {base + (pitch + 1) * slot.stride * size_of(slot.type), pitch, slot.stride};
    }
    for (size_t b = 0; b < buffers_.size(); ++b) clear_edges(slots_[buffers_[b]], height, width);
    size_t donors = 0;
    int hidden = 0;
    for (const Op& op : ops_) {
      const int level = slots_[op.spec.output].level;
      if (op.spec.kind == ADPC_HEAD) hidden = std::max(hidden, op.octets * kOctet);
      if (op.spec.kind == ADPC_CONV && op.spec.masked && op.spec.reach > 0)
        donors = std::max(donors, static_cast<size_t>(height >> level) * (width >> level) *
                                      op.octets * kOctet * sizeof(float));
    }
    donors_.reserve(std::max(donors, kAlignment));
    hidden_.reserve(std::max<size_t>(
        kAlignment, size_of(type_) * hidden * kHeadTile * static_cast<size_t>(pool_.size())));
    compact_.resize(kHeadTile);
    for (int i = 0; i < kHeadTile; ++i) compact_[i] = at(0, i);
    for (int level = 1; level < kFinest + kLevels; ++level) {
      auto& positions = all_[level];
      positions.clear();
      for (int y = 0; y < height >> level; ++y)
        for (int x = 0; x < width >> level; ++x) positions.push_back(at(y, x));
    }
    tables_.clear();
    for (const Op& op : ops_) {
      tables_.emplace_back();
      if (op.spec.kind == ADPC_CONV) continue;
      const int level = slots_[op.spec.output].level;
      for (int s = 0; s < op.spec.source_count; ++s) {
        const int source = slots_[op.spec.sources[s]].level;
        const bool pooled = op.spec.pooled != 0;
        tables_.back().rows[s] = AxisTable(height >> source, height >> level, pooled);
        tables_.back().columns[s] = AxisTable(width >> source, width >> level, pooled);
      }
    }
    const int rows = height >> kFinest, columns = width >> kFinest;
    for (Map& map : maps_) map.resize(rows, columns, reach_);
    active_.resize(static_cast<size_t>(rows) * columns);
    const size_t blocks = static_cast<size_t>(rows) * ((columns + kRenderBlock - 1) / kRenderBlock);
    block_sum_.assign(blocks, 0.0f);
    block_count_.assign(blocks, 0);
    height_ = height;
    width_ = width;
  }

  static void clear_edges(const Slot& slot, int height, int width) {
    const int rows = height >> slot.level, columns = width >> slot.level;
    const size_t cell = slot.stride * size_of(slot.type);
    const size_t row = static_cast<size_t>(slot.view.pitch) * cell;
    char* first = static_cast<char*>(slot.view.data) - row - cell;
    std::memset(first, 0, row);
    std::memset(first + (rows + 1) * row, 0, row);
    for (int y = 1; y <= rows; ++y) {
      std::memset(first + y * row, 0, cell);
      std::memset(first + y * row + (columns + 1) * cell, 0, cell);
    }
  }

  // Positions of an operation

  const Map* map_of(const Op& op) const {
    return op.spec.masked && map_ && !map_->full() ? map_ : nullptr;
  }

  const Position* positions_of(const Op& op, int* active, int* needed) const {
    const int level = slots_[op.spec.output].level;
    const Map* map = map_of(op);
    const std::vector<Position>& at = map ? map->level(level).at : all_[level];
    *needed = static_cast<int>(at.size());
    *active = map && !op.spec.needed ? map->level(level).active : *needed;
    return at.data();
  }

  // Says how much there is to do in this phase; false after the last one.
  bool prepare(const Item& item, int* total, int* grain) {
    double macs = 200.0;
    switch (item.what) {
      case kInput:
        if (phase_ > 0) return false;
        *total = height_;
        macs = 8.0 * width_;
        break;
      case kOp: {
        const Op& op = ops_[item.op];
        int active, needed;
        positions_of(op, &active, &needed);
        const bool border = op.spec.kind == ADPC_CONV && op.spec.reach > 0 && map_of(op);
        if (phase_ > (border ? 1 : 0)) return false;
        *total = phase_ == 0 ? active : needed - active;
        macs = phase_ == 0 ? op.macs : 64.0 * op.octets;
        break;
      }
      case kRender:
        if (phase_ > 0) return false;
        *total = height_ >> kFinest;
        macs = 800.0 * (width_ >> kFinest) * classes_;
        break;
      case kGate:
        return prepare_gate(total, grain);
    }
    const int share = *total / (4 * pool_.size());
    *grain = std::max(1, std::min(static_cast<int>(chunk_macs_ / macs), share));
    if (item.what == kOp && ops_[item.op].spec.kind == ADPC_CONV && phase_ == 0) {
      const int tile = kernels_->tile(ops_[item.op].octets);
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
        const Op& op = ops_[item.op];
        if (op.spec.kind == ADPC_RESAMPLE) work_resample(item.op, first, last);
        else if (op.spec.kind == ADPC_HEAD) work_head(item.op, first, last, thread);
        else if (phase_ == 0) work_conv(op, first, last);
        else work_border(op, first, last);
        break;
      }
      case kRender: work_render(first, last); break;
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
    args.padded_width = width_;
    args.out = slots_[ADPC_IMAGE].view;
    args.table = table_.data();
    kernels_->input(type_, args, first, last);
  }

  ConvArgs conv_args(const Op& op) {
    ConvArgs args{};
    args.in = slots_[op.spec.input].view;
    args.out = slots_[op.spec.output].view;
    if (op.spec.residual >= 0) args.residual = slots_[op.spec.residual].view;
    args.weights = aligned(const_cast<std::vector<uint8_t>&>(op.weight));
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
      args.donor = map->level(slots_[op.spec.output].level).donor.data();
      args.donors = reinterpret_cast<float*>(donors_.data());
    }
    kernels_->conv(type_, slots_[op.spec.output].type, args, first, last);
  }

  void work_border(const Op& op, int first, int last) {
    const Positions& positions = map_of(op)->level(slots_[op.spec.output].level);
    BorderArgs args{};
    args.out = slots_[op.spec.output].view;
    if (op.spec.residual >= 0) args.residual = slots_[op.spec.residual].view;
    args.at = positions.at.data() + positions.active;
    args.begin = positions.begin.data();
    args.end = positions.end[op.spec.reach].data();
    args.neighbours = positions.neighbours.data();
    args.window = op.window.data();
    args.donors = reinterpret_cast<const float*>(donors_.data());
    args.bias = op.bias.data();
    args.shift = op.shift.data();
    args.octets = op.octets;
    args.relu = op.spec.relu;
    kernels_->border(slots_[op.spec.output].type, args, first, last);
  }

  ResampleArgs resample_args(int index) const {
    const Op& op = ops_[index];
    ResampleArgs args{};
    args.source_count = op.spec.source_count;
    args.concatenate = op.spec.concatenate;
    args.octets = op.octets;
    args.relu = op.spec.relu;
    int octet = 0;
    for (int s = 0; s < op.spec.source_count; ++s) {
      const Slot& slot = slots_[op.spec.sources[s]];
      const AxisTable &rows = tables_[index].rows[s], &columns = tables_[index].columns[s];
      const int octets = octets_of(slot.channels);
      args.sources[s] = {slot.view, rows.axis(), columns.axis(), rows.taps(), octets, octet};
      octet += octets;
    }
    return args;
  }

  void work_resample(int index, int first, int last) {
    const Op& op = ops_[index];
    int active, needed;
    ResampleArgs args = resample_args(index);
    args.out = slots_[op.spec.output].view;
    args.in_at = args.out_at = positions_of(op, &active, &needed);
    if (!op.bias_and_shift.empty()) args.bias = op.bias_and_shift.data();
    kernels_->resample(slots_[op.spec.output].type, args, first, last);
  }

  // A head whose hidden channels are many: a few positions at a time, from the convolution of
  // the finest branch over the upsampled others to the scores.
  void work_head(int index, int first, int last, int thread) {
    const Op& op = ops_[index];
    int active, needed;
    const Position* positions = positions_of(op, &active, &needed);
    const int channels = op.octets * kOctet;
    const View hidden = {
        hidden_.data() + size_of(type_) * channels * kHeadTile * static_cast<size_t>(thread), 0,
        channels};
    ConvArgs conv = conv_args(op);
    conv.residual = {};
    conv.out = hidden;
    conv.out_at = compact_.data();
    conv.relu = false;
    ResampleArgs resample = resample_args(index);
    resample.out = hidden;
    resample.out_at = compact_.data();
    resample.relu = true;
    resample.add_to_output = true;
    ConvArgs scores{};
    scores.in = hidden;
    scores.out = slots_[op.spec.output].view;
    scores.in_at = compact_.data();
    scores.weights = aligned(const_cast<std::vector<uint8_t>&>(op.head_weight));
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

  void work_render(int first, int last) {
    const int rows = height_ >> kFinest;
    RenderArgs args{};
    args.scores = slots_[ADPC_SCORES].view;
    args.classes = classes_;
    args.rows = rows;
    args.columns = width_ >> kFinest;
    args.height = frame_.height;
    args.width = frame_.width;
    args.ids = ids_;
    args.confidence = confidence_;
    args.threshold = confident_;
    args.block_sum = block_sum_.data();
    args.block_count = block_count_.data();
    if (map_ && !map_->full() && previous_ids_) {  // what did not change is copied
      args.changed = map_->level(kFinest).is_needed.data();
      const int64_t from = static_cast<int64_t>(std::min(4 * first, frame_.height)) * frame_.width;
      const int64_t to = static_cast<int64_t>(std::min(4 * last, frame_.height)) * frame_.width;
      std::memcpy(ids_ + from, previous_ids_ + from, to - from);
      std::memcpy(confidence_ + from, previous_confidence_ + from, to - from);
    }
    kernels_->render(args, first, last);
  }

  // The gate: first every active position by itself, then the lists at all levels.
  bool prepare_gate(int* total, int* grain) {
    if (phase_ == 0) {
      ++exit_;
      phase_ = 1;
    }
    const bool last = ops_[schedule_[op_].op].spec.exit_index >= ADPC_EXITS;
    const bool gated = !last && frame_.adaptive == 1;
    const int cells = (height_ >> kFinest) * (width_ >> kFinest);
    if (phase_ == 1) {  // scores to active
      *total = gated ? (map_ ? map_->level(kFinest).active : cells) : 0;
      *grain = 2048;
      if (progress_ == 0 && gated) std::fill(active_.begin(), active_.end(), 0);
      return true;
    }
    if (phase_ == 2 && !last && frame_.adaptive) {
      *total = *grain = 1;
      return true;
    }
    finish_exit();
    return false;
  }

  void work_gate(int first, int last) {
    const int index = ops_[schedule_[op_].op].spec.exit_index - 1;
    if (phase_ == 1) {
      GateArgs args{};
      args.scores = slots_[ADPC_SCORES].view;
      args.classes = classes_;
      args.at = map_ ? map_->level(kFinest).at.data() : all_[kFinest].data();
      args.active = active_.data();
      args.columns = width_ >> kFinest;
      args.entropy = entropy_;
      args.threshold = thresholds_[index];
      kernels_->gate(args, first, last);
      return;
    }
    Map& next = maps_[index % 2];
    next.build(frame_.adaptive == 2 ? frame_.active[index] : active_.data());
    map_ = &next;
  }

  void finish_exit() {
    result_ = {};
    for (float sum : block_sum_) result_.confidence_sum += sum;
    for (int32_t count : block_count_) result_.confident_pixels += count;
    for (int i = 0; i < kLevels; ++i) {
      const int level = kFinest + i;
      result_.positions[i] = static_cast<int64_t>(all_[level].size());
      result_.active[i] = map_ ? map_->level(level).active : result_.positions[i];
      result_.needed[i] = map_ ? static_cast<int64_t>(map_->level(level).at.size())
                               : result_.positions[i];
    }
  }

  struct Tables {
    AxisTable rows[ADPC_MAX_SOURCES], columns[ADPC_MAX_SOURCES];
  };

  // The network
  const Kernels* kernels_;
  const Type type_;
  const int classes_;
  const bool entropy_;
  const float confident_;
  float thresholds_[ADPC_EXITS - 1];
  const std::vector<float> table_;
  double chunk_macs_;
  int reach_ = 0, steps_ = 0;
  bool planned_ = false;
  std::vector<Slot> slots_;
  std::vector<Op> ops_;
  std::vector<Item> schedule_;
  std::vector<int> buffers_;  // of each a slot that has its geometry

  // An image size
  int height_ = 0, width_ = 0;  // padded
  Buffer arena_, donors_, hidden_;
  std::vector<Position> all_[kFinest + kLevels], compact_;
  std::vector<Tables> tables_;
  Map maps_[2];
  std::vector<uint8_t> active_;
  std::vector<float> block_sum_;
  std::vector<int32_t> block_count_;

  // A frame
  adpc_frame frame_{};
  int op_ = 0, phase_ = 0, progress_ = 0, exit_ = 0;
  int grain_ = 1, total_ = 0;
  const Map* map_ = nullptr;  // null: everything is active
  std::vector<double> seconds_;
  adpc_exit result_{};
  uint8_t *ids_ = nullptr, *confidence_ = nullptr;
  const uint8_t *previous_ids_ = nullptr, *previous_confidence_ = nullptr;

  std::atomic<bool> interrupted_{false};
  ThreadPool pool_;  // last: its threads end first
};

adpc_plan* adpc_create(const char* isa, int32_t type, int32_t threads, int32_t classes,
                       int32_t entropy, const float* thresholds, float confident,
                       const float* table, char* error, int32_t error_size) {
  try {
    for (const Kernels* kernels : available())
      if (!isa || std::strcmp(isa, kernels->name) == 0)
        return new adpc_plan(kernels, static_cast<Type>(type), threads, classes, entropy != 0,
                             thresholds, confident, table);
    std::snprintf(error, error_size, "expected an instruction set of this machine (%s), got %s",
                  adpc_instruction_sets(), isa);
  } catch (const std::exception& problem) {  // no memory, no thread
    std::snprintf(error, error_size, "%s", problem.what());
  }
  return nullptr;
}

void adpc_destroy(adpc_plan* plan) { delete plan; }

int32_t adpc_add_slot(adpc_plan* plan, int32_t channels, int32_t level, int32_t type) {
  return plan->add_slot(channels, level, static_cast<Type>(type));
}

void adpc_add_op(adpc_plan* plan, const adpc_op* op) { plan->add_op(*op); }

int32_t adpc_start(adpc_plan* plan, const adpc_frame* frame) {
  try {
    plan->start(*frame);
    return 0;
  } catch (const std::bad_alloc&) {
    return -1;
  }
}

int32_t adpc_run(adpc_plan* plan, double slice_s, uint8_t* ids, uint8_t* confidence,
                 const uint8_t* previous_ids, const uint8_t* previous_confidence) {
  return plan->run(slice_s, ids, confidence, previous_ids, previous_confidence);
}

void adpc_interrupt(adpc_plan* plan) { plan->interrupt(); }

void adpc_last_exit(const adpc_plan* plan, adpc_exit* result) { *result = plan->result(); }

void adpc_read_scores(const adpc_plan* plan, float* scores) { plan->read_scores(scores); }

void adpc_seconds(const adpc_plan* plan, double* seconds, int32_t count) {
  plan->seconds(seconds, count);
}

int64_t adpc_memory_bytes(const adpc_plan* plan) { return plan->memory_bytes(); }

void adpc_poison(adpc_plan* plan) { plan->poison(); }

const char* adpc_instruction_sets() {
  static const std::string names = [] {
    std::string all;
    for (const Kernels* kernels : available()) all += (all.empty() ? "" : " ") + std::string(kernels->name);
    return all;
  }();
  return names.c_str();
}

const char* adpc_instruction_set(const adpc_plan* plan) { return plan->kernels()->name; }
