#include "rometrace/trace/places.hpp"

#include <algorithm>
#include <charconv>

#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"

namespace rometrace {

LayerRange window_of(std::int64_t layer, std::int64_t window, std::int64_t layers) {
  return {std::max<std::int64_t>(0, layer - window / 2), std::min(layers, layer + window - window / 2)};
}

PositionRule PositionRule::parse(std::string_view text) {
  if (text == "all") return {Which::kAll, {}};
  if (text == "subject") return {Which::kSubject, {}};
  if (text == "subject-last") return {Which::kSubjectLast, {}};
  if (text == "last") return {Which::kLast, {}};
  PositionRule rule{Which::kList, {}};
  const char* at = text.data();
  const char* const end = at + text.size();
  while (true) {
    std::int64_t position = -1;
    const auto [stop, error] = std::from_chars(at, end, position);
    if (error != std::errc() || position < 0 || (stop != end && *stop != ',')) {
      throw Error(in_quotes(text) +
                  " names no positions; expected all, subject, subject-last, last, or positions of the prompt, "
                  "counted from 0, such as 0,2,3");
    }
    rule.list.push_back(position);
    if (stop == end) break;
    at = stop + 1;
  }
  std::sort(rule.list.begin(), rule.list.end());
  rule.list.erase(std::unique(rule.list.begin(), rule.list.end()), rule.list.end());
  return rule;
}

std::string to_string(const PositionRule& rule) {
  switch (rule.which) {
    case PositionRule::Which::kAll:
      return "all";
    case PositionRule::Which::kSubject:
      return "subject";
    case PositionRule::Which::kSubjectLast:
      return "subject-last";
    case PositionRule::Which::kLast:
      return "last";
    case PositionRule::Which::kList:
      break;
  }
  std::string text;
  for (const auto position : rule.list) text += (text.empty() ? "" : ",") + std::to_string(position);
  return text;
}

}  // namespace rometrace
