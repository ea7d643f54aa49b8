#include "cli/files/share_dir.hpp"

#include <cstdlib>
#include <system_error>

#ifdef __APPLE__
#include <mach-o/dyld.h>

#include <array>
#endif

#include "cli/files/file_system.hpp"
#include "rometrace/error.hpp"

namespace rometrace::cli {

namespace fs = std::filesystem;

namespace {

constexpr const char* kVariable = "ROMETRACE_SHARE";

bool is_folder(const fs::path& path) {
  std::error_code error;
  return fs::is_directory(path, error);
}

/// The running program, symbolic links followed; empty where the system does not tell.
fs::path this_executable() {
  std::error_code error;
#ifdef __APPLE__
  std::array<char, 4096> path{};
  auto size = static_cast<std::uint32_t>(path.size());
  return _NSGetExecutablePath(path.data(), &size) == 0 ? fs::canonical(path.data(), error) : fs::path();
#else
  return fs::read_symlink("/proc/self/exe", error);
#endif
}

}  // namespace

fs::path share_dir() {
  const char* setting = std::getenv(kVariable);
  return share_dir(this_executable(), setting != nullptr ? std::optional<std::string>(setting) : std::nullopt);
}

fs::path share_dir(const fs::path& executable, const std::optional<std::string>& setting) {
  if (setting && !setting->empty()) {
    if (!is_folder(*setting)) {
      throw Error(std::string(kVariable) + ": " + shown(*setting) +
                  " is not a folder; set it to the folder share/rometrace of an installation, or unset it");
    }
    return *setting;
  }
  if (executable.empty()) {
    throw Error("the data that rometrace ships: the system does not tell where the program is; set " +
                std::string(kVariable) + " to the folder share/rometrace of an installation");
  }
  const fs::path folder = executable.parent_path().parent_path() / "share" / "rometrace";
  if (!is_folder(folder)) {
    throw Error("the data that rometrace ships: " + shown(folder) +
                " is not a folder; install it with the program, or set " + std::string(kVariable) + " to its place");
  }
  return folder;
}

}  // namespace rometrace::cli
