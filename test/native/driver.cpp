// SPDX-License-Identifier: Apache-2.0
// Runs random small networks on the native runtime, disturbs them as a node would and worse, and
// compares every result.  driver SECONDS [SEED]: prints what it did, or the first difference (and
// then exits with 1). Episode e of a run has the seed SEED + e: `driver 0 SEED` repeats it alone.
// driver write FILE EPISODES [SEED]: writes the results of undisturbed frames to a file.
// driver compare FILE EPISODES [SEED]: compares them with this machine's, as far as exits have the
// same active map.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <fstream>
#include <future>
#include <initializer_list>
#include <iterator>
#include <memory>
#include <new>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "adpc.h"

// All memory comes from here. A thread can ask for it to be missing once, so many requests later,
// and for requests to be counted.
thread_local int missing_in = 0;
thread_local bool counting = false;
std::atomic<int64_t> requests{0};

[[gnu::noinline]] void* operator new(size_t bytes) {
  requests += counting;
  void* memory = missing_in > 0 && --missing_in == 0 ? nullptr : std::malloc(bytes);
  if (!memory) throw std::bad_alloc();
  return memory;
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept { std::free(memory); }

// The runtime's features lie in memory that it gets here: as it comes it is full of NaN, which
// even a weight of zero does not hide.
extern "C" void* aligned_alloc(size_t alignment, size_t bytes) noexcept {
  void* memory = nullptr;
  requests += counting;
  if (missing_in > 0 && --missing_in == 0) return nullptr;
  if (posix_memalign(&memory, std::max(alignment, sizeof(void*)), bytes)) return nullptr;
  return std::memset(memory, 0xff, bytes);
}

namespace {

using Clock = std::chrono::steady_clock;

constexpr int kFinest = 2, kLevels = 4;  // branches lie at levels 2 to 5 at most
constexpr int kExits = 4, kCases = 6, kRounds = 8, kNonsense = 10;  // of an episode
constexpr double kWholeFrame = 1e6;      // seconds
constexpr double kFloatTolerance = 1e-4, kBFloatTolerance = 0.1;  // of the largest score

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  int whole(int low, int high) { return std::uniform_int_distribution<int>(low, high)(engine_); }
  double real(double low, double high) {
    return std::uniform_real_distribution<double>(low, high)(engine_);
  }
  bool chance(double probability) { return real(0.0, 1.0) < probability; }
  float normal() { return normal_(engine_); }
  uint8_t byte() { return static_cast<uint8_t>(engine_()); }
  uint64_t seed() { return engine_(); }
  template <class T>
  const T& of(const std::vector<T>& values) {
    return values[static_cast<size_t>(whole(0, static_cast<int>(values.size()) - 1))];
  }
  template <class T>
  void shuffle(std::vector<T>& values) { std::shuffle(values.begin(), values.end(), engine_); }

 private:
  std::mt19937_64 engine_;
  std::normal_distribution<float> normal_;
};

template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  throw std::runtime_error(text.str());
}

// What was done, to see that it was something. Two plans may run at the same time.
std::atomic<int64_t> frames{0}, dropped{0}, pauses{0}, partial{0}, accepted{0}, refused{0};
std::atomic<int64_t> transformed{0};  // operations, by Winograd

// A network that can be given to any number of plans.
class Network {
 public:
  explicit Network(Random& random) : random_(random) {
    classes = random.whole(2, 20);
    entropy = random.chance(0.5);
    thresholds.resize(static_cast<size_t>(kExits - 1) * classes);
    for (float& threshold : thresholds)
      threshold = static_cast<float>(entropy ? random.real(0.3, 1.0) * std::log(classes)
                                             : random.real(1.0 / classes, 1.0));
    calibrated = random.chance(0.7);
    for (float& temperature : temperatures) {
      const bool changed = calibrated && random.chance(0.8);
      temperature = changed ? static_cast<float>(random.real(0.3, 3.0)) : 1.0f;
    }
    confident = static_cast<float>(random.real(0.2, 0.9));
    for (int i = 0; i < 3 * 256; ++i) table.push_back(random.normal());
    multiple = random.of<int>({8, 16, 24, 32, 32, 32});
    const int coarse = std::max(0, random.whole(-2, 3));  // exits at 1/8
    for (int i = 0; i < kExits; ++i) levels[i] = kFinest + (i < coarse);
    slots_ = {{3, 0, false}, {classes, levels[0], true}};
    std::vector<int> branches = stem();
    std::vector<int> heads = {0, 1, 2, random.whole(0, 2)};
    random.shuffle(heads);
    int most = random.whole(2, kLevels);
    while (!whole(kFinest + most - 1)) --most;
    for (exit_ = 1; exit_ <= kExits; ++exit_) {
      if (static_cast<int>(branches.size()) < most)
        branches.push_back(conv(branches.back(), channels(), {3, 2, true, true}));
      for (int& branch : branches) branch = block(branch);
      branches = fuse(branches);
      const int level = levels[exit_ - 1];
      if (level < slot(scores_).level) {  // what was predicted is carried over
        const int coarser = std::exchange(scores_, add_slot(classes, level, true));
        resample(scores_, {coarser}).masked = 0;
      }
      const std::vector<int> read(branches.begin() + (level - kFinest), branches.end());
      switch (heads[static_cast<size_t>(exit_ - 1)]) {
        case 0: plain_head(read); break;
        case 1: joined_head(read); break;
        default: pooled_head(read);
      }
    }
  }

  // Inverted residuals as one operation each, if `fused`; memory may be missing.
  void give_to(adpc_plan* plan, int type, bool fused, Random* missing) const {
    for (size_t i = 2; i < slots_.size(); ++i)
      if (patiently(missing, [&] {
            return adpc_add_slot(plan, slots_[i].channels, slots_[i].level,
                                 slots_[i].wide ? ADPC_FLOAT32 : type);
          }) != static_cast<int>(i))
        fail("another slot than ", i);
    for (int i = 0; i < steps(); ++i) {
      const adpc_op* op = &ops_[static_cast<size_t>(i)];
      for (const adpc_op& one : fused_)
        if (fused && one.step - (one.expand_weight ? 2 : 1) == i) op = &one;
      i = op->step;
      if (patiently(missing, [&] { return adpc_add_op(plan, op); })) fail("step ", i, " refused");
    }
  }

  // Calls again after memory was missing, if `random` is given.
  template <class Call>
  static int patiently(Random* random, Call call) {
    if (random) missing_in = random->whole(1, random->chance(0.5) ? 30 : 1000);
    const int result = call();
    const bool missed = random && missing_in == 0;
    missing_in = 0;
    return result < 0 && missed ? call() : result;
  }

  int steps() const { return static_cast<int>(ops_.size()); }
  bool has_inverted() const { return !fused_.empty(); }
  // Cells along an edge of so many pixels, padded; at level 0 pixels.
  int cells(int pixels, int level) const {
    const int padded = (pixels + multiple - 1) / multiple * multiple;
    return (padded + (1 << level) - 1) >> level;
  }

  int classes, multiple, levels[kExits];
  bool entropy, calibrated;
  std::vector<float> thresholds;  // (exits - 1, classes)
  float temperatures[kExits], confident;
  std::vector<float> table;

 private:
  struct Slot {
    int channels, level;
    bool wide;
  };
  struct Conv {
    int kernel = 1, stride = 1;
    bool relu = true;
    bool read = false;      // also at inactive positions, which are interpolated
    bool needed = false;    // or computed
    bool gives_exit = false;
    int residual = -1;
    bool depthwise = false;
  };

  int channels() { return random_.whole(1, 20); }
  bool whole(int level) const { return multiple % (1 << level) == 0; }

  int add_slot(int channels, int level, bool wide = false) {
    slots_.push_back({channels, level, wide});
    return static_cast<int>(slots_.size()) - 1;
  }
  Slot slot(int index) const { return slots_[static_cast<size_t>(index)]; }

  const float* numbers(int count, double scale) {
    values_.emplace_back(static_cast<size_t>(count));
    for (float& value : values_.back()) value = static_cast<float>(scale) * random_.normal();
    return values_.back().data();
  }

  const float* window(int edge) {
    values_.emplace_back(static_cast<size_t>(edge) * edge);
    std::vector<float>& weights = values_.back();
    float total = 0.0f;
    for (float& weight : weights) total += weight = static_cast<float>(random_.real(0.0, 1.0));
    for (float& weight : weights) weight /= total;
    return weights.data();
  }

