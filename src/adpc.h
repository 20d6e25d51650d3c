// SPDX-License-Identifier: Apache-2.0
/* The native runtime: an anytime network as a list of operations that can be paused anywhere.
 *
 * One thread at a time may use a plan; only adpc_run_until, adpc_interrupt and adpc_progress may be
 * called from another one.
 */
#ifndef ADPC_H
#define ADPC_H

#include <stdint.h>

#if defined(__GNUC__)
#define ADPC_API __attribute__((visibility("default")))
#else
#define ADPC_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct adpc_plan adpc_plan;

enum { ADPC_CONV = 0, ADPC_RESAMPLE = 1, ADPC_HEAD = 2, ADPC_INVERTED = 3 };
enum { ADPC_FLOAT32 = 0, ADPC_BFLOAT16 = 1 };
enum { ADPC_IMAGE = 0, ADPC_SCORES = 1 };  /* slots that every plan has; the first exit's scores */
enum { ADPC_FINISHED = -1, ADPC_PAUSED = 0 };  /* of adpc_run; else an exit, from 1 */
#define ADPC_VERSION 5 /* of this interface */
#define ADPC_MAX_EDGE 16384 /* pixels */
#define ADPC_MAX_SOURCES 4
#define ADPC_MAX_EXITS 8
#define ADPC_FINEST 2 /* log2 of the finest scale at which something can be masked */
#define ADPC_LEVELS 4 /* from there on */
#define ADPC_MAX_LEVEL 7 /* log2 of the coarsest scale */

typedef struct {
  int32_t kind;
  int32_t step;       /* for timing: of the program */
  int32_t exit_index; /* the exit that it works towards, from 1; exits are given in order, once */
  int32_t masked;     /* 0: every position; 1: those that the exit before left active */
  int32_t needed;     /* 1: also the inactive positions that someone reads */
  int32_t output;     /* slot */
  int32_t relu;
  int32_t gives_exit;
  /* CONV: output = relu(conv(input) + bias + shift + residual).
   * HEAD: h = relu(1x1 conv(input) + bias + shift + upsampled sources); output = 1x1 conv(h).
   * INVERTED, an inverted residual in float32, never masked: h = relu(1x1 conv(input)), or the
   * input itself without expand_weight; g = relu(depthwise(h) + bias);
   * output = 1x1 conv(g) + residual. */
  int32_t input, residual; /* slots; residual may be -1 */
  int32_t kernel, stride;  /* up to 7; (kernel - 1) / 2 cells of zeros before the input, and after
                              it as many as are read; up to 3 if masked; 3 or 5 if depthwise */
  int32_t depthwise;       /* CONV: each channel by itself; never masked, without residual */
  int32_t reach;           /* of the interpolation at inactive positions, up to 4; 0: none is read;
                              without `needed` */
  int32_t window_edge;     /* of `window`, odd, up to 9 */
  const float *weight;     /* (out, in, kernel, kernel); depthwise: (out, kernel, kernel) */
  const float *bias;       /* (out): interpolated together with the convolution */
  const float *shift;      /* (out): added after the interpolation */
  const float *window;     /* (window_edge, window_edge) */
  int32_t head_channels;   /* HEAD, INVERTED: channels of h, `out` above */
  const float *head_weight, *head_bias; /* (output's channels, head_channels), (its channels) */
  const float *expand_weight, *expand_bias; /* INVERTED: (head_channels, in), (head_channels) */
  /* RESAMPLE: output = relu(sum of sources), or the sources side by side, each padded to eight
   * channels. A pooled source is averaged over 2x2 cells of twice the output's resolution.
   * One that gives no exit and whose output another operation gives exits in carries class scores
   * over to a finer scale; it runs only if something is masked. */
  int32_t source_count, pooled, concatenate;
  int32_t sources[ADPC_MAX_SOURCES]; /* slots */
} adpc_op;

typedef struct {
  /* What is pointed at must stay until the frame ends. */
  const uint8_t *image;     /* height rows */
  const float *normalised;  /* or (3, height, width), normalised already */
  int64_t row_bytes, pixel_bytes;
  int64_t red, green, blue; /* offsets in a pixel, in bytes */
  int32_t height, width;    /* pixels */
  int32_t adaptive; /* 0: every position, 1: as scores and thresholds say, 2: as `active` */
  /* of each exit but the last: (rows, columns) of its scores, each within the one before */
  const uint8_t *active[ADPC_MAX_EXITS - 1];
} adpc_frame;

typedef struct {
  double confidence_sum;   /* of the image's pixels, as rendered; NaN if a class score is not
                              finite, as it may be by weights or image: they are not looked at */
  int64_t confident_pixels;
  int64_t active[ADPC_LEVELS]; /* positions at 1/4, 1/8, 1/16, 1/32 that the next exit computes; at
                              levels where nothing is masked all of them */
  int64_t needed[ADPC_LEVELS]; /* with the inactive ones that are read */
  int64_t positions[ADPC_LEVELS];
} adpc_exit;

