#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "rometrace/error.hpp"
#include "rometrace/model/config.hpp"
#include "rometrace/trace/patch.hpp"
#include "rometrace/trace/trace.hpp"

namespace rometrace {

/// Mean and standard error (n - 1 in the variance; NaN for a single draw) of draws that may come in several steps.
class Tally {
 public:
  /// Of as many draws of the same value, which is its mean exactly.
  static Tally of(double value, std::int64_t draws);

  void add(std::span<const double> draws);

  double mean() const { return mean_; }
  double standard_error() const;

 private:
  std::int64_t count_ = 0;
  double mean_ = 0;
  double squares_ = 0;  // of the differences from the mean
};

/// One run's numbers: a tally for the answer's probability, then one for each reading.
struct RunTally {
  std::vector<Tally> columns;
  std::vector<double> draws;  ///< [N] of the answer's probability, where they are kept

  /// `values`: [draws, columns].
  void add(std::span<const double> values, std::size_t columns, bool keep_draws = false);
};

/// What is known of the runs of one prompt: the corrupted one, and those of the cells in their order.
class TraceTally {
 public:
  TraceTally(std::size_t runs, std::size_t readings) : columns_(1 + readings), runs_(runs) {}

  void add_corrupted(std::span<const double> values, const TraceOptions& options) { add(corrupted_, values, options); }
  void add_run(std::size_t run, std::span<const double> values, const TraceOptions& options) {
    add(runs_[run], values, options);
  }
  /// To be called when all runs of a step, `draws` of each, have been added.
  void end_step(std::int64_t draws) { draws_ += draws; }

  const RunTally& corrupted() const { return corrupted_; }
  const RunTally& run(std::size_t run) const { return runs_[run]; }
  std::int64_t draws() const { return draws_; }
  const std::optional<Error>& fault() const { return fault_; }

  /// Whether no further draws are wanted: as many as asked for, precise enough, or something wrong.
  bool is_done(const TraceOptions& options) const;

  /// The draws of the next step.
  std::int64_t next_step(const TraceOptions& options) const;

  double largest_error() const;

 private:
  void add(RunTally& run, std::span<const double> values, const TraceOptions& options);

  std::size_t columns_;
  RunTally corrupted_;
  std::vector<RunTally> runs_;
  std::int64_t draws_ = 0;
  std::optional<Error> fault_;
};

/// The trace when all of a prompt's draws are known, its grids as empty_grid() has them.
Trace begun_trace(const TracePrompt& prompt, const TraceOptions& options, const DecoderConfig& config,
                  const Trace& clean, const TraceTally& tally);

/// The same with the numbers of the cells, whose runs the tally has in their order. Throws the tally's fault.
Trace trace_of_cells(const std::vector<Cell>& cells, const TracePrompt& prompt, const TraceOptions& options,
                     const DecoderConfig& config, const Trace& clean, const TraceTally& tally);

/// Writes a run's numbers into the cell's grid, whose draws have their size where they are kept.
void put(const RunTally& run, const Cell& cell, Trace& trace);

}  // namespace rometrace
