#pragma once

#include <c10/core/Device.h>

#include <stop_token>
#include <vector>

#include "cli/options/options.hpp"

namespace rometrace::cli {

/// `rometrace edit --facts FILE --each`: every fact of the files edited from the same weights and measured, in every
/// layer that is asked for, a line each appended to a results file. Goes on where an earlier run stopped. Returns the
/// exit status, as run_batch() does. Throws Error.
int run_edit_each(const EditOptions& options, const std::stop_token& stop);

/// The same on these devices, as run_batch_on() does.
int run_edit_each_on(const std::vector<c10::Device>& devices, const EditOptions& options, const std::stop_token& stop);

}  // namespace rometrace::cli
