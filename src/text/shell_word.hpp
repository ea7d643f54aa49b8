#pragma once

#include <algorithm>
#include <string>
#include <string_view>

namespace rometrace {

/// What a shell reads as `text`: itself where all of it are letters and digits of ASCII, "_", "-", ".", "/" and what
/// `also_plain` lists, else between single quotes.
inline std::string in_shell(std::string_view text, std::string_view also_plain = {}) {
  const auto is_plain = [&](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("_-./").find(c) != std::string_view::npos || also_plain.find(c) != std::string_view::npos;
  };
  if (!text.empty() && std::all_of(text.begin(), text.end(), is_plain)) return std::string(text);
  std::string quoted = "'";
  for (const char c : text) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

}  // namespace rometrace
