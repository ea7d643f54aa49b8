#pragma once

#include "cli/options/options.hpp"

namespace CLI {
class App;
}  // namespace CLI

namespace rometrace::cli {

/// Adds the command `show` to `app`; its values go to `options`, which has to stay until the command line is read.
CLI::App* add_show(CLI::App& app, ShowOptions& options);

}  // namespace rometrace::cli
