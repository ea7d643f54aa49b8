#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "rometrace/summary/summary.hpp"

namespace rometrace {

/// Parts of the averages' records. What does not exist is null.
nlohmann::ordered_json json_of(const std::optional<double>& value);
nlohmann::ordered_json json_of(const std::optional<Bounds>& interval);  ///< [low, high]
nlohmann::ordered_json json_of(const Estimate& estimate);
nlohmann::ordered_json json_of(const std::optional<Peak>& peak);

/// "facts": the headers' own, with the lines found of each.
nlohmann::ordered_json to_json(const std::vector<SelectionSummary>& selections);

/// "bootstrap": how the intervals come about.
nlohmann::ordered_json bootstrap_json(const SummaryConfig& config);

}  // namespace rometrace