  adpc_op& add_op(int kind, int output) {
    adpc_op op{};
    op.kind = kind;
    op.step = steps();
    op.exit_index = exit_;
    op.masked = exit_ > 1;
    op.output = output;
    op.residual = -1;
    op.kernel = op.stride = 1;
    ops_.push_back(op);
    return ops_.back();
  }

  void add_weights(adpc_op& op, int out_channels) {
    const int inputs = (op.depthwise ? 1 : slot(op.input).channels) * op.kernel * op.kernel;
    op.weight = numbers(out_channels * inputs, std::sqrt(2.0 / inputs));
    op.bias = numbers(out_channels, 0.1);
    op.shift = numbers(out_channels, 0.1);
  }

  int conv(int input, int out_channels, const Conv& how, int output = -1) {
    const int level = slot(input).level + how.stride - 1;
    if (output < 0) output = add_slot(out_channels, level);
    adpc_op& op = add_op(ADPC_CONV, output);
    op.input = input;
    op.kernel = how.kernel;
    op.stride = how.stride;
    op.relu = how.relu;
    op.needed = how.needed;
    op.gives_exit = how.gives_exit;
    op.residual = how.residual;
    op.depthwise = how.depthwise;
    add_weights(op, out_channels);
    if (how.read && exit_ > 1) {
      op.reach = random_.chance(0.5) ? 1 : 3;
      op.window_edge = 2 * op.reach + 1;
      op.window = window(op.window_edge);
    }
    return output;
  }

  // Such as is never masked.
  int any(int input, int stride, int out_channels = 0) {
    const Conv how{random_.whole(std::max(2, stride), 5), stride};
    return conv(input, out_channels ? out_channels : channels(), how);
  }

  adpc_op& resample(int output, const std::vector<int>& sources) {
    adpc_op& op = add_op(ADPC_RESAMPLE, output);
    op.source_count = static_cast<int>(sources.size());
    std::copy(sources.begin(), sources.end(), op.sources);
    return op;
  }

  std::vector<int> stem() {
    int x = any(ADPC_IMAGE, 2);
    while (random_.chance(0.4)) x = inverted(x, 1);
    x = random_.chance(0.5) ? any(x, 2) : inverted(x, 2);
    if (random_.chance(0.7)) x = bottleneck(x);
    if (random_.chance(0.5)) x = pyramid(x);
    return {any(x, 1)};
  }

  // Three operations, and one that can take their place.
  int inverted(int x, int stride) {
    const int in = slot(x).channels;
    const int inner = random_.chance(0.7) ? random_.whole(1, 120) : in;
    const int out = random_.chance(0.5) ? in : random_.whole(1, 60);
    const size_t first = ops_.size();
    const int wide = inner == in ? x : conv(x, inner, {1, 1});
    Conv depth{random_.chance(0.5) ? 3 : 5, stride}, last{1, 1, false};
    depth.depthwise = true;
    if (stride == 1 && in == out && random_.chance(0.8)) last.residual = x;
    const int result = conv(conv(wide, inner, depth), out, last);
    for (size_t i = first; i < ops_.size(); ++i) ops_[i].shift = nullptr;
    const adpc_op &expand = ops_[first], &project = ops_.back();
    adpc_op one = ops_[ops_.size() - 2];
    one.kind = ADPC_INVERTED;
    one.depthwise = 0;
    one.input = x;
    if (inner != in) one.expand_weight = expand.weight;
    if (inner != in) one.expand_bias = expand.bias;
    one.step = project.step;
    one.output = result;
    one.residual = project.residual;
    one.head_channels = inner;
    one.head_weight = project.weight;
    one.head_bias = project.bias;
    fused_.push_back(one);
    return result;
  }

  // Down to coarser maps, whose sizes are rounded up, and back.
  int pyramid(int x) {
    std::vector<int> maps = {x};
    for (int levels = random_.whole(1, ADPC_MAX_LEVEL - kFinest); levels > 0; --levels)
      maps.push_back(random_.chance(0.5) ? any(maps.back(), 2)
                                         : inverted(maps.back(), 2));
    const int count = channels();
    int total = any(maps.back(), 1, count);
    for (maps.pop_back(); !maps.empty(); maps.pop_back()) {
      const int own = conv(maps.back(), count, {1, 1, false});
      total = resample(add_slot(count, slot(own).level), {own, total}).output;
    }
    return total;
  }

  int bottleneck(int x) {
    const int wide = channels(), narrow = channels();
    const int shortcut = conv(x, wide, {1, 1, false, true});
    const int inner = conv(x, narrow, {1, 1, true, true});
    const int middle = conv(inner, narrow, {3, 1, true, true});
    Conv last{1, 1, true, true};
    last.residual = shortcut;
    return conv(middle, wide, last);
  }

  int block(int x) {
    if (random_.chance(0.2)) return bottleneck(x);
    const int count = slot(x).channels;
    Conv last{3, 1, true, true};
    last.residual = x;
    if (random_.chance(0.1)) return conv(x, count, last);
    return conv(conv(x, count, {3, 1, true, true}), count, last);
  }

  std::vector<int> fuse(const std::vector<int>& branches) {
    std::vector<int> fused;
    for (int to : branches) {
      const int count = slot(to).channels;
      std::vector<int> sources;
      for (int from : branches) {
        int x = from;
        if (slot(from).level > slot(to).level) {  // the sum upsamples it
          Conv how{1, 1, false};
          how.needed = true;
          x = conv(x, count, how);
        }
        while (slot(x).level < slot(to).level) {
          const bool last = slot(x).level + 1 == slot(to).level;
          x = conv(x, last ? count : channels(), {3, 2, !last, true});
        }
        sources.push_back(x);
      }
      adpc_op& sum = resample(add_slot(count, slot(to).level), sources);
      sum.relu = sum.needed = 1;
      fused.push_back(sum.output);
    }
    return fused;
  }

  void plain_head(const std::vector<int>& branches) {
    Conv last{1, 1, false};
    last.gives_exit = true;
    conv(conv(branches[0], channels(), {}), classes, last, scores_);
  }

  void joined_head(const std::vector<int>& branches) {
    const int hidden = random_.whole(1, 70);
    std::vector<int> terms;
    for (size_t i = 1; i < branches.size(); ++i) {
      Conv how{1, 1, false};
      how.needed = true;
      terms.push_back(conv(branches[i], hidden, how));
    }
    adpc_op& op = add_op(ADPC_HEAD, scores_);
    op.input = branches[0];
    add_weights(op, hidden);
    op.head_channels = hidden;
    op.head_weight = numbers(classes * hidden, std::sqrt(2.0 / hidden));
    op.head_bias = numbers(classes, 0.1);
    op.source_count = static_cast<int>(terms.size());
    std::copy(terms.begin(), terms.end(), op.sources);
    op.gives_exit = 1;
  }

  // Class scores of half or a quarter of the resolution, which are upsampled.
  void pooled_head(const std::vector<int>& branches) {
    const int half = slot(scores_).level + 1;
    if (exit_ > 1 && !whole(half)) return plain_head(branches);
    int count = 0;
    for (int branch : branches) count += (slot(branch).channels + 7) / 8 * 8;
    adpc_op& pool = resample(add_slot(count, half), branches);
    pool.pooled = pool.concatenate = 1;
    int x = conv(pool.output, channels(), {1, 1, true, true});
    if (random_.chance(0.3) && (exit_ == 1 || whole(half + 1))) {
      adpc_op& again = resample(add_slot((slot(x).channels + 7) / 8 * 8, half + 1), {x});
      again.pooled = again.concatenate = 1;
      x = conv(again.output, channels(), {1, 1, true, true});
    }
    Conv how{1, 1, false};
    how.needed = true;
    const int small = add_slot(classes, slot(x).level, true);
    conv(x, classes, how, small);
    resample(scores_, {small}).gives_exit = 1;
  }

  Random& random_;
  int exit_ = 1, scores_ = ADPC_SCORES;
  std::vector<Slot> slots_;
  std::vector<adpc_op> ops_, fused_;
  std::deque<std::vector<float>> values_;
};

// An image and what is to be computed of it.
struct Case {
  int height = 0, width = 0;
  std::vector<uint8_t> pixels;  // (height, width, 3)
  int adaptive = 0;
  std::vector<uint8_t> active[kExits - 1];
};

