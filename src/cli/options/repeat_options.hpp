#pragma once

#include "cli/options/options.hpp"

namespace CLI {
class App;
}  // namespace CLI

namespace rometrace::cli {

/// Adds the command; `options` has to stay until the command line is read.
CLI::App* add_repeat(CLI::App& app, RepeatOptions& options);

}  // namespace rometrace::cli
