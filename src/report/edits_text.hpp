#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace rometrace {

/// What a reader must know of a result's `model` (see ModelRecord): "edited: r-rome, layer 5, 1 fact (a1b2c3d4)", with
/// a part for each edit and the first digits of its file's SHA-256; empty where it is not edited. Takes what a file
/// holds, whatever that is, on one line.
std::string edits_text(const nlohmann::ordered_json& model);

}  // namespace rometrace
