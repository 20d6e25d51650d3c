// Runs random small networks on the native runtime, disturbs them as a node would and worse, and
// compares every result.  driver SECONDS [SEED]: prints what it did, or the first difference (and
// then exits with 1). Episode e of a run has the seed SEED + e: `driver 0 SEED` repeats it alone.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <future>
#include <initializer_list>
#include <memory>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "adpc.h"

// The runtime's features lie in memory that it gets here: as it comes it is full of NaN, which
// even a weight of zero does not hide.
extern "C" void* aligned_alloc(size_t alignment, size_t bytes) noexcept {
  void* memory = nullptr;
  if (posix_memalign(&memory, std::max(alignment, sizeof(void*)), bytes)) return nullptr;
  return std::memset(memory, 0xff, bytes);
}

namespace {

using Clock = std::chrono::steady_clock;

constexpr int kFinest = 2, kLevels = 4;  // branches lie at levels 2 to 5 at most
constexpr int kExits = 4, kCases = 6, kRounds = 8;   // of an episode
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
std::atomic<int64_t> frames{0}, dropped{0}, pauses{0}, partial{0};

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
    slots_ = {{3, 0, false}, {classes, kFinest, true}};
    std::vector<int> branches = stem();
    std::vector<int> heads = {0, 1, 2, random.whole(0, 2)};
    random.shuffle(heads);
    const int most = random.whole(2, kLevels);
    for (exit_ = 1; exit_ <= kExits; ++exit_) {
      if (static_cast<int>(branches.size()) < most)
        branches.push_back(conv(branches.back(), channels(), {3, 2, true, true}));
      for (int& branch : branches) branch = block(branch);
      branches = fuse(branches);
      switch (heads[static_cast<size_t>(exit_ - 1)]) {
        case 0: plain_head(branches); break;
        case 1: joined_head(branches); break;
        default: pooled_head(branches);
      }
    }
  }

  void give_to(adpc_plan* plan, int type) const {
    for (size_t i = 2; i < slots_.size(); ++i)
      adpc_add_slot(plan, slots_[i].channels, slots_[i].level,
                    slots_[i].wide ? ADPC_FLOAT32 : type);
    for (const adpc_op& op : ops_) adpc_add_op(plan, &op);
  }

  int steps() const { return static_cast<int>(ops_.size()); }

  int classes;
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
  };

  int channels() { return random_.whole(1, 20); }

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
    const int inputs = slot(op.input).channels * op.kernel * op.kernel;
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
    add_weights(op, out_channels);
    if (how.read && exit_ > 1) {
      op.reach = random_.chance(0.5) ? 1 : 3;
      op.window_edge = 2 * op.reach + 1;
      op.window = window(op.window_edge);
    }
    return output;
  }

  adpc_op& resample(int output, const std::vector<int>& sources) {
    adpc_op& op = add_op(ADPC_RESAMPLE, output);
    op.source_count = static_cast<int>(sources.size());
    std::copy(sources.begin(), sources.end(), op.sources);
    return op;
  }

  std::vector<int> stem() {
    const int half = conv(ADPC_IMAGE, channels(), {3, 2});
    int x = conv(half, channels(), {3, 2});
    if (random_.chance(0.7)) x = bottleneck(x);
    return {conv(x, channels(), {3, 1})};
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
    conv(conv(branches[0], channels(), {}), classes, last, ADPC_SCORES);
  }

  void joined_head(const std::vector<int>& branches) {
    const int hidden = random_.whole(1, 70);
    std::vector<int> terms;
    for (size_t i = 1; i < branches.size(); ++i) {
      Conv how{1, 1, false};
      how.needed = true;
      terms.push_back(conv(branches[i], hidden, how));
    }
    adpc_op& op = add_op(ADPC_HEAD, ADPC_SCORES);
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
    int count = 0;
    for (int branch : branches) count += (slot(branch).channels + 7) / 8 * 8;
    adpc_op& pool = resample(add_slot(count, kFinest + 1), branches);
    pool.pooled = pool.concatenate = 1;
    int x = conv(pool.output, channels(), {1, 1, true, true});
    if (random_.chance(0.3)) {
      adpc_op& again = resample(add_slot((slot(x).channels + 7) / 8 * 8, kFinest + 2), {x});
      again.pooled = again.concatenate = 1;
      x = conv(again.output, channels(), {1, 1, true, true});
    }
    Conv how{1, 1, false};
    how.needed = true;
    const int small = add_slot(classes, slot(x).level, true);
    conv(x, classes, how, small);
    resample(ADPC_SCORES, {small}).gives_exit = 1;
  }

  Random& random_;
  int exit_ = 1;
  std::vector<Slot> slots_;
  std::vector<adpc_op> ops_;
  std::deque<std::vector<float>> values_;
};

