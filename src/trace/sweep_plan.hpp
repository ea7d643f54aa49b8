#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "rometrace/model/config.hpp"
#include "rometrace/trace/patch.hpp"
#include "rometrace/trace/trace.hpp"

namespace rometrace {

/// A patch and the cells whose score it is: several where windows are cut to the same layers at the model's ends.
struct PatchCells {
  Patch patch;
  std::vector<std::size_t> cells;  ///< in the list of all cells
};

/// The rows that a run carries up the layers from its admission on: of each draw of each of its facts (or of each of
/// these, for a patch of the clean run) positions first .. R - 1.
struct Segment {
  const Patch* patch = nullptr;  ///< none: the base run
  std::int64_t first = 0;
  std::int64_t length = 0;           ///< R - first
  bool other_prefix = false;         ///< the keys of the positions before are the other run's, not the base run's
  std::int64_t draws_of_a_fact = 1;  ///< N, or 1
  std::int64_t first_fact = 0;       ///< it is of these facts: all J, or one
  std::int64_t facts = 1;
  std::int64_t row = 0;  ///< where its rows begin: [facts, draws_of_a_fact, length]

  std::int64_t draws() const { return facts * draws_of_a_fact; }

  /// What takes the place of row 0's own output of `site` in this layer (above the layer of admission, whose change is
  /// part of the admission); null if nothing does.
  const Change* change_at(Site site, std::int64_t layer) const;

  /// The positions that attention does not see in this layer.
  PositionRange cut_at(std::int64_t layer) const;
};

/// What is known of a patch's outcome before it is run.
enum class Outcome {
  kToBeRun,
  kBase,   ///< as the base run's
  kOther,  ///< as the other run's
};

/// The sizes of the runs of J facts: prompts with the same number of tokens, the same first one that is corrupted, and
/// answers of the same number of tokens. Of runs' tokens there are R = T + K - 1.
struct SweepShape {
  SweepShape(const TracePrompt& prompt, const TraceOptions& options, std::int64_t layers, std::int64_t facts = 1);

  Segment base_run() const;
  Segment segment_of(const Patch& patch) const;
  Outcome outcome_of(const Patch& patch) const;
  std::int64_t draws() const { return J * N; }
  std::int64_t rows(const Segment& segment) const { return segment.draws() * segment.length; }
  std::int64_t rows(const Patch& patch) const { return rows(segment_of(patch)); }

  std::int64_t J;  ///< facts
  std::int64_t N;  ///< draws of each
  std::int64_t R, L, K;
  std::int64_t b;     ///< the first position that is corrupted
  std::int64_t last;  ///< the prompts' last position, T - 1, where the answer begins
  bool noising;
};

/// The patches of the cells, in the order in which sweeps admit them.
std::vector<PatchCells> patches_of(const std::vector<Cell>& cells);

/// One pass up the layers: which patches ride in it, and when each gets its rows.
struct SweepPlan {
  /// `parent`, if any: a patch of the plan that is the same up to this layer, and has rows already.
  struct Admission {
    std::size_t patch = 0;
    std::optional<std::size_t> parent;
  };

  SweepPlan(const SweepShape& shape, std::vector<const Patch*> patches);

  /// The patches that begin by changing `site` in this layer, of those that have no parent.
  std::vector<std::size_t> admitted_at(std::int64_t layer, Site site) const;

  std::vector<const Patch*> patches;
  /// [L]: in the order in which patches are given rows after (or within) each layer. Windows that the model's lower end
  /// cuts short begin together and differ in their ends only: the longest is carried, and each other leaves it where
  /// its own window ends.
  std::vector<std::vector<Admission>> admissions;
  /// [L]: the patches that are given rows before the layer, as they change what happens in its attention.
  std::vector<std::vector<std::size_t>> before;
  std::vector<Site> held;         ///< where patches hold outputs at the base run's
  std::int64_t rows = 0;          ///< at the top, of all segments
  std::int64_t other_rows = 0;    ///< positions of the other runs whose keys are read
  std::int64_t token_layers = 0;  ///< rows times layers that need keys and values
};

/// Cuts the patches that have to be run into passes of at most `memory` bytes of rows, `row_bytes` each; one pass in
/// any case. Throws Error if that does not hold the base run and one patch.
std::vector<std::vector<std::size_t>> cut_into_passes(const std::vector<PatchCells>& patches, const SweepShape& shape,
                                                      std::int64_t row_bytes, std::int64_t memory);

}  // namespace rometrace
