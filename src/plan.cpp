// SPDX-License-Identifier: Apache-2.0
#include "plan.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <stdexcept>

using namespace adpc;

namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kMapBytes = 64;  // at most, of an active map for a cell of 1/4
constexpr int kMinTiles = 8;       // in a chunk, since it reads all of the weights

// 1x1 convolutions that follow each other and take the same positions: what one writes is in the
// cache when the next reads it. They must not be masked, since donors are those of one operation.
bool is_pointwise(const adpc_op& spec) {
  return spec.kind == ADPC_CONV && spec.kernel == 1 && spec.stride == 1 && !spec.masked &&
         !spec.depthwise;
}

double now_s() { return std::chrono::duration<double>(Clock::now().time_since_epoch()).count(); }

// Writes down when a function was left.
struct Leaving {
  double& at_s;
  ~Leaving() { at_s = now_s(); }
};

}  // namespace

adpc_plan::adpc_plan(const Kernels* kernels, Type type, int threads, int classes, int exits,
                     int level, int multiple, bool entropy, const float* thresholds,
                     const float* temperatures, float confident, const float* table)
    : kernels_(kernels), type_(type), classes_(classes), exits_(exits), multiple_(multiple),
      entropy_(entropy), confident_(confident),
      thresholds_(thresholds, thresholds + static_cast<size_t>(exits - 1) * classes),
      temperatures_(temperatures, temperatures + exits), table_(table, table + 3 * 256),
      layout_(kernels, type, classes, exits, level, multiple),
      until_s_(std::numeric_limits<double>::infinity()), pool_(threads) {
  for (float temperature : temperatures_) calibrated_ = calibrated_ || temperature != 1.0f;
  for (int i = 0; i < kHeadTile; ++i) compact_[i] = at(0, i);
}

int adpc_plan::add_slot(int channels, int level, Type type) {
  return layout_.add_slot(channels, level, type);
}

void adpc_plan::add_op(const adpc_op& op) {
  jobs_.clear();
  layout_.add_op(op);
}

// Begins a frame; lays out memory anew if the size is another.
void adpc_plan::start(const adpc_frame& frame) {
  if (!frame.image && !frame.normalised) throw std::invalid_argument("no image");
  expect_within("adaptive", frame.adaptive, 0, 2);
  expect_size(frame.height, frame.width);
  for (int e = 0; e < exits_ - 1 && frame.adaptive == 2; ++e)
    if (!frame.active[e]) throw std::invalid_argument("no active map");
  const int height = padded(frame.height), width = padded(frame.width);
  if (jobs_.empty() || height != layout_.height() || width != layout_.width())
    resize(height, width);
  if (frame.adaptive == 2) layout_.expect_nested(frame);
  frame_ = frame;
  job_ = first_job_;
  chunk_ = 0;
  exit_ = 0;
  map_ = nullptr;
  scores_ = ADPC_SCORES;
  given_ = -1;
  seconds_.assign(layout_.steps() + 1 + 2 * exits_, 0.0);
  winograd_.assign(layout_.steps(), 0);
  result_ = {};
}

// Forgets the frame: nothing is left to run.
void adpc_plan::abandon() {
  job_ = static_cast<int>(jobs_.size());
  given_ = -1;
}

// At least one chunk is done. An interrupt that came before counts, too: who made it may not know
// whether the frame has begun.
int adpc_plan::run(uint8_t* ids, uint8_t* confidence, const uint8_t* previous_ids,
                   const uint8_t* previous_confidence) {
  const FlushDenormals flush;
  const Leaving leaving{returned_s_};
  ids_ = ids;
  confidence_ = confidence;
  previous_ids_ = previous_ids;
  previous_confidence_ = previous_confidence;
  bool begun = false;
  auto stop = [&] {
    if (!begun) return !(begun = true);
    return interrupted_.load(std::memory_order_acquire) ||
           now_s() >= until_s_.load(std::memory_order_relaxed);
  };
  double then = now_s();
  while (job_ < static_cast<int>(jobs_.size())) {
    const Job& job = jobs_[job_];
    if (job.what == Job::kExit) {
      ++job_;
      finish_exit(layout_.ops()[job.index]);
      return exit_;
    }
    if (job.what == Job::kRender && !(ids_ && confidence_)) return ADPC_FINISHED;
    if (chunk_ == 0) amount_ = amount(job);
    const int chunks = (amount_.items + amount_.grain - 1) / amount_.grain;
    chunk_ = pool_.run(
        [](void* plan, int chunk, int thread) {
          static_cast<adpc_plan*>(plan)->work(chunk, thread);
        },
        this, chunk_, chunks, amount_.alone, stop);
    const double now = now_s();
    account(job, now - then);
    then = now;
    if (chunk_ < chunks) {
      interrupted_.store(false, std::memory_order_relaxed);
      return ADPC_PAUSED;
    }
    if (job.what == Job::kConvolve) winograd_[layout_.ops()[job.index].spec.step] = amount_.winograd;
    ++job_;
    chunk_ = 0;
    if (job.what == Job::kEdges) first_job_ = job_;
  }
  return ADPC_FINISHED;
}

