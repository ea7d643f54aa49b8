#include "trace/draws.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>

namespace rometrace {
namespace {

std::string shortest(double value) {
  std::array<char, 32> digits{};
  return {digits.data(), std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr};
}

Error fault_of(const TraceOptions& options) {
  const auto& corruption = options.corruption;
  const bool scaled = corruption.method == CorruptionMethod::kNoise && corruption.sigma > 0;
  return Error(std::string("a corrupted run ends in NaN or infinity: ") +
               (scaled ? "noise of scale " + shortest(corruption.sigma) + " is too large for this model and dtype; " +
                             "choose a smaller one"
                       : "this corruption is too much for this model and dtype; choose another"));
}

// What the cells have where they are not run: the draws of the base run.
void keep_base_draws(CausalGrid& grid, const TraceOptions& options, const Trace& trace) {
  const bool clean_base = grid.kind == Kind::kKnockout || options.direction == Direction::kNoising;
  const auto N = trace.low_draws.size();
  grid.draws.resize(grid.scores.size() * N);
  for (std::size_t i = 0; i < grid.draws.size(); ++i)
    grid.draws[i] = clean_base ? trace.high_score : trace.low_draws[i % N];
}

}  // namespace

Tally Tally::of(double value, std::int64_t draws) {
  Tally tally;
  tally.count_ = draws;
  tally.mean_ = value;
  return tally;
}

void Tally::add(std::span<const double> draws) {
  const auto n = static_cast<double>(draws.size());
  const double mean = std::accumulate(draws.begin(), draws.end(), 0.0) / n;
  double squares = 0;
  for (const double draw : draws) squares += (draw - mean) * (draw - mean);
  if (count_ == 0) {
    mean_ = mean;
    squares_ = squares;
  } else {
    const auto before = static_cast<double>(count_), all = before + n;
    const double apart = mean - mean_;
    mean_ += apart * n / all;
    squares_ += squares + apart * apart * before * n / all;
  }
  count_ += static_cast<std::int64_t>(draws.size());
}

double Tally::standard_error() const {
  if (count_ < 2) return std::numeric_limits<double>::quiet_NaN();
  const auto n = static_cast<double>(count_);
  return std::sqrt(squares_ / (n - 1) / n);
}

void RunTally::add(std::span<const double> values, std::size_t of_draw, bool keep_draws) {
  for (std::size_t i = 0; keep_draws && i < values.size(); i += of_draw) draws.push_back(values[i]);
  columns.resize(of_draw);
  std::vector<double> column(values.size() / of_draw);
  for (std::size_t c = 0; c < of_draw; ++c) {
    for (std::size_t draw = 0; draw < column.size(); ++draw) column[draw] = values[draw * of_draw + c];
    columns[c].add(column);
  }
}

void TraceTally::add(RunTally& run, std::span<const double> values, const TraceOptions& options) {
  run.add(values, columns_, options.keep_draws);
  if (!fault_ && !std::isfinite(run.columns.front().mean())) fault_ = fault_of(options);
}

bool TraceTally::is_done(const TraceOptions& options) const {
  if (draws_ == 0) return false;
  if (fault_ || !options.precision) return true;
  // A single draw tells nothing of its error, but a corruption without chance has none.
  const bool precise = draws_ > 1 && largest_error() <= *options.precision;
  return precise || draws_ >= options.most_samples || !is_random(options.corruption);
}

std::int64_t TraceTally::next_step(const TraceOptions& options) const {
  return options.precision ? std::min(options.samples, std::max<std::int64_t>(1, options.most_samples - draws_))
                           : options.samples;
}

double TraceTally::largest_error() const {
  double largest = corrupted_.columns.empty() ? 0 : corrupted_.columns.front().standard_error();
  for (const auto& run : runs_) {
    if (!run.columns.empty()) largest = std::fmax(largest, run.columns.front().standard_error());
  }
  return largest;
}

Trace begun_trace(const TracePrompt& prompt, const TraceOptions& options, const DecoderConfig& config,
                  const Trace& clean, const TraceTally& tally) {
  auto trace = clean;
  const auto& low = tally.corrupted().columns;
  trace.samples = tally.draws();
  trace.largest_error = tally.largest_error();
  trace.low_score = low.front().mean();
  trace.low_standard_error = low.front().standard_error();
  for (std::size_t i = 0; i < trace.measured.size(); ++i) {
    trace.measured[i].low = low[i + 1].mean();
    trace.measured[i].low_standard_error = low[i + 1].standard_error();
  }
  for (const Kind kind : options.kinds) trace.grids.push_back(empty_grid(kind, prompt, options, config, trace));
  if (options.keep_draws) {
    trace.low_draws = tally.corrupted().draws;
    for (auto& grid : trace.grids) keep_base_draws(grid, options, trace);
  }
  return trace;
}

Trace trace_of_cells(const std::vector<Cell>& cells, const TracePrompt& prompt, const TraceOptions& options,
                     const DecoderConfig& config, const Trace& clean, const TraceTally& tally) {
  if (tally.fault()) throw *tally.fault();
  auto trace = begun_trace(prompt, options, config, clean, tally);
  for (std::size_t i = 0; i < cells.size(); ++i) put(tally.run(i), cells[i], trace);
  return trace;
}

void put(const RunTally& run, const Cell& cell, Trace& trace) {
  auto& grid = trace.grids[cell.grid];
  const auto index = cell.index;
  grid.scores[index] = run.columns.front().mean();
  grid.standard_error[index] = run.columns.front().standard_error();
  if (!grid.draws.empty()) {  // a run that has no chance in it is run once
    const auto N = grid.draws.size() / grid.scores.size();
    for (std::size_t n = 0; n < N; ++n) grid.draws[index * N + n] = run.draws[run.draws.size() == N ? n : 0];
  }
  for (std::size_t i = 0; i < grid.measured.size(); ++i) {
    grid.measured[i].values[index] = run.columns[i + 1].mean();
    grid.measured[i].standard_error[index] = run.columns[i + 1].standard_error();
  }
}

}  // namespace rometrace