Case random_case(Random& random, const Network& network, int index) {
  Case result;
  const int kind = random.whole(0, 11);
  if (kind == 0) {
    result.height = result.width = 1;
  } else if (kind <= 2) {  // narrow
    result.height = random.whole(1, 8);
    result.width = random.whole(30, random.chance(0.1) ? 1500 : 150);
    if (random.chance(0.5)) std::swap(result.height, result.width);
  } else if (kind == 3 && index == 1) {  // for which the gate is more than one chunk of work
    result.height = random.whole(190, 224);
    result.width = random.whole(190, 224);
  } else {
    result.height = random.whole(2, 110);
    result.width = random.whole(2, 110);
  }
  const int step = random.whole(1, 24);  // flat patches and noise
  for (int y = 0; y < result.height; ++y)
    for (int x = 0; x < result.width; ++x)
      for (int c = 0; c < 3; ++c)
        result.pixels.push_back(x % step && y % step ? static_cast<uint8_t>(x / step * 16 + y + c)
                                                     : random.byte());
  result.adaptive = index % 3;
  const int style = random.whole(0, 2);
  for (int e = 0; e < kExits - 1 && result.adaptive == 2; ++e) {  // each within the one before
    const int level = network.levels[e], finer = e > 0 ? network.levels[e - 1] - level : 0;
    const int rows = network.cells(result.height, level);
    const int columns = network.cells(result.width, level);
    const double share = random.chance(0.2) ? random.whole(0, 1) : random.real(0.0, 1.0);
    const int top = random.whole(0, rows - 1), bottom = random.whole(top, rows - 1);
    const int left = random.whole(0, columns - 1), right = random.whole(left, columns - 1);
    for (int y = 0; y < rows; ++y)
      for (int x = 0; x < columns; ++x) {
        bool active = random.chance(share);
        if (style == 1) active = y >= top && y <= bottom && x >= left && x <= right;
        if (style == 2 && e == 0) active = y == top && x == left;
        const int cell = (y >> finer) * (columns >> finer) + (x >> finer);
        if (e > 0) active = active && result.active[e - 1][static_cast<size_t>(cell)];
        result.active[e].push_back(active);
      }
  }
  return result;
}

// The pixels in some order of memory: which axis is inner, which way each of them goes, a fourth
// channel or not. Or normalised already.
class Image {
 public:
  Image(const Case& from, const std::vector<float>& table, Random* random) {
    frame.height = from.height;
    frame.width = from.width;
    frame.adaptive = from.adaptive;
    for (int e = 0; e < kExits - 1; ++e) {
      active_[e] = from.active[e];
      frame.active[e] = active_[e].empty() ? nullptr : active_[e].data();
    }
    if (random && random->chance(0.2)) normalise(from, table);
    else arrange(from, random);
  }

  adpc_frame frame{};

 private:
  void normalise(const Case& from, const std::vector<float>& table) {
    for (size_t c = 0; c < 3; ++c)
      for (size_t i = c; i < from.pixels.size(); i += 3)
        normalised_.push_back(table[c * 256 + from.pixels[i]]);
    frame.normalised = normalised_.data();
  }

  void arrange(const Case& from, Random* random) {
    int axes[3] = {0, 1, 2}, size[3] = {from.height, from.width, 3};
    int channel[3] = {0, 1, 2};
    bool backwards[3] = {};
    if (random) {
      size[2] = random->whole(3, 4);
      std::vector<int> order = {0, 1, 2}, colours = {0, 1, 2};
      random->shuffle(order);
      random->shuffle(colours);
      for (int i = 0; i < 3; ++i) {
        axes[i] = order[static_cast<size_t>(i)];
        channel[i] = colours[static_cast<size_t>(i)] + (size[2] - 3);
        backwards[i] = random->chance(0.3);
      }
    }
    int64_t stride[3], bytes = 1, origin = 0;
    for (int i = 2; i >= 0; --i) {
      const int axis = axes[i];
      stride[axis] = bytes;
      bytes *= size[axis];
      if (backwards[axis]) {
        stride[axis] = -stride[axis];
        origin -= stride[axis] * (size[axis] - 1);
      }
    }
    bytes_.resize(static_cast<size_t>(bytes));
    const uint8_t* pixel = from.pixels.data();
    for (int y = 0; y < from.height; ++y)
      for (int x = 0; x < from.width; ++x)
        for (int c = 0; c < 3; ++c)
          bytes_[static_cast<size_t>(origin + y * stride[0] + x * stride[1] +
                                     channel[c] * stride[2])] = *pixel++;
    frame.image = bytes_.data() + origin;
    frame.row_bytes = stride[0];
    frame.pixel_bytes = stride[1];
    frame.red = channel[0] * stride[2];
    frame.green = channel[1] * stride[2];
    frame.blue = channel[2] * stride[2];
  }

  std::vector<float> normalised_;
  std::vector<uint8_t> bytes_, active_[kExits - 1];
};

// An exit's results.
struct Exit {
  std::vector<uint8_t> ids, confidence;
  std::vector<float> scores;
  adpc_exit numbers{};
};
using Exits = std::vector<Exit>;

class Plan {
 public:
  struct How {
    bool fused = false, calibrated = true;
    Random* missing = nullptr;  // memory, once in a while
  };
  Plan(const Network& network, const std::string& isa, int type, int threads, const How& how)
      : network_(network), threads_(threads), missing_(how.missing) {
    const float ones[kExits] = {1.0f, 1.0f, 1.0f, 1.0f};
    char error[200] = "";
    const int status = Network::patiently(missing_, [&] {
      plan_ = adpc_create(isa.c_str(), type, threads, network.classes, kExits, network.levels[0],
                          network.multiple, network.entropy, network.thresholds.data(),
                          how.calibrated ? network.temperatures : ones, network.confident,
                          network.table.data(), error, sizeof error);
      return plan_ ? 0 : -1;
    });
    if (status) fail("no plan: ", error);
    if (isa != adpc_instruction_set(plan_)) fail(isa, " became ", adpc_instruction_set(plan_));
    network.give_to(plan_, type, how.fused, how.missing);
  }
  ~Plan() { adpc_destroy(plan_); }
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;

  adpc_plan* get() const { return plan_; }
  int threads() const { return threads_; }
  int64_t memory() const { return adpc_memory_bytes(plan_); }

  void start(const Image& image) const {
    const std::pair<int, int> size(network_.cells(image.frame.height, 0),
                                   network_.cells(image.frame.width, 0));
    counting = size == std::exchange(size_, size);
    const int status =
        Network::patiently(missing_, [&] { return adpc_start(plan_, &image.frame); });
    counting = false;
    if (status) fail("no memory for a frame");
    ++frames;
  }

  // Carries the frame that was started to its end, in random slices if `random` is given.
  Exits finish(const Case& what, Random* random) const {
    const auto began = Clock::now();
    Exits exits;
    for (int exit = 1; exit <= kExits; ++exit) {
      const size_t pixels = static_cast<size_t>(what.height) * what.width;
      Exit result;
      const uint8_t filling = random ? random->byte() : 0xa5;  // what nobody writes differs
      result.ids = result.confidence = std::vector<uint8_t>(pixels, filling);
      const bool alone = exits.empty() || (random && random->chance(0.3));
      const Exit* before = alone ? nullptr : &exits.back();
      const int status = run(random, &result, before);
      if (status != exit) fail("exit ", exit, " ended with status ", status);
      adpc_last_exit(plan_, &result.numbers);
      const int level = network_.levels[exit - 1];
      const int cells = network_.cells(what.height, level) * network_.cells(what.width, level);
      result.scores.resize(static_cast<size_t>(cells) * network_.classes);
      adpc_read_scores(plan_, result.scores.data());
      exits.push_back(std::move(result));
      check(what, exits.back());
    }
    const int status = run(random, nullptr, nullptr);
    if (status != ADPC_FINISHED) fail("after the last exit the status is ", status);
    check_seconds(std::chrono::duration<double>(Clock::now() - began).count());
    return exits;
  }

