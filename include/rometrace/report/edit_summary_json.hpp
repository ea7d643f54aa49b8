#pragma once

#include <nlohmann/json_fwd.hpp>

#include "rometrace/summary/edit_summary.hpp"

namespace rometrace {

/// Schema "rometrace/edit-summary/1" (share/rometrace/schema/edit-summary-1.schema.json); scores times 100, as the
/// authors of ROME print theirs. What does not exist is null.
nlohmann::ordered_json to_json(const EditSummaryResult& result);

}  // namespace rometrace
