#pragma once

#include <filesystem>

#include "checks.hpp"

namespace rometrace::testing {

/// Whether files that a test is about are not on this machine, which it then says: a clone has no real checkpoints.
inline bool is_absent(const std::filesystem::path& path) {
  if (std::filesystem::exists(path)) return false;
  MESSAGE("not checked, as it is not here: ", path.string());
  return true;
}

}  // namespace rometrace::testing
