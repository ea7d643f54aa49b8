#pragma once

#include <c10/core/Device.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "rometrace/model/config.hpp"
#include "trace/attend.hpp"
#include "trace/sweep_plan.hpp"

namespace rometrace {

/// Rows that go through a product together where a thread has them to itself, at most. On a CPU products run at their
/// full rate from 512 on, and memory for what is in between grows with them.
std::int64_t full_block_rows(at::Device device);

/// How many rows go through a layer's products together.
struct BlockRule {
  std::int64_t asked = 0;    ///< so many; 0: what suits
  std::int64_t full = 1024;  ///< at most so many, if none are asked for
  std::int64_t workers = 1;  ///< who share them

  /// Of `rows` that there are. Where workers share them they are cut evenly into as many blocks as there are workers,
  /// or twice as many where these are still large, so that none is waited for.
  std::int64_t of(std::int64_t rows) const;
};

/// Successive ones of PassSchedule::numbers: rows, or places of what is read.
struct Numbers {
  std::int64_t begin = 0;
  std::int64_t count = 0;

  bool empty() const { return count == 0; }
};

/// Rows that are written, each named once, and where what they become stands; as many of each.
struct Writes {
  Numbers rows, from;
};

/// Rows `row` .. row + from.count - 1 of the stream, which begin as copies.
struct Copies {
  std::int64_t row = 0;
  Numbers from;
};

/// Which neurons of each of some rows are the other run's: those before the row's `counts` in the order whose ranks are
/// the row's `ranks` of LayerSchedule::orders.
struct NeuronSets {
  Numbers ranks, counts;
};

/// Outputs that take the place of those that a block's products leave out.
struct OutputWrites {
  Writes other;  ///< the other runs', [J S (R - b), D]
  Writes base;   ///< the base runs', [J N (R - b), D]
};

/// Some draws of a segment.
struct SegmentDraws {
  std::size_t segment = 0;  ///< in PassSchedule::segments
  std::int64_t first = 0, count = 0;
};

/// Rows that go through a layer's products together: of segments whole, or of some draws of a single one. Rows are
/// counted from the block's first.
struct BlockSchedule {
  std::vector<SegmentDraws> parts;
  std::int64_t row = 0, rows = 0;  ///< where they stand in the stream

  std::optional<Numbers> asking;  ///< those whose attention output is used; none: all are
  std::optional<Numbers> used;    ///< likewise the MLP's
  std::vector<AttentionSegment> segments;
  std::vector<Numbers> prefixes;       ///< as AttentionBlock has them
  std::vector<AttentionGroup> groups;  ///< without tables, and ...
  std::vector<Numbers> tables;         ///< ... these, where attention goes by products
  Writes heads;                        ///< of asking rows [asking H, d], from the other runs' [J S (R - b) H, d]
  bool looks_at_neurons = false;       ///< whether they are needed, or changed
  Writes neurons;                      ///< of used rows, from the other runs' [J S positions, F]
  NeuronSets neuron_sets;              ///< of these rows
  OutputWrites attn, mlp;

  bool of_base_run() const { return parts.front().segment == 0; }
};

/// Patches that begin with a layer at one site, as many as go through what is left of it together: what the base run's
/// row at their position becomes.
struct Beginning {
  Site site = Site::kState;
  Numbers rows;   ///< of the stream, which it becomes
  Numbers base;   ///< of the base runs' [J N (R - b)]
  Numbers other;  ///< of the other runs' [J S (R - b)] or, of neurons, [J S positions]
  Writes heads;   ///< with kMixed: of these rows [.. H, d], from the other runs' [J S (R - b) H, d]
  /// With kMlpHidden: sets, or else single neurons.
  NeuronSets sets;
  Numbers base_neurons, other_neurons;  ///< of the base runs' [J N (R - b) F] and the other runs' [J S positions F]
  Numbers output_rows;                  ///< of the rows that LayerSchedule::neurons have

  bool of_single_neurons() const { return site == Site::kMlpHidden && !base_neurons.empty(); }
};

struct LayerSchedule {
  Copies given_before;      ///< rows of patches that change the layer's attention: of the base run's or, of knockouts
                            ///< when denoising, of what enters the layer in the other runs, [J S positions]
  std::int64_t rows = 0;    ///< that go through it
  std::int64_t block_rows;  ///< together
  std::vector<BlockSchedule> blocks;  ///< first the base run's, which is alone as it takes its keys from where they are
                                      ///< kept for all
  std::size_t base_blocks = 0;
  std::vector<Beginning> beginnings;
  Copies given_of_base, given_of_parents;  ///< rows of patches that begin with the layer, in this order
  std::vector<std::int64_t> neurons;       ///< those that patches of single ones begin with
  std::vector<const NeuronOrder*> orders;  ///< of sets that are changed here

  bool has_beginning(Site site) const;
};

/// What of the other runs and of the model a schedule depends on.
struct ScheduleSizes {
  std::int64_t other_draws = 1;                ///< S, of each fact
  std::int64_t other_inputs = 0;               ///< positions of what enters a layer in these runs
  std::vector<std::int64_t> neuron_positions;  ///< that their neurons are kept at
  BlockRule blocks;
  bool by_products = false;  ///< attention is attend_by_products()
};

/// All that a pass up the layers does, but for the numbers themselves: which rows there are in each layer, in which
/// blocks they go through it, and which places are read and written. It is made before the pass, so that each place
/// goes to the device once, and that a layer is as many operations for many patches as for few.
struct PassSchedule {
  /// Keeps `plan`'s patches.
  PassSchedule(const SweepShape& shape, const SweepPlan& plan, const DecoderConfig& config, const ScheduleSizes& sizes);

  std::vector<std::int64_t> numbers;
  std::vector<Segment> segments;  ///< the base run, then patches in the order of their admission
  std::vector<std::size_t> segment_of_patch;
  std::vector<LayerSchedule> layers;
  Numbers positions;              ///< of all rows in their texts, where a layer's rows depend on them
  Numbers shared_positions;       ///< likewise of the other runs' first rows and the base runs' rows
  Numbers answers;                ///< [runs, K]: the rows that say each run's answer
  Numbers questions;              ///< [runs]: the fact of each
  std::int64_t answer_block = 1;  ///< runs that are read together
};

}  // namespace rometrace