void adpc_plan::read_steps(double* seconds, uint8_t* winograd, int count) const {
  for (int i = 0; i < std::min(count, static_cast<int>(seconds_.size())); ++i) {
    seconds[i] = seconds_[i];
    winograd[i] = i < static_cast<int>(winograd_.size()) ? winograd_[i] : 0;
  }
}

void adpc_plan::expect_size(int height, int width) const {
  for (int edge : {height, width}) {
    expect_within("pixels an edge", edge, 1, ADPC_MAX_EDGE);
    expect_within("padded pixels an edge", padded(edge), 1, ADPC_MAX_EDGE);
  }
}

int64_t adpc_plan::bytes_for(int height, int width) {
  expect_size(height, width);
  const int rows = padded(height), columns = padded(width);
  const int64_t cells = static_cast<int64_t>(rows) * columns;
  int64_t bytes = layout_.bytes_for(rows, columns);
  bytes += cells / 3 * static_cast<int64_t>(sizeof(Position));  // lists of all, from 1/2 on
  bytes += cells / 16 * kMapBytes * exits_;
  return bytes;
}

int64_t adpc_plan::memory_bytes() const {
  int64_t total = layout_.bytes();
  for (const Map& map : maps_) total += map.bytes();
  return total;
}

void adpc_plan::poison() {
  layout_.poison();
  for (auto& map : inverse_temperature_) std::fill(map.begin(), map.end(), std::nanf(""));
  std::fill(block_sum_.begin(), block_sum_.end(), std::nanf(""));
  std::fill(block_count_.begin(), block_count_.end(), -1000000);
}

void adpc_plan::resize(int height, int width) {
  jobs_.clear();  // should memory be missing, the next frame tries again
  layout_.resize(height, width, pool_.size());
  int octets = 0;
  for (const Op& op : layout_.ops())
    octets = std::max({octets, op.octets, octets_of(op.in_channels)});
  zeros_.assign(static_cast<size_t>(octets) * kOctet, 0.0f);
  const int rows = layout_.rows(kFinest), columns = layout_.columns(kFinest);
  for (Map& map : maps_) map.resize(rows, columns, layout_.masked_levels(), layout_.reach());
  active_.resize(static_cast<size_t>(rows) * columns);
  for (auto& map : inverse_temperature_)
    if (calibrated_) map.resize(static_cast<size_t>(rows) * columns);
  const size_t blocks = rows * ((columns + size_t{kRenderBlock} - 1) / kRenderBlock);
  block_sum_.assign(blocks, 0.0f);
  block_count_.assign(blocks, 0);
  list_jobs();
}

void adpc_plan::list_jobs() {
  std::vector<Job> jobs;
  for (int buffer = 0; buffer < layout_.buffers(); ++buffer) jobs.push_back({Job::kEdges, buffer});
  jobs.push_back({Job::kInput, -1});
  auto level_of = [this](int op) { return layout_.slot(layout_.ops()[op].spec.output).level; };
  int level = layout_.slot(ADPC_SCORES).level;
  for (int i = 0; i < static_cast<int>(layout_.ops().size()); ++i) {
    const adpc_op& spec = layout_.ops()[i].spec;
    switch (spec.kind) {
      case ADPC_RESAMPLE: jobs.push_back({Job::kResample, i}); break;
      case ADPC_HEAD: jobs.push_back({Job::kHead, i}); break;
      case ADPC_INVERTED: jobs.push_back({Job::kInvert, i}); break;
      default:
        if (i > 0 && is_pointwise(spec) && is_pointwise(layout_.ops()[i - 1].spec) &&
            jobs.back().what == Job::kConvolve && level_of(i) == level_of(i - 1)) {
          ++jobs.back().count;
          break;
        }
        jobs.push_back({spec.depthwise ? Job::kDepthwise : Job::kConvolve, i});
        if (spec.masked && spec.reach > 0) jobs.push_back({Job::kInterpolate, i});
    }
    if (!spec.gives_exit) continue;
    const bool rescaled = layout_.slot(spec.output).level != level;
    level = layout_.slot(spec.output).level;
    if (calibrated_) jobs.push_back({Job::kAttribute, i, rescaled});
    for (Job::What what : {Job::kRender, Job::kGate, Job::kList, Job::kExit})
      jobs.push_back({what, i, rescaled});
  }
  first_job_ = 0;
  jobs_.swap(jobs);
}

// In chunks that take somewhat less than a millisecond, and enough of them for all threads.
Amount adpc_plan::chunks_of(int items, double macs) const {
  Amount amount;
  amount.items = items;
  const int share = items / (4 * pool_.size());
  amount.grain = std::max(std::min(static_cast<int>(kernels_->chunk_macs / macs), share),
                          std::max(1, items >> 20));  // so that the pool can count the chunks
  return amount;
}

