#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

// What the reader of a BPE vocabulary and the maker of its SentencePiece model share.

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

/// The token that a merge needs and the vocabulary lacks.
struct MissingToken {
  std::string role;  ///< "needs" or "makes"
  std::string token;
};

inline std::optional<MissingToken> missing_token(const TokenIds& ids, const std::string& left,
                                                 const std::string& right) {
  if (!ids.contains(left)) return MissingToken{"needs", left};
  if (!ids.contains(right)) return MissingToken{"needs", right};
  if (!ids.contains(left + right)) return MissingToken{"makes", left + right};
  return std::nullopt;
}

}  // namespace rometrace
