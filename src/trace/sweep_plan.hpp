#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "rometrace/trace/patch.hpp"
#include "rometrace/trace/trace.hpp"

namespace rometrace {

/// A patch and the cells whose score it is: several where windows are cut to the same layers at the model's ends.
struct PatchCells {
  struct Cell {
    std::size_t grid = 0;
    std::size_t index = 0;  ///< in the grid's row-major scores
  };
  Patch patch;
  std::vector<Cell> cells;
};

/// The rows that a run carries up the layers from its admission on: for each draw of each fact, positions
/// first .. T - 1. The keys of the positions before are the fact's corrupted run's, or its clean one's.
struct Segment {
  const Patch* patch = nullptr;  ///< none: the corrupted run
  std::int64_t first = 0;
  std::int64_t length = 0;  ///< T - first
  bool clean_prefix = false;
  std::int64_t row = 0;  ///< where its rows begin: [J N, length]

  /// Whether row 0's own output of `site` in this layer is replaced by the clean one (after the layer of admission,
  /// whose replacement is part of the admission).
  bool restored_at(Site site, std::int64_t layer) const;
};

/// What is known of a patch's outcome before it is run.
enum class Outcome { kToBeRun, kCorrupted, kClean };

/// The sizes of the runs of J facts: prompts with the same number of tokens and the same first one of the subject.
struct SweepShape {
  SweepShape(const TracePrompt& prompt, const TraceOptions& options, std::int64_t layers, std::int64_t facts = 1);

  Segment corrupted_run() const;
  Segment segment_of(const Patch& patch) const;
  Outcome outcome_of(const Patch& patch) const;
  std::int64_t draws() const { return J * N; }
  std::int64_t rows(const Segment& segment) const { return draws() * segment.length; }
  std::int64_t rows(const Patch& patch) const { return rows(segment_of(patch)); }

  std::int64_t J;  ///< facts
  std::int64_t N;  ///< draws of each
  std::int64_t T, L;
  std::int64_t b;  ///< the subjects' first position
};

/// The patches of all cells from the subject on, in the order in which sweeps admit them.
std::vector<PatchCells> patches_of(const SweepShape& shape, const TraceOptions& options);

/// One pass up the layers: which patches ride in it, and when each gets its rows.
struct SweepPlan {
  /// `parent`, if any: a patch of the plan that is the same up to this layer, and has rows already.
  struct Admission {
    std::size_t patch = 0;
    std::optional<std::size_t> parent;
  };

  SweepPlan(const SweepShape& shape, std::vector<const Patch*> patches);

  /// The positions, ascending, of the patches that begin by restoring `site` in this layer.
  std::vector<std::int64_t> admitted_at(std::int64_t layer, Site site) const;

  std::vector<const Patch*> patches;
  /// [L]: in the order in which patches are given rows after (or within) each layer. Windows that the model's lower end
  /// cuts short begin together and differ in their ends only: the longest is carried, and each other leaves it where
  /// its own window ends.
  std::vector<std::vector<Admission>> admissions;
  std::int64_t rows = 0;          ///< at the top, of all segments
  std::int64_t clean_rows = 0;    ///< positions of each clean run whose keys are read
  std::int64_t token_layers = 0;  ///< rows times layers that need keys and values
};

/// Cuts the patches that have to be run into passes of at most `memory` bytes of rows, `row_bytes` each; one pass in
/// any case. Throws Error if that does not hold the corrupted run and one patch.
std::vector<std::vector<std::size_t>> cut_into_passes(const std::vector<PatchCells>& patches, const SweepShape& shape,
                                                      std::int64_t row_bytes, std::int64_t memory);

}  // namespace rometrace
