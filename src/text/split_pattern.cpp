#include "rometrace/text/split_pattern.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <optional>
#include <utility>
#include <vector>

#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/text/utf8.hpp"

namespace rometrace {
namespace {

// White space is written out, because PCRE2's \s holds U+180E, which is no white space since Unicode 6.3.
constexpr std::string_view kSpace =
    R"(\x{9}-\x{D}\x{20}\x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000})";
constexpr std::string_view kNoSpace =
    R"(\x{0}-\x{8}\x{E}-\x{1F}\x{21}-\x{84}\x{86}-\x{9F}\x{A1}-\x{167F}\x{1681}-\x{1FFF}\x{200B}-\x{2027})"
    R"(\x{202A}-\x{202E}\x{2030}-\x{205E}\x{2060}-\x{2FFF}\x{3001}-\x{D7FF}\x{E000}-\x{10FFFF})";

// PCRE2 10.42 has the tables of Unicode 14, Hugging Face's tokenizers 0.23 those of Unicode 16: here are the characters
// that came between. A newer PCRE2 knows them anyway. Checked on every code point by
// tests/python/test_tokenizer_live.py and test_tokenizer_json.py. (Mn and Mc are not here: U+1171E went from one to the
// other.)
constexpr std::string_view kUpper = R"(\p{Lu}\x{1C89}\x{A7CB}\x{A7CC}\x{A7DA}\x{A7DC}\x{10D50}-\x{10D65})";
constexpr std::string_view kLower = R"(\p{Ll}\x{1C8A}\x{A7CD}\x{A7DB}\x{10D70}-\x{10D85}\x{1DF25}-\x{1DF2A})";
constexpr std::string_view kTitle = R"(\p{Lt})";
constexpr std::string_view kModifier =
    R"(\p{Lm}\x{10D4E}\x{10D6F}\x{16D40}-\x{16D42}\x{16D6B}\x{16D6C}\x{1E030}-\x{1E06D}\x{1E4EB})";
constexpr std::string_view kOtherLetter =
    R"(\p{Lo}\x{105C0}-\x{105F3}\x{10D4A}-\x{10D4D}\x{10D4F}\x{10EC2}-\x{10EC4}\x{1123F}\x{11240})"
    R"(\x{11380}-\x{11389}\x{1138B}\x{1138E}\x{11390}-\x{113B5}\x{113B7}\x{113D1}\x{113D3}\x{11BC0}-\x{11BE0})"
    R"(\x{11F02}\x{11F04}-\x{11F10}\x{11F12}-\x{11F33}\x{1342F}\x{13441}-\x{13446}\x{13460}-\x{143FA})"
    R"(\x{16100}-\x{1611D}\x{16D43}-\x{16D6A}\x{18CFF}\x{1B132}\x{1B155}\x{1E4D0}-\x{1E4EA}\x{1E5D0}-\x{1E5ED})"
    R"(\x{1E5F0}\x{2B739}\x{2EBF0}-\x{2EE5D}\x{31350}-\x{323AF})";
constexpr std::string_view kDigit =
    R"(\p{Nd}\x{10D40}-\x{10D49}\x{116D0}-\x{116E3}\x{11BF0}-\x{11BF9}\x{11F50}-\x{11F59}\x{16130}-\x{16139})"
    R"(\x{16D70}-\x{16D79}\x{1CCF0}-\x{1CCF9}\x{1E4F0}-\x{1E4F9}\x{1E5F1}-\x{1E5FA})";
constexpr std::string_view kLetterNumber = R"(\p{Nl})";
constexpr std::string_view kOtherNumber = R"(\p{No}\x{1D2C0}-\x{1D2D3})";
constexpr std::string_view kMark =
    R"(\p{M}\x{897}\x{CF3}\x{ECE}\x{10D69}-\x{10D6D}\x{10EFC}-\x{10EFF}\x{11241}\x{113B8}-\x{113C0}\x{113C2})"
    R"(\x{113C5}\x{113C7}-\x{113CA}\x{113CC}-\x{113D0}\x{113D2}\x{113E1}\x{113E2}\x{11F00}\x{11F01}\x{11F03})"
    R"(\x{11F34}-\x{11F3A}\x{11F3E}-\x{11F42}\x{11F5A}\x{13440}\x{13447}-\x{13455}\x{1611E}-\x{1612F}\x{1E08F})"
    R"(\x{1E4EC}-\x{1E4EF}\x{1E5EE}\x{1E5EF})";
constexpr std::string_view kPunctuation =
    R"(\p{P}\x{1B4E}\x{1B4F}\x{1B7F}\x{10D6E}\x{113D4}\x{113D5}\x{113D7}\x{113D8}\x{11B00}-\x{11B09}\x{11BE1})"
    R"(\x{11F43}-\x{11F4F}\x{16D6D}-\x{16D6F}\x{1E5FF})";
constexpr std::string_view kSymbol =
    R"(\p{S}\x{2427}-\x{2429}\x{2FFC}-\x{2FFF}\x{31E4}\x{31E5}\x{31EF}\x{10D8E}\x{10D8F}\x{1CC00}-\x{1CCEF})"
    R"(\x{1CD00}-\x{1CEB3}\x{1F6DC}\x{1F774}-\x{1F776}\x{1F77B}-\x{1F77F}\x{1F7D9}\x{1F8B2}-\x{1F8BB}\x{1F8C0})"
    R"(\x{1F8C1}\x{1FA75}-\x{1FA77}\x{1FA87}-\x{1FA89}\x{1FA8F}\x{1FAAD}-\x{1FAAF}\x{1FABB}-\x{1FABF}\x{1FAC6})"
    R"(\x{1FACE}\x{1FACF}\x{1FADA}-\x{1FADC}\x{1FADF}\x{1FAE8}\x{1FAE9}\x{1FAF7}\x{1FAF8}\x{1FBCB}-\x{1FBEF})";

/// What stands inside [...] for the characters of a Unicode category; nothing for one that is not known here.
std::optional<std::string> members_of(std::string_view category) {
  constexpr std::array<std::pair<std::string_view, std::string_view>, 11> kParts = {{{"Lu", kUpper},
                                                                                     {"Ll", kLower},
                                                                                     {"Lt", kTitle},
                                                                                     {"Lm", kModifier},
                                                                                     {"Lo", kOtherLetter},
                                                                                     {"Nd", kDigit},
                                                                                     {"Nl", kLetterNumber},
                                                                                     {"No", kOtherNumber},
                                                                                     {"M", kMark},
                                                                                     {"P", kPunctuation},
                                                                                     {"S", kSymbol}}};
  std::string members;
  for (const auto& [name, part] : kParts) {
    const bool is_whole = (category == "L" || category == "N") && name.size() == 2 && name.starts_with(category);
    if (is_whole || name == category) members += part;
  }
  return members.empty() ? std::nullopt : std::optional(members);
}

bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

/// Reads Oniguruma's pattern (its Ruby syntax) from the left and writes PCRE2's.
class Translator {
 public:
  Translator(std::string_view pattern, const std::string& where) : pattern_(pattern), where_(where) {}