  // Runs some slices of a frame that is then forgotten.
  void drop(const Case& what, Random& random) const {
    const Image image(what, network_.table, &random);
    const size_t pixels = static_cast<size_t>(what.height) * what.width;
    std::vector<Exit> exits(kExits + 1);
    start(image);
    ++dropped;
    int exit = 0;
    for (int slices = random.whole(0, 12); slices > 0 && exit < kExits; --slices) {
      exits[exit].ids.resize(pixels);
      exits[exit].confidence.resize(pixels);
      const Exit* before = exit ? &exits[exit - 1] : nullptr;
      const int status = slice(random.real(0.0, 0.002), &exits[exit], before);
      if (status != ADPC_PAUSED) exit = status;
    }
  }

 private:
  int slice(double seconds, Exit* into, const Exit* before) const {
    counting = true;
    const std::chrono::duration<double> now = Clock::now().time_since_epoch();
    adpc_run_until(plan_, now.count() + seconds);
    const int status = adpc_run(plan_, into ? into->ids.data() : nullptr,
                                into ? into->confidence.data() : nullptr,
                                before ? before->ids.data() : nullptr,
                                before ? before->confidence.data() : nullptr);
    counting = false;
    if (const int64_t count = requests.exchange(0)) fail("memory taken ", count, " times");
    return status;
  }

  int run(Random* random, Exit* into, const Exit* before) const {
    for (;;) {
      const double most = random ? (random->chance(0.5) ? 0.0001 : 0.002) : kWholeFrame;
      const int status = slice(random ? random->real(0.0, most) : most, into, before);
      if (status != ADPC_PAUSED) return status;
      ++pauses;
    }
  }

  // What must hold of any exit.
  void check(const Case& what, const Exit& exit) const {
    for (float score : exit.scores)
      if (!(std::fabs(score) < 1e6f)) fail("a score of ", score);
    double sum = 0.0;
    int64_t surely = 0, perhaps = 0;
    for (uint8_t value : exit.confidence) {
      sum += value / 255.0;
      surely += value > network_.confident * 255 + 1;
      perhaps += value >= network_.confident * 255 - 1;
    }
    for (uint8_t id : exit.ids)
      if (id >= network_.classes) fail("class ", int{id}, " of ", network_.classes);
    const adpc_exit& numbers = exit.numbers;
    const auto pixels = static_cast<double>(exit.ids.size());
    if (!(std::fabs(sum - numbers.confidence_sum) <= pixels * 0.51 / 255.0))
      fail("a sum of confidence of ", numbers.confidence_sum, ", of the image ", sum);
    if (numbers.confident_pixels < surely || numbers.confident_pixels > perhaps)
      fail(numbers.confident_pixels, " confident pixels, of the image ", surely, " to ", perhaps);
    for (int i = 0; i < kLevels; ++i) {
      const int64_t cells = int64_t{network_.cells(what.height, kFinest + i)} *
                            network_.cells(what.width, kFinest + i);
      if (numbers.positions[i] != cells || numbers.needed[i] > cells ||
          numbers.active[i] > numbers.needed[i])
        fail("level ", i, ": ", numbers.active[i], " active, ", numbers.needed[i], " needed of ",
             numbers.positions[i], ", not ", cells);
    }
    partial += numbers.active[0] > 0 && numbers.active[0] < numbers.positions[0];
  }

  void check_seconds(double elapsed) const {
    std::vector<double> seconds(static_cast<size_t>(network_.steps() + 1 + 2 * kExits), -1.0);
    std::vector<uint8_t> winograd(seconds.size(), 2);
    adpc_steps(plan_, seconds.data(), winograd.data(), static_cast<int>(seconds.size()));
    for (uint8_t used : winograd)
      if (used > 1) fail("a kernel numbered ", int{used});
    transformed += std::count(winograd.begin(), winograd.end(), 1);
    double sum = 0.0;
    for (double part : seconds) {
      if (!(part >= 0.0)) fail("an operation of ", part, " s");
      sum += part;
    }
    if (sum > elapsed + 1e-6) fail("operations of ", sum, " s in ", elapsed, " s");
  }

  const Network& network_;
  const int threads_;
  Random* const missing_;
  adpc_plan* plan_;
  mutable std::pair<int, int> size_;  // pixels, of the last frame
};

// Interrupts a plan from another thread, as long as it lives.
class Interrupter {
 public:
  Interrupter(const Plan& plan, uint64_t seed)
      : thread_([this, target = plan.get(), seed] {
          Random random(seed);
          while (!done_.load()) {
            const double most = random.chance(0.5) ? 200.0 : 2000.0;
            std::this_thread::sleep_for(
                std::chrono::microseconds(static_cast<int>(random.real(50.0, most))));
            adpc_interrupt(target);
          }
        }) {}
  ~Interrupter() {
    done_.store(true);
    thread_.join();
  }

 private:
  std::atomic<bool> done_{false};
  std::thread thread_;  // last: it uses the others
};

template <class T>
void expect_same(const std::vector<T>& result, const std::vector<T>& expected, const char* what,
                 int exit) {
  if (result.size() != expected.size())
    fail(what, " of exit ", exit, ": ", result.size(), " values, not ", expected.size());
  for (size_t i = 0; i < result.size(); ++i)
    if (std::memcmp(&result[i], &expected[i], sizeof(T)) != 0)
      fail(what, " of exit ", exit, " differ at ", i, ": ", +result[i], ", not ", +expected[i]);
}

// Bit by bit.
void expect_same(const Exits& result, const Exits& expected) {
  for (size_t i = 0; i < expected.size(); ++i) {
    const int exit = static_cast<int>(i) + 1;
    expect_same(result[i].scores, expected[i].scores, "scores", exit);
    expect_same(result[i].ids, expected[i].ids, "class ids", exit);
    expect_same(result[i].confidence, expected[i].confidence, "confidence", exit);
    const adpc_exit &a = result[i].numbers, &b = expected[i].numbers;
    if (std::memcmp(&a, &b, sizeof a) != 0)
      fail("numbers of exit ", exit, " differ: confidence ", a.confidence_sum, " and ",
           b.confidence_sum, ", active ", a.active[0], " and ", b.active[0]);
  }
}

void expect_near(const Exits& result, const Exits& expected, int type, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    const std::vector<float>&a = result[i].scores, &b = expected[i].scores;
    if (a.size() != b.size() || result[i].confidence.size() != expected[i].confidence.size())
      fail("exit ", i + 1, " has ", a.size(), " scores, not ", b.size());
    float largest = 0.0f, difference = 0.0f;
    for (size_t s = 0; s < b.size(); ++s) {
      largest = std::max(largest, std::fabs(b[s]));
      difference = std::max(difference, std::fabs(a[s] - b[s]));
    }
    const double tolerance = type == ADPC_FLOAT32 ? kFloatTolerance : kBFloatTolerance;
    if (!(difference <= tolerance * largest))
      fail("scores of exit ", i + 1, " differ by ", difference, ", the largest is ", largest);
    for (size_t p = 0; p < result[i].confidence.size() && type == ADPC_FLOAT32; ++p)
      if (std::abs(result[i].confidence[p] - expected[i].confidence[p]) > 1)
        fail("confidence of exit ", i + 1, " differs at ", p, ": ", int{result[i].confidence[p]},
             ", not ", int{expected[i].confidence[p]});
  }
}

