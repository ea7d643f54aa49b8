#include "report/display_text.hpp"

#include <algorithm>
#include <array>
#include <cassert>
#include <charconv>
#include <cstddef>
#include <span>
#include <vector>

#include "report/unicode_ranges.hpp"
#include "rometrace/text/utf8.hpp"

namespace rometrace {

namespace {

/// What is printed for one character (its combining marks included).
struct Glyph {
  std::string text;
  int columns = 0;
};

bool in_ranges(std::span<const unicode::Range> ranges, char32_t code) {
  const auto range = std::lower_bound(ranges.begin(), ranges.end(), code,
                                      [](const unicode::Range& r, char32_t value) { return r.last < value; });
  return range != ranges.end() && range->first <= code;
}

bool is_hidden(char32_t code) {
  constexpr char32_t kLastAsciiControl = 0x1F;
  const bool control = code <= kLastAsciiControl || (code >= 0x7F && code <= 0x9F);
  const bool not_a_character = (code & 0xFFFEU) == 0xFFFE || (code >= 0xFDD0 && code <= 0xFDEF);
  return control || not_a_character || in_ranges(unicode::kHidden, code);
}

int width_of(char32_t code) {
  if (in_ranges(unicode::kCombining, code)) {
    return 0;
  }
  return in_ranges(unicode::kWide, code) ? 2 : 1;
}

/// The code point of one well-formed UTF-8 sequence.
char32_t decode(std::string_view sequence) {
  const auto first = static_cast<unsigned char>(sequence.front());
  if (sequence.size() == 1) {
    return first;
  }
  char32_t code = first & (0xFFU >> (sequence.size() + 1));
  for (const char byte : sequence.substr(1)) {
    code = (code << 6U) | (static_cast<unsigned char>(byte) & 0x3FU);
  }
  return code;
}

std::string in_hex(unsigned value) {
  std::array<char, 8> digits{};
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value, 16).ptr;
  return {digits.data(), end};
}

Glyph escaped(std::string text) {
  const int columns = static_cast<int>(text.size());
  return {std::move(text), columns};
}

Glyph escaped_byte(char byte) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  const auto value = static_cast<unsigned char>(byte);
  return escaped(std::string("\\x") + kDigits[value >> 4U] + kDigits[value & 15U]);
}

Glyph escaped_code(char32_t code) {
  return escaped("\\u{" + in_hex(static_cast<unsigned>(code)) + "}");
}

Glyph ascii_glyph(char character, const DisplayStyle& style) {
  switch (character) {
    case '\n':
      return escaped("\\n");
    case '\t':
      return escaped("\\t");
    case '\r':
      return escaped("\\r");
    case '\\':
      return escaped("\\\\");
    case '"':
      return escaped(style.quoted ? "\\\"" : "\"");
    case '_':
      // Where "_" stands for a space, the character itself must look different.
      return escaped(style.visible_spaces && !style.unicode ? "\\_" : "_");
    case ' ':
      return style.visible_spaces ? Glyph{style.unicode ? "·" : "_", 1} : Glyph{" ", 1};
    default:
      return is_hidden(static_cast<unsigned char>(character)) ? escaped_byte(character)
                                                              : Glyph{std::string(1, character), 1};
  }
}

void append_character(std::vector<Glyph>& glyphs, std::string_view sequence, const DisplayStyle& style) {
  constexpr char32_t kMiddleDot = 0xB7;
  const char32_t code = decode(sequence);
  if (code < 0x80) {
    glyphs.push_back(ascii_glyph(sequence.front(), style));
    return;
  }
  const int width = width_of(code);
  const bool mark_without_base = width == 0 && glyphs.empty();
  const bool looks_like_space = code == kMiddleDot && style.visible_spaces;
  if (!style.unicode || is_hidden(code) || mark_without_base || looks_like_space) {
    glyphs.push_back(escaped_code(code));
  } else if (width == 0) {
    glyphs.back().text += sequence;
  } else {
    glyphs.push_back({std::string(sequence), width});
  }
}

std::vector<Glyph> to_glyphs(std::string_view bytes, const DisplayStyle& style) {
  std::vector<Glyph> glyphs;
  while (!bytes.empty()) {
    const auto valid = find_invalid_utf8(bytes).value_or(bytes.size());
    for (std::size_t i = 0; i < valid;) {
      const auto length = utf8_character_length(bytes.substr(i));
      append_character(glyphs, bytes.substr(i, length), style);
      i += length;
    }
    bytes.remove_prefix(valid);
    if (!bytes.empty()) {
      glyphs.push_back(escaped_byte(bytes.front()));
      bytes.remove_prefix(1);
    }
  }
  return glyphs;
}

