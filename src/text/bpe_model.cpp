#include "rometrace/text/bpe_model.hpp"

#include <algorithm>
#include <cstddef>
#include <limits>
#include <numeric>
#include <optional>
#include <string_view>
#include <tuple>
#include <vector>

#include "rometrace/error.hpp"
#include "rometrace/text/utf8.hpp"
#include "text/bpe_tokens.hpp"
#include "text/piece_writer.hpp"

namespace rometrace {
namespace {

bool is_one_character(std::string_view token) {
  return !token.empty() && utf8_character_length(token) == token.size();
}

/// BPE by ranks, one token at a time: slow and plain, the judge of what SentencePiece may merge.
class PlainBpe {
 public:
  explicit PlainBpe(const BpeVocabulary& vocabulary)
      : ids_(ids_of(vocabulary.tokens)), merges_(vocabulary.merges), first_(vocabulary.tokens.size() + 1) {
    order_.resize(merges_.size());
    std::iota(order_.begin(), order_.end(), std::size_t{0});
    std::ranges::sort(order_, {},
                      [&](std::size_t rank) { return std::tuple(merges_[rank].left, merges_[rank].right, rank); });
    for (const Merge& merge : merges_) ++first_[static_cast<std::size_t>(merge.left) + 1];
    std::partial_sum(first_.begin(), first_.end(), first_.begin());
  }

  /// The rank of the merge that completes `token`, whose id is `id`, when it stands alone; nothing if merging its
  /// characters does not end in this one token.
  std::optional<std::size_t> last_rank(std::string_view token, std::int32_t id) const {
    std::vector<std::int32_t> symbols;
    for (std::string_view rest = token; !rest.empty();) {
      const std::size_t length = utf8_character_length(rest);
      const auto found = ids_.find(rest.substr(0, length));
      if (length == 0 || found == ids_.end()) return std::nullopt;
      symbols.push_back(found->second);
      rest.remove_prefix(length);
    }
    std::vector<std::size_t> ranks;  // of each symbol with the next
    for (std::size_t at = 0; at + 1 < symbols.size(); ++at) ranks.push_back(rank_of(symbols[at], symbols[at + 1]));
    std::optional<std::size_t> last;
    while (!ranks.empty()) {
      const auto best = std::ranges::min_element(ranks);  // the leftmost of equals
      if (*best == kNone) return std::nullopt;
      last = *best;
      const auto at = best - ranks.begin();
      symbols[static_cast<std::size_t>(at)] = merges_[*last].result;
      symbols.erase(symbols.begin() + at + 1);
      ranks.erase(best);
      for (const auto changed : {at - 1, at}) {
        const auto left = static_cast<std::size_t>(changed);
        if (changed >= 0 && left < ranks.size()) ranks[left] = rank_of(symbols[left], symbols[left + 1]);
      }
    }
    return !symbols.empty() && symbols.front() == id ? last : std::nullopt;
  }

 private:
  static constexpr std::size_t kNone = std::numeric_limits<std::size_t>::max();

  /// A pair that is listed twice has the later rank, as in Hugging Face's map.
  std::size_t rank_of(std::int32_t left, std::int32_t right) const {
    const auto begin = order_.begin() + first_[static_cast<std::size_t>(left)];
    const auto end = order_.begin() + first_[static_cast<std::size_t>(left) + 1];
    const auto behind = std::upper_bound(
        begin, end, right, [&](std::int32_t wanted, std::size_t rank) { return wanted < merges_[rank].right; });
    return behind != begin && merges_[*std::prev(behind)].right == right ? *std::prev(behind) : kNone;
  }

  TokenIds ids_;
  const std::vector<Merge>& merges_;
  std::vector<std::size_t> order_;     // ranks by left token, then by right, then by rank
  std::vector<std::ptrdiff_t> first_;  // where a left token's begin in it
};

ProtoWriter piece_of(const BpeVocabulary& vocabulary, const PlainBpe& bpe, std::int32_t id) {
  const std::string& token = vocabulary.tokens[static_cast<std::size_t>(id)];
  if (is_one_character(token)) return piece(token, 0, PieceType::kNormal);
  if (const auto rank = bpe.last_rank(token, id)) return piece(token, -static_cast<float>(*rank), PieceType::kNormal);
  // An id without a token of the vocabulary needs a name all the same.
  return piece(token.empty() ? nameless_piece(static_cast<std::size_t>(id)) : token, 0, PieceType::kControl);
}

}  // namespace

// SentencePiece merges any two neighbours whose concatenation is a piece, the best score first, the leftmost of equals;
// BPE by ranks merges listed pairs only. The two agree, whatever the vocabulary, when a piece is mergeable only if its
// characters, alone, merge into it, with the rank of the last of these merges as its score (in GPT-2's byte alphabet a
// character is a byte):
// while both ends of a stretch of text have not been merged over, the stretch goes through the same states as it would
// alone. So let two neighbours X Y spell a token W. W alone went through the state X Y too, and only the merge of
// exactly this pair can follow: it is listed if and only if W alone ends as W, and its rank is W's last rank. Hence
// both programs see the same candidates with the same priorities at every step. A token that several merges make has
// one that can happen, and a token whose merges can never happen (or that has none) is a control piece. A character
// that has no token is in no pair, and in no piece that can be made: both leave it as it is.
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
