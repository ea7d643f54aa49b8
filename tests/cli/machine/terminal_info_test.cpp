#include "cli/machine/terminal_info.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <map>

#include "checks.hpp"

namespace rometrace::cli::terminal_info_test {

namespace {

constexpr bool kTerminal = true;
constexpr bool kNoTerminal = false;

Environment environment(std::map<std::string, std::string> values) {
  return [values = std::move(values)](const char* name) -> std::optional<std::string> {
    const auto found = values.find(name);
    return found != values.end() ? std::optional<std::string>(found->second) : std::nullopt;
  };
}

}  // namespace

TEST_CASE("colour needs a terminal that has it") {
  CHECK(terminal_style(kTerminal, 80, environment({{"TERM", "xterm-256color"}})).color);
  CHECK_FALSE(terminal_style(kNoTerminal, 80, environment({{"TERM", "xterm-256color"}})).color);
  CHECK_FALSE(terminal_style(kTerminal, 80, environment({{"TERM", "dumb"}})).color);
  CHECK_FALSE(terminal_style(kTerminal, 80, environment({})).color);
}

TEST_CASE("NO_COLOR counts if it is not empty") {
  CHECK_FALSE(terminal_style(kTerminal, 80, environment({{"TERM", "xterm"}, {"NO_COLOR", "0"}})).color);
  CHECK(terminal_style(kTerminal, 80, environment({{"TERM", "xterm"}, {"NO_COLOR", ""}})).color);
}

TEST_CASE("24-bit colour is used where the terminal says that it has it") {
  CHECK(terminal_style(kTerminal, 80, environment({{"TERM", "xterm"}, {"COLORTERM", "truecolor"}})).true_color);
  CHECK(terminal_style(kTerminal, 80, environment({{"TERM", "xterm"}, {"COLORTERM", "24bit"}})).true_color);
  CHECK(terminal_style(kTerminal, 80, environment({{"TERM", "xterm-direct"}})).true_color);
  CHECK_FALSE(terminal_style(kTerminal, 80, environment({{"TERM", "xterm"}, {"COLORTERM", "1"}})).true_color);
  CHECK_FALSE(terminal_style(kNoTerminal, 80, environment({{"TERM", "xterm"}, {"COLORTERM", "truecolor"}})).true_color);
}

TEST_CASE("the width is the terminal's, then COLUMNS, then 80") {
  CHECK(terminal_style(kTerminal, 132, environment({{"COLUMNS", "40"}})).columns == 132);
  CHECK(terminal_style(kNoTerminal, 0, environment({{"COLUMNS", "40"}})).columns == 40);
  for (const char* value : {"", "0", "-5", "wide", "40x", "99999999999999"}) {
    CAPTURE(value);
    CHECK(terminal_style(kNoTerminal, 0, environment({{"COLUMNS", value}})).columns == 80);
  }
}

TEST_CASE("the first locale variable that is set decides about Unicode") {
  CHECK(terminal_style(kTerminal, 80, environment({{"LANG", "en_GB.UTF-8"}})).unicode);
  CHECK(terminal_style(kTerminal, 80, environment({{"LC_ALL", ""}, {"LC_CTYPE", "C.utf8"}, {"LANG", "C"}})).unicode);
  CHECK_FALSE(terminal_style(kTerminal, 80, environment({{"LC_ALL", "C"}, {"LANG", "en_GB.UTF-8"}})).unicode);
  CHECK_FALSE(terminal_style(kTerminal, 80, environment({})).unicode);
}

TEST_CASE("a file is no terminal") {
  const int file = ::open("/dev/null", O_WRONLY);
  CHECK_FALSE(is_terminal(file));
  CHECK_FALSE(terminal_style(file).color);
  ::close(file);
}

}  // namespace rometrace::cli::terminal_info_test
