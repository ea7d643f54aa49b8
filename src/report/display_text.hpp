#pragma once

#include <string>
#include <string_view>

namespace rometrace {

/// How bytes from a model, a prompt or a file name are shown in a terminal.
struct DisplayStyle {
  bool unicode = true;          ///< false: all that is not ASCII is escaped
  bool visible_spaces = false;  ///< a space is shown as "·" (ASCII: "_"), so that it is seen at the ends of a token
  bool quoted = false;          ///< between double quotes
};

/// Text that is safe to print, and the columns that it takes.
struct DisplayText {
  std::string text;  ///< valid UTF-8 without control characters
  int columns = 0;
};

/// `bytes` as text that moves the cursor by exactly `columns` and does nothing else. Control characters, invalid bytes
/// and code points that are not seen or change their neighbours are escaped: \n, \t, \r, \\, \xE2 (a byte), \u{200b} (a
/// code point). Widths are those of wcwidth.
DisplayText display(std::string_view bytes, const DisplayStyle& style = {});

/// As display(), at most `columns` wide (at least 4): what does not fit at the end is replaced by "…" (ASCII: "..").
DisplayText display_head(std::string_view bytes, int columns, const DisplayStyle& style = {});

/// As display_head(), with the end kept and the start cut.
DisplayText display_tail(std::string_view bytes, int columns, const DisplayStyle& style = {});

/// Columns that `text`, valid UTF-8 without control characters, takes.
int columns_of(std::string_view text);

/// Of texts of sentences and small tables: columns that lines after a sentence's first are indented by, and the columns
/// that they take where the terminal has fewer.
inline constexpr int kSentenceIndent = 2;
inline constexpr int kNarrowestText = 20;

/// Stands for a space at which wrap() does not break.
inline constexpr char kNoBreak = '\x01';

/// `text`, valid UTF-8 with no control character but kNoBreak, as lines at most `columns` wide, broken at spaces (in a
/// word only if it is longer than a line). Each line ends in "\n"; lines but the first begin with `indent` spaces.
std::string wrap(std::string_view text, int columns, int indent = 0);

}  // namespace rometrace
