#include "trace/both_directions.hpp"

#include <c10/util/Exception.h>

#include <algorithm>
#include <span>
#include <utility>

#include "rometrace/error.hpp"
#include "trace/draws.hpp"

namespace rometrace {
namespace {

InteractionGrid interaction_of(const CausalGrid& denoised, const CausalGrid& noised, const Trace& trace) {
  InteractionGrid interaction;
  const auto N = trace.low_draws.size();
  for (std::size_t i = 0; i < denoised.scores.size(); ++i) {
    interaction.values.push_back((trace.high_score - noised.scores[i]) - (denoised.scores[i] - trace.low_score));
    Tally tally;
    std::vector<double> draws(N);
    for (std::size_t n = 0; n < N; ++n) {
      draws[n] = (trace.high_score - noised.draws[i * N + n]) - (denoised.draws[i * N + n] - trace.low_draws[n]);
    }
    if (N > 0) tally.add(draws);
    interaction.standard_error.push_back(tally.standard_error());
  }
  return interaction;
}

}  // namespace

TraceOptions in_direction(const TraceOptions& options, Direction direction) {
  auto one = options;
  one.direction = direction;
  one.keep_draws = true;
  if (direction == Direction::kNoising) std::erase(one.kinds, Kind::kKnockout);
  return one;
}

void check_both(const TraceOptions& options) {
  if (options.precision) throw Error("a precision is of one direction; with both expected a number of samples");
  if (options.neurons) throw Error("neurons are traced in one direction; expected denoising or noising");
}

bool has_direction(const TraceOptions& options) {
  return std::any_of(options.kinds.begin(), options.kinds.end(), [](Kind kind) { return kind != Kind::kKnockout; });
}

RunControl in_direction(const RunControl& control, Direction direction) {
  auto half = control;
  if (!control.progress) return half;
  half.progress = [progress = control.progress, second = direction == Direction::kNoising](
                      std::int64_t done, std::int64_t total) { progress(second ? total + done : done, 2 * total); };
  return half;
}

void join_directions(Trace& denoised, Trace&& noised) {
  std::size_t next = 0;
  for (const auto& grid : denoised.grids) {
    if (grid.kind == Kind::kKnockout) continue;
    auto& other = noised.grids.at(next++);
    TORCH_INTERNAL_ASSERT(other.kind == grid.kind && other.scores.size() == grid.scores.size());
    denoised.interaction.push_back(interaction_of(grid, other, denoised));
  }
  for (auto& grid : denoised.grids) grid.draws = {};
  for (auto& grid : noised.grids) grid.draws = {};
  denoised.low_draws = {};
  denoised.noising = std::move(noised.grids);
  denoised.largest_error = std::max(denoised.largest_error, noised.largest_error);
}

Trace trace_in_both(const TraceOptions& options, const RunControl& control,
                    const std::function<Trace(const TraceOptions&, const RunControl&)>& engine) {
  check_both(options);
  const auto run = [&](Direction direction) {
    return engine(in_direction(options, direction), in_direction(control, direction));
  };
  auto trace = run(Direction::kDenoising);
  if (has_direction(options)) join_directions(trace, run(Direction::kNoising));
  return trace;
}

}  // namespace rometrace
