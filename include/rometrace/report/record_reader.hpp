#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "rometrace/report/json.hpp"

namespace rometrace {

/// A record of schema "rometrace/trace/1" as to_json() made it, traced, skipped or failed: what comes back gives the
/// same JSON again. Of what a record does not hold, `options.corruption.moments` is null, and `options.positions` lists
/// the positions of the grids; a logit difference that is there as a normalised one alone has the values of that. Fields
/// that files of older versions lack have the values that there were then. `where` opens the messages. Throws Error:
/// another schema, a field that is missing or of the wrong kind, grids that do not fit prompt and model.
TraceRecord read_trace_record(const nlohmann::ordered_json& json, const std::string& where);

}  // namespace rometrace
