#include "rometrace/text/spaces.hpp"

#include <algorithm>
#include <utility>
#include <vector>

namespace rometrace {

bool is_for_stretch(FirstSpace rule, std::size_t begin) {
  return rule == FirstSpace::kOfEachStretch || (rule == FirstSpace::kOfTheText && begin == 0);
}

AlignedText with_first_space(std::string_view text, InFront in_front) {
  if (text.empty() || in_front == InFront::kNothing) return {std::string(text), {}};
  return {" " + std::string(text), {{{0, 1}, {0, 0}}}};
}

AlignedText mark_spaces(std::string_view text, InFront in_front) {
  std::string marked;
  std::vector<AlignedText::Change> changes;
  const auto mark = [&](ByteRange before) {
    changes.push_back({{marked.size(), marked.size() + kSpaceMark.size()}, before});
    marked += kSpaceMark;
  };
  if (in_front == InFront::kSpace && !text.empty()) mark({0, 0});
  for (std::size_t at = 0; at < text.size();) {
    if (text[at] == ' ') {
      mark({at, at + 1});
      ++at;
      continue;
    }
    const std::size_t end = std::min(text.find(' ', at), text.size());
    marked += text.substr(at, end - at);
    at = end;
  }
  return {std::move(marked), std::move(changes)};
}

std::string unmark_spaces(std::string_view text) {
  std::string unmarked;
  for (std::size_t begin = 0;;) {
    const std::size_t end = std::min(text.find(kSpaceMark, begin), text.size());
    unmarked += text.substr(begin, end - begin);
    if (end == text.size()) return unmarked;
    unmarked += ' ';
    begin = end + kSpaceMark.size();
  }
}

}  // namespace rometrace
