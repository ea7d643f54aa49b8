#pragma once

#include "cli/options/options.hpp"

namespace CLI {
class App;
}  // namespace CLI

namespace rometrace::cli {

/// Adds the command `export` to `app`; its values go to `options`, which has to stay until the command line is read.
CLI::App* add_export(CLI::App& app, ExportOptions& options);

/// Refuses what does not go together. Throws CLI::ParseError.
void check_export(const CLI::App& command, const ExportOptions& options);

}  // namespace rometrace::cli
