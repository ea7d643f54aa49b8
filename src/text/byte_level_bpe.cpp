#include <algorithm>
#include <array>
#include <optional>
#include <unordered_map>
#include <utility>

#include "rometrace/error.hpp"
#include "rometrace/text/aligned_text.hpp"
#include "rometrace/text/bpe_model.hpp"
#include "rometrace/text/byte_alphabet.hpp"
#include "rometrace/text/hex.hpp"
#include "text/backend.hpp"
#include "text/sentencepiece_load.hpp"

namespace rometrace {
namespace {

/// A stretch of the original text as the normaliser leaves it.
struct Section {
  std::string_view text;       ///< normalised
  std::size_t begin;           ///< of the original stretch, in the whole text
  const AlignedText* aligned;  ///< none: nothing was normalised

  Token token(std::int32_t id, std::size_t from, std::size_t to) const {
    const ByteRange range = aligned == nullptr ? ByteRange{from, to} : aligned->original(from, to);
    return {id, begin + range.begin, begin + range.end};
  }
};

std::vector<AddedToken> added_before_normalizer(const BpeVocabulary& vocabulary) {
  std::vector<AddedToken> tokens;
  for (const auto& token : vocabulary.added) {
    if (!token.normalized) tokens.push_back(token);
  }
  return tokens;
}

std::vector<AddedToken> added_behind_normalizer(const BpeVocabulary& vocabulary) {
  std::vector<AddedToken> tokens;
  for (auto token : vocabulary.added) {
    if (!token.normalized) continue;
    if (vocabulary.rules.normalizer == BpeRules::Normalizer::kNfc) token.content = to_nfc(token.content).text();
    tokens.push_back(token);
  }
  return tokens;
}

class ByteLevelBpe final : public Backend {
 public:
  ByteLevelBpe(const BpeVocabulary& vocabulary, const std::string& where)
      : rules_(vocabulary.rules),
        pretokenizer_(vocabulary.rules.splits, where),
        added_(added_before_normalizer(vocabulary)),
        normalized_added_(added_behind_normalizer(vocabulary)) {
    load_sentencepiece(processor_, to_sentencepiece_model(vocabulary), where);
    for (const std::string& token : vocabulary.tokens) {
      // Only an added token may be written outside the alphabet; it stands for its own text.
      const auto bytes = from_byte_alphabet(token);
      bytes_.push_back(bytes ? *bytes : token);
      lengths_.push_back(bytes_.back().size());
      if (bytes && bytes->size() == 1) has_token_[static_cast<unsigned char>(bytes->front())] = true;
    }
    if (rules_.whole_parts == BpeRules::WholeParts::kAsTokens) {
      for (std::size_t id = 0; id < bytes_.size(); ++id) {
        const bool is_written = !vocabulary.tokens[id].empty() && from_byte_alphabet(vocabulary.tokens[id]);
        if (is_written) whole_parts_.emplace(bytes_[id], static_cast<std::int32_t>(id));
      }
    }
    for (const auto& token : vocabulary.added) bytes_[static_cast<std::size_t>(token.id)] = token.content;
  }

  std::vector<Token> encode(std::string_view text, SpecialTokens special) const override {
    std::vector<Token> tokens;
    std::size_t begin = 0;
    for (const auto& match : added_.find(text, special)) {
      append_stretch(text, {begin, match.begin}, special, tokens);
      tokens.push_back({match.id, match.begin, match.end});
      begin = match.end;
    }
    append_stretch(text, {begin, text.size()}, special, tokens);
    return tokens;
  }

  std::string decode(std::span<const std::int32_t> ids) const override {
    std::string text;
    for (const std::int32_t id : ids) text += bytes_[static_cast<std::size_t>(id)];
    return text;
  }

  std::string token_bytes(std::int32_t id) const override { return bytes_[static_cast<std::size_t>(id)]; }

  std::int32_t size() const override { return static_cast<std::int32_t>(bytes_.size()); }

  std::span<const std::int32_t> prefix_ids() const override { return rules_.prefix_ids; }

