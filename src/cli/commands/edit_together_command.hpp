#pragma once

#include <stop_token>

#include "cli/options/options.hpp"

namespace rometrace::cli {

/// `rometrace edit --facts FILE --together`: all facts of the files in one edit and one edit file. Returns the exit
/// status. Throws Error: a record that is no edit, two that contradict each other, many facts for a method of one;
/// Interrupted.
int run_edit_together(const EditOptions& options, const std::stop_token& stop);

}  // namespace rometrace::cli
