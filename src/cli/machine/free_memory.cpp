#include "cli/machine/free_memory.hpp"

#include <c10/core/CachingDeviceAllocator.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <limits>
#include <optional>
#include <string>

namespace rometrace::cli {
namespace {

namespace fs = std::filesystem;

std::optional<std::int64_t> read_number(const fs::path& path) {
  std::ifstream file(path);
  std::int64_t value = 0;
  if (file >> value) return value;
  return std::nullopt;  // "max" where there is no limit
}

std::optional<std::int64_t> available_to_system() {
  std::ifstream file("/proc/meminfo");
  for (std::string name, unit; file >> name;) {
    std::int64_t kibi = 0;
    file >> kibi;
    std::getline(file, unit);
    if (name == "MemAvailable:") return kibi * 1024;
  }
  return std::nullopt;
}

// How a version of control groups names things.
struct GroupFiles {
  const char* root;
  const char *limit, *used;
  std::array<const char*, 2> cached;  // of memory.stat: what holds files, and is given up when it is needed
};
constexpr GroupFiles kVersion2{"/sys/fs/cgroup", "memory.max", "memory.current", {"inactive_file", "active_file"}};
constexpr GroupFiles kVersion1{"/sys/fs/cgroup/memory",
                               "memory.limit_in_bytes",
                               "memory.usage_in_bytes",
                               {"total_inactive_file", "total_active_file"}};

// What the limits of a control group and of those around it leave.
std::optional<std::int64_t> left_by(const GroupFiles& files, const std::string& path) {
  std::optional<std::int64_t> least;
  const fs::path root = files.root;
  for (fs::path group = root / path;; group = group.parent_path()) {
    const auto limit = read_number(group / files.limit), used = read_number(group / files.used);
    if (limit && used) {
      std::int64_t cached = 0;
      std::ifstream statistics(group / "memory.stat");
      for (std::string name; statistics >> name;) {
        std::int64_t value = 0;
        statistics >> value;
        if (name == files.cached[0] || name == files.cached[1]) cached += value;
      }
      least = std::min(least.value_or(std::numeric_limits<std::int64_t>::max()),
                       std::max<std::int64_t>(0, *limit - *used + cached));
    }
    if (group == root || group == group.parent_path()) break;
  }
  return least;
}

// Of this process' control groups, whose lines are "0::/path" (version 2) and "4:memory:/path" (version 1).
std::optional<std::int64_t> left_by_control_groups() {
  std::ifstream file("/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const auto names = line.find(':'), path = line.find(":/", names + 1);
    if (names == std::string::npos || path == std::string::npos) continue;
    const auto controllers = "," + line.substr(names + 1, path - names - 1) + ",";
    const auto of_root = line.substr(path + 2);
    if (controllers == ",,") {
      if (const auto left = left_by(kVersion2, of_root)) return left;
    } else if (controllers.find(",memory,") != std::string::npos) {
      if (const auto left = left_by(kVersion1, of_root)) return left;
    }
  }
  return std::nullopt;
}

}  // namespace

std::int64_t free_memory(c10::Device device) {
  if (!device.is_cpu()) {
    return static_cast<std::int64_t>(c10::getDeviceAllocator(device.type())->getMemoryInfo(device.index()).first);
  }
  constexpr auto kUnknown = std::numeric_limits<std::int64_t>::max();
  return std::min(available_to_system().value_or(kUnknown), left_by_control_groups().value_or(kUnknown));
}

}  // namespace rometrace::cli
