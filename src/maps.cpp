// SPDX-License-Identifier: Apache-2.0
#include "maps.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace adpc {

AxisTable::AxisTable(int source, int size, bool pooled, int min_taps) {
  const int fine = pooled ? 2 * size : size;
  const double scale = static_cast<double>(source) / fine;
  // what one fine coordinate reads: two neighbours and the weight of the second
  auto reads = [&](int i, int& low, double& second) {
    const double x = std::max(0.0, (i + 0.5) * scale - 0.5);
    low = static_cast<int>(x);
    second = x - low;
    if (low >= source - 1) {  // beyond it there is only the last one
      low = source - 1;
      second = 0.0;
    }
  };
  taps_ = std::max(min_taps, !pooled ? (source == size ? 1 : 2) : (source == fine ? 2 : 3));
  start_.resize(size);
  weight_.assign(static_cast<size_t>(size) * taps_, 0.0f);
  for (int i = 0; i < size; ++i) {
    int low;
    double second;
    if (!pooled) {
      reads(i, low, second);
      start_[i] = low;
      weight_[i * taps_] = static_cast<float>(1.0 - second);
      if (taps_ > 1) weight_[i * taps_ + 1] = static_cast<float>(second);
      continue;
    }
    double weights[4] = {};
    reads(2 * i, start_[i], second);
    for (int half = 0; half < 2; ++half) {
      reads(2 * i + half, low, second);
      weights[low - start_[i]] += 0.5 * (1.0 - second);
      weights[low - start_[i] + 1] += 0.5 * second;
    }
    for (int t = 0; t < taps_; ++t) weight_[i * taps_ + t] = static_cast<float>(weights[t]);
  }
}

void Map::resize(int rows, int columns, int levels, int reach) {
  rows_ = rows;
  columns_ = columns;
  count_ = levels;
  reach_ = reach;
  for (int i = 0; i < count_; ++i) {
    Positions& p = levels_[i];
    const size_t cells = static_cast<size_t>(rows >> i) * (columns >> i);
    p.is_active.resize(cells);
    p.is_needed.resize(cells);
    p.at.reserve(cells);
    p.tiles.reserve(static_cast<size_t>(((rows >> i) + 1) / 2) * (((columns >> i) + 1) / 2));
    p.donor.reserve(cells);
    p.begin.reserve(cells + 1);
    for (auto& end : p.end) end.reserve(cells);
    const size_t window = static_cast<size_t>(2 * reach + 1) * (2 * reach + 1);
    p.neighbours.reserve(cells * (window / 2));  // of a pair, at most one is inactive
    for (int j = i + 1; j < count_; ++j) {
      rows_table_[i][j] = AxisTable(rows >> j, rows >> i, false);
      columns_table_[i][j] = AxisTable(columns >> j, columns >> i, false);
    }
  }
  row_.resize(columns);
  number_.resize(static_cast<size_t>(rows) * columns);
}

int Map::bands_before(int level) const {
  int count = 0;
  for (int i = 0; i < level; ++i) count += bands(i);
  return count;
}

void Map::build(const uint8_t* source, int source_level, int part) {
  if (part < count_) return find(part, source, source_level - kFinest);
  if (part == count_) {
    for (int i = 0; i < count_; ++i)  // from fine to coarse: what is read reads, too
      for (int j = i + 1; j < count_; ++j) mark_read(i, j);
    return;
  }
  part -= count_ + 1;
  int level = 0;
  while (part >= 2 * bands_before(level + 1)) ++level;
  part -= 2 * bands_before(level);
  const int first = part % bands(level) * kBand, last = std::min(first + kBand, rows_ >> level);
  if (part < bands(level)) list_active(level, first, last);
  else list_border(level, first, last);
}

// The nearest cell of the source: the upper left one of several, or the one that it lies in.
void Map::find(int level, const uint8_t* source, int source_level) {
  Positions& p = levels_[level];
  const int rows = rows_ >> level, columns = columns_ >> level;
  const int source_columns = columns_ >> source_level;
  const int finer = std::max(0, level - source_level), coarser = std::max(0, source_level - level);
  int64_t active = 0;
  std::memset(p.is_needed.data(), 0, p.is_needed.size());
  for (int y = 0; y < rows; ++y) {
    const uint8_t* from = source + static_cast<size_t>(y << finer >> coarser) * source_columns;
    uint8_t* here = &p.is_active[static_cast<size_t>(y) * columns];
    for (int x = 0; x < columns; ++x) here[x] = from[x << finer >> coarser] != 0;
    active += std::count(here, here + columns, 1);
    for (int x = 0; x < columns; ++x)  // a 3x3 convolution reads all around
      row_[x] = here[x] | (x > 0 ? here[x - 1] : 0) | (x + 1 < columns ? here[x + 1] : 0);
    for (int ny = std::max(0, y - 1); ny <= std::min(rows - 1, y + 1); ++ny) {
      uint8_t* to = &p.is_needed[static_cast<size_t>(ny) * columns];
      for (int x = 0; x < columns; ++x) to[x] |= row_[x];
    }
  }
  if (level == 0) full_ = active == static_cast<int64_t>(rows) * columns;
}