Amount adpc_plan::amount_of_convolution(const Job& job) const {
  const Op& op = layout_.ops()[job.index];
  int active, needed;
  positions_of(op, &active, &needed);
  const Map* map = map_of(op);
  const int level = layout_.slot(op.spec.output).level;
  const int all = ((layout_.rows(level) + 1) / 2) * ((layout_.columns(level) + 1) / 2);
  const int tiles = map ? static_cast<int>(map->level(level).tiles.size()) : all;
  double macs = 0.0;
  for (int i = 0; i < job.count; ++i) macs += layout_.ops()[job.index + i].macs;
  const bool winograd = op.tile_cost > 0.0 && tiles * op.tile_cost < active;
  Amount amount = winograd ? chunks_of(tiles, macs * op.tile_cost) : chunks_of(active, macs);
  if (winograd) amount.grain = std::max(amount.grain, kMinTiles);
  const int together = kernels_->tile(op.octets);  // or the last ones are computed for nothing
  amount.grain = (amount.grain + together - 1) / together * together;
  amount.winograd = winograd;
  return amount;
}

// As the maps and the scale of the scores are now.
Amount adpc_plan::amount(const Job& job) {
  if (job.what == Job::kEdges) {
    Amount amount;
    amount.items = layout_.edge_rows(job.index);
    amount.grain = layout_.edge_grain(job.index);
    return amount;
  }
  if (job.what == Job::kInput) return chunks_of(layout_.height(), 8.0 * layout_.width());
  const Op& op = layout_.ops()[job.index];
  int active, needed;
  positions_of(op, &active, &needed);
  switch (job.what) {
    case Job::kConvolve: return amount_of_convolution(job);
    case Job::kInterpolate: return chunks_of(map_of(op) ? needed - active : 0, 64.0 * op.octets);
    case Job::kInvert: {
      const int rows = layout_.rows(layout_.slot(op.spec.output).level);
      Amount amount;
      amount.items = (rows + op.band_rows - 1) / op.band_rows;
      return amount;
    }
    case Job::kDepthwise:
    case Job::kResample:
    case Job::kHead:
      if (carries(op) && (!map_ || map_->full())) active = 0;
      return chunks_of(active, op.macs);
    default: break;
  }
  scores_ = op.spec.output;
  const int level = level_of_scores(), cells = static_cast<int>(layout_.all(level).size());
  switch (job.what) {
    case Job::kAttribute: return chunks_of(job.rescaled ? cells : active, 20.0);
    case Job::kRender:
      return chunks_of(layout_.rows(level),
                       50.0 * layout_.columns(level) * classes_ * (1 << 2 * level));
    case Job::kGate:
      if (!gates(op) || frame_.adaptive != 1) return {};
      std::fill(active_.begin(), active_.end(), 0);
      return chunks_of(map_ ? map_->level(level).active : cells, 200.0);
    default: {
      Amount amount;
      amount.items = gates(op) ? next_map(op).parts() : 0;
      amount.alone = true;
      return amount;
    }
  }
}

void adpc_plan::work(int chunk, int thread) {
  const Job& job = jobs_[job_];
  const int first = chunk * amount_.grain, last = std::min(first + amount_.grain, amount_.items);
  if (job.what == Job::kEdges) {
    layout_.clear_edges(job.index, first, last);
  } else if (job.what == Job::kInput) {
    input(first, last);
  } else {
    const Op& op = layout_.ops()[job.index];
    switch (job.what) {
      case Job::kConvolve:
        if (job.count == 1) convolve(op, first, last, thread);
        else convolve_pointwise(job, first, last, thread);
        break;
      case Job::kInterpolate: interpolate(op, first, last); break;
      case Job::kDepthwise: depthwise(op, first, last); break;
      case Job::kInvert: invert(op, first, thread); break;
      case Job::kResample: resample(op, first, last); break;
      case Job::kHead: head(op, first, last, thread); break;
      case Job::kAttribute: attribute(op, first, last); break;
      case Job::kRender: render(first, last); break;
      case Job::kGate: gate(op, first, last); break;
      default: list(op, first, last);
    }
  }
  progress_.fetch_add(1, std::memory_order_relaxed);
}

void adpc_plan::account(const Job& job, double seconds) {
  const int steps = layout_.steps();
  if (job.what == Job::kEdges || job.what == Job::kInput) {
    seconds_[steps] += seconds;
    return;
  }
  const adpc_op& spec = layout_.ops()[job.index].spec;
  if (job.what == Job::kAttribute || job.what == Job::kRender) {
    seconds_[steps + spec.exit_index] += seconds;
  } else if (job.what == Job::kGate || job.what == Job::kList) {
    seconds_[steps + spec.exit_index + exits_] += seconds;
  } else {
    const Op* ops = &layout_.ops()[job.index];
    double macs = 0.0;
    for (int i = 0; i < job.count; ++i) macs += ops[i].macs;
    for (int i = 0; i < job.count; ++i)  // together they were timed
      seconds_[ops[i].spec.step] += job.count == 1 ? seconds : seconds * ops[i].macs / macs;
  }
}