int total_columns(std::span<const Glyph> glyphs) {
  int columns = 0;
  for (const auto& glyph : glyphs) {
    columns += glyph.columns;
  }
  return columns;
}

DisplayText join(std::span<const Glyph> glyphs, const DisplayStyle& style) {
  DisplayText result{"", total_columns(glyphs)};
  for (const auto& glyph : glyphs) {
    result.text += glyph.text;
  }
  if (style.quoted) {
    result.text = '"' + result.text + '"';
    result.columns += 2;
  }
  return result;
}

Glyph ellipsis(const DisplayStyle& style) {
  return style.unicode ? Glyph{"…", 1} : Glyph{"..", 2};
}

/// How many of `glyphs`, taken in order, fit into `columns`.
template <typename Iterator>
std::ptrdiff_t fitting(Iterator first, Iterator last, int columns) {
  auto next = first;
  while (next != last && columns >= next->columns) {
    columns -= next->columns;
    ++next;
  }
  return next - first;
}

/// Columns for the characters themselves.
int room_in(int columns, const DisplayStyle& style) {
  return columns - (style.quoted ? 2 : 0);
}

}  // namespace

DisplayText display(std::string_view bytes, const DisplayStyle& style) {
  return join(to_glyphs(bytes, style), style);
}

DisplayText display_head(std::string_view bytes, int columns, const DisplayStyle& style) {
  auto glyphs = to_glyphs(bytes, style);
  const int room = room_in(columns, style);
  if (total_columns(glyphs) > room) {
    const auto mark = ellipsis(style);
    glyphs.resize(static_cast<std::size_t>(fitting(glyphs.begin(), glyphs.end(), room - mark.columns)));
    glyphs.push_back(mark);
  }
  return join(glyphs, style);
}

DisplayText display_tail(std::string_view bytes, int columns, const DisplayStyle& style) {
  auto glyphs = to_glyphs(bytes, style);
  const int room = room_in(columns, style);
  if (total_columns(glyphs) > room) {
    const auto mark = ellipsis(style);
    const auto kept = fitting(glyphs.rbegin(), glyphs.rend(), room - mark.columns);
    glyphs.erase(glyphs.begin(), glyphs.end() - kept);
    glyphs.insert(glyphs.begin(), mark);
  }
  return join(glyphs, style);
}

int columns_of(std::string_view text) {
  int columns = 0;
  while (!text.empty()) {
    const auto length = utf8_character_length(text);
    columns += width_of(decode(text.substr(0, length)));
    text.remove_prefix(length);
  }
  return columns;
}

namespace {

/// Builds the lines of wrap().
class Wrapper {
 public:
  Wrapper(int columns, int indent) : columns_(columns), indent_(indent) {}

  void add_word(std::string_view word) {
    const int width = columns_of(word);
    if (used_ > start_ && used_ + 1 + width > columns_) {
      break_line();
    } else if (used_ > start_) {
      append(" ", 1);
    }
    if (used_ + width <= columns_) {
      append(word, width);
    } else {
      add_long_word(word);
    }
  }

  std::string finish() {
    lines_ += '\n';
    return std::move(lines_);
  }

 private:
  void add_long_word(std::string_view word) {
    while (!word.empty()) {
      const auto length = utf8_character_length(word);
      const auto character = word.substr(0, length);
      const int width = columns_of(character);
      if (used_ + width > columns_ && used_ > start_) {
        break_line();
      }
      append(character, width);
      word.remove_prefix(length);
    }
  }

  void append(std::string_view text, int width) {
    lines_ += text;
    used_ += width;
  }

  void break_line() {
    lines_ += '\n';
    lines_.append(static_cast<std::size_t>(indent_), ' ');
    used_ = indent_;
    start_ = indent_;
  }

  int columns_;
  int indent_;
  int used_ = 0;
  int start_ = 0;  ///< where the text of this line begins
  std::string lines_;
};

}  // namespace

std::string wrap(std::string_view text, int columns, int indent) {
  assert(columns > indent);
  Wrapper wrapper(columns, indent);
  while (true) {
    const auto space = text.find(' ');
    wrapper.add_word(text.substr(0, space));
    if (space == std::string_view::npos) {
      break;
    }
    text.remove_prefix(space + 1);
  }
  auto lines = wrapper.finish();
  std::replace(lines.begin(), lines.end(), kNoBreak, ' ');
  return lines;
}

}  // namespace rometrace
