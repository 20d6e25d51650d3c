// SPDX-License-Identifier: Apache-2.0
// Features: one chunk of one operation.
#include <algorithm>

#include "plan.h"

using namespace adpc;

namespace {

constexpr int kPointwiseTile = 96;  // positions, whose channels fit the second-level cache

}  // namespace

// Positions of an operation

const Map* adpc_plan::map_of(const Op& op) const {
  return op.spec.masked && map_ && !map_->full() ? map_ : nullptr;
}

const Position* adpc_plan::positions_of(const Op& op, int* active, int* needed) const {
  const int level = layout_.slot(op.spec.output).level;
  const Map* map = map_of(op);
  const std::vector<Position>& at = map ? map->level(level).at : layout_.all(level);
  *needed = static_cast<int>(at.size());
  *active = map && !op.spec.needed ? map->level(level).active : *needed;
  return at.data();
}

// Class scores that are carried over to a finer scale: of no use if all are computed anew.
bool adpc_plan::carries(const Op& op) const {
  return layout_.slot(op.spec.output).scores && !op.spec.gives_exit;
}

void adpc_plan::input(int first, int last) {
  InputArgs args{};
  args.image = frame_.image;
  args.normalised = frame_.normalised;
  args.row_bytes = frame_.row_bytes;
  args.pixel_bytes = frame_.pixel_bytes;
  args.red = frame_.red;
  args.green = frame_.green;
  args.blue = frame_.blue;
  args.height = frame_.height;
  args.width = frame_.width;
  args.padded_width = layout_.width();
  args.out = layout_.slot(ADPC_IMAGE).view;
  args.table = table_.data();
  kernels_->input(type_, args, first, last);
}

ConvArgs adpc_plan::conv_args(const Op& op) const {
  ConvArgs args{};
  args.in = layout_.slot(op.spec.input).view;
  args.out = layout_.slot(op.spec.output).view;
  if (op.spec.kind == ADPC_CONV && op.spec.residual >= 0)
    args.residual = layout_.slot(op.spec.residual).view;
  args.weights = op.weight.data();
  args.bias = op.bias_and_shift.data();
  args.kernel = op.spec.kernel;
  args.stride = op.spec.stride;
  args.in_channels = op.in_channels;
  args.octets = op.octets;
  args.relu = op.spec.relu;
  return args;
}

void adpc_plan::convolve(const Op& op, int first, int last, int thread) {
  int active, needed;
  ConvArgs args = conv_args(op);
  args.in_at = args.out_at = positions_of(op, &active, &needed);
  const Map* map = map_of(op);
  const int level = layout_.slot(op.spec.output).level;
  if (map && op.spec.reach > 0) {
    args.donor = map->level(level).donor.data();
    args.donors = layout_.donors();
  }
  if (!amount_.winograd)
    return kernels_->conv(type_, layout_.slot(op.spec.output).type, args, first, last);
  WinogradArgs tiles{};
  tiles.conv = args;
  tiles.conv.weights = op.winograd.data();
  tiles.rows = layout_.rows(level);
  tiles.columns = layout_.columns(level);
  if (map) {
    tiles.tiles = map->level(level).tiles.data();
    tiles.needed = map->level(level).is_needed.data();
  }
  tiles.zeros = zeros_.data();
  tiles.scratch = layout_.transformed(thread);
  kernels_->winograd(tiles, first, last);
}

void adpc_plan::convolve_pointwise(const Job& job, int first, int last, int thread) {
  for (; first < last; first += kPointwiseTile)
    for (int i = 0; i < job.count; ++i)
      convolve(layout_.ops()[job.index + i], first, std::min(first + kPointwiseTile, last),
               thread);
}

void adpc_plan::depthwise(const Op& op, int first, int last) {
  int active, needed;
  ConvArgs args = conv_args(op);
  args.in_at = args.out_at = positions_of(op, &active, &needed);
  kernels_->depthwise(type_, args, first, last);
}