  std::string run() {
    while (!done()) step();
    if (!groups_.empty()) refuse(pattern_.size(), "an open group at its end");
    return std::move(written_);
  }

 private:
  struct Group {
    bool ignores_case;
  };

  [[noreturn]] void refuse(std::size_t at, const std::string& found) const {
    throw Error(where_ + ": pattern " + in_quotes(pattern_, 300) + ", byte " + std::to_string(at) + ": found " + found +
                ", which rometrace does not know to mean the same in PCRE2; expected groups, classes, quantifiers, " +
                "\\p{...}, \\s, \\S, \\d, \\r, \\n, \\t");
  }

  bool done() const { return at_ == pattern_.size(); }
  char peek(std::size_t ahead = 0) const { return at_ + ahead < pattern_.size() ? pattern_[at_ + ahead] : '\0'; }
  bool ignores_case() const { return !groups_.empty() && groups_.back().ignores_case; }

  bool take(std::string_view text) {
    if (!pattern_.substr(at_).starts_with(text)) return false;
    at_ += text.size();
    return true;
  }

  void step() {
    switch (const char c = peek()) {
      case '\\':
        return escape();
      case '[':
        return character_class();
      case '(':
        return open_group();
      case ')':
        if (groups_.empty()) refuse(at_, "a \")\" without \"(\"");
        groups_.pop_back();
        break;
      case '{':
        return count();
      case '.':
      case '^':
      case '$':
      case ']':
      case '}':
        refuse(at_, in_quotes(std::string(1, c)));
      case '|':
      case '?':
      case '*':
      case '+':
        break;
      default:
        return literal();
    }
    written_ += pattern_[at_++];
  }

