#include "cli/machine/terminal_info.hpp"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <string_view>

namespace rometrace::cli {

namespace {

constexpr int kDefaultColumns = 80;

int terminal_columns(int descriptor) {
  winsize size{};
  return ::ioctl(descriptor, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}

/// The value, or "" for a variable that is not set: the two mean the same in all that is asked here.
std::string value_of(const Environment& environment, const char* name) {
  return environment(name).value_or("");
}

int positive_number(std::string_view text) {
  int number = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), number);
  return parsed.ec == std::errc() && parsed.ptr == text.data() + text.size() ? std::max(0, number) : 0;
}

bool has_utf8_locale(const Environment& environment) {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    std::string locale = value_of(environment, name);
    if (!locale.empty()) {
      std::transform(locale.begin(), locale.end(), locale.begin(),
                     [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
      return locale.find("utf-8") != std::string::npos || locale.find("utf8") != std::string::npos;
    }
  }
  return false;
}

}  // namespace

bool is_terminal(int descriptor) {
  return ::isatty(descriptor) == 1;
}

TerminalStyle terminal_style(int descriptor) {
  const bool terminal = is_terminal(descriptor);
  return terminal_style(terminal, terminal ? terminal_columns(descriptor) : 0, [](const char* name) {
    const char* value = std::getenv(name);
    return value != nullptr ? std::optional<std::string>(value) : std::nullopt;
  });
}

TerminalStyle terminal_style(bool terminal, int columns, const Environment& environment) {
  const std::string kind = value_of(environment, "TERM");
  const std::string depth = value_of(environment, "COLORTERM");
  const int told = positive_number(value_of(environment, "COLUMNS"));
  TerminalStyle style;
  style.columns = columns > 0 ? columns : told > 0 ? told : kDefaultColumns;
  style.color = terminal && !kind.empty() && kind != "dumb" && value_of(environment, "NO_COLOR").empty();
  style.true_color = style.color && (depth == "truecolor" || depth == "24bit" || kind.ends_with("-direct"));
  style.unicode = has_utf8_locale(environment);
  return style;
}

}  // namespace rometrace::cli
