#include "rometrace/text/utf8.hpp"

namespace rometrace {
namespace {

/// What a UTF-8 reader meets at one position.
struct Step {
  std::size_t length;  ///< bytes of the character or of the maximal ill-formed part
  bool well_formed;
};

struct SecondByte {
  unsigned char low;
  unsigned char high;
};

/// The table 3-7 rows that are narrower than 80..BF: no overlong forms, no surrogates, nothing above U+10FFFF.
SecondByte second_byte_range(unsigned char lead) {
  switch (lead) {
    case 0xE0:
      return {0xA0, 0xBF};
    case 0xED:
      return {0x80, 0x9F};
    case 0xF0:
      return {0x90, 0xBF};
    case 0xF4:
      return {0x80, 0x8F};
    default:
      return {0x80, 0xBF};
  }
}

std::size_t length_from_lead(unsigned char lead) {
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead <= 0xDF) return 2;
  if (lead >= 0xE0 && lead <= 0xEF) return 3;
  if (lead >= 0xF0 && lead <= 0xF4) return 4;
  return 0;
}

Step step_at(std::string_view text, std::size_t at) {
  const auto lead = static_cast<unsigned char>(text[at]);
  const std::size_t length = length_from_lead(lead);
  if (length == 0) return {1, false};
  auto [low, high] = second_byte_range(lead);
  for (std::size_t i = 1; i < length; ++i) {
    if (at + i == text.size()) return {i, false};
    const auto byte = static_cast<unsigned char>(text[at + i]);
    if (byte < low || byte > high) return {i, false};
    low = 0x80;
    high = 0xBF;
  }
  return {length, true};
}

}  // namespace

std::size_t utf8_character_length(std::string_view text) {
  if (text.empty()) return 0;
  const Step step = step_at(text, 0);
  return step.well_formed ? step.length : 0;
}

std::optional<std::size_t> find_invalid_utf8(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    const Step step = step_at(text, at);
    if (!step.well_formed) return at;
    at += step.length;
  }
  return std::nullopt;
}

std::string to_valid_utf8(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size());
  for (std::size_t at = 0; at < bytes.size();) {
    const Step step = step_at(bytes, at);
    text += step.well_formed ? bytes.substr(at, step.length) : std::string_view("\xEF\xBF\xBD");
    at += step.length;
  }
  return text;
}

}  // namespace rometrace
