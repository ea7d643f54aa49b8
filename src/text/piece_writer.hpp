#pragma once

#include <bit>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

// The protobuf wire format, as far as a SentencePiece model needs it (sentencepiece_model.proto).

namespace rometrace {

class ProtoWriter {
 public:
  void number(unsigned field, std::uint64_t value) {
    tag(field, kVarint);
    varint(value);
  }

  void real(unsigned field, float value) {
    tag(field, kFixed32);
    auto bits = std::bit_cast<std::uint32_t>(value);
    for (int i = 0; i < 4; ++i, bits >>= 8) bytes_ += static_cast<char>(bits & 0xFF);
  }

  void bytes(unsigned field, std::string_view value) {
    tag(field, kLengthDelimited);
    varint(value.size());
    bytes_ += value;
  }

  void message(unsigned field, const ProtoWriter& value) { bytes(field, value.bytes_); }

  std::string take() && { return std::move(bytes_); }

 private:
  enum WireType : std::uint64_t { kVarint = 0, kLengthDelimited = 2, kFixed32 = 5 };

  void tag(unsigned field, WireType type) { varint((std::uint64_t{field} << 3) | type); }

  void varint(std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) bytes_ += static_cast<char>((value & 0x7F) | 0x80);
    bytes_ += static_cast<char>(value);
  }

  std::string bytes_;
};

/// What a piece is for, by the format's numbers.
enum class PieceType : std::uint64_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6
};

inline ProtoWriter piece(std::string_view text, float score, PieceType type) {
  ProtoWriter piece;
  piece.bytes(1, text);
  piece.real(2, score);
  piece.number(3, static_cast<std::uint64_t>(type));
  return piece;
}

/// The name of a piece that stands for no text: SentencePiece insists on one, and no text is likely to hold U+0001.
inline std::string nameless_piece(std::size_t id) {
  return "\x01" + std::to_string(id);
}

}  // namespace rometrace
