#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "rometrace/summary/summary.hpp"

namespace rometrace {

/// A summary of schema "rometrace/summary/1" as to_json() made it: what comes back gives the same JSON again, and the
/// same text. Settings that files of older versions lack are null. `where` opens the messages. Throws Error: another
/// schema, a field that is missing or of the wrong kind, lists that do not fit one another.
SummaryResult read_summary_result(const nlohmann::ordered_json& json, const std::string& where);

}  // namespace rometrace
