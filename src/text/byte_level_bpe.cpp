#include <array>
#include <unordered_map>
#include <utility>

#include "rometrace/error.hpp"
#include "rometrace/text/bpe_model.hpp"
#include "rometrace/text/byte_alphabet.hpp"
#include "rometrace/text/hex.hpp"
#include "rometrace/text/spaces.hpp"
#include "text/bpe.hpp"
#include "text/sentencepiece_load.hpp"

namespace rometrace {
namespace {

/// Only an added token may be written outside the alphabet; it stands for its own text.
std::string bytes_of(const std::string& token) {
  return from_byte_alphabet(token).value_or(token);
}

std::vector<std::string> texts_of(const BpeVocabulary& vocabulary) {
  std::vector<std::string> texts;
  for (const std::string& token : vocabulary.tokens) texts.push_back(bytes_of(token));
  for (const auto& token : vocabulary.added) texts[static_cast<std::size_t>(token.id)] = token.content;
  return texts;
}

class ByteLevelBpe final : public Bpe {
 public:
  ByteLevelBpe(const BpeVocabulary& vocabulary, const std::string& where)
      : Bpe(vocabulary, texts_of(vocabulary)), pretokenizer_(vocabulary.rules.splits, where) {
    load_sentencepiece(processor_, to_sentencepiece_model(vocabulary), where);
    for (const std::string& token : vocabulary.tokens) {
      const auto bytes = from_byte_alphabet(token);
      lengths_.push_back(bytes_of(token).size());
      if (bytes && bytes->size() == 1) has_token_[static_cast<unsigned char>(bytes->front())] = true;
    }
    if (rules().whole_parts != BpeRules::WholeParts::kAsTokens) return;
    for (std::size_t id = 0; id < vocabulary.tokens.size(); ++id) {
      const auto bytes = from_byte_alphabet(vocabulary.tokens[id]);
      if (bytes && !bytes->empty()) whole_parts_.emplace(*bytes, static_cast<std::int32_t>(id));
    }
  }

 private:
  void append_ordinary(const Section& section, std::vector<Token>& tokens) const override {
    check_bytes(section);
    const std::size_t begin = section.original(0, section.text.size()).begin;
    const bool lacks_space = is_for_stretch(rules().first_space, begin) && !section.text.starts_with(' ');
    const AlignedText spaced = with_first_space(section.text, lacks_space ? InFront::kSpace : InFront::kNothing);
    const Section whole{spaced.text(), 0, &spaced, &section};
    std::vector<int> ids;
    for (const std::string_view part : pretokenizer_.split(whole.text)) {
      auto at = static_cast<std::size_t>(part.data() - whole.text.data());
      split_part(section, part, ids);
      for (const int id : ids) {
        const std::size_t next = at + lengths_[static_cast<std::size_t>(id)];
        tokens.push_back(whole.token(id, at, next));
        at = next;
      }
    }
  }

  void split_part(const Section& section, std::string_view part, std::vector<int>& ids) const {
    if (rules().whole_parts == BpeRules::WholeParts::kAsTokens) {
      if (const auto whole = whole_parts_.find(std::string(part)); whole != whole_parts_.end()) {
        ids = {whole->second};
        return;
      }
    }
    const auto status = processor_.Encode(to_byte_alphabet(part), &ids);
    if (status.ok()) return;
    throw Error("text, from byte " + std::to_string(section.original(0, section.text.size()).begin) +
                ": SentencePiece cannot split it: " + one_line(status.ToString()));
  }

  void check_bytes(const Section& section) const {
    const auto refuse = [&](std::size_t at, unsigned char byte) {
      throw Error("text, byte " + std::to_string(section.original(at, at + 1).begin) + ": the byte " +
                  hex_of_byte(byte) + " has no token in this vocabulary; expected text of the bytes it knows");
    };
    if (rules().first_space != FirstSpace::kNowhere && !has_token_[' ']) refuse(0, ' ');
    for (std::size_t at = 0; at < section.text.size(); ++at) {
      const auto byte = static_cast<unsigned char>(section.text[at]);
      if (!has_token_[byte]) refuse(at, byte);
    }
  }

  sentencepiece::SentencePieceProcessor processor_;
  Pretokenizer pretokenizer_;
  std::vector<std::size_t> lengths_;                           // in bytes, of what merges make; by id
  std::unordered_map<std::string, std::int32_t> whole_parts_;  // bytes -> id
  std::array<bool, 256> has_token_{};                          // GPT-2 itself has all 256
};

}  // namespace

std::unique_ptr<const Backend> make_byte_level_bpe(const BpeVocabulary& vocabulary, const std::string& where) {
  return std::make_unique<ByteLevelBpe>(vocabulary, where);
}

}  // namespace rometrace
