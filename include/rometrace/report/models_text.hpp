#pragma once

#include <string>
#include <vector>

#include "rometrace/model/cached_models.hpp"
#include "rometrace/report/terminal.hpp"

namespace rometrace {

/// A table of the cache for people: name, revisions or commit, size, family with layers and width, and whether the
/// model can be traced; why not stands below. No line is wider than `style.columns`, of which fewer than 54 count as
/// 54: cells are cut, the name last. Text from files is escaped. Lines end in "\n"; empty if there are no models.
std::string render_models(const std::vector<CachedModel>& models, const TerminalStyle& style);

}  // namespace rometrace
