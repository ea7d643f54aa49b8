#pragma once

#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "rometrace/summary/summary_reader.hpp"
#include "rometrace/text/subject.hpp"
#include "summary/traced_neurons.hpp"

namespace rometrace {

/// Relative changes of a group of positions, [L].
struct KnockoutChanges {
  std::size_t group = 0;  ///< in kKnockoutGroups
  std::vector<double> changes;
};

/// What the averages take of a traced line; its grids fit prompt and model.
struct TracedFact {
  double high = 0;
  double low = 0;
  bool noising = false;
  std::int64_t tokens = 0;
  std::int64_t layers = 0;
  TokenRange subject;
  std::span<const SummaryGrid> grids;           ///< the line's
  std::span<const SummaryGrid> noising_grids;   ///< the line's, of the other direction
  std::span<const SummaryReading> readings;     ///< the line's
  std::optional<std::int64_t> knockout_window;  ///< none: no knockout
  std::vector<KnockoutChanges> knockouts;
  std::optional<TracedNeurons> neurons;

  const SummaryGrid* find(std::string_view kind) const {
    const auto found = std::find_if(grids.begin(), grids.end(), [&](const auto& grid) { return grid.kind == kind; });
    return found == grids.end() ? nullptr : &*found;
  }

  /// A cell's effect is sign() * (score - base()): what restoring brings back, or corrupting takes away.
  double sign() const { return noising ? -1 : 1; }
  double base() const { return noising ? high : low; }
};

/// Throws Error: `what` is wrong with the line.
[[noreturn]] void refuse(const SummaryLine& line, const std::string& what);

/// Member `name` of `object`; throws Error where it has none.
const nlohmann::json& member(const SummaryLine& line, const nlohmann::json& object, const char* name);

/// Throws Error unless `value` is one, and not below 0.
std::int64_t whole_number(const SummaryLine& line, const nlohmann::json& value, const char* name);

/// Throws Error naming what does not fit. The line must outlive the result.
TracedFact traced_fact(const SummaryLine& line);

/// Whether no score or change is null; a relative change of a high_score of 0 is none.
bool all_numbers(const TracedFact& fact);

}  // namespace rometrace