// An image and what is to be computed of it.
struct Case {
  int height = 0, width = 0;
  std::vector<uint8_t> pixels;  // (height, width, 3)
  int adaptive = 0;
  std::vector<uint8_t> active[kExits - 1];

  int rows() const { return (height + 31) / 32 * 8; }
  int columns() const { return (width + 31) / 32 * 8; }
};

Case random_case(Random& random, int index) {
  Case result;
  const int kind = random.whole(0, 11);
  if (kind == 0) {
    result.height = result.width = 1;
  } else if (kind <= 2) {  // narrow
    result.height = random.whole(1, 8);
    result.width = random.whole(30, 150);
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
  const int rows = result.rows(), columns = result.columns();
  const int style = random.whole(0, 2);
  for (int e = 0; e < kExits - 1 && result.adaptive == 2; ++e) {  // each within the one before
    const double share = random.chance(0.2) ? random.whole(0, 1) : random.real(0.0, 1.0);
    const int top = random.whole(0, rows - 1), bottom = random.whole(top, rows - 1);
    const int left = random.whole(0, columns - 1), right = random.whole(left, columns - 1);
    for (int y = 0; y < rows; ++y)
      for (int x = 0; x < columns; ++x) {
        bool active = random.chance(share);
        if (style == 1) active = y >= top && y <= bottom && x >= left && x <= right;
        if (style == 2 && e == 0) active = y == top && x == left;
        const size_t cell = result.active[e].size();
        if (e > 0) active = active && result.active[e - 1][cell];
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
    frame.red = static_cast<int32_t>(channel[0] * stride[2]);
    frame.green = static_cast<int32_t>(channel[1] * stride[2]);
    frame.blue = static_cast<int32_t>(channel[2] * stride[2]);
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
  Plan(const Network& network, const std::string& isa, int type, int threads,
       bool calibrated = true)
      : network_(network), threads_(threads) {
    const float ones[kExits] = {1.0f, 1.0f, 1.0f, 1.0f};
    char error[200] = "";
    plan_ = adpc_create(isa.c_str(), type, threads, network.classes, kExits, kFinest, 32,
                        network.entropy, network.thresholds.data(), calibrated ? network.temperatures : ones,
                        network.confident, network.table.data(), error, sizeof error);
    if (!plan_) fail("no plan: ", error);
    if (isa != adpc_instruction_set(plan_)) fail(isa, " became ", adpc_instruction_set(plan_));
    network.give_to(plan_, type);
  }
  ~Plan() { adpc_destroy(plan_); }
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;

  adpc_plan* get() const { return plan_; }
  int threads() const { return threads_; }
  int64_t memory() const { return adpc_memory_bytes(plan_); }

  void start(const Image& image) const {
    if (adpc_start(plan_, &image.frame)) fail("no memory for a frame");
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
      const Exit* before = exits.empty() ? nullptr : &exits.back();
      const int status = run(random, &result, before);
      if (status != exit) fail("exit ", exit, " ended with status ", status);
      adpc_last_exit(plan_, &result.numbers);
      const size_t cells = static_cast<size_t>(what.rows()) * what.columns();
      result.scores.resize(cells * network_.classes);
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
    return adpc_run(plan_, seconds, into ? into->ids.data() : nullptr,
                    into ? into->confidence.data() : nullptr,
                    before ? before->ids.data() : nullptr,
                    before ? before->confidence.data() : nullptr);
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
      const int64_t cells = static_cast<int64_t>(what.rows() >> i) * (what.columns() >> i);
      if (numbers.positions[i] != cells || numbers.needed[i] > cells ||
          numbers.active[i] > numbers.needed[i])
        fail("level ", i, ": ", numbers.active[i], " active, ", numbers.needed[i], " needed of ",
             numbers.positions[i], ", not ", cells);
    }
    partial += numbers.active[0] > 0 && numbers.active[0] < numbers.positions[0];
  }

  void check_seconds(double elapsed) const {
    std::vector<double> seconds(static_cast<size_t>(network_.steps() + 1 + 2 * kExits), -1.0);
    adpc_seconds(plan_, seconds.data(), static_cast<int>(seconds.size()));
    double sum = 0.0;
    for (double part : seconds) {
      if (!(part >= 0.0)) fail("an operation of ", part, " s");
      sum += part;
    }
    if (sum > elapsed + 1e-6) fail("operations of ", sum, " s in ", elapsed, " s");
  }

  const Network& network_;
  const int threads_;
  adpc_plan* plan_;
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

// One network, some images, every instruction set.
class Episode {
 public:
  Episode(uint64_t seed, const std::vector<std::string>& sets)
      : random_(seed), sets_(sets), network_(random_),
        type_(random_.chance(0.5) ? ADPC_FLOAT32 : ADPC_BFLOAT16) {
    for (int i = 0; i < kCases; ++i) cases_.push_back(random_case(random_, i));
  }

  // What is being done, for the message if it fails.
  const std::string& doing() const { return doing_; }

  void run() {
    for (const std::string& set : sets_) {  // in memory that nobody has written to
      expected_.emplace_back();
      for (const Case& what : cases_) {
        say("first frame", set, 1, what);
        const Plan plan(network_, set, type_, 1);
        const Image image(what, network_.table, nullptr);
        plan.start(image);
        expected_.back().push_back(plan.finish(what, nullptr));
      }
    }
    for (size_t s = 0; s + 1 < sets_.size(); ++s)  // portable is the last
      for (size_t c = 0; c < cases_.size(); ++c) {
        say("comparison with portable", sets_[s], 1, cases_[c]);
        // active maps of its own are another machine's
        const size_t count = cases_[c].adaptive == 1 ? 1 : kExits;
        expect_near(expected_[s][c], expected_.back()[c], type_, count);
      }
    const auto set = static_cast<size_t>(random_.whole(0, static_cast<int>(sets_.size()) - 1));
    if (network_.calibrated) only_confidence(set);
    single_ = std::make_unique<Plan>(network_, sets_[set], type_, 1);
    multiple_ = std::make_unique<Plan>(network_, sets_[set], type_, random_.whole(2, 4));
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

 private:
  size_t pick() { return static_cast<size_t>(random_.whole(0, kCases - 1)); }

  void say(const char* what, const std::string& set, int threads, const Case& on) {
    std::ostringstream text;
    text << what << ", " << set << (type_ == ADPC_FLOAT32 ? " float32" : " bfloat16") << ", "
         << threads << " threads, " << on.height << "x" << on.width << " pixels, adaptive "
         << on.adaptive;
    doing_ = text.str();
  }

  // Temperatures change nothing else. (And the first exit's changes all of it.)
  void only_confidence(size_t set) {
    const Plan plan(network_, sets_[set], type_, 1, false);
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
    for (auto& map : what.active)
      map.assign(static_cast<size_t>(what.rows()) * what.columns(), 1);
    const Image image(what, network_.table, &random_);
    plan.start(image);
    expect_same(plan.finish(what, random_.chance(0.5) ? &random_ : nullptr),
                expected_[set][index]);
  }

  Random random_;
  const std::vector<std::string>& sets_;
  const Network network_;
  const int type_;
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
  Random random(0);
  const Network network(random);
  char error[200] = "";
  if (adpc_create("none", ADPC_FLOAT32, 1, network.classes, kExits, kFinest, 32, 0,
                  network.thresholds.data(), network.temperatures, 0.5f, network.table.data(), error, sizeof error))
    fail("a plan for an instruction set that there is not");
  if (!std::strstr(error, "portable")) fail("a refusal that says \"", error, "\"");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: %s SECONDS [SEED]\n", argv[0]);
    return 2;
  }
  const auto end = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                      std::chrono::duration<double>(std::atof(argv[1])));
  uint64_t seed = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 0;
  const std::vector<std::string> sets = instruction_sets();
  int episodes = 0;
  try {
    check_refusal();
    do {
      Episode episode(seed, sets);
      try {
        episode.run();
      } catch (const std::exception& problem) {
        fail("seed ", seed, ": ", episode.doing(), ": ", problem.what());
      }
      ++seed;
      ++episodes;
    } while (Clock::now() < end);
  } catch (const std::exception& problem) {
    std::fprintf(stderr, "%s\n", problem.what());
    return 1;
  }
  std::printf("%d episodes on %s: %lld frames, %lld dropped, %lld pauses, %lld partial exits\n",
              episodes, adpc_instruction_sets(), static_cast<long long>(frames),
              static_cast<long long>(dropped), static_cast<long long>(pauses),
              static_cast<long long>(partial));
  return 0;
}