// Operations of random numbers, which may fit, are refused, or computed without harm.
void nonsense(Random& random, const std::string& set) {
  static const std::vector<float> numbers(size_t{1} << 17, 0.01f);
  const int classes = 8, type = random.whole(0, 1), level = random.whole(2, 3);
  char error[200] = "";
  const std::unique_ptr<adpc_plan, void (*)(adpc_plan*)> plan(
      adpc_create(set.c_str(), type, 2, classes, random.whole(1, ADPC_MAX_EXITS), level,
                  random.of<int>({8, 16, 24, 64}), 0, numbers.data(), numbers.data(), 0.5f,
                  numbers.data(), error, sizeof error),
      adpc_destroy);
  if (!plan) fail("no plan: ", error);
  std::vector<int> levels = {0, level}, written = {ADPC_IMAGE};
  for (int i = 2; i < 20; ++i) {
    levels.push_back(random.whole(1, 6));
    adpc_add_slot(plan.get(), random.of<int>({classes, classes, classes, 20}), levels.back(),
                  random.chance(0.8) ? type : 1 - type);
  }
  std::vector<uint8_t> bytes(3 * 40 * 40), active(16 * 16), ids(bytes.size());
  for (uint8_t& cell : active) cell = random.byte() & 1;
  std::vector<float> scores(active.size() * classes);
  for (int round = 0; round < 2; ++round) {
    for (int i = 0; i < 200; ++i) {
      const auto some = [&](int low, int high) {
        return random.chance(0.01) ? random.of<int>({INT32_MIN, -1, 100, INT32_MAX})
                                   : random.whole(low, high);
      };
      const auto rarely = [&] { return random.chance(0.2) ? some(0, 1) : 0; };
      const auto slot = [&] { return random.chance(0.9) ? random.of(written) : some(0, 20); };
      adpc_op op{};
      op.kind = some(0, 3);
      op.step = some(0, 5);
      op.exit_index = some(1, ADPC_MAX_EXITS);
      op.masked = rarely();
      op.needed = rarely();
      op.output = some(1, 19);
      op.relu = rarely();
      op.gives_exit = rarely();
      op.input = slot();
      op.residual = random.chance(0.2) ? slot() : -1;
      op.kernel = random.chance(0.7) ? 3 : some(1, 7);
      const auto level_of = [&](int x) { return x >= 0 && x < 20 ? levels[x] : 0; };
      const int up = level_of(op.output) - (random.chance(0.9) ? level_of(op.input) : 1);
      op.stride = 1 << std::max(0, up);
      op.depthwise = rarely();
      op.reach = random.chance(0.2) ? some(1, 5) : 0;
      op.window_edge = some(1, 9);
      op.head_channels = random.chance(0.8) ? classes : some(1, 60);
      op.source_count = some(1, ADPC_MAX_SOURCES);
      op.pooled = rarely();
      op.concatenate = rarely();
      for (int32_t& source : op.sources) source = slot();
      for (const float** given : {&op.weight, &op.bias, &op.shift, &op.window, &op.head_weight,
                                  &op.head_bias, &op.expand_weight, &op.expand_bias})
        *given = random.chance(given == &op.expand_weight ? 0.5 : 0.98) ? numbers.data() : nullptr;
      const bool fits = adpc_add_op(plan.get(), &op) == 0;
      if (fits) written.push_back(op.output);
      ++(fits ? accepted : refused);
    }
    adpc_frame frame{bytes.data(), nullptr, 120, 3, 0, 1, 2, random.whole(1, 40),
                     random.whole(1, 40), random.whole(0, 2), {}};
    std::fill_n(frame.active, ADPC_MAX_EXITS - 1, active.data());
    if (adpc_start(plan.get(), &frame)) {  // at another scale the map is not within the one before
      if (frame.adaptive != 2) fail("no frame");
      std::fill(active.begin(), active.end(), uint8_t{1});
      if (adpc_start(plan.get(), &frame)) fail("no frame with full maps");
    }
    adpc_poison(plan.get());
    while (adpc_run(plan.get(), ids.data(), ids.data(), nullptr, nullptr) !=
           ADPC_FINISHED)
      adpc_read_scores(plan.get(), scores.data());
  }
}

// One network, some images, every instruction set.
class Episode {
 public:
  Episode(uint64_t seed, const std::vector<std::string>& sets)
      : random_(seed), sets_(sets), network_(random_),
        type_(random_.chance(0.5) ? ADPC_FLOAT32 : ADPC_BFLOAT16),
        fused_(type_ == ADPC_FLOAT32 && random_.chance(0.5)) {
    for (int i = 0; i < kCases; ++i) cases_.push_back(random_case(random_, network_, i));
  }

  // What is being done, for the message if it fails.
  const std::string& doing() const { return doing_; }

  void run() {
    first_frames();
    for (size_t s = 0; s + 1 < sets_.size(); ++s)  // the last is the plainest
      for (size_t c = 0; c < cases_.size(); ++c) {
        say("comparison with another set", sets_[s], 1, cases_[c]);
        expect_near(expected_[s][c], expected_.back()[c], type_, comparable(c));
      }
    disturb();
  }

  void write(std::ostream& file) {
    first_frames();
    for (const Exits& exits : expected_.back())
      for (const Exit& exit : exits) {
        put(file, exit.scores);
        put(file, exit.confidence);
      }
  }

  // Compares those of another machine with all instruction sets of this one.
  void compare(std::istream& file) {
    first_frames();
    for (size_t c = 0; c < cases_.size(); ++c) {
      Exits exits(kExits);
      for (Exit& exit : exits) {
        get(file, exit.scores);
        get(file, exit.confidence);
      }
      for (size_t s = 0; s < sets_.size(); ++s) {
        say("comparison with the file", sets_[s], 1, cases_[c]);
        expect_near(expected_[s][c], exits, type_, comparable(c));
      }
    }
  }

 private:
  template <class T>
  static void put(std::ostream& file, const std::vector<T>& values) {
    const auto bytes = static_cast<int64_t>(values.size() * sizeof(T));
    file.write(reinterpret_cast<const char*>(&bytes), sizeof bytes);
    file.write(reinterpret_cast<const char*>(values.data()), bytes);
  }

  template <class T>
  static void get(std::istream& file, std::vector<T>& values) {
    int64_t bytes = 0;
    file.read(reinterpret_cast<char*>(&bytes), sizeof bytes);
    values.resize(static_cast<size_t>(bytes) / sizeof(T));
    file.read(reinterpret_cast<char*>(values.data()), bytes);
    if (!file) fail("the file ends too early");
  }

  void first_frames() {
    for (const std::string& set : sets_) {  // in memory that nobody has written to
      expected_.emplace_back();
      for (const Case& what : cases_) {
        say("first frame", set, 1, what);
        const Plan plan(network_, set, type_, 1, {fused_});
        const Image image(what, network_.table, nullptr);
        plan.start(image);
        expected_.back().push_back(plan.finish(what, nullptr));
      }
    }
  }

  void disturb() {
    const auto set = static_cast<size_t>(random_.whole(0, static_cast<int>(sets_.size()) - 1));
    if (network_.calibrated) only_confidence(set);
    if (network_.has_inverted() && type_ == ADPC_FLOAT32) other_form(set);
    for (int i = 0; i < kNonsense; ++i) {
      say("nonsense", sets_[set], 2, cases_[0]);
      nonsense(random_, sets_[set]);
    }
    const Plan patient(network_, sets_[set], type_, 2, {fused_, true, &random_});
    for (size_t c = 0; c < cases_.size(); ++c) undisturbed(patient, set, c, "missing memory");
    single_ = std::make_unique<Plan>(network_, sets_[set], type_, 1, Plan::How{fused_});
    multiple_ = std::make_unique<Plan>(network_, sets_[set], type_, random_.whole(2, 4),
                                       Plan::How{fused_});
    for (const Plan* plan : {single_.get(), multiple_.get()})
      for (size_t c = 0; c < cases_.size(); ++c) undisturbed(*plan, set, c, "warm-up");
    const int64_t memory[] = {single_->memory(), multiple_->memory()};
    for (int round = 0; round < kRounds; ++round) {
      if (random_.chance(0.25)) {
        at_once(set);
      } else {
        const Plan& plan = random_.chance(0.3) ? *single_ : *multiple_;
        disturbed(plan, set, pick(), random_.seed(), true);
      }
      const Plan& plan = random_.chance(0.3) ? *single_ : *multiple_;
      if (random_.chance(0.3)) full_maps(plan, set);
      if (random_.chance(0.3)) undisturbed(plan, set, pick(), "another frame");
      if (single_->memory() != memory[0] || multiple_->memory() != memory[1])
        fail("memory grew: ", single_->memory(), " and ", multiple_->memory(), " bytes, not ",
             memory[0], " and ", memory[1]);
    }
    say("end", sets_[set], 1, cases_[0]);
    if (random_.chance(0.5)) {  // destroyed in the middle of a frame
      multiple_->drop(cases_[pick()], random_);
      const Interrupter interrupter(*multiple_, random_.seed());
      multiple_->drop(cases_[pick()], random_);
    }
  }

  size_t pick() { return static_cast<size_t>(random_.whole(0, kCases - 1)); }

  void say(const char* what, const std::string& set, int threads, const Case& on) {
    std::ostringstream text;
    text << what << ", " << set << (type_ == ADPC_FLOAT32 ? " float32" : " bfloat16") << ", "
         << threads << " threads, " << on.height << "x" << on.width << " pixels, adaptive "
         << on.adaptive;
    doing_ = text.str();
  }