 private:
  /// Tokens of a stretch of the text without tokens that are found before normalisation.
  void append_stretch(std::string_view text, ByteRange stretch, SpecialTokens special,
                      std::vector<Token>& tokens) const {
    const std::string_view original = text.substr(stretch.begin, stretch.end - stretch.begin);
    if (rules_.normalizer == BpeRules::Normalizer::kNone) {
      append_section({original, stretch.begin, nullptr}, special, tokens);
    } else {
      const AlignedText normalized = to_nfc(original);
      append_section({normalized.text(), stretch.begin, &normalized}, special, tokens);
    }
  }

  void append_section(const Section& section, SpecialTokens special, std::vector<Token>& tokens) const {
    std::size_t begin = 0;
    for (const auto& match : normalized_added_.find(section.text, special)) {
      append_ordinary(section, {begin, match.begin}, tokens);
      tokens.push_back(section.token(match.id, match.begin, match.end));
      begin = match.end;
    }
    append_ordinary(section, {begin, section.text.size()}, tokens);
  }

  /// Tokens of a range of the section, which holds no added token that counts.
  void append_ordinary(const Section& section, ByteRange range, std::vector<Token>& tokens) const {
    std::string_view text = section.text.substr(range.begin, range.end - range.begin);
    if (text.empty()) return;
    check_bytes(section, range);
    std::string with_space;
    std::size_t added = 0;  // bytes in front that are not of the section
    if (rules_.first_space == BpeRules::FirstSpace::kAdded && !text.starts_with(' ')) {
      with_space.append(" ").append(text);
      text = with_space;
      added = 1;
    }
    std::vector<int> ids;
    for (const std::string_view part : pretokenizer_.split(text)) {
      auto at = static_cast<std::size_t>(part.data() - text.data());
      split_part(section, range, part, ids);
      for (const int id : ids) {
        const std::size_t next = at + lengths_[static_cast<std::size_t>(id)];
        const auto place = [&](std::size_t byte) { return range.begin + std::max(byte, added) - added; };
        tokens.push_back(section.token(id, place(at), place(next)));
        at = next;
      }
    }
  }

  void split_part(const Section& section, ByteRange range, std::string_view part, std::vector<int>& ids) const {
    if (rules_.whole_parts == BpeRules::WholeParts::kAsTokens) {
      if (const auto whole = whole_parts_.find(std::string(part)); whole != whole_parts_.end()) {
        ids = {whole->second};
        return;
      }
    }
    const auto status = processor_.Encode(to_byte_alphabet(part), &ids);
    if (status.ok()) return;
    throw Error("text, from byte " + std::to_string(section.token(0, range.begin, range.end).begin) +
                ": SentencePiece cannot split it: " + one_line(status.ToString()));
  }

  void check_bytes(const Section& section, ByteRange range) const {
    const auto refuse = [&](std::size_t at, unsigned char byte) {
      throw Error("text, byte " + std::to_string(section.token(0, at, at + 1).begin) + ": the byte " +
                  hex_of_byte(byte) + " has no token in this vocabulary; expected text of the bytes it knows");
    };
    if (rules_.first_space == BpeRules::FirstSpace::kAdded && !has_token_[' ']) refuse(range.begin, ' ');
    for (std::size_t at = range.begin; at < range.end; ++at) {
      const auto byte = static_cast<unsigned char>(section.text[at]);
      if (!has_token_[byte]) refuse(at, byte);
    }
  }

  sentencepiece::SentencePieceProcessor processor_;
  BpeRules rules_;
  Pretokenizer pretokenizer_;
  AddedTokenFinder added_;
  AddedTokenFinder normalized_added_;
  std::vector<std::string> bytes_;                             // by id
  std::vector<std::size_t> lengths_;                           // in bytes, of what merges make; by id
  std::unordered_map<std::string, std::int32_t> whole_parts_;  // bytes -> id
  std::array<bool, 256> has_token_{};                          // GPT-2 itself has all 256
};

}  // namespace

std::unique_ptr<const Backend> make_byte_level_bpe(const BpeVocabulary& vocabulary, const std::string& where) {
  return std::make_unique<ByteLevelBpe>(vocabulary, where);
}

}  // namespace rometrace