  void literal() {
    const auto length = std::max<std::size_t>(1, utf8_character_length(pattern_.substr(at_)));
    // Oniguruma knows letters that are several others in another case: "ss", "st", "fi", ...
    if (ignores_case() && peek() != '\'' && !(is_letter(peek()) && !folds_together(peek(), peek(1)))) {
      refuse(at_, in_quotes(pattern_.substr(at_, length)) + " where case is ignored");
    }
    written_ += pattern_.substr(at_, length);
    at_ += length;
  }

  static bool folds_together(char one, char next) {
    constexpr std::string_view kFirst = "sfSF";
    return kFirst.find(one) != std::string_view::npos && is_letter(next);
  }

  void open_group() {
    const auto begin = at_;
    const bool inherited = ignores_case();
    for (const std::string_view opening : {"(?:", "(?=", "(?!", "(?<=", "(?<!"}) {
      if (!take(opening)) continue;
      groups_.push_back({inherited});
      written_ += opening;
      return;
    }
    if (take("(?i:")) {
      groups_.push_back({true});
      written_ += "(?i:";
      return;
    }
    if (peek(1) == '?' || peek(1) == '*') refuse(begin, in_quotes(pattern_.substr(begin, 4)));
    ++at_;
    groups_.push_back({inherited});
    written_ += "(?:";  // nothing refers to what it captures
  }

  /// {n}, {n,}, {n,m}: the only ones that both read alike, unless another quantifier follows.
  void count() {
    const auto begin = at_++;
    const auto digits = [&] {
      const auto from = at_;
      while (is_digit(peek())) ++at_;
      return at_ > from;
    };
    if (!digits()) refuse(begin, in_quotes("{"));
    if (take(",")) digits();
    if (!take("}")) refuse(begin, in_quotes("{"));
    if (peek() == '+' || peek() == '?') refuse(at_, in_quotes(pattern_.substr(begin, at_ + 1 - begin)));
    written_ += pattern_.substr(begin, at_ - begin);
  }

  void escape() {
    const auto begin = at_;
    if (const auto members = category_or_shorthand()) {
      if (ignores_case()) refuse(begin, "a class where case is ignored");
      written_ += (members->second ? "[^" : "[") + members->first + "]";
      return;
    }
    written_ += escaped_character();
  }

  /// The members of \p{L}, \P{L}, \s, \S, \d, \D, and whether they are what it excludes; nothing for another escape.
  std::optional<std::pair<std::string, bool>> category_or_shorthand() {
    const auto begin = at_;
    switch (peek(1)) {
      case 's':
      case 'S':
        at_ += 2;
        return std::pair(std::string(kSpace), pattern_[begin + 1] == 'S');
      case 'd':
      case 'D':
        at_ += 2;
        return std::pair(std::string(kDigit), pattern_[begin + 1] == 'D');
      case 'p':
      case 'P': {
        const auto end = pattern_.find('}', begin);
        if (peek(2) != '{' || end == std::string_view::npos) break;
        const auto members = members_of(pattern_.substr(begin + 3, end - begin - 3));
        if (!members) refuse(begin, in_quotes(pattern_.substr(begin, end + 1 - begin)));
        at_ = end + 1;
        return std::pair(*members, pattern_[begin + 1] == 'P');
      }
      default:
        break;
    }
    return std::nullopt;
  }

