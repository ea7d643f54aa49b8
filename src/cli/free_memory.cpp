#include "cli/free_memory.hpp"

#include <c10/core/CachingDeviceAllocator.h>

#include <algorithm>
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

// What the limits of this process' control group (version 2) and of those around it leave. Memory that holds cached
// files counts as used there, but is given up when it is needed.
std::optional<std::int64_t> left_by_control_groups() {
  std::ifstream file("/proc/self/cgroup");
  std::string line;
  while (std::getline(file, line) && !line.starts_with("0::/")) {
  }
  if (!file) return std::nullopt;
  std::optional<std::int64_t> least;
  const fs::path root = "/sys/fs/cgroup";
  for (fs::path group = root / line.substr(4);; group = group.parent_path()) {
    const auto limit = read_number(group / "memory.max"), used = read_number(group / "memory.current");
    if (limit && used) {
      std::int64_t cached = 0;
      std::ifstream statistics(group / "memory.stat");
      for (std::string name; statistics >> name;) {
        std::int64_t value = 0;
        statistics >> value;
        if (name == "inactive_file" || name == "active_file") cached += value;
      }
      least = std::min(least.value_or(std::numeric_limits<std::int64_t>::max()),
                       std::max<std::int64_t>(0, *limit - *used + cached));
    }
    if (group == root || group == group.parent_path()) break;
  }
  return least;
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