/* The numbers above by their names without ADPC_, as "CONV=0 RESAMPLE=1 ...". */
ADPC_API const char *adpc_constants(void);
/* Sizes of the structures and the version, for a caller who declares them anew. */
ADPC_API int64_t adpc_layout(void);
/* isa: NULL for the best there is. exits: their number. level: log2 of the scale of the first
 * exit's scores, 2 or 3 as those of all, none above that of the exit before. multiple: what images
 * are padded to multiples of, in pixels; maps of scores and masked ones must have whole sizes.
 * thresholds: (exits - 1, classes), that of the highest class holds.
 * temperatures: of each exit, positive; what is rendered as confidence is the probability by the
 * scores divided by that of the exit that computed them last. The gate and the class ids take the
 * scores as they are. table: (3, 256) normalised value of each byte, RGB.
 * Returns NULL and says why in `error`, which may be NULL. */
ADPC_API adpc_plan *adpc_create(const char *isa, int32_t type, int32_t threads, int32_t classes,
                                int32_t exits, int32_t level, int32_t multiple, int32_t entropy,
                                const float *thresholds, const float *temperatures,
                                float confident, const float *table, char *error,
                                int32_t error_size);
ADPC_API void adpc_destroy(adpc_plan *plan);
/* A feature map of the image's size divided by 2^level, level from 1 on, rounded up. Returns its
 * slot, or -1 without memory or for arguments out of range. */
ADPC_API int32_t adpc_add_slot(adpc_plan *plan, int32_t channels, int32_t level, int32_t type);
/* In the order in which they are computed. Returns 0; or -1, and then it was not added, without
 * memory or for what cannot be computed: slots that do not fit or that nothing has written. */
ADPC_API int32_t adpc_add_op(adpc_plan *plan, const adpc_op *op);

/* Begin a frame, whatever became of the last one. Returns 0; or -1 without memory, for a size out
 * of range (padded, too), or without an image or the active maps that it is to go by, each within
 * the one before. Then nothing is run before another frame has begun. */
ADPC_API int32_t adpc_start(adpc_plan *plan, const adpc_frame *frame);
/* Go on until an exit is rendered, the time of adpc_run_until has come or someone interrupts; at
 * least a small piece is done. ADPC_FINISHED, too, where no frame has begun or there is nothing to
 * render into. ids, confidence: (height, width) of the next exit; previous_*: of the exit before, or
 * NULL. */
ADPC_API int32_t adpc_run(adpc_plan *plan, uint8_t *ids, uint8_t *confidence,
                          const uint8_t *previous_ids, const uint8_t *previous_confidence);
/* When adpc_run is to pause, in seconds of the steady clock (CLOCK_MONOTONIC): infinity, as at
 * first, is never. It stays until it is set again, and holds for a run under way, too. */
ADPC_API void adpc_run_until(adpc_plan *plan, double time_s);
/* Let adpc_run pause as soon as it can. One that comes between two runs pauses the next. */
ADPC_API void adpc_interrupt(adpc_plan *plan);
/* Counts the pieces of work that were done since the plan was made. */
ADPC_API int64_t adpc_progress(const adpc_plan *plan);
/* When adpc_run returned last, in seconds of the steady clock. */
ADPC_API double adpc_returned_s(const adpc_plan *plan);
ADPC_API void adpc_last_exit(const adpc_plan *plan, adpc_exit *result);
/* Class scores of this frame's last exit, as (classes, rows, columns); writes none before there is
 * one. The next exit's take their place while it is computed, unless that has another scale. */
ADPC_API void adpc_read_scores(const adpc_plan *plan, float *scores);
/* Seconds that the current frame has taken: of each step (the highest `step` of an operation
 * says how many), then of the input, then of each exit's rendering and each exit's gate.
 * winograd: 1 for a step that was computed by Winograd's algorithm. */
ADPC_API void adpc_steps(const adpc_plan *plan, double *seconds, uint8_t *winograd,
                         int32_t count);
ADPC_API int64_t adpc_memory_bytes(const adpc_plan *plan);
/* About how many bytes features and maps take for an image of this size; nothing is allocated.
 * -1 for a size out of range. */
ADPC_API int64_t adpc_bytes_for(adpc_plan *plan, int32_t height, int32_t width);
/* Overwrite all features with nonsense: what is read afterwards must have been computed. */
ADPC_API void adpc_poison(adpc_plan *plan);
/* Names of what this machine can run, best first, separated by spaces. */
ADPC_API const char *adpc_instruction_sets(void);
ADPC_API const char *adpc_instruction_set(const adpc_plan *plan);

#ifdef __cplusplus
}
#endif
#endif
