// SPDX-License-Identifier: Apache-2.0
// Threads that share the chunks of one job after the other, and can be stopped between chunks.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace adpc {

// Numbers too small for a normal float count as zero while it lives, in the thread that made it:
// computing with them takes a hundred times as long.
class FlushDenormals {
 public:
#if defined(__x86_64__) || defined(__i386__)
  FlushDenormals() : before_(__builtin_ia32_stmxcsr()) {
    __builtin_ia32_ldmxcsr(before_ | 0x8040);  // results (FTZ) and operands (DAZ)
  }
  ~FlushDenormals() { __builtin_ia32_ldmxcsr(before_); }

 private:
  const unsigned before_;
#elif defined(__aarch64__)
  FlushDenormals() {
    asm volatile("mrs %0, fpcr" : "=r"(before_));
    asm volatile("msr fpcr, %0" ::"r"(before_ | uint64_t{1} << 24));
  }
  ~FlushDenormals() { asm volatile("msr fpcr, %0" ::"r"(before_)); }

 private:
  uint64_t before_;
#endif
 public:
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;
};

// A job is a number of chunks that any thread may take, in order. Which job is on, how many chunks
// it has and which is next stand in one word, so that a late thread can take no chunk of a job
// that is over.
class ThreadPool {
 public:
  using Work = void (*)(void* context, int chunk, int thread);

  explicit ThreadPool(int threads) {
    try {
      for (int t = 1; t < threads; ++t) workers_.emplace_back([this, t] { serve(t); });
    } catch (...) {  // the system gives no more of them
      close();
      throw;
    }
  }

  ~ThreadPool() { close(); }

  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return static_cast<int>(workers_.size()) + 1; }

  // Works from chunk `first` to `count`; the caller takes part. `stop` is asked between chunks.
  // With `alone` the caller does all of it, chunk after chunk. Returns the first that is not done.
  template <class Stop>
  int run(Work work, void* context, int first, int count, bool alone, Stop stop) {
    if (alone || workers_.empty() || count - first < 2) {
      for (; first < count; ++first) {
        if (stop()) break;
        work(context, first, 0);
      }
      return first;
    }
    work_.store(work, std::memory_order_relaxed);
    context_.store(context, std::memory_order_relaxed);
    finished_.store(first, std::memory_order_relaxed);
    epoch_ = (epoch_ + 1) & 0xffff;
    state_.store(pack(epoch_, count, first), std::memory_order_seq_cst);
    if (sleeping_.load(std::memory_order_seq_cst) > 0) {
      { std::lock_guard<std::mutex> lock(mutex_); }
      wake_.notify_all();
    }
    for (;;) {
      if (stop()) {  // leave nothing to take
        uint64_t state = state_.load();
        while (!state_.compare_exchange_weak(state, pack(epoch_, next(state), next(state)))) {
        }
        count = next(state);
        break;
      }
      if (!take(0)) break;
    }
    const auto done = [&] { return finished_.load(std::memory_order_acquire) >= count; };
    if (!spin(done))
      while (!done()) std::this_thread::yield();
    return count;
  }

 private:
  static constexpr std::chrono::microseconds kSpin{50};  // until a thread that waits lets go

  void close() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      closed_.store(true);
    }
    wake_.notify_all();
    for (auto& worker : workers_) worker.join();
  }

  // Waits for `done` without sleeping, for a short while. Returns what it said last.
  template <class Done>
  static bool spin(Done done) {
    const auto end = std::chrono::steady_clock::now() + kSpin;
    do {
      for (int i = 0; i < 64; ++i) {
        if (done()) return true;
        pause();
      }
    } while (std::chrono::steady_clock::now() < end);
    return done();
  }

  static uint64_t pack(uint64_t epoch, uint64_t count, uint64_t next) {
    return epoch << 48 | count << 24 | next;
  }
  static int count(uint64_t state) { return static_cast<int>(state >> 24 & 0xffffff); }
  static int next(uint64_t state) { return static_cast<int>(state & 0xffffff); }

  static void pause() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }

  bool take(int thread) {
    uint64_t state = state_.load(std::memory_order_acquire);
    do {
      if (next(state) >= count(state)) return false;
    } while (!state_.compare_exchange_weak(state, state + 1, std::memory_order_acq_rel));
    // The job cannot end before this chunk has, so what follows belongs to it.
    work_.load(std::memory_order_relaxed)(context_.load(std::memory_order_relaxed), next(state),
                                          thread);
    finished_.fetch_add(1, std::memory_order_release);
    return true;
  }

  bool waiting() const {
    const uint64_t state = state_.load(std::memory_order_seq_cst);
    return next(state) < count(state);
  }

  void serve(int thread) {
    const FlushDenormals flush;
    for (;;) {
      while (take(thread)) {
      }
      if (spin([this] { return waiting(); })) continue;
      std::unique_lock<std::mutex> lock(mutex_);
      sleeping_.fetch_add(1, std::memory_order_seq_cst);
      wake_.wait(lock, [this] { return closed_.load() || waiting(); });
      sleeping_.fetch_sub(1, std::memory_order_seq_cst);
      if (closed_.load()) return;
    }
  }

  std::atomic<uint64_t> state_{0};
  std::atomic<Work> work_{nullptr};
  std::atomic<void*> context_{nullptr};
  std::atomic<int> finished_{0};
  std::atomic<int> sleeping_{0};
  std::atomic<bool> closed_{false};
  uint64_t epoch_ = 0;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<std::thread> workers_;
};

}  // namespace adpc
