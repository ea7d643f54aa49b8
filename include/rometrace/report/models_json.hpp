#pragma once

#include <nlohmann/json_fwd.hpp>
#include <vector>

#include "rometrace/model/cached_models.hpp"

namespace rometrace {

/// As `rometrace models --json` writes it: share/rometrace/schema/models-1.schema.json.
nlohmann::ordered_json to_json(const std::vector<CachedModel>& models);

}  // namespace rometrace
