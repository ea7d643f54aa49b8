#include "text/bpe.hpp"

#include <utility>

#include "rometrace/text/spaces.hpp"

namespace rometrace {
namespace {

AlignedText normalized(std::string_view text, BpeRules::Normalizer normalizer) {
  switch (normalizer) {
    case BpeRules::Normalizer::kNfc:
      return to_nfc(text);
    case BpeRules::Normalizer::kMarkedSpaces:
      return mark_spaces(text, InFront::kNothing);
    case BpeRules::Normalizer::kMarkedSpacesBehindOne:
      return mark_spaces(text, InFront::kSpace);
    case BpeRules::Normalizer::kNone:
      break;
  }
  return {std::string(text), {}};
}

std::vector<AddedToken> added_before_normalizer(const BpeVocabulary& vocabulary) {
  std::vector<AddedToken> tokens;
  for (const auto& token : vocabulary.added) {
    if (!token.normalized) tokens.push_back(token);
  }
  return tokens;
}

/// Their spelling is normalised as a text is, with whatever is put before one.
std::vector<AddedToken> added_behind_normalizer(const BpeVocabulary& vocabulary) {
  std::vector<AddedToken> tokens;
  for (auto token : vocabulary.added) {
    if (!token.normalized) continue;
    token.content = normalized(token.content, vocabulary.rules.normalizer).text();
    tokens.push_back(token);
  }
  return tokens;
}

}  // namespace

Bpe::Bpe(const BpeVocabulary& vocabulary, std::vector<std::string> texts)
    : rules_(vocabulary.rules),
      added_(added_before_normalizer(vocabulary)),
      normalized_added_(added_behind_normalizer(vocabulary)),
      texts_(std::move(texts)) {}

std::vector<Token> Bpe::encode(std::string_view text, SpecialTokens special) const {
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

std::string Bpe::decode(std::span<const std::int32_t> ids) const {
  std::string text;
  for (const std::int32_t id : ids) text += texts_[static_cast<std::size_t>(id)];
  return text;
}

/// Tokens of a stretch of the text without tokens that are found before normalisation.
void Bpe::append_stretch(std::string_view text, ByteRange stretch, SpecialTokens special,
                         std::vector<Token>& tokens) const {
  const std::string_view original = text.substr(stretch.begin, stretch.end - stretch.begin);
  if (rules_.normalizer == BpeRules::Normalizer::kNone) {
    append_section({original, stretch.begin}, special, tokens);
  } else {
    const AlignedText changed = normalized(original, rules_.normalizer);
    append_section({changed.text(), stretch.begin, &changed}, special, tokens);
  }
}

void Bpe::append_section(const Section& section, SpecialTokens special, std::vector<Token>& tokens) const {
  std::size_t begin = 0;
  for (const auto& match : normalized_added_.find(section.text, special)) {
    append_part(section, {begin, match.begin}, tokens);
    tokens.push_back(section.token(match.id, match.begin, match.end));
    begin = match.end;
  }
  append_part(section, {begin, section.text.size()}, tokens);
}

void Bpe::append_part(const Section& section, ByteRange range, std::vector<Token>& tokens) const {
  if (range.begin == range.end) return;
  append_ordinary({section.text.substr(range.begin, range.end - range.begin), range.begin, nullptr, &section}, tokens);
}

}  // namespace rometrace
