#include "rometrace/text/json_line.hpp"

#include <nlohmann/json.hpp>
#include <utility>

namespace rometrace {

std::string escape_line_ends(std::string_view text) {
  constexpr std::pair<std::string_view, std::string_view> kEscapes[] = {
      {"\xC2\x85", "\\u0085"}, {"\xE2\x80\xA8", "\\u2028"}, {"\xE2\x80\xA9", "\\u2029"}};
  std::string line(text);
  for (const auto& [character, escape] : kEscapes) {
    for (auto at = line.find(character); at != std::string::npos; at = line.find(character, at + escape.size())) {
      line.replace(at, character.size(), escape);
    }
  }
  return line;
}

std::string to_line(const nlohmann::ordered_json& value) {
  constexpr int kOneLine = -1;
  constexpr bool kEscapeNonAscii = false;
  return escape_line_ends(value.dump(kOneLine, ' ', kEscapeNonAscii, nlohmann::ordered_json::error_handler_t::replace));
}

}  // namespace rometrace
