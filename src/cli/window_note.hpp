#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "cli/options/options.hpp"

namespace rometrace::cli {

/// The window that is advised for a model of so many layers: a fifth of them, as the paper's 10 of 48 (arXiv
/// 2202.05262), up to the next odd number, so that as many layers are below the layer of a cell as above it.
std::int64_t advised_window(std::int64_t layers);

/// One sentence, without its full stop, where a window that was not given covers more than a third of the model's
/// layers and is of a kind that is traced: which, and what is advised. Nothing changes by it but what is said.
std::optional<std::string> window_note(const Options& options, std::int64_t layers);

}  // namespace rometrace::cli
