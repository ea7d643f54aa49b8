#include "cli/window_note.hpp"

#include <algorithm>
#include <initializer_list>
#include <vector>

namespace rometrace::cli {
namespace {

bool traces(const Options& options, std::initializer_list<Kind> kinds) {
  return std::find_first_of(options.kinds.begin(), options.kinds.end(), kinds.begin(), kinds.end()) !=
         options.kinds.end();
}

}  // namespace

std::int64_t advised_window(std::int64_t layers) {
  const auto fifth = (layers + 4) / 5;
  return fifth % 2 == 0 ? fifth + 1 : fifth;
}

std::optional<std::string> window_note(const Options& options, std::int64_t layers) {
  struct Default {
    std::string name;
    std::int64_t window;
  };
  std::vector<Default> wide;
  const auto look_at = [&](const char* name, std::int64_t window) {
    if (layers > 1 && 3 * window > layers) wide.push_back({name, window});
  };
  if (!options.window_given && traces(options, {Kind::kMlp, Kind::kAttn})) look_at("--window", options.window);
  if (!options.knockout_window_given && traces(options, {Kind::kKnockout})) {
    look_at("--knockout-window", options.knockout_window);
  }
  if (wide.empty()) return std::nullopt;
  std::string found, advised;
  for (const auto& [name, window] : wide) {
    const std::string joint = found.empty() ? "" : " and ";
    found += joint + name + " " + std::to_string(window);
    advised += joint + name + " " + std::to_string(advised_window(layers));
  }
  const bool one = wide.size() == 1;
  return (one ? "the default " : "the defaults ") + found + (one ? " covers" : " cover") +
         " more than a third of the model's " + std::to_string(layers) + " layers, which blurs them; " + advised +
         (one ? " shows more" : " show more");
}

}  // namespace rometrace::cli
