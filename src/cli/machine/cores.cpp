#include "cli/machine/cores.hpp"

#include <sched.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <limits>
#include <optional>
#include <thread>

#include "cli/machine/control_groups.hpp"

namespace rometrace::cli {
namespace {

std::optional<int> cores_of_affinity() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return std::nullopt;  // more cores than a set of this size has
  return CPU_COUNT(&set);
}

// Microseconds of processor time in each period, a core's being as long as the period.
std::optional<double> cores_of_quota(const std::filesystem::path& group, bool second_version) {
  std::optional<std::int64_t> quota, period;
  if (second_version) {  // "max 100000" or "150000 100000"
    quota = read_number(group / "cpu.max");
    std::ifstream file(group / "cpu.max");
    std::int64_t first = 0, second = 0;
    if (file >> first >> second) period = second;
  } else {
    quota = read_number(group / "cpu.cfs_quota_us");
    period = read_number(group / "cpu.cfs_period_us");
  }
  if (!quota || !period || *quota <= 0 || *period <= 0) return std::nullopt;
  return static_cast<double>(*quota) / static_cast<double>(*period);
}

}  // namespace

int usable_cores() {
  double cores = cores_of_affinity().value_or(static_cast<int>(std::thread::hardware_concurrency()));
  const auto [second_version, folders] = own_control_groups("cpu");
  for (const auto& folder : folders) {
    if (const auto quota = cores_of_quota(folder, second_version)) cores = std::min(cores, *quota);
  }
  const auto whole = static_cast<int>(cores);
  return std::max(1, whole < cores ? whole + 1 : whole);
}

}  // namespace rometrace::cli
