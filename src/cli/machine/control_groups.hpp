#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string_view>
#include <vector>

namespace rometrace::cli {

/// The folders of the control groups that this process is in for a controller ("memory", "cpu"), its own first and then
/// those around it. Empty where there are none.
struct ControlGroups {
  bool second_version = true;  ///< whose files are named otherwise than the first one's
  std::vector<std::filesystem::path> folders;
};
ControlGroups own_control_groups(std::string_view controller);

/// The number that a file begins with; none if there is no such file, or it begins with another word such as "max".
std::optional<std::int64_t> read_number(const std::filesystem::path& path);

}  // namespace rometrace::cli