  /// The one character that an escape means, as PCRE2 writes it inside a class and outside.
  std::string escaped_character() {
    const auto begin = at_++;
    const char c = peek();
    const auto shown = [&](std::size_t length) { return in_quotes(pattern_.substr(begin, length)); };
    if (c == 'u') {
      const auto hex = pattern_.substr(at_ + 1, 4);
      const auto is_hex = [](char digit) { return is_digit(digit) || (is_letter(digit) && (digit | 0x20) <= 'f'); };
      if (hex.size() != 4 || !std::ranges::all_of(hex, is_hex)) refuse(begin, shown(2));
      at_ += 5;
      return "\\x{" + std::string(hex) + "}";
    }
    const bool control = c == 'r' || c == 'n' || c == 't' || c == 'f';
    const bool sign = c > ' ' && c < 0x7F && !is_letter(c) && !is_digit(c);
    if (!control && !sign) refuse(begin, shown(2));
    ++at_;
    return {'\\', c};
  }

  void character_class() {
    const auto begin = at_++;
    const auto letters = pattern_.substr(at_, pattern_.find(']', at_) - at_);
    if (ignores_case() && !std::ranges::all_of(letters, is_letter)) {
      refuse(begin, "a class of more than letters where case is ignored");
    }
    written_ += '[';
    if (take("^")) written_ += '^';
    class_members(begin);
    written_ += ']';
  }

  /// The members of a class that begins at `begin`, and its end.
  void class_members(std::size_t begin) {
    if (peek() == ']') refuse(at_, "\"]\" at the front of a class");
    bool may_begin_range = false;  // the last member was one character
    for (bool first = true; peek() != ']'; first = false) {
      if (done()) refuse(begin, "a class without end");
      if (pattern_.substr(at_).starts_with("&&")) refuse(at_, "\"&&\" in a class");
      if (peek() == '[') {  // a class in a class gives its members, where it excludes none
        const auto inner = at_++;
        if (peek() == '^' || peek() == ':') refuse(inner, in_quotes(pattern_.substr(inner, 2)) + " in a class");
        class_members(inner);
        may_begin_range = false;
        continue;
      }
      if (peek() == '-') {
        range_or_hyphen(first, may_begin_range);
        may_begin_range = false;
        continue;
      }
      may_begin_range = member();
    }
    ++at_;
  }

  void range_or_hyphen(bool first, bool may_begin_range) {
    const auto begin = at_++;
    if (first || peek() == ']') {
      written_ += "\\-";
      return;
    }
    if (!may_begin_range || peek() == '[' || peek() == '-') refuse(begin, "\"-\" inside a class");
    written_ += '-';
    if (!member()) refuse(begin, "a range up to a class");
  }

  /// One member of a class; whether it is one character.
  bool member() {
    if (peek() != '\\') {
      const auto length = std::max<std::size_t>(1, utf8_character_length(pattern_.substr(at_)));
      if (peek() == '^') written_ += '\\';
      written_ += pattern_.substr(at_, length);
      at_ += length;
      return true;
    }
    const auto begin = at_;
    const auto members = category_or_shorthand();
    if (!members) {
      written_ += escaped_character();
      return true;
    }
    if (members->second && pattern_[begin + 1] != 'S') {
      refuse(begin, in_quotes(pattern_.substr(begin, at_ - begin)) + " in a class");
    }
    written_ += members->second ? std::string(kNoSpace) : members->first;
    return false;
  }

  std::string_view pattern_;
  const std::string& where_;
  std::size_t at_ = 0;
  std::string written_;
  std::vector<Group> groups_;
};

}  // namespace

std::string to_pcre2(std::string_view pattern, const std::string& where) {
  return Translator(pattern, where).run();
}

std::string literal_pattern(std::string_view text) {
  std::string pattern;
  for (const char c : text) {
    const bool plain = is_letter(c) || is_digit(c) || (static_cast<unsigned char>(c) & 0x80U) != 0;
    if (!plain) pattern += '\\';
    pattern += c;
  }
  return pattern;
}

}  // namespace rometrace
