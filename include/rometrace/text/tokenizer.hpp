#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace rometrace {

/// One token of a text and the bytes [begin, end) of the text that it covers.
struct Token {
  std::int32_t id = 0;
  std::size_t begin = 0;
  std::size_t end = 0;
};

/// What becomes of text that spells a special token such as <|endoftext|>.
enum class SpecialTokens {
  kAsText,  ///< ordinary characters, split like any others (the default: a prompt cannot inject control tokens)
  kParse,   ///< the special token's id, as Hugging Face's tokenisers do by default; the leftmost, then the longest
            ///< counts. Without effect for SentencePiece models, which never take control pieces from text
};

/// Text <-> token ids. SentencePiece does the work, for byte-level BPE (GPT-2) too; this class is the only place that
/// knows it. Byte-level BPE gives the ids of Hugging Face's tokenizers, a SentencePiece model those of sentencepiece.
/// No begin- or end-of-text token is added. Immutable once loaded; safe to use from several threads.
class Tokenizer {
 public:
  /// Loads the tokeniser of a model folder: vocab.json + merges.txt; else a SentencePiece model (tokenizer.model,
  /// spiece.model, sentencepiece.bpe.model), which goes before the tokenizer.json that was converted from it; else
  /// tokenizer.json (byte-level BPE). Throws Error.
  static Tokenizer load(const std::filesystem::path& folder);

  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  /// Tokens of `text`, in order. For byte-level BPE the ranges tile the text. A SentencePiece model may normalise: each
  /// piece that comes from a character (its byte pieces, say) covers all of it, the space put before a text covers
  /// nothing, and white space that is dropped belongs to no token. Throws Error if `text` is not UTF-8 (names the
  /// byte), has a byte without a token, or is longer than 256 MiB.
  std::vector<Token> encode(std::string_view text, SpecialTokens special = SpecialTokens::kAsText) const;

  /// The bytes that the tokens stand for. For byte-level BPE, decode(encode(text)) == text for every UTF-8 text,
  /// special tokens stand for their own text, and an id that no token has for nothing. SentencePiece models decode as
  /// sentencepiece does: control pieces stand for nothing, byte pieces that make no character for U+FFFD.
  /// Throws Error for an id outside the vocabulary.
  std::string decode(std::span<const std::int32_t> ids) const;

  /// The bytes of one token as part of a text (a leading space included); may be part of a UTF-8 character. A special
  /// token, a control piece: its name. Throws Error for an id outside the vocabulary.
  std::string token_bytes(std::int32_t id) const;

  /// Number of ids (the largest id + 1).
  std::int32_t size() const;

 private:
  struct Impl;
  explicit Tokenizer(std::unique_ptr<const Impl> impl);
  std::unique_ptr<const Impl> impl_;
};

}  // namespace rometrace
