#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "rometrace/summary/summary_reader.hpp"

namespace rometrace {

/// What averages take of a line's neurons.
struct TracedNeurons {
  struct Effect {
    std::int64_t layer = 0;
    std::int64_t position = 0;
    std::int64_t neuron = 0;
    double effect = 0;     ///< NaN for null
    std::string promotes;  ///< the first token; empty without one
  };
  struct Place {
    std::int64_t position = 0;
    std::array<std::vector<double>, 3> curves;  ///< [sizes] of the best, by change, random; NaN for null
    std::optional<std::int64_t> half;           ///< neurons
  };

  std::vector<std::int64_t> positions;
  std::int64_t candidates = 0;  ///< at a position
  bool given = false;
  std::vector<Effect> effects;
  std::vector<std::int64_t> sizes;  ///< of all curves
  std::vector<Place> places;        ///< in the order of the positions; none where neurons were given
};

/// Nothing where the line has no neurons. Throws Error naming what does not fit the line's `tokens` and `layers`.
std::optional<TracedNeurons> traced_neurons(const SummaryLine& line, std::int64_t tokens, std::int64_t layers);

/// Whether no effect is null.
bool all_numbers(const TracedNeurons& neurons);

}  // namespace rometrace
