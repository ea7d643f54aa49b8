#pragma once

#include "cli/options/options.hpp"

namespace CLI {
class App;
}  // namespace CLI

namespace rometrace::cli {

/// Adds the command `moments` to `app`; its values go to `options`, which has to stay until the command line is read.
CLI::App* add_moments(CLI::App& app, MomentsOptions& options);

/// Refuses what does not go together. Throws CLI::ParseError.
void check_moments(const CLI::App& app, const MomentsOptions& options);

/// Layers as "13-17", B included, "17", or "5,13-17": ascending, each once. Throws CLI::ValidationError naming
/// `option`.
std::vector<std::int64_t> read_layers(const std::string& option, const std::vector<std::string>& texts);

}  // namespace rometrace::cli
