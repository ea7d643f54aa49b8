#pragma once

#include <nlohmann/json_fwd.hpp>

#include "rometrace/summary/summary.hpp"

namespace rometrace {

/// The summary as an object of schema "rometrace/summary/1" (share/rometrace/schema/summary-1.schema.json).
/// Probabilities are fractions; what does not exist (the error of a mean over one fact) is null.
nlohmann::ordered_json to_json(const SummaryResult& summary);

}  // namespace rometrace
