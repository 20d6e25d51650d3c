// SPDX-License-Identifier: Apache-2.0
// Kernels over lists of positions; one table of functions for each instruction set.
//
// Feature maps lie in NHWC order: all channels of a cell together, padded with zeros to a multiple
// of eight (an octet), and at least one cell of zeros around the map.
#pragma once

#include <cstddef>
#include <cstdint>

namespace adpc {

constexpr int kOctet = 8;
constexpr int kMaxClasses = 256;

enum Type : int32_t { kFloat32 = 0, kBFloat16 = 1 };

// A cell of a map: row in the upper, column in the lower half.
using Position = uint32_t;
static inline Position at(int row, int column) {
  return static_cast<Position>(row) << 16 | static_cast<Position>(column);
}
static inline int row_of(Position p) { return static_cast<int>(p >> 16); }
static inline int column_of(Position p) { return static_cast<int>(p & 0xffff); }

// A feature map in memory.
struct View {
  void* data = nullptr;  // cell (0, 0)
  int64_t pitch = 0;     // cells from one row to the next
  int64_t stride = 0;    // elements from one cell to the next
};

// An active cell near an inactive one: where its value lies, and which weight it has.
struct Neighbour {
  int32_t donor;
  int32_t tap;
};

// out = relu(conv(in) + bias + residual); the bare conv(in) goes to the donors, too.
struct ConvArgs {
  View in, out, residual;        // residual.data may be null
  const Position* in_at;         // where to read, in cells of the output
  const Position* out_at;        // where to write
  const int32_t* donor;          // null, or for each position its donor or -1
  float* donors;                 // (donors, octets * 8)
  const void* weights;           // packed
  const float* bias;             // (octets * 8)
  int kernel, stride;            // the input begins (kernel - 1) / 2 cells of zeros before the map
  int in_channels;               // even for bfloat16
  int octets;                    // of output channels
  bool relu;
};

// A 2x2 tile of outputs: its upper left cell, whose row and column are even, and for each of its
// cells, row by row, its number in the list of active positions, or -1: it is not computed.
struct Tile {
  Position at;
  int32_t number[4];
};

// A 3x3 convolution of stride 1 over tiles, float32; of `conv` neither positions, kernel nor stride.
struct WinogradArgs {
  ConvArgs conv;
  const Tile* tiles;             // null: all of the map
  int rows, columns;             // of the map
  const uint8_t* needed;         // (rows, columns): cells that hold a value; null: all
  const float* zeros;            // as many as in_channels or octets * 8, the larger
  float* scratch;                // winograd_floats() of the input and of the output
};
constexpr int kWinogradTiles = 24;  // that are transformed together

// Inactive positions: out = relu(sum of weight * donor + bias * sum of weight + shift + residual).
struct BorderArgs {
  View out, residual;
  const Position* at;
  const int32_t* begin;          // (positions + 1) into neighbours
  const int32_t* end;            // (positions): what is within the layer's reach
  const Neighbour* neighbours;
  const float* window;           // weight of each tap
  const float* donors;
  const float* bias;             // what the convolution itself adds
  const float* shift;            // what comes after the interpolation
  int octets;
  bool relu;
};

// One axis of a linear resampling: each output coordinate reads `taps` neighbours from `start`.
struct Axis {
  const int32_t* start;
  const float* weight;           // (coordinates, taps)
};

struct Source {
  View view;
  Axis rows, columns;
  int taps;                      // 1: a copy
  int octets;
  int out_octet;                 // where in the output its channels go
};

constexpr int kMaxSources = 4;

// out = relu(sum of resampled sources + bias), or the sources side by side.
struct ResampleArgs {
  View out;
  const Position* in_at;
  const Position* out_at;
  Source sources[kMaxSources];
  int source_count;
  bool concatenate;
  bool add_to_output;            // what the output holds is another summand
  int octets;
  const float* bias;             // null or (octets * 8)
  bool relu;
};

// An image to a normalised map of four channels, the last of them zero.
struct InputArgs {
  const float* normalised;       // null, or (3, height, width) to be taken as they are
  const uint8_t* image;
  int64_t row_bytes, pixel_bytes;
  int64_t red, green, blue;      // offsets in a pixel, in bytes
  int height, width;             // of the image
  int padded_width;
  View out;
  const float* table;            // (3, 256): normalised value of each byte
};

// Class scores to class ids and confidence at full size.
struct RenderArgs {
  View scores;                   // float32
  const float* inverse_temperature;  // (rows, columns) or null: 1; for the confidence alone
  int classes;
  int rows, columns;             // cells
  int scale;                     // pixels for one cell on either axis: 4 or 8
  int height, width;             // pixels, at most those of the cells
  const uint8_t* changed;        // (rows, columns) or null: all
  uint8_t* ids;                  // (height, width)
  uint8_t* confidence;           // (height, width)
  float threshold;               // pixels at or above count as confident
  float* block_sum;              // (rows, blocks): confidence
  int32_t* block_count;          // (rows, blocks): confident pixels
};
constexpr int kRenderBlock = 16;  // cells

// Marks positions whose class scores are not yet confident.
struct GateArgs {
  View scores;                   // float32
  int classes;
  const Position* at;
  uint8_t* active;               // (rows, columns)
  int columns;
  bool entropy;
  const float* thresholds;       // of each class
};

struct Kernels {
  const char* name;
  double chunk_macs;             // multiply-accumulates that take somewhat less than a millisecond
  size_t (*packed_bytes)(Type type, int taps, int in_channels, int octets);
  // weights (out, in, taps) float32
  void (*pack)(Type type, const float* weights, int taps, int out_channels, int in_channels,
               void* packed);
  void (*conv)(Type in, Type out, const ConvArgs& args, int first, int last);
  int (*tile)(int octets);       // positions that are computed together
  // time of a tile by Winograd, that of a position by itself being 1
  double (*tile_cost)(int in_octets, int octets);
  size_t (*winograd_bytes)(int in_channels, int octets);
  size_t (*winograd_floats)(int octets);  // of scratch, for channels before or after the products
  // weights (out, in, 9) float32; scratch (out, in) floats
  void (*winograd_pack)(const float* weights, int out_channels, int in_channels, float* scratch,
                        void* packed);
  void (*winograd)(const WinogradArgs& args, int first, int last);
  // each channel by itself; weights (taps, octets * 8) float32; no residual, no donors
  void (*depthwise)(Type type, const ConvArgs& args, int first, int last);
  void (*border)(Type type, const BorderArgs& args, int first, int last);
  void (*resample)(Type type, const ResampleArgs& args, int first, int last);
  void (*input)(Type type, const InputArgs& args, int first_row, int last_row);
  void (*render)(const RenderArgs& args, int first_row, int last_row);
  void (*gate)(const GateArgs& args, int first, int last);
};

#ifdef ADPC_NEON
const Kernels* kernels_neon();
#else
const Kernels* kernels_portable();
#endif
#ifdef ADPC_X86
const Kernels* kernels_avx2();
const Kernels* kernels_avx512();
const Kernels* kernels_avx512_bf16();
#endif

}  // namespace adpc
