#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

// What the reader of a BPE vocabulary, the maker of its SentencePiece model and its user share.

namespace rometrace {

// Far above real vocabularies (256,000), far below what a damaged file could ask for; a rank below 2^24 is exact as a
// float, which is what SentencePiece's scores are.
inline constexpr std::int32_t kMaxTokens = 1 << 21;

/// Token -> id of a vocabulary, by its texts; points into them.
using TokenIds = std::unordered_map<std::string_view, std::int32_t>;

inline TokenIds ids_of(const std::vector<std::string>& tokens) {
  TokenIds ids;
  ids.reserve(tokens.size());
  for (std::size_t id = 0; id < tokens.size(); ++id) {
    if (!tokens[id].empty()) ids.emplace(tokens[id], static_cast<std::int32_t>(id));
  }
  return ids;
}

/// The byte that a token such as "<0x0A>" stands for where characters without a token fall back to bytes.
inline std::optional<unsigned char> byte_of_token(std::string_view token) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  if (token.size() != 6 || !token.starts_with("<0x") || token.back() != '>') return std::nullopt;
  const std::size_t high = kDigits.find(token[3]);
  const std::size_t low = kDigits.find(token[4]);
  if (high == std::string_view::npos || low == std::string_view::npos) return std::nullopt;
  return static_cast<unsigned char>(high << 4 | low);
}

}  // namespace rometrace
