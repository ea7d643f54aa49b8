#pragma once

#include "cli/options/options.hpp"

namespace CLI {
class App;
}  // namespace CLI

namespace rometrace::cli {

/// Adds the command `calibrate` to `app`; its values go to `options`, which has to stay until the command line is read.
CLI::App* add_calibrate(CLI::App& app, CalibrateOptions& options);

/// Refuses what does not go together. Throws CLI::ParseError.
void check_calibrate(const CLI::App& app, const CalibrateOptions& options);

}  // namespace rometrace::cli
