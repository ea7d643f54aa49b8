#include "rometrace/text/bpe_model.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <optional>
#include <string_view>
#include <unordered_map>

#include "rometrace/error.hpp"
#include "rometrace/text/byte_alphabet.hpp"
#include "rometrace/text/input_file.hpp"
#include "text/bpe_tokens.hpp"

namespace rometrace {
namespace {

/// GPT-2's BPE, one token at a time: slow and plain, the judge of what SentencePiece may merge.
class PlainBpe {
 public:
  explicit PlainBpe(const BpeVocabulary& vocabulary) : ids_(ids_of(vocabulary.tokens)) {
    for (unsigned byte = 0; byte < byte_ids_.size(); ++byte) {
      const auto found = ids_.find(to_byte_alphabet(std::string(1, static_cast<char>(byte))));
      byte_ids_[byte] = found == ids_.end() ? -1 : found->second;
    }
    merges_.reserve(vocabulary.merges.size());
    for (std::size_t rank = 0; rank < vocabulary.merges.size(); ++rank) add_merge(vocabulary.merges[rank], rank);
  }

  bool is_byte(std::int32_t id) const { return std::ranges::find(byte_ids_, id) != byte_ids_.end(); }

  /// The rank of the merge that completes `token`, whose id is `id`, when it stands alone; nothing if merging its bytes
  /// does not end in this one token.
  std::optional<std::size_t> last_rank(const std::string& token, std::int32_t id) const {
    std::vector<std::int32_t> symbols;
    const auto bytes = from_byte_alphabet(token);
    if (!bytes) return std::nullopt;
    for (const char byte : *bytes) {
      symbols.push_back(byte_ids_[static_cast<unsigned char>(byte)]);
      if (symbols.back() < 0) return std::nullopt;
    }
    std::optional<std::size_t> last;
    while (symbols.size() > 1) {
      const auto [at, merge] = best_merge(symbols);
      if (merge == nullptr) return std::nullopt;
      symbols[at] = merge->result;
      symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(at) + 1);
      last = merge->rank;
    }
    return !symbols.empty() && symbols.front() == id ? last : std::nullopt;
  }

 private:
  struct Merge {
    std::size_t rank;
    std::int32_t result;
  };
  struct Candidate {
    std::size_t at;
    const Merge* merge;
  };

  static std::uint64_t key(std::int32_t left, std::int32_t right) {
    return (static_cast<std::uint64_t>(left) << 32) | static_cast<std::uint32_t>(right);
  }

  void add_merge(const std::pair<std::string, std::string>& merge, std::size_t rank) {
    if (const auto missing = missing_token(ids_, merge.first, merge.second)) {
      throw Error("merge " + std::to_string(rank) + " of the vocabulary " + missing->role + " " +
                  in_quotes(missing->token) + ", which is no token");
    }
    // A pair that is listed twice has the later rank, as in Hugging Face's map.
    merges_.insert_or_assign(key(ids_.at(merge.first), ids_.at(merge.second)),
                             Merge{rank, ids_.at(merge.first + merge.second)});
  }

  /// The listed pair of lowest rank, the leftmost of equals.
  Candidate best_merge(const std::vector<std::int32_t>& symbols) const {
    Candidate best{0, nullptr};
    for (std::size_t at = 0; at + 1 < symbols.size(); ++at) {
      const auto found = merges_.find(key(symbols[at], symbols[at + 1]));
      if (found == merges_.end()) continue;
      if (best.merge == nullptr || found->second.rank < best.merge->rank) best = {at, &found->second};
    }
    return best;
  }

  TokenIds ids_;
  std::array<std::int32_t, 256> byte_ids_{};
  std::unordered_map<std::uint64_t, Merge> merges_;
};

// ---------------------------------------------------------------------------------------------------------------------
// The protobuf wire format, as far as a SentencePiece model needs it (sentencepiece_model.proto)

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

enum class PieceType : std::uint64_t { kNormal = 1, kUnknown = 2, kControl = 3 };

ProtoWriter piece(std::string_view text, float score, PieceType type) {
  ProtoWriter piece;
  piece.bytes(1, text);
  piece.real(2, score);
  piece.number(3, static_cast<std::uint64_t>(type));
  return piece;
}

ProtoWriter piece_of(const BpeVocabulary& vocabulary, const PlainBpe& bpe, std::int32_t id) {
  const std::string& token = vocabulary.tokens[static_cast<std::size_t>(id)];
  if (bpe.is_byte(id)) return piece(token, 0, PieceType::kNormal);
  if (const auto rank = bpe.last_rank(token, id)) return piece(token, -static_cast<float>(*rank), PieceType::kNormal);
  // An id without a token of the vocabulary needs a name all the same, and U+0001 is not of the byte alphabet.
  return piece(token.empty() ? "\x01" + std::to_string(id) : token, 0, PieceType::kControl);
}

}  // namespace

// SentencePiece merges any two neighbours whose concatenation is a piece, the best score first, the leftmost of equals;
// GPT-2 merges listed pairs only. The two agree, whatever the vocabulary, when a piece is mergeable only if its bytes,
// alone, merge into it, with the rank of the last of these merges as its score:
// while both ends of a stretch of text have not been merged over, the stretch goes through the same states as it would
// alone. So let two neighbours X Y spell a token W. W alone went through the state X Y too, and only the merge of
// exactly this pair can follow: it is listed if and only if W alone ends as W, and its rank is W's last rank. Hence
// both programs see the same candidates with the same priorities at every step. A token that several merges make has
// one that can happen, and a token whose merges can never happen (or that has none) is a control piece.
std::string to_sentencepiece_model(const BpeVocabulary& vocabulary) {
  if (vocabulary.tokens.size() > static_cast<std::size_t>(kMaxTokens)) {
    throw Error("the vocabulary has " + std::to_string(vocabulary.tokens.size()) + " tokens; expected at most " +
                std::to_string(kMaxTokens));
  }
  const PlainBpe bpe(vocabulary);
  ProtoWriter model;
  for (std::size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    model.message(1, piece_of(vocabulary, bpe, static_cast<std::int32_t>(id)));
  }
  model.message(1, piece("\x01unknown", 0, PieceType::kUnknown));  // SentencePiece insists on one

  ProtoWriter trainer;
  trainer.number(3, 2);  // model_type: BPE
  model.message(2, trainer);

  ProtoWriter normalizer;
  normalizer.bytes(1, "identity");
  normalizer.number(3, 0);  // add_dummy_prefix
  normalizer.number(4, 0);  // remove_extra_whitespaces
  normalizer.number(5, 0);  // escape_whitespaces
  model.message(3, normalizer);
  return std::move(model).take();
}

}  // namespace rometrace
