#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cli/options/options.hpp"

namespace CLI {
class App;
}  // namespace CLI

namespace rometrace::cli {

/// Adds `rometrace edit` to the program; the options' values go to what is given.
CLI::App* add_edit(CLI::App& app, EditOptions& options);

/// Refuses what does not go together. Throws CLI::ParseError.
void check_edit(const CLI::App& app, const CLI::App& command, EditOptions& options);

}  // namespace rometrace::cli
