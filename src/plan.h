// SPDX-License-Identifier: Apache-2.0
// A network, and a frame on its way through it: jobs, one after the other, each in chunks that any
// thread takes, so that the frame can be paused after any chunk.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "adpc.h"
#include "kernels.h"
#include "layout.h"
#include "maps.h"
#include "threads.h"

namespace adpc {

// What can be done at once. Those of one image size are listed when it is first seen.
struct Job {
  enum What {
    kEdges,        // zeros around the maps of a buffer, which also brings its memory in
    kInput,
    kConvolve,     // the positions that are computed
    kInterpolate,  // the others that are read
    kDepthwise,
    kInvert,
    kResample,
    kHead,
    kAttribute,    // which exit computed which cell last, for its temperature
    kRender,
    kGate,         // each active position by itself
    kList,         // the next exit's positions
    kExit,         // the frame has got there; nothing is computed
  };
  What what;
  int index;              // of a buffer for kEdges, of an operation for the others
  bool rescaled = false;  // an exit whose scores have another scale than those before
  int count = 1;          // of operations; one after the other for a few positions at a time
};

// How much there is to do of a job: items, and how many of them make a chunk. With `alone` chunks
// are done by one thread, in order.
struct Amount {
  int items = 0, grain = 1;
  bool alone = false;
  bool winograd = false;  // items are tiles
};

}  // namespace adpc

struct adpc_plan {
 public:
  adpc_plan(const adpc::Kernels* kernels, adpc::Type type, int threads, int classes, int exits,
            int level, int multiple, bool entropy, const float* thresholds,
            const float* temperatures, float confident, const float* table);

  int add_slot(int channels, int level, adpc::Type type);
  void add_op(const adpc_op& op);
  void start(const adpc_frame& frame);
  void abandon();
  int run(uint8_t* ids, uint8_t* confidence, const uint8_t* previous_ids,
          const uint8_t* previous_confidence);

  // From any thread
  void run_until(double time_s) { until_s_.store(time_s, std::memory_order_relaxed); }
  void interrupt() { interrupted_.store(true, std::memory_order_release); }
  int64_t progress() const { return progress_.load(std::memory_order_relaxed); }

  const adpc_exit& result() const { return result_; }
  double returned_s() const { return returned_s_; }
  const adpc::Kernels* kernels() const { return kernels_; }
  void read_scores(float* scores) const;
  void read_steps(double* seconds, uint8_t* winograd, int count) const;
  int64_t memory_bytes() const;
  int64_t bytes_for(int height, int width);
  void poison();

 private:
  // plan.cpp: what is done in which order
  void expect_size(int height, int width) const;
  int padded(int edge) const { return (edge + multiple_ - 1) / multiple_ * multiple_; }
  void resize(int height, int width);
  void list_jobs();
  adpc::Amount amount(const adpc::Job& job);
  adpc::Amount chunks_of(int items, double macs) const;
  adpc::Amount amount_of_convolution(const adpc::Job& job) const;
  void work(int chunk, int thread);
  void account(const adpc::Job& job, double seconds);

  // layers.cpp: features
  const adpc::Map* map_of(const adpc::Op& op) const;
  const adpc::Position* positions_of(const adpc::Op& op, int* active, int* needed) const;
  bool carries(const adpc::Op& op) const;
  adpc::ConvArgs conv_args(const adpc::Op& op) const;
  adpc::ResampleArgs resample_args(const adpc::Op& op) const;
  void input(int first, int last);
  void convolve(const adpc::Op& op, int first, int last, int thread);
  void convolve_pointwise(const adpc::Job& job, int first, int last, int thread);
  void interpolate(const adpc::Op& op, int first, int last);
  void depthwise(const adpc::Op& op, int first, int last);
  void invert(const adpc::Op& op, int band, int thread);
  void resample(const adpc::Op& op, int first, int last);
  void head(const adpc::Op& op, int first, int last, int thread);

  // exits.cpp: what becomes of class scores
  int level_of_scores() const { return layout_.slot(scores_).level; }
  bool gates(const adpc::Op& op) const;
  adpc::Map& next_map(const adpc::Op& op) { return maps_[(op.spec.exit_index - 1) % 2]; }
  void attribute(const adpc::Op& op, int first, int last);
  void render(int first, int last);
  void gate(const adpc::Op& op, int first, int last);
  void list(const adpc::Op& op, int first, int last);
  void finish_exit(const adpc::Op& op);

  // The network
  const adpc::Kernels* kernels_;
  const adpc::Type type_;
  const int classes_, exits_, multiple_;
  const bool entropy_;
  const float confident_;
  const std::vector<float> thresholds_;    // (exits - 1, classes)
  const std::vector<float> temperatures_;  // of each exit
  bool calibrated_ = false;                // a temperature is not 1
  const std::vector<float> table_;
  adpc::Layout layout_;
  adpc::Position compact_[adpc::kHeadTile];  // cells side by side
  std::vector<float> zeros_;                 // a bias that adds nothing, a cell that holds nothing

  // An image size
  std::vector<adpc::Job> jobs_;
  int first_job_ = 0;  // after those of memory, once they are done
  adpc::Map maps_[2];
  std::vector<uint8_t> active_;
  // of the exit that computed a cell last, at 1/4 and 1/8
  std::vector<float> inverse_temperature_[adpc::kCoarsestScores - adpc::kFinest + 1];
  std::vector<float> block_sum_;
  std::vector<int32_t> block_count_;

  // A frame
  adpc_frame frame_{};
  int job_ = 0, chunk_ = 0;  // what is next
  adpc::Amount amount_;      // of the job under way
  int exit_ = 0;
  const adpc::Map* map_ = nullptr;  // null: everything is active
  int scores_ = ADPC_SCORES;        // slot of the exit that is or was rendered last
  int given_ = -1;                  // of the last one that the caller has; -1: none of this frame
  std::vector<double> seconds_;
  std::vector<uint8_t> winograd_;  // of each step: which kernel it took
  adpc_exit result_{};
  double returned_s_ = 0.0;
  uint8_t *ids_ = nullptr, *confidence_ = nullptr;
  const uint8_t *previous_ids_ = nullptr, *previous_confidence_ = nullptr;

  std::atomic<double> until_s_;
  std::atomic<bool> interrupted_{false};
  std::atomic<int64_t> progress_{0};
  adpc::ThreadPool pool_;  // last: its threads end first
};
