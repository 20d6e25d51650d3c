// SPDX-License-Identifier: Apache-2.0
// Which positions are computed, which others are read, and how a resampling reads.
#pragma once

#include <cstdint>
#include <vector>

#include "adpc.h"
#include "kernels.h"

namespace adpc {

constexpr int kFinest = ADPC_FINEST, kLevels = ADPC_LEVELS;
constexpr int kCoarsestScores = 3;  // level of an exit
constexpr int kMaxReach = 4;

// One axis of a bilinear upsampling (corners not aligned) from `source` to `size` cells, pooled
// afterwards by averaging pairs if asked for; then `size` counts pairs.
class AxisTable {
 public:
  AxisTable() = default;
  // min_taps: as many as the other axis has; what is too many has no weight.
  AxisTable(int source, int size, bool pooled, int min_taps = 1);
  Axis axis() const { return {start_.data(), weight_.data()}; }
  int taps() const { return taps_; }
  int start(int i) const { return start_[i]; }

 private:
  int taps_ = 0;
  std::vector<int32_t> start_;
  std::vector<float> weight_;
};

// The positions of one level.
struct Positions {
  std::vector<Position> at;     // active ones, then those that are read only: the border
  int active = 0;
  std::vector<Tile> tiles;      // those with an active position
  std::vector<int32_t> donor;   // for each active position its number among the donors, or -1
  int donors = 0;
  std::vector<int32_t> begin;   // for each border position, into neighbours: (border + 1)
  std::vector<int32_t> end[kMaxReach + 1];  // by reach
  std::vector<Neighbour> neighbours;        // nearest rings first
  std::vector<uint8_t> is_active, is_needed;  // (rows, columns)
  int border() const { return static_cast<int>(at.size()) - active; }
};

// Cells of a level along an edge of so many pixels.
inline int cells_of(int pixels, int level) { return (pixels + (1 << level) - 1) >> level; }

// An active map at all levels that are masked. Closed: whatever a layer reads at a needed position
// of any level is at needed positions of the level it reads from.
class Map {
 public:
  // rows, columns: of the finest level, whole at each of the `levels`. reach: of the widest
  // interpolation.
  void resize(int rows, int columns, int levels, int reach);
  // Building it from `source`, true where active, at some level, takes this many parts, one after
  // the other; each is small. Nothing is allocated.
  int parts() const { return count_ + 1 + 2 * bands_before(count_); }
  void build(const uint8_t* source, int source_level, int part);
  bool has(int level) const { return level >= kFinest && level < kFinest + count_; }
  bool full() const { return full_; }
  const Positions& level(int level) const { return levels_[level - kFinest]; }
  int64_t bytes() const;

 private:
  static constexpr int kBand = 16;  // rows that are listed in one part
  int bands(int level) const { return ((rows_ >> level) + kBand - 1) / kBand; }
  int bands_before(int level) const;
  void find(int level, const uint8_t* source, int source_level);
  void mark_read(int from, int to);
  void list_active(int level, int first_row, int last_row);
  void list_border(int level, int first_row, int last_row);

  int rows_ = 0, columns_ = 0, count_ = 0, reach_ = 0;
  bool full_ = false;
  Positions levels_[kLevels];
  AxisTable rows_table_[kLevels][kLevels], columns_table_[kLevels][kLevels];
  std::vector<uint8_t> row_;
  std::vector<int32_t> number_;  // of an active position in its list, by cell
};

}  // namespace adpc