void Map::mark_read(int from, int to) {
  const Positions& reader = levels_[from];
  Positions& read = levels_[to];
  const int rows = rows_ >> from, columns = columns_ >> from;
  const int source_rows = rows_ >> to, source_columns = columns_ >> to;
  const AxisTable &table_y = rows_table_[from][to], &table_x = columns_table_[from][to];
  for (int y = 0; y < rows; ++y) {
    const uint8_t* needed = &reader.is_needed[static_cast<size_t>(y) * columns];
    std::memset(row_.data(), 0, source_columns);
    for (int x = 0; x < columns; ++x) {
      if (!needed[x]) continue;
      const int low = table_x.start(x);
      row_[low] = 1;
      if (low + 1 < source_columns) row_[low + 1] = 1;
    }
    const int low = table_y.start(y);
    for (int ny = low; ny <= std::min(low + 1, source_rows - 1); ++ny) {
      uint8_t* mark = &read.is_needed[static_cast<size_t>(ny) * source_columns];
      for (int x = 0; x < source_columns; ++x) mark[x] |= row_[x];
    }
  }
}

void Map::list_active(int level, int first_row, int last_row) {
  Positions& p = levels_[level];
  const int columns = columns_ >> level;
  if (first_row == 0) {
    p.at.clear();
    p.tiles.clear();
  }
  for (int y = first_row; y < last_row; ++y)
    for (int x = 0; x < columns; ++x) {
      const size_t cell = static_cast<size_t>(y) * columns + x;
      if (!p.is_active[cell]) continue;
      number_[cell] = static_cast<int32_t>(p.at.size());
      p.at.push_back(at(y, x));
    }
  p.active = static_cast<int>(p.at.size());
  const int rows = rows_ >> level;
  for (int y = first_row; y < last_row; y += 2)
    for (int x = 0; x < columns; x += 2) {
      Tile tile = {at(y, x), {-1, -1, -1, -1}};
      bool any = false;
      for (int k = 0; k < 4; ++k) {
        const int ty = y + k / 2, tx = x + k % 2;
        const size_t cell = static_cast<size_t>(ty) * columns + tx;
        if (ty >= rows || tx >= columns || !p.is_active[cell]) continue;
        tile.number[k] = number_[cell];
        any = true;
      }
      if (any) p.tiles.push_back(tile);
    }
}

void Map::list_border(int level, int first_row, int last_row) {
  Positions& p = levels_[level];
  const int rows = rows_ >> level, columns = columns_ >> level, edge = 2 * reach_ + 1;
  if (first_row == 0) {
    p.donor.assign(p.active, -1);
    p.donors = 0;
    p.begin.clear();
    for (auto& end : p.end) end.clear();
    p.neighbours.clear();
  }
  for (int y = first_row; y < last_row; ++y)
    for (int x = 0; x < columns; ++x) {
      const size_t cell = static_cast<size_t>(y) * columns + x;
      if (!p.is_needed[cell] || p.is_active[cell]) continue;
      p.at.push_back(at(y, x));
      p.begin.push_back(static_cast<int32_t>(p.neighbours.size()));
      p.end[0].push_back(p.begin.back());
      for (int reach = 1; reach <= reach_; ++reach) {  // ring by ring
        for (int dy = -reach; dy <= reach; ++dy) {
          const int step = std::abs(dy) == reach ? 1 : 2 * reach;
          if (y + dy < 0 || y + dy >= rows) continue;
          for (int dx = -reach; dx <= reach; dx += step) {
            if (x + dx < 0 || x + dx >= columns) continue;
            const size_t other = static_cast<size_t>(y + dy) * columns + x + dx;
            if (!p.is_active[other]) continue;
            int32_t& donor = p.donor[number_[other]];
            if (donor < 0) donor = p.donors++;
            p.neighbours.push_back({donor, (dy + reach_) * edge + dx + reach_});
          }
        }
        p.end[reach].push_back(static_cast<int32_t>(p.neighbours.size()));
      }
    }
}

int64_t Map::bytes() const {
  int64_t total = 0;
  for (const Positions& p : levels_) {
    total += static_cast<int64_t>(p.at.capacity()) * sizeof(Position);
    total += static_cast<int64_t>(p.tiles.capacity()) * sizeof(Tile);
    total += static_cast<int64_t>(p.donor.capacity() + p.begin.capacity()) * sizeof(int32_t);
    for (const auto& end : p.end) total += static_cast<int64_t>(end.capacity()) * sizeof(int32_t);
    total += static_cast<int64_t>(p.neighbours.capacity()) * sizeof(Neighbour);
    total += static_cast<int64_t>(p.is_active.capacity() + p.is_needed.capacity());
  }
  return total;
}

}  // namespace adpc
