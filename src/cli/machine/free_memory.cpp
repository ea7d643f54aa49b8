#include "cli/machine/free_memory.hpp"

#include <c10/core/CachingDeviceAllocator.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <limits>
#include <optional>
#include <string>

#include "cli/machine/control_groups.hpp"

namespace rometrace::cli {
namespace {

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
  const char *limit, *used;
  std::array<const char*, 2> cached;  // of memory.stat: what holds files, and is given up when it is needed
};
constexpr GroupFiles kVersion2{"memory.max", "memory.current", {"inactive_file", "active_file"}};
constexpr GroupFiles kVersion1{
    "memory.limit_in_bytes", "memory.usage_in_bytes", {"total_inactive_file", "total_active_file"}};

// What the limits of this process' control groups leave.
std::optional<std::int64_t> left_by_control_groups() {
  const auto [second_version, folders] = own_control_groups("memory");
  const auto& files = second_version ? kVersion2 : kVersion1;
  std::optional<std::int64_t> least;
  for (const auto& group : folders) {
    const auto limit = read_number(group / files.limit), used = read_number(group / files.used);
    if (!limit || !used) continue;
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
