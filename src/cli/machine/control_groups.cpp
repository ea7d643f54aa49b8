#include "cli/machine/control_groups.hpp"

#include <fstream>
#include <string>

namespace rometrace::cli {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> with_those_around(const fs::path& root, const std::string& path) {
  std::vector<fs::path> folders;
  for (fs::path group = root / path;; group = group.parent_path()) {
    folders.push_back(group);
    if (group == root || group == group.parent_path()) return folders;
  }
}

}  // namespace

std::optional<std::int64_t> read_number(const fs::path& path) {
  std::ifstream file(path);
  std::int64_t value = 0;
  if (file >> value) return value;
  return std::nullopt;
}

// The lines are "0::/path" (version 2) and "4:memory:/path" (version 1).
ControlGroups own_control_groups(std::string_view controller) {
  std::ifstream file("/proc/self/cgroup");
  const std::string name(controller);
  ControlGroups second;
  for (std::string line; std::getline(file, line);) {
    const auto names = line.find(':'), path = line.find(":/", names + 1);
    if (names == std::string::npos || path == std::string::npos) continue;
    const auto controllers = "," + line.substr(names + 1, path - names - 1) + ",";
    const auto of_root = line.substr(path + 2);
    if (controllers.find("," + name + ",") != std::string::npos) {
      return {false, with_those_around("/sys/fs/cgroup/" + name, of_root)};
    }
    if (controllers == ",,") second.folders = with_those_around("/sys/fs/cgroup", of_root);
  }
  return second;
}

}  // namespace rometrace::cli
