#include "rometrace/text/likeness.hpp"

#include <unicode/bytestream.h>
#include <unicode/edits.h>
#include <unicode/normalizer2.h>
#include <unicode/stringpiece.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <utility>
#include <vector>

#include "rometrace/text/aligned_text.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/text/strip.hpp"
#include "rometrace/text/subject.hpp"
#include "rometrace/text/utf8.hpp"

namespace rometrace {
namespace {

using CodePoint = UChar32;

/// What Unicode's compatibility mapping knows is not repeated here.
constexpr std::u32string_view kSingleQuotes = U"‘’‚‛ʼʹ′´`", kDoubleQuotes = U"“”„‟«»″", kDashes = U"‐‑‒–—―−";
// Cyrillic, then Greek letters, and what they look like.
constexpr std::u32string_view kLetters = U"аеорсухѕіјһԁАВЕЅІЈКМНОРСТУХονΑΒΕΖΗΙΚΜΝΟΡΤΥΧ";
constexpr std::string_view kLatin = "aeopcyxsijhdABESIJKMHOPCTYXovABEZHIKMNOPTYX";
static_assert(kLetters.size() == kLatin.size());

enum class Letters { kAsTheyAre, kAsLatin };

std::vector<CodePoint> code_points_of(std::string_view text) {
  const auto units = icu::UnicodeString::fromUTF8({text.data(), static_cast<std::int32_t>(text.size())});
  std::vector<CodePoint> points;
  for (std::int32_t at = 0; at < units.length(); at = units.moveIndex32(at, 1)) points.push_back(units.char32At(at));
  return points;
}

/// The character that stands for `point` where it only looks like it; '\0' if it stands for itself.
char plain_character(CodePoint point, Letters letters) {
  const auto character = static_cast<char32_t>(point);
  if (u_isUWhiteSpace(point)) return ' ';
  if (kSingleQuotes.find(character) != std::u32string_view::npos) return '\'';
  if (kDoubleQuotes.find(character) != std::u32string_view::npos) return '"';
  if (kDashes.find(character) != std::u32string_view::npos) return '-';
  const auto place = letters == Letters::kAsLatin ? kLetters.find(character) : std::u32string_view::npos;
  return place == std::u32string_view::npos ? '\0' : kLatin[place];
}

/// Runs of white space as one space, and ASCII where it looks the same.
AlignedText plain(std::string_view text, Letters letters) {
  std::string written;
  std::vector<AlignedText::Change> changes;
  bool in_space = false;
  for (std::size_t at = 0; at < text.size();) {
    const auto character = text.substr(at, utf8_character_length(text.substr(at)));
    const char instead = plain_character(code_points_of(character).front(), letters);
    if (instead == ' ' && in_space) {
      changes.back().before.end += character.size();
    } else if (instead == '\0') {
      written += character;
    } else {
      changes.push_back({{written.size(), written.size() + 1}, {at, at + character.size()}});
      written += instead;
    }
    in_space = instead == ' ';
    at += character.size();
  }
  return {std::move(written), std::move(changes)};
}

/// `text` in Unicode's NFKC_Casefold: composed, without what is not seen, in one case. Nothing where ICU cannot.
std::optional<AlignedText> folded(std::string_view text) {
  UErrorCode status = U_ZERO_ERROR;
  const auto* normalizer = icu::Normalizer2::getNFKCCasefoldInstance(status);
  if (U_FAILURE(status)) return std::nullopt;
  std::string written;
  icu::StringByteSink<std::string> sink(&written);
  icu::Edits edits;
  normalizer->normalizeUTF8(0, {text.data(), static_cast<std::int32_t>(text.size())}, sink, &edits, status);
  if (U_FAILURE(status)) return std::nullopt;
  std::vector<AlignedText::Change> changes;
  auto change = edits.getFineChangesIterator();
  while (change.next(status)) {
    const auto now = static_cast<std::size_t>(change.destinationIndex());
    const auto before = static_cast<std::size_t>(change.sourceIndex());
    changes.push_back({{now, now + static_cast<std::size_t>(change.newLength())},
                       {before, before + static_cast<std::size_t>(change.oldLength())}});
  }
  return AlignedText(std::move(written), std::move(changes));
}

/// "U+00A0 NO-BREAK SPACE"; "the end" behind the last one.
std::string name_at(const std::vector<CodePoint>& points, std::size_t index) {
  if (index >= points.size()) return "the end";
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  const auto code = static_cast<std::uint32_t>(points[index]);
  std::string name = "U+";
  for (int shift = code > 0xFFFFFU ? 20 : code > 0xFFFFU ? 16 : 12; shift >= 0; shift -= 4) {
    name += kDigits[code >> static_cast<unsigned>(shift) & 15U];
  }
  std::array<char, 128> text{};
  UErrorCode status = U_ZERO_ERROR;
  const auto length = u_charName(points[index], U_EXTENDED_CHAR_NAME, text.data(), std::ssize(text), &status);
  return U_FAILURE(status) ? name : name + " " + std::string(text.data(), static_cast<std::size_t>(length));
}

}  // namespace

std::optional<ByteRange> find_alike(std::string_view text, std::string_view part) {
  constexpr std::size_t kMost = std::size_t{1} << 24U;  // bytes; what is longer, nobody looks at
  if (text.size() > kMost || part.size() > kMost || find_invalid_utf8(text) || find_invalid_utf8(part)) {
    return std::nullopt;
  }
  for (const auto letters : {Letters::kAsTheyAre, Letters::kAsLatin}) {
    const auto plain_text = plain(text, letters);
    const auto folded_text = folded(plain_text.text()), folded_part = folded(plain(part, letters).text());
    if (!folded_text || !folded_part) return std::nullopt;
    const auto sought = strip(folded_part->text());
    const auto at = sought.empty() ? std::string::npos : folded_text->text().find(sought);
    if (at == std::string::npos) continue;
    const auto inside = folded_text->original(at, at + sought.size());
    return plain_text.original(inside.begin, inside.end);
  }
  return std::nullopt;
}

std::string first_difference(std::string_view found, std::string_view expected) {
  if (found == expected) return "";
  const auto one = code_points_of(found), other = code_points_of(expected);
  const auto differing = std::mismatch(one.begin(), one.end(), other.begin(), other.end()).first;
  const auto index = static_cast<std::size_t>(differing - one.begin());
  return "code point " + std::to_string(index + 1) + " is " + name_at(one, index) + ", not " + name_at(other, index);
}

std::string alike_words(std::string_view text, std::string_view part) {
  const auto place = find_alike(text, part);
  if (!place) return "";
  const auto found = text.substr(place->begin, place->size());
  return "; there is " + in_quotes(found, kShownTextBytes) + ", whose " + first_difference(found, part);
}

std::string unlike_words(std::string_view found, std::string_view expected) {
  const auto one = strip(found), other = strip(expected);
  const auto place = find_alike(one, other);
  if (one == other || !place || *place != ByteRange{0, one.size()}) return "";
  return " (its " + first_difference(one, other) + ")";
}

}  // namespace rometrace
