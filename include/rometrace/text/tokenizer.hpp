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

/// One token of a text and the bytes [begin, end) of the text that it covers; none (begin = end) where it comes from no
/// byte: a token put before a text, the space put before its first word.
struct Token {
  std::int32_t id = 0;
  std::size_t begin = 0;
  std::size_t end = 0;
};

/// The tokens' ids, in their order.
std::vector<std::int32_t> ids_of(std::span<const Token> tokens);

/// What becomes of text that spells a special token such as <|endoftext|>.
enum class SpecialTokens {
  kAsText,  ///< ordinary characters, split like any others (the default: a prompt cannot inject control tokens)
  kParse,   ///< the special token's id, as Hugging Face's tokenisers do by default; the leftmost, then the longest
            ///< counts
};

/// Text <-> token ids, as Hugging Face's transformers does it. SentencePiece does the work, for byte-level BPE (GPT-2)
/// too. A tokenizer.json gives the ids that Hugging Face's tokenizers gives for it; what transformers' class puts in
/// place of the file's rules is heeded in files converted from SentencePiece (Llama's), while a byte-level file's own
/// splits count, which are those that its model was trained with, though GPT2Tokenizer and others of transformers 5.23
/// leave them out. A SentencePiece model gives the ids of sentencepiece under the rules of tokenizer_config.json. Added
/// tokens that are not special (runs of spaces, say) are always found in a text. Immutable once loaded; safe to use
/// from several threads.
class Tokenizer {
 public:
  /// Loads the tokeniser of a model folder: tokenizer.json (BPE, byte-level or converted from SentencePiece), as
  /// transformers 5 does; else vocab.json + merges.txt; else a SentencePiece model (tokenizer.model, spiece.model,
  /// sentencepiece.bpe.model), which also goes before a tokenizer.json that is not BPE. What tokenizer_config.json says
  /// of the tokens is heeded or refused by name; where that file names no class, config.json's "model_type" does. Or
  /// that of a GGUF file: byte-level BPE, whose splits the file names (tokenizer.ggml.pre), or SentencePiece's BPE.
  /// Throws Error.
  static Tokenizer load(const std::filesystem::path& model);

  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  /// Tokens of `text`, a piece of text by itself: without begin-of-text token. For byte-level BPE without normaliser
  /// the ranges tile the text. A normaliser (Unicode's NFC, a SentencePiece model's) may change it: each token that
  /// comes from a changed character covers all of it, a token that is found with the white space around it covers that
  /// too, the space put before a text covers nothing, and white space that is dropped belongs to no token. Throws Error
  /// if `text` is not UTF-8 (names the byte), has a byte without a token, or is longer than 256 MiB.
  std::vector<Token> encode(std::string_view text, SpecialTokens special = SpecialTokens::kAsText) const;

  /// Tokens of a prompt: those of prefix_ids() with the empty range [0, 0), then encode(text, special). A text that
  /// spells the begin-of-text token itself gets another one, as in transformers. Throws Error as encode() does.
  std::vector<Token> encode_prompt(std::string_view text, SpecialTokens special = SpecialTokens::kAsText) const;

  /// The ids that go before every prompt: the begin-of-text token of models that were trained with it (Llama, Gemma,
  /// OPT, ...), else none. Where the folder has a tokenizer.json, its post-processor or the tokeniser's class says it,
  /// as in transformers 5.23, which does not heed "add_bos_token" then; elsewhere tokenizer_config.json's
  /// "add_bos_token" does, else the documented default of the tokeniser's class. A token that the same rules put behind
  /// a text is left off: a trace asks for the next token.
  std::span<const std::int32_t> prefix_ids() const;

  /// The bytes that the tokens stand for. For byte-level BPE, decode(encode(text)) == text for every UTF-8 text that no
  /// normaliser changes, special tokens stand for their own text, and an id that no token has for nothing. A converted
  /// tokenizer.json decodes by its decoder. SentencePiece models decode as sentencepiece does: control pieces stand for
  /// nothing, byte pieces that make no character for U+FFFD. Throws Error for an id outside the vocabulary.
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

/// Tokens of a text as the answer to a prompt, which it follows. Tokenisers that put a space before every text (many
/// SentencePiece models) take " trumpet" and "trumpet" for the same. Throws Error as Tokenizer::encode does.
std::vector<Token> encode_answer(const Tokenizer& tokenizer, std::string_view text);

/// Whether the token is <|endoftext|> or the like: what it spells would be other tokens as text. Throws Error for an id
/// outside the vocabulary.
bool is_special_token(const Tokenizer& tokenizer, std::int32_t id);

}  // namespace rometrace
