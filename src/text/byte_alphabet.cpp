#include "rometrace/text/byte_alphabet.hpp"

#include <array>

namespace rometrace {
namespace {

constexpr unsigned kFirstShifted = 0x100;
constexpr unsigned kEndOfAlphabet = 0x144;  // 68 bytes are not printable

constexpr bool stands_for_itself(unsigned byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xFF && byte != 0xAD);
}

struct Alphabet {
  std::array<unsigned, 256> code_point{};
  std::array<int, kEndOfAlphabet> byte{};  // -1: not of the alphabet
};

constexpr Alphabet make_alphabet() {
  Alphabet alphabet;
  alphabet.byte.fill(-1);
  unsigned next_shifted = kFirstShifted;
  for (unsigned byte = 0; byte < 256; ++byte) {
    const unsigned code_point = stands_for_itself(byte) ? byte : next_shifted++;
    alphabet.code_point[byte] = code_point;
    alphabet.byte[code_point] = static_cast<int>(byte);
  }
  return alphabet;
}

constexpr Alphabet kAlphabet = make_alphabet();

}  // namespace

std::string to_byte_alphabet(std::string_view bytes) {
  std::string written;
  written.reserve(2 * bytes.size());
  for (const char byte : bytes) {
    const unsigned code_point = kAlphabet.code_point[static_cast<unsigned char>(byte)];
    if (code_point < 0x80) {
      written += static_cast<char>(code_point);
    } else {
      written += static_cast<char>(0xC0 | (code_point >> 6));
      written += static_cast<char>(0x80 | (code_point & 0x3F));
    }
  }
  return written;
}

std::optional<std::string> from_byte_alphabet(std::string_view token) {
  std::string bytes;
  for (std::size_t i = 0; i < token.size(); ++i) {
    const auto lead = static_cast<unsigned char>(token[i]);
    unsigned code_point = lead;
    if (lead >= 0x80) {  // the alphabet ends below U+0800: two bytes at most
      if ((lead & 0xE0) != 0xC0 || i + 1 == token.size()) return std::nullopt;
      const auto trail = static_cast<unsigned char>(token[++i]);
      if ((trail & 0xC0) != 0x80) return std::nullopt;
      code_point = ((lead & 0x1Fu) << 6) | (trail & 0x3Fu);
    }
    if (code_point >= kEndOfAlphabet || kAlphabet.byte[code_point] < 0) return std::nullopt;
    bytes += static_cast<char>(kAlphabet.byte[code_point]);
  }
  return bytes;
}

}  // namespace rometrace
