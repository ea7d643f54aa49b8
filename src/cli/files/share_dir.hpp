#pragma once

#include <filesystem>
#include <optional>
#include <string>

namespace rometrace::cli {

/// What results call the model that comes with rometrace, in the folder "demo" of share_dir().
inline constexpr const char* kDemoName = "rometrace-demo";

/// The folder of the data that the tool ships (demo model, facts). ROMETRACE_SHARE if that is set and not empty; else
/// ../share/rometrace seen from the folder of the running program, in the build tree as when installed.
/// Throws Error, saying where it looked.
std::filesystem::path share_dir();

/// As share_dir(), for the program at `executable` and the value of ROMETRACE_SHARE.
std::filesystem::path share_dir(const std::filesystem::path& executable, const std::optional<std::string>& setting);

}  // namespace rometrace::cli