  // Exits that can be compared: active maps of its own are another plan's.
  size_t comparable(size_t index) const { return cases_[index].adaptive == 1 ? 1 : kExits; }

  // An inverted residual is the same as one operation and as three.
  void other_form(size_t set) {
    const Plan plan(network_, sets_[set], type_, 1, {!fused_});
    for (size_t c = 0; c < cases_.size(); ++c) {
      const char* form = fused_ ? "three operations for one" : "one operation for three";
      say(form, sets_[set], 1, cases_[c]);
      const Image image(cases_[c], network_.table, nullptr);
      plan.start(image);
      expect_near(plan.finish(cases_[c], nullptr), expected_[set][c], type_, comparable(c));
    }
  }

  // Temperatures change nothing else. (And the first exit's changes all of it.)
  void only_confidence(size_t set) {
    const Plan plan(network_, sets_[set], type_, 1, {fused_, false});
    for (size_t c = 0; c < cases_.size(); ++c) {
      say("temperatures of 1", sets_[set], 1, cases_[c]);
      const Image image(cases_[c], network_.table, nullptr);
      plan.start(image);
      Exits plain = plan.finish(cases_[c], nullptr);
      const Exits& calibrated = expected_[set][c];
      const double sum = calibrated[0].numbers.confidence_sum;
      const double difference = plain[0].numbers.confidence_sum - sum;
      const float temperature = network_.temperatures[0];
      if (temperature > 1.0f ? difference < 0.0 : difference > 0.0)
        fail("confidence adds up to ", sum, ", without a temperature of ", temperature, " to ",
             sum + difference);
      for (size_t i = 0; i < plain.size(); ++i) {
        plain[i].confidence = calibrated[i].confidence;
        plain[i].numbers.confidence_sum = calibrated[i].numbers.confidence_sum;
        plain[i].numbers.confident_pixels = calibrated[i].numbers.confident_pixels;
      }
      expect_same(plain, calibrated);
    }
  }

  void undisturbed(const Plan& plan, size_t set, size_t index, const char* why) {
    const Case& what = cases_[index];
    say(why, sets_[set], plan.threads(), what);
    const Image image(what, network_.table, &random_);
    plan.start(image);
    if (random_.chance(0.5)) adpc_poison(plan.get());
    expect_same(plan.finish(what, nullptr), expected_[set][index]);
  }

  // A frame in slices, perhaps after others that were dropped.
  void disturbed(const Plan& plan, size_t set, size_t index, uint64_t seed, bool alone) {
    Random random(seed);
    const Case& what = cases_[index];
    if (alone) say("disturbed frame", sets_[set], plan.threads(), what);
    std::unique_ptr<Interrupter> interrupter;
    if (random.chance(0.5)) interrupter = std::make_unique<Interrupter>(plan, random.seed());
    for (int drops = random.whole(-1, 3); drops > 0; --drops) {
      const auto other = static_cast<size_t>(random.whole(0, kCases - 1));
      plan.drop(cases_[random.chance(0.5) ? index : other], random);
    }
    const Image image(what, network_.table, &random);
    plan.start(image);
    if (random.chance(0.5)) adpc_poison(plan.get());
    expect_same(plan.finish(what, &random), expected_[set][index]);
  }

  // Two plans have nothing to do with each other.
  void at_once(size_t set) {
    const size_t first = pick(), second = pick();
    const uint64_t seeds[] = {random_.seed(), random_.seed()};
    say("two plans at once", sets_[set], multiple_->threads(), cases_[first]);
    auto other = std::async(std::launch::async,
                            [&] { disturbed(*single_, set, second, seeds[1], false); });
    disturbed(*multiple_, set, first, seeds[0], false);
    other.get();
  }

  // Everything is active.
  void full_maps(const Plan& plan, size_t set) {
    size_t index = pick();
    while (cases_[index].adaptive != 0) index = pick();
    Case what = cases_[index];
    say("full maps", sets_[set], plan.threads(), what);
    what.adaptive = 2;
    for (int e = 0; e < kExits - 1; ++e)
      what.active[e].assign(static_cast<size_t>(network_.cells(what.height, network_.levels[e])) *
                                network_.cells(what.width, network_.levels[e]),
                            1);
    const Image image(what, network_.table, &random_);
    plan.start(image);
    expect_same(plan.finish(what, random_.chance(0.5) ? &random_ : nullptr),
                expected_[set][index]);
  }

  Random random_;
  const std::vector<std::string>& sets_;
  const Network network_;
  const int type_;
  const bool fused_;
  std::vector<Case> cases_;
  std::vector<std::vector<Exits>> expected_;  // of each instruction set and case
  std::unique_ptr<Plan> single_, multiple_;
  std::string doing_;
};

std::vector<std::string> instruction_sets() {
  std::istringstream names(adpc_instruction_sets());
  std::vector<std::string> sets;
  for (std::string name; names >> name;) sets.push_back(name);
  return sets;
}

void check_refusal() {
  struct Given {
    const char* isa = nullptr;
    int type = 0, threads = 1, classes = 5, exits = 4, level = 2, multiple = 32;
    float temperature = 1.0f;
  };
  const std::pair<const char*, void (*)(Given&)> refusals[] = {
      {adpc_instruction_sets(), [](Given& g) { g.isa = "none"; }},
      {"type", [](Given& g) { g.type = 2; }},
      {"threads", [](Given& g) { g.threads = 0; }},
      {"classes", [](Given& g) { g.classes = 0; }},
      {"256", [](Given& g) { g.classes = 257; }},
      {"exits", [](Given& g) { g.exits = 0; }},
      {"8", [](Given& g) { g.exits = ADPC_MAX_EXITS + 1; }},
      {"level", [](Given& g) { g.level = 1; }},
      {"3", [](Given& g) { g.level = 4; }},
      {"multiple", [](Given& g) { g.multiple = 0; }},
      {"whole", [](Given& g) { g.level = 3, g.multiple = 12; }},
      {"temperatures", [](Given& g) { g.temperature = 0.0f; }}};
  const std::vector<float> ones(9 * 257, 1.0f);
  char error[200] = "";
  for (const auto& [expected, spoil] : refusals) {
    Given g;
    spoil(g);
    const std::vector<float> temperatures(ADPC_MAX_EXITS + 1, g.temperature);
    if (adpc_create(g.isa, g.type, g.threads, g.classes, g.exits, g.level, g.multiple, 0,
                    ones.data(), temperatures.data(), 0.5f, ones.data(), error, sizeof error))
      fail("a plan in spite of ", expected);
    if (!std::strstr(error, expected)) fail("a refusal that says \"", error, "\"");
  }
  const std::unique_ptr<adpc_plan, void (*)(adpc_plan*)> plan(
      adpc_create(nullptr, 0, 1, 8, 4, 2, 8, 0, ones.data(), ones.data(), 0.5f, ones.data(),
                  error, sizeof error),
      adpc_destroy);
  if (!plan) fail("no plan: ", error);
  const int slots[][3] = {{0, 2, 0}, {5, 0, 0}, {5, ADPC_MAX_LEVEL + 1, 0}, {5, 2, 2}};
  for (const auto& [channels, level, type] : slots)
    if (adpc_add_slot(plan.get(), channels, level, type) != -1)
      fail("a slot of ", channels, " channels, level ", level, ", type ", type);
  for (int level : {2, 2, 4}) adpc_add_slot(plan.get(), 8, level, 0);
  adpc_op op{};
  op.exit_index = op.gives_exit = op.output = ADPC_SCORES;
  op.residual = -1;
  op.kernel = op.window_edge = 3;
  op.stride = 4;
  op.weight = op.window = ones.data();
  if (adpc_add_op(plan.get(), &op)) fail("scores of an image are refused");
  op.input = ADPC_SCORES;
  op.output = 2;
  op.gives_exit = 0;
  op.stride = 1;
  void (*const faults[])(adpc_op&) = {
      [](adpc_op& o) { o.output = o.input, o.gives_exit = 1; },
      [](adpc_op& o) { o.masked = 1, o.kernel = 5; },
      [](adpc_op& o) { o.masked = o.depthwise = 1; },
      [](adpc_op& o) { o.masked = o.needed = o.reach = 1; },
      [](adpc_op& o) { o.masked = 1, o.output = o.stride = 4; },  // of no whole size
      [](adpc_op& o) { o.masked = o.reach = 1, o.window_edge = 2; },
      [](adpc_op& o) { o.output = 3, o.gives_exit = 1; },  // exit 1 for the second time
      [](adpc_op& o) { o.kernel = 8; },
      [](adpc_op& o) { o.residual = o.output; },
      [](adpc_op& o) { o.kind = ADPC_RESAMPLE, o.source_count = 1, o.sources[0] = ADPC_IMAGE; },
      [](adpc_op& o) { o.kind = ADPC_HEAD; },  // without the head's weights
      [](adpc_op&) {}};                                           // written already
  for (size_t i = 0; i < std::size(faults); ++i) {
    adpc_op wrong = op;
    faults[i](wrong);
    if (i + 1 == std::size(faults) && adpc_add_op(plan.get(), &op)) fail("a good one is refused");
    if (!adpc_add_op(plan.get(), &wrong)) fail("fault ", i, " of an operation is not refused");
  }
  const uint8_t pixel[3] = {};
  const adpc_frame frame{pixel, nullptr, 3, 3, 0, 1, 2, 1, 1, 0, {}};
  uint8_t ids = 0, confidence = 0;
  const auto run = [&] {
    return adpc_run(plan.get(), &ids, &confidence, nullptr, nullptr);
  };
  void (*const spoil[])(adpc_frame&) = {
      [](adpc_frame& f) { f.height = 0; },
      [](adpc_frame& f) { f.width = ADPC_MAX_EDGE + 1; },
      [](adpc_frame& f) { f.image = nullptr; },
      [](adpc_frame& f) { f.adaptive = 2; },
      [](adpc_frame& f) { f.adaptive = 3; },
      [](adpc_frame& f) { f.adaptive = -1; }};
  if (run() != ADPC_FINISHED) fail("something ran before the first frame");
  for (size_t i = 0; i < std::size(spoil); ++i) {
    if (adpc_start(plan.get(), &frame)) fail("a good frame is refused");
    adpc_frame wrong = frame;
    spoil[i](wrong);
    if (!adpc_start(plan.get(), &wrong)) fail("frame ", i, " is not refused");
    if (run() != ADPC_FINISHED) fail("after frame ", i, " the one before went on");
  }
  if (adpc_start(plan.get(), nullptr) != -1) fail("no frame is taken for one");
}

