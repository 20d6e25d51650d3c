// Which positions are computed, which others are read, and how a resampling reads.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels.h"

namespace adpc {

constexpr int kFinest = 2;  // level (log2 of the scale) of branch 0 and of the scores
constexpr int kLevels = 4;  // branches: levels 2 to 5
constexpr int kMaxReach = 4;

// One axis of a bilinear upsampling (corners not aligned) from `source` to `size` cells, pooled
// afterwards by averaging pairs if asked for; then `size` counts pairs.
class AxisTable {
 public:
  AxisTable() = default;
  AxisTable(int source, int size, bool pooled);
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
  std::vector<int32_t> donor;   // for each active position its number among the donors, or -1
  int donors = 0;
  std::vector<int32_t> begin;   // for each border position, into neighbours: (border + 1)
  std::vector<int32_t> end[kMaxReach + 1];  // by reach
  std::vector<Neighbour> neighbours;        // nearest rings first
  std::vector<uint8_t> is_active, is_needed;  // (rows, columns)
  int border() const { return static_cast<int>(at.size()) - active; }
};

// An active map at all levels. Closed: whatever a layer reads at a needed position of any level
// is at needed positions of the level it reads from.
class Map {
 public:
  // rows, columns: of the finest level; multiples of eight. reach: of the widest interpolation.
  void resize(int rows, int columns, int reach);
  // Building it from `finest` (rows, columns), true where active, takes this many parts, one after
  // the other; each is small. Nothing is allocated.
  int parts() const { return kLevels + 1 + 2 * bands_before(kLevels); }
  void build(const uint8_t* finest, int part);
  bool full() const { return full_; }
  const Positions& level(int level) const { return levels_[level - kFinest]; }
  int64_t bytes() const;

 private:
  static constexpr int kBand = 16;  // rows that are listed in one part
  int bands(int level) const { return ((rows_ >> level) + kBand - 1) / kBand; }
  int bands_before(int level) const;
  void find(int level, const uint8_t* finest);
  void mark_read(int from, int to);
  void list_active(int level, int first_row, int last_row);
  void list_border(int level, int first_row, int last_row);

  int rows_ = 0, columns_ = 0, reach_ = 0;
  bool full_ = false;
  Positions levels_[kLevels];
  AxisTable rows_table_[kLevels][kLevels], columns_table_[kLevels][kLevels];
  std::vector<uint8_t> row_;
  std::vector<int32_t> number_;  // of an active position in its list, by cell
};

}  // namespace adpc
