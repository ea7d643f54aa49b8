#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "rometrace/text/added_tokens.hpp"
#include "rometrace/text/aligned_text.hpp"
#include "rometrace/text/bpe_vocabulary.hpp"
#include "text/backend.hpp"

namespace rometrace {

/// A stretch of a text, as the steps so far have changed it.
struct Section {
  std::string_view text;
  std::size_t begin;                     ///< of what it was made from, in `outer`, or where that is none, in the text
  const AlignedText* aligned = nullptr;  ///< how it was changed; none: not at all
  const Section* outer = nullptr;

  /// The bytes of the whole text that [from, to) comes from.
  ByteRange original(std::size_t from, std::size_t to) const {
    ByteRange range = aligned == nullptr ? ByteRange{from, to} : aligned->original(from, to);
    range = {begin + range.begin, begin + range.end};
    return outer == nullptr ? range : outer->original(range.begin, range.end);
  }

  Token token(std::int32_t id, std::size_t from, std::size_t to) const {
    const ByteRange range = original(from, to);
    return {id, range.begin, range.end};
  }
};

/// What the kinds of BPE share: added tokens, found before the normaliser and behind it, and the tokens' texts.
class Bpe : public Backend {
 public:
  std::vector<Token> encode(std::string_view text, SpecialTokens special) const override;
  std::string decode(std::span<const std::int32_t> ids) const override;
  std::string token_bytes(std::int32_t id) const override { return texts_[static_cast<std::size_t>(id)]; }
  std::int32_t size() const override { return static_cast<std::int32_t>(texts_.size()); }
  std::span<const std::int32_t> prefix_ids() const override { return rules_.prefix_ids; }

 protected:
  /// `texts`: by id, what the tokens stand for.
  Bpe(const BpeVocabulary& vocabulary, std::vector<std::string> texts);

  const BpeRules& rules() const { return rules_; }

  /// Appends the tokens of a section that is not empty and holds no added token that counts.
  virtual void append_ordinary(const Section& section, std::vector<Token>& tokens) const = 0;

 private:
  void append_stretch(std::string_view text, ByteRange stretch, SpecialTokens special,
                      std::vector<Token>& tokens) const;
  void append_section(const Section& section, SpecialTokens special, std::vector<Token>& tokens) const;
  void append_part(const Section& section, ByteRange range, std::vector<Token>& tokens) const;

  BpeRules rules_;
  AddedTokenFinder added_;
  AddedTokenFinder normalized_added_;
  std::vector<std::string> texts_;
};

}  // namespace rometrace