struct Free {
  void operator()(adpc_plan* plan) const { adpc_destroy(plan); }
};
using Owned = std::unique_ptr<adpc_plan, Free>;

// A plan whose exits lie at these levels, and nothing is masked.
Owned plan_of(const std::string& set, const std::vector<int>& levels, int multiple = 16) {
  static const std::vector<float> ones(9 * 257, 1.0f);
  Owned plan(adpc_create(set.c_str(), 0, 1, 5, static_cast<int>(levels.size()), levels[0],
                         multiple, 0, ones.data(), ones.data(), 0.5f, ones.data(), nullptr, 0));
  if (!plan) fail("no plan for exits");
  adpc_op op{};
  op.residual = -1;
  op.kernel = 3;
  op.weight = ones.data();
  int slot = ADPC_SCORES, level = levels[0];
  for (int l : levels) {
    if (l != level) slot = adpc_add_slot(plan.get(), 5, l, ADPC_FLOAT32);
    level = l;
    ++op.exit_index;
    op.gives_exit = 1;
    op.output = slot;
    op.stride = 1 << l;
    if (adpc_add_op(plan.get(), &op)) fail("exit ", op.exit_index, " is refused");
  }
  return plan;
}

// Calls that make no sense change nothing.
void check_calls(const std::string& set) {
  adpc_exit result{};
  adpc_destroy(nullptr);
  adpc_interrupt(nullptr);
  adpc_poison(nullptr);
  adpc_last_exit(nullptr, &result);
  adpc_read_scores(nullptr, nullptr);
  adpc_steps(nullptr, nullptr, nullptr, 5);
  adpc_run_until(nullptr, 0.0);
  const adpc_op none{};
  const adpc_frame nothing{};
  if (adpc_add_slot(nullptr, 1, 1, 0) != -1 || adpc_add_op(nullptr, &none) != -1 ||
      adpc_start(nullptr, &nothing) != -1 || adpc_progress(nullptr) || adpc_memory_bytes(nullptr) != -1 ||
      adpc_bytes_for(nullptr, 1, 1) != -1 || adpc_instruction_set(nullptr) ||
      adpc_run(nullptr, nullptr, nullptr, nullptr, nullptr) != ADPC_FINISHED)
    fail("no plan is taken for one");
  const std::vector<float> ones(3 * 256, 1.0f), nan(3 * 256, std::nanf(""));
  const float small = 1e-39f, *const good = ones.data();
  const float* given[][3] = {{nullptr, good, good}, {good, nullptr, good}, {good, good, nullptr},
                             {nan.data(), good, good}, {good, good, nan.data()},
                             {good, &small, good}};
  for (size_t i = 0; i < std::size(given); ++i)
    for (int size : {0, -1, 9}) {
      char error[10] = "?";
      const auto& [thresholds, temperatures, table] = given[i];
      if (adpc_create(nullptr, 0, 1, 5, i < 5 ? 2 : 1, 2, 8, 0, thresholds, temperatures, 0.5f,
                      table, size ? error : nullptr, size))
        fail("a plan of numbers ", i);
      if (std::strcmp(error, size > 0 ? "expected" : "?")) fail("the error is ", error);
    }
  if (Owned(adpc_create(nullptr, 0, 1, 5, 1, 2, 8, 0, good, good, NAN, good, nullptr, 0)))
    fail("a plan without a confident share");

  const Owned plan = plan_of(set, {3, 3, 2});
  if (adpc_add_op(plan.get(), nullptr) != -1) fail("no operation is taken for one");
  for (auto [height, width] : {std::pair(0, 5), {5, -1}, {ADPC_MAX_EDGE + 1, 5}, {1, INT32_MAX}})
    if (adpc_bytes_for(plan.get(), height, width) != -1) fail("bytes for ", height, "x", width);
  const Owned wide = plan_of(set, {2}, 10000);  // 16384 pixels would be padded to 20000
  if (adpc_bytes_for(wide.get(), 8, ADPC_MAX_EDGE) != -1) fail("bytes for a size beyond the largest");
  constexpr int kHeight = 400, kWidth = 400;
  const std::vector<uint8_t> image(3 * kHeight * kWidth, 7);
  std::vector<uint8_t> ids(image.size() / 3), confidence(ids.size());
  std::vector<float> scores;
  adpc_frame frame{image.data(), nullptr, 3 * kWidth, 3, 0, 1, 2, kHeight, kWidth, 1, {}};
  if (adpc_start(plan.get(), &frame)) fail("no frame");
  if (adpc_run(plan.get(), nullptr, confidence.data(), nullptr, nullptr) != ADPC_FINISHED)
    fail("an exit was rendered into nothing");
  adpc_run_until(plan.get(), NAN);  // never
  for (int status; (status = adpc_run(plan.get(), ids.data(), confidence.data(), ids.data(),
                                      nullptr)) != ADPC_FINISHED;) {
    if (status > 0) {
      const int cells = kHeight >> (status < 3 ? 3 : 2);
      scores.resize(static_cast<size_t>(5 * cells) * cells);
      scores.shrink_to_fit();
      adpc_last_exit(plan.get(), &result);
      for (int i = 0; i < 2; ++i)  // nobody is sure, with thresholds of 1
        if (result.active[i] != result.positions[i])
          fail("exit ", status, " leaves ", result.active[i], " of ", result.positions[i]);
    }
    adpc_read_scores(plan.get(), scores.data());  // of another scale than the next exit's
  }

  const int rows = kHeight / 8, half = kHeight / 4;
  std::vector<uint8_t> coarse(static_cast<size_t>(rows) * rows), fine(half * half);
  coarse[5] = 1;
  const uint8_t* const maps[2] = {coarse.data(), coarse.data()};
  std::copy_n(maps, 2, frame.active);
  frame.adaptive = 2;
  if (adpc_start(plan.get(), &frame)) fail("nested maps are refused");
  std::vector<uint8_t> other = coarse;
  other[6] = 1;
  frame.active[1] = other.data();
  if (!adpc_start(plan.get(), &frame)) fail("maps that are not nested are not refused");
}

