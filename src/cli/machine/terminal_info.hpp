#pragma once

#include <functional>
#include <optional>
#include <string>

#include "rometrace/report/terminal.hpp"

namespace rometrace::cli {

/// True if the file descriptor is a terminal.
bool is_terminal(int descriptor);

/// How to write for people to `descriptor`, from the terminal and the environment. Columns: the terminal's; else
/// COLUMNS; else 80. Colour: on a terminal that is not "dumb", unless NO_COLOR is set to something. 24-bit: COLORTERM
/// is "truecolor" or "24bit", or TERM ends in "-direct". Unicode: the locale (LC_ALL, LC_CTYPE, LANG) is a UTF-8 one.
TerminalStyle terminal_style(int descriptor);

/// Value of an environment variable; nothing if it is not set.
using Environment = std::function<std::optional<std::string>(const char* name)>;

/// The rules of terminal_style(). `columns` is the terminal's width, 0 if it is not known.
TerminalStyle terminal_style(bool terminal, int columns, const Environment& environment);

}  // namespace rometrace::cli