// A band of an inverted residual, some of its channels at a time, so that what is many times as
// wide as input and output stays in the cache.
void adpc_plan::invert(const Op& op, int band, int thread) {
  const Slot &in = layout_.slot(op.spec.input), &out = layout_.slot(op.spec.output);
  const int stride = op.spec.stride, pad = (op.spec.kernel - 1) / 2;
  const int rows = layout_.rows(in.level), columns = layout_.columns(in.level);
  const int out_columns = layout_.columns(out.level);
  const int first = band * op.band_rows;
  const int last = std::min(first + op.band_rows, layout_.rows(out.level));
  const int top = first * stride - pad, bottom = (last - 1) * stride + op.spec.kernel - pad;
  const int begin = std::max(0, top), end = std::min(rows, bottom);  // of the input's rows
  const int count = (last - first) * out_columns;
  const Position* in_at = layout_.all(in.level).data() + static_cast<size_t>(begin) * columns;
  const Position* out_at = layout_.all(out.level).data();
  out_at += static_cast<size_t>(first) * out_columns;
  const int64_t pitch = columns + 2 * pad;
  for (const Group& group : op.groups) {
    const int64_t width = group.octets * kOctet;
    const int channel = group.first * kOctet;
    float* wide = layout_.band(thread);
    float* filtered = wide + (bottom - top) * pitch * width;
    ConvArgs args{};
    args.in = in.view;
    args.kernel = args.stride = 1;
    args.octets = group.octets;
    args.relu = true;
    View seen = in.view;  // by the depthwise convolution
    if (op.expand_bias.empty()) {
      seen.data = static_cast<float*>(in.view.data) + channel;
    } else {
      for (int y = top; y < bottom; ++y) {  // what lies around the map is zero
        float* row = wide + (y - top) * pitch * width;
        const bool inside = y >= 0 && y < rows;
        std::fill_n(row, (inside ? pad : pitch) * width, 0.0f);
        if (inside) std::fill_n(row + (pad + columns) * width, pad * width, 0.0f);
      }
      seen = {wide + (pad - top * pitch) * width, pitch, width};
      args.out = seen;
      args.in_at = args.out_at = in_at;
      args.weights = group.expand.data();
      args.bias = op.expand_bias.data() + channel;
      args.in_channels = op.in_channels;
      kernels_->conv(kFloat32, kFloat32, args, 0, (end - begin) * columns);
    }
    args.in = seen;
    args.out = {filtered - first * out_columns * width, out_columns, width};
    args.in_at = args.out_at = out_at;
    args.weights = group.depthwise.data();
    args.bias = op.bias.data() + channel;
    args.kernel = op.spec.kernel;
    args.stride = stride;
    kernels_->depthwise(kFloat32, args, 0, count);
    const bool initial = group.first == 0;
    args.in = args.out;
    args.out = out.view;
    if (!initial) args.residual = out.view;
    else if (op.spec.residual >= 0) args.residual = layout_.slot(op.spec.residual).view;
    args.weights = group.project.data();
    args.bias = initial ? op.head_bias.data() : zeros_.data();
    args.kernel = args.stride = 1;
    args.in_channels = std::min(static_cast<int>(width), op.spec.head_channels - channel);
    args.octets = op.octets;
    args.relu = false;
    kernels_->conv(kFloat32, kFloat32, args, 0, count);
  }
}

void adpc_plan::interpolate(const Op& op, int first, int last) {
  const Positions& positions = map_of(op)->level(layout_.slot(op.spec.output).level);
  BorderArgs args{};
  args.out = layout_.slot(op.spec.output).view;
  if (op.spec.residual >= 0) args.residual = layout_.slot(op.spec.residual).view;
  args.at = positions.at.data() + positions.active;
  args.begin = positions.begin.data();
  args.end = positions.end[op.spec.reach].data();
  args.neighbours = positions.neighbours.data();
  args.window = op.window.data();
  args.donors = layout_.donors();
  args.bias = op.bias.data();
  args.shift = op.shift.data();
  args.octets = op.octets;
  args.relu = op.spec.relu;
  kernels_->border(layout_.slot(op.spec.output).type, args, first, last);
}

ResampleArgs adpc_plan::resample_args(const Op& op) const {
  ResampleArgs args{};
  args.source_count = op.spec.source_count;
  args.concatenate = op.spec.concatenate;
  args.octets = op.octets;
  args.relu = op.spec.relu;
  int octet = 0;
  for (int s = 0; s < op.spec.source_count; ++s) {
    const Slot& slot = layout_.slot(op.spec.sources[s]);
    const AxisTable &rows = op.rows[s], &columns = op.columns[s];
    const int octets = octets_of(slot.channels);
    args.sources[s] = {slot.view, rows.axis(), columns.axis(), rows.taps(), octets, octet};
    octet += octets;
  }
  return args;
}

void adpc_plan::resample(const Op& op, int first, int last) {
  int active, needed;
  ResampleArgs args = resample_args(op);
  args.out = layout_.slot(op.spec.output).view;
  args.in_at = args.out_at = positions_of(op, &active, &needed);
  if (!op.bias_and_shift.empty()) args.bias = op.bias_and_shift.data();
  kernels_->resample(layout_.slot(op.spec.output).type, args, first, last);
}

// A head whose hidden channels are many: a few positions at a time, from the convolution of
// the finest branch over the upsampled others to the scores.
void adpc_plan::head(const Op& op, int first, int last, int thread) {
  int active, needed;
  const Position* positions = positions_of(op, &active, &needed);
  const int channels = op.octets * kOctet;
  const View hidden = {layout_.hidden(channels, thread), 0, channels};
  ConvArgs conv = conv_args(op);
  conv.out = hidden;
  conv.out_at = compact_;
  conv.relu = false;
  ResampleArgs resample = resample_args(op);
  resample.out = hidden;
  resample.out_at = compact_;
  resample.relu = true;
  resample.add_to_output = true;
  ConvArgs scores{};
  scores.in = hidden;
  scores.out = layout_.slot(op.spec.output).view;
  scores.in_at = compact_;
  scores.weights = op.head_weight.data();
  scores.bias = op.head_bias.data();
  scores.kernel = scores.stride = 1;
  scores.in_channels = op.spec.head_channels;
  scores.octets = octets_of(classes_);
  for (; first < last; first += kHeadTile) {
    const int count = std::min(kHeadTile, last - first);
    conv.in_at = resample.in_at = scores.out_at = positions + first;
    kernels_->conv(type_, type_, conv, 0, count);
    kernels_->resample(type_, resample, 0, count);
    kernels_->conv(type_, kFloat32, scores, 0, count);
  }
}
