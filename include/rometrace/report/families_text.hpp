#pragma once

#include <span>
#include <string>

#include "rometrace/model/families.hpp"

namespace rometrace {

/// A list of families for people, two lines or more each: names and checkpoints; what the layers have, and where the
/// subject is corrupted. No line is wider than `columns`, of which fewer than 60 count as 60. Lines end in "\n".
std::string render_families(std::span<const KnownFamily> families, int columns);

}  // namespace rometrace