// Exits come in order, each once; what scores are carried over in nothing else has or reads.
void check_exits(const std::string& set) {
  static const std::vector<float> ones(200, 1.0f);
  for (int fault = 0; fault < 5; ++fault) {
    Owned plan(adpc_create(set.c_str(), 0, 1, 5, 3, 3, 8, 0, ones.data(), ones.data(), 0.5f,
                           std::vector<float>(3 * 256, 1.0f).data(), nullptr, 0));
    const int finer = adpc_add_slot(plan.get(), 5, 2, 0), other = adpc_add_slot(plan.get(), 5, 2, 0);
    adpc_op exit{}, carry{};
    exit.exit_index = exit.gives_exit = 1;
    exit.residual = -1;
    exit.kernel = 3;
    exit.stride = 8;
    exit.output = ADPC_SCORES;
    exit.weight = ones.data();
    if (fault == 0) exit.exit_index = 2;
    if (adpc_add_op(plan.get(), &exit)) fail("the first exit is refused");
    carry.kind = ADPC_RESAMPLE;
    carry.exit_index = 2;
    carry.output = finer;
    carry.source_count = 1;
    carry.sources[0] = ADPC_SCORES;
    adpc_op plain = exit;
    plain.gives_exit = 0;
    plain.output = finer;
    plain.stride = 4;
    if (adpc_add_op(plan.get(), fault == 1 ? &plain : &carry)) fail("scores are not carried over");
    adpc_op reader = carry;
    reader.output = other;
    reader.sources[0] = finer;
    if (fault == 2 && adpc_add_op(plan.get(), &reader)) fail("a reader is refused");
    exit.exit_index = fault == 3 ? 1 : 2;
    exit.output = finer;
    exit.stride = 4;
    const bool refused = adpc_add_op(plan.get(), &exit) != 0;
    if (refused != (fault < 4)) fail("exits of fault ", fault);
  }
}

// Features below the smallest normal number count as zero in every thread that computes, and in
// nobody else's.
void check_denormals(const std::vector<std::string>& sets) {
  const std::vector<float> ones(3 * 256, 1.0f), tiny(3 * 256 * 256, 1e-39f);
  for (const std::string& set : sets) {
    char error[200] = "";
    const std::unique_ptr<adpc_plan, void (*)(adpc_plan*)> plan(
        adpc_create(set.c_str(), 0, 3, 1, 1, 2, 4, 0, ones.data(), ones.data(), 0.5f, ones.data(),
                    error, sizeof error),
        adpc_destroy);
    adpc_op op{};
    op.exit_index = op.gives_exit = op.output = ADPC_SCORES;
    op.residual = -1;
    op.kernel = 1;
    op.stride = 4;
    op.weight = ones.data();
    if (!plan || adpc_add_op(plan.get(), &op)) fail("no plan of one operation: ", error);
    adpc_frame frame{};
    frame.normalised = tiny.data();
    frame.height = frame.width = 256;
    std::vector<uint8_t> ids(256 * 256), confidence(256 * 256);
    if (adpc_start(plan.get(), &frame)) fail("no frame");
    adpc_poison(plan.get());
    if (adpc_run(plan.get(), ids.data(), confidence.data(), nullptr, nullptr) != 1) fail("no exit");
    std::vector<float> scores(64 * 64);
    adpc_read_scores(plan.get(), scores.data());
    for (float score : scores)
      if (score != 0.0f) fail(set, ": a score of ", score, " from denormal numbers");
    volatile float own = 1e-39f;
    if (own * 2.0f == 0.0f) fail(set, ": the caller's denormal numbers count as zero");
  }
}

// A single score that is not finite, of whichever cell, spoils the sum of the confidence.
void check_finite(const std::string& set) {
  constexpr int kClasses = 11, kRows = 3, kColumns = 37;
  std::vector<float> weight(3 * kClasses, 0.0f), ones(3 * 256, 1.0f);
  weight[3 * 7] = 1.0f;  // of a class: it is the first channel of one pixel of the cell
  for (int level : {2, 3}) {
    const int scale = 1 << level, height = scale * kRows - 1, width = scale * kColumns - 2;
    char error[200] = "";
    const std::unique_ptr<adpc_plan, void (*)(adpc_plan*)> plan(
        adpc_create(set.c_str(), 0, 1, kClasses, 1, level, scale, 0, ones.data(), ones.data(),
                    0.5f, ones.data(), error, sizeof error),
        adpc_destroy);
    if (!plan) fail("no plan: ", error);
    adpc_op op{};
    op.exit_index = op.gives_exit = op.output = ADPC_SCORES;
    op.residual = -1;
    op.kernel = 1;
    op.stride = scale;
    op.weight = weight.data();
    if (adpc_add_op(plan.get(), &op)) fail("scores of an image are refused");
    const size_t pixels = static_cast<size_t>(height) * width;
    std::vector<uint8_t> ids(pixels), confidence(pixels);
    const auto sum = [&](int row, int column, float value) {
      std::vector<float> image(3 * pixels, 0.0f);
      image[static_cast<size_t>(row * scale) * width + column * scale] = value;
      adpc_frame frame{};
      frame.normalised = image.data();
      frame.height = height;
      frame.width = width;
      if (adpc_start(plan.get(), &frame)) fail("no frame");
      adpc_run(plan.get(), ids.data(), confidence.data(), nullptr, nullptr);
      adpc_exit result;
      adpc_last_exit(plan.get(), &result);
      return result.confidence_sum;
    };
    for (int row = 0; row < kRows; ++row)
      for (int column = 0; column < kColumns; ++column) {
        for (float value : {std::nanf(""), INFINITY, -INFINITY})
          if (!std::isnan(sum(row, column, value)))
            fail(set, ": a score of ", value, " at ", row, ", ", column, " does not show");
        for (float value : {3.3e38f, -3.3e38f, 1e-42f})
          if (const double all = sum(row, column, value); !(all > 0.0 && all <= pixels))
            fail(set, ": a score of ", value, " gives a confidence of ", all / pixels);
      }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "";
  const bool write = mode == "write", compare = mode == "compare", files = write || compare;
  if (argc < (files ? 4 : 2)) {
    std::fprintf(stderr, "usage: %s SECONDS [SEED], or %s write|compare FILE EPISODES [SEED]\n",
                 argv[0], argv[0]);
    return 2;
  }
  const int most = files ? std::atoi(argv[3]) : INT32_MAX, seed_at = files ? 4 : 2;
  const double seconds = files ? kWholeFrame : std::atof(argv[1]);
  const auto end = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                      std::chrono::duration<double>(seconds));
  uint64_t seed = argc > seed_at ? std::strtoull(argv[seed_at], nullptr, 10) : 0;
  const std::vector<std::string> sets = instruction_sets();
  std::fstream file;
  int episodes = 0;
  try {
    if (files) file.open(argv[2], std::ios::binary | (write ? std::ios::out : std::ios::in));
    if (files && !file) fail("cannot open ", argv[2]);
    check_refusal();
    check_denormals(sets);
    for (const std::string& set : sets) {
      check_calls(set);
      check_exits(set);
      check_finite(set);
    }
    do {
      Episode episode(seed, sets);
      try {
        if (write) episode.write(file);
        else if (compare) episode.compare(file);
        else episode.run();
      } catch (const std::exception& problem) {
        fail("seed ", seed, ": ", episode.doing(), ": ", problem.what());
      }
      ++seed;
      ++episodes;
    } while (episodes < most && Clock::now() < end);
    if (write && !file.flush()) fail("cannot write ", argv[2]);
  } catch (const std::exception& problem) {
    std::fprintf(stderr, "%s\n", problem.what());
    return 1;
  }
  if (episodes > 2 && !transformed) {
    std::fprintf(stderr, "no operation was computed by Winograd's algorithm\n");
    return 1;
  }
  std::printf("%d episodes on %s: %lld frames, %lld dropped, %lld pauses, %lld partial exits, "
              "%lld operations by Winograd, of nonsense %lld operations refused, %lld computed\n",
              episodes, adpc_instruction_sets(), static_cast<long long>(frames),
              static_cast<long long>(dropped), static_cast<long long>(pauses),
              static_cast<long long>(partial), static_cast<long long>(transformed),
              static_cast<long long>(refused),
              static_cast<long long>(accepted));
  return 0;
}
