#include <algorithm>
#include <array>
#include <utility>

#include "rometrace/error.hpp"
#include "rometrace/text/bpe_model.hpp"
#include "rometrace/text/spaces.hpp"
#include "rometrace/text/utf8.hpp"
#include "text/bpe.hpp"
#include "text/bpe_tokens.hpp"
#include "text/sentencepiece_load.hpp"

namespace rometrace {
namespace {

std::vector<std::string> unmarked_texts(const BpeVocabulary& vocabulary) {
  std::vector<std::string> texts;
  for (const std::string& token : vocabulary.tokens) {
    const auto byte = byte_of_token(token);
    texts.push_back(byte ? std::string(1, static_cast<char>(*byte)) : unmark_spaces(token));
  }
  for (const auto& token : vocabulary.added) texts[static_cast<std::size_t>(token.id)] = unmark_spaces(token.content);
  return texts;
}

/// BPE as SentencePiece does it, by the merges of a tokenizer.json: a stretch of text, or where the file says so each
/// word, is merged as a whole, and what has no token is written by tokens of its bytes.
class CharacterBpe final : public Bpe {
 public:
  CharacterBpe(const BpeVocabulary& vocabulary, const std::string& where)
      : Bpe(vocabulary, unmarked_texts(vocabulary)), unknown_(static_cast<std::int32_t>(vocabulary.tokens.size())) {
    load_sentencepiece(processor_, to_sentencepiece_model(vocabulary), where);
    byte_ids_.fill(-1);
    for (std::size_t id = 0; id < vocabulary.tokens.size(); ++id) {
      if (const auto byte = byte_of_token(vocabulary.tokens[id])) byte_ids_[*byte] = static_cast<std::int32_t>(id);
    }
  }

  /// As the decoder of such a file does it: a run of byte tokens that is no UTF-8 becomes a U+FFFD for each.
  std::string decode(std::span<const std::int32_t> ids) const override {
    std::string text;
    std::string run;
    const auto flush = [&] {
      if (!find_invalid_utf8(run)) {
        text += run;
      } else {
        for (std::size_t i = 0; i < run.size(); ++i) text += "\uFFFD";
      }
      run.clear();
    };
    for (const std::int32_t id : ids) {
      if (!is_byte(id)) flush();
      (is_byte(id) ? run : text) += token_bytes(id);
    }
    flush();
    if (rules().decoding_drops_first_space && text.starts_with(' ')) text.erase(0, 1);
    return text;
  }

 private:
  bool is_byte(std::int32_t id) const { return std::ranges::find(byte_ids_, id) != byte_ids_.end(); }

  void append_ordinary(const Section& section, std::vector<Token>& tokens) const override {
    const std::size_t begin = section.original(0, section.text.size()).begin;
    const bool lacks_space = is_for_stretch(rules().first_space, begin) && !begins_with_space(section.text);
    const AlignedText marked = mark_spaces(section.text, lacks_space ? InFront::kSpace : InFront::kNothing);
    const Section whole{marked.text(), 0, &marked, &section};
    if (!rules().splits_words) return append_merged(whole, tokens);
    for (std::size_t at = 0; at < whole.text.size();) {
      const std::size_t end = std::min(whole.text.find(kSpaceMark, at + 1), whole.text.size());
      append_merged({whole.text.substr(at, end - at), at, nullptr, &whole}, tokens);
      at = end;
    }
  }

  /// Of a stretch that is merged as a whole.
  void append_merged(const Section& section, std::vector<Token>& tokens) const {
    for (const Token& piece : pieces_of(processor_, section.text)) {
      if (piece.id == unknown_) {
        append_bytes(section, {piece.begin, piece.end}, tokens);
      } else {
        tokens.push_back(section.token(piece.id, piece.begin, piece.end));
      }
    }
  }

  /// Of a run of characters that have no tokens.
  void append_bytes(const Section& section, ByteRange run, std::vector<Token>& tokens) const {
    for (std::size_t at = run.begin; at < run.end;) {
      const std::string_view character = section.text.substr(at, utf8_character_length(section.text.substr(at)));
      for (const char byte : character) {
        const std::int32_t id = byte_ids_[static_cast<unsigned char>(byte)];
        tokens.push_back(section.token(id, at, at + character.size()));
        if (id >= 0) continue;
        throw Error("text, byte " + std::to_string(tokens.back().begin) + ": the character " + in_quotes(character) +
                    " has no token in this vocabulary, and not all of its bytes have one; expected text of the "
                    "characters it knows");
      }
      at += character.size();
    }
  }

  sentencepiece::SentencePieceProcessor processor_;
  std::int32_t unknown_;
  std::array<std::int32_t, 256> byte_ids_{};  // -1: none
};

}  // namespace

std::unique_ptr<const Backend> make_character_bpe(const BpeVocabulary& vocabulary, const std::string& where) {
  return std::make_unique<CharacterBpe>(vocabulary, where);
}

}  // namespace rometrace
