// SPDX-License-Identifier: Apache-2.0
// The C interface: what goes wrong becomes a code, or text.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "plan.h"

using namespace adpc;

namespace {

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
#ifdef ADPC_NEON
  sets.push_back(kernels_neon());
#else
  sets.push_back(kernels_portable());
#endif
  return sets;
}

}  // namespace

const char* adpc_constants() {
  static const std::string text = [] {
    std::string all;
    for (const auto& [name, value] : {
#define ADPC_NAMED(name) std::pair<const char*, int64_t>{#name, ADPC_##name}
             ADPC_NAMED(CONV), ADPC_NAMED(RESAMPLE), ADPC_NAMED(HEAD), ADPC_NAMED(INVERTED),
             ADPC_NAMED(FLOAT32), ADPC_NAMED(BFLOAT16), ADPC_NAMED(IMAGE), ADPC_NAMED(SCORES),
             ADPC_NAMED(FINISHED), ADPC_NAMED(PAUSED), ADPC_NAMED(MAX_EDGE),
             ADPC_NAMED(MAX_SOURCES), ADPC_NAMED(MAX_EXITS), ADPC_NAMED(FINEST),
             ADPC_NAMED(LEVELS)})
      all += std::string(name) + "=" + std::to_string(value) + " ";
    return all;
  }();
  return text.c_str();
}

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

int32_t adpc_run(adpc_plan* plan, uint8_t* ids, uint8_t* confidence, const uint8_t* previous_ids,
                 const uint8_t* previous_confidence) {
  if (!plan) return ADPC_FINISHED;
  const bool previous = previous_ids && previous_confidence;
  return plan->run(ids, confidence, previous ? previous_ids : nullptr,
                   previous ? previous_confidence : nullptr);
}

void adpc_run_until(adpc_plan* plan, double time_s) {
  if (plan) plan->run_until(time_s);
}

void adpc_interrupt(adpc_plan* plan) {
  if (plan) plan->interrupt();
}

int64_t adpc_progress(const adpc_plan* plan) { return plan ? plan->progress() : 0; }

double adpc_returned_s(const adpc_plan* plan) { return plan ? plan->returned_s() : 0.0; }

void adpc_last_exit(const adpc_plan* plan, adpc_exit* result) {
  if (plan && result) *result = plan->result();
}

void adpc_read_scores(const adpc_plan* plan, float* scores) {
  if (plan && scores) plan->read_scores(scores);
}

void adpc_steps(const adpc_plan* plan, double* seconds, uint8_t* winograd, int32_t count) {
  if (plan && seconds && winograd) plan->read_steps(seconds, winograd, count);
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
