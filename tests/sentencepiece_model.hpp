#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string>

namespace rometrace::testing {

/// A length-delimited field of a protobuf message shorter than 128 bytes, or longer.
inline std::string field(unsigned number, const std::string& content) {
  std::string bytes(1, static_cast<char>(number << 3 | 2));
  std::size_t length = content.size();
  for (; length >= 0x80; length >>= 7) bytes += static_cast<char>((length & 0x7F) | 0x80);
  return bytes + static_cast<char>(length) + content;
}

inline std::string number_field(unsigned number, unsigned value) {
  std::string bytes;
  for (unsigned tag = number << 3;; tag >>= 7) {
    bytes += static_cast<char>(tag >= 0x80 ? (tag & 0x7F) | 0x80 : tag);
    if (tag < 0x80) break;
  }
  return bytes + static_cast<char>(value);
}

inline std::string piece(const std::string& text, float score, unsigned type) {
  std::string bytes = field(1, text) + static_cast<char>(2 << 3 | 5);
  const auto bits = std::bit_cast<std::uint32_t>(score);
  for (unsigned shift = 0; shift < 32; shift += 8) bytes += static_cast<char>(bits >> shift & 0xFF);
  return field(1, bytes + number_field(3, type));
}

/// <unk> <s> </s>, 256 byte pieces, ▁ a b ▁a ab: BPE with byte fallback and a space before the text, like Llama's; then
/// more pieces.
inline std::string small_model(const std::string& more_pieces = "") {
  constexpr unsigned kNormal = 1, kUnknown = 2, kControl = 3, kByte = 6;
  std::string model = piece("<unk>", 0, kUnknown) + piece("<s>", 0, kControl) + piece("</s>", 0, kControl);
  for (unsigned byte = 0; byte < 256; ++byte) {
    constexpr const char* kHex = "0123456789ABCDEF";
    model += piece(std::string("<0x") + kHex[byte >> 4] + kHex[byte & 15] + ">", 0, kByte);
  }
  model += piece("▁", -10, kNormal) + piece("a", -11, kNormal) + piece("b", -12, kNormal);
  model += piece("▁a", -1, kNormal) + piece("ab", 0, kNormal);
  const std::string trainer = number_field(3, 2) + number_field(35, 1);  // BPE, byte_fallback
  const std::string normalizer = number_field(4, 0);                     // keep extra white space
  return model + more_pieces + field(2, trainer) + field(3, normalizer);
}
}  // namespace rometrace::testing
