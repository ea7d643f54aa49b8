#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "rometrace/text/added_tokens.hpp"
#include "rometrace/text/pretokenizer.hpp"
#include "rometrace/text/spaces.hpp"
#include "rometrace/text/tokenizer_config.hpp"

namespace rometrace {

/// What becomes of a text before and after byte-pair encoding.
struct BpeRules {
  /// How tokens are written.
  enum class Alphabet {
    kBytes,       ///< each byte as one printable character, a space "Ġ" (see byte_alphabet.hpp)
    kCharacters,  ///< as text, but a space "▁"; bytes of characters that have no token "<0x0A>"
  };
  enum class Normalizer {
    kNone,
    kNfc,
    kMarkedSpaces,           ///< each space becomes "▁"
    kMarkedSpacesBehindOne,  ///< and a stretch between tokens that are not normalised gets another in front
  };
  enum class WholeParts {
    kMerged,    ///< only merges make tokens
    kAsTokens,  ///< a part that is a token is this token ("ignore_merges")
  };
  Alphabet alphabet = Alphabet::kBytes;
  Normalizer normalizer = Normalizer::kNone;
  FirstSpace first_space = FirstSpace::kNowhere;  ///< put behind the normaliser
  std::vector<SplitRule> splits;                  ///< of kBytes
  WholeParts whole_parts = WholeParts::kMerged;   ///< of kBytes
  bool splits_words = false;                      ///< of kCharacters: each "▁" begins a part that is merged alone
  bool decoding_drops_first_space = false;        ///< of kCharacters
  std::vector<std::int32_t> prefix_ids;           ///< go before a prompt
};

/// Two tokens that stand side by side become one.
struct Merge {
  std::int32_t left = 0;
  std::int32_t right = 0;
  std::int32_t result = 0;
};

/// A BPE vocabulary as GPT-2's files, or a tokenizer.json, give it.
struct BpeVocabulary {
  std::vector<std::string> tokens;  ///< by id, in the rules' alphabet; empty: unused, or only
                                    ///< in `added`
  std::vector<Merge> merges;        ///< in order of rank
  std::vector<AddedToken> added;    ///< one for each of their ids
  BpeRules rules;
};

/// Reads vocab.json and merges.txt as GPT-2's tokeniser does. Added tokens are <|endoftext|> where the vocabulary has
/// it and those of `config`, whose add_prefix_space and begin-of-text token are heeded. Throws Error: unreadable, not
/// of the format, ids not unique or above 2,097,151, a token outside the byte alphabet, a merge whose parts or result
/// are not in the vocabulary, a tokeniser class with other rules than GPT-2's.
BpeVocabulary read_vocab_and_merges(const std::filesystem::path& vocab_json, const std::filesystem::path& merges_txt,
                                    const TokenizerConfig& config = {});

/// Reads a tokenizer.json of BPE type. Byte-level: normaliser NFC or none; pre-tokeniser ByteLevel, after Split and
/// Digits where it is a Sequence; ignore_merges. Converted from SentencePiece, with byte_fallback: a normaliser or a
/// pre-tokeniser (Metaspace) that writes spaces as "▁"; Llama's class in `config` has a rule of its own for the first
/// one, which goes before the file's (see first_space_of_class). Both: added tokens; the begin-of-text token of the
/// post-processor (but GPT-NeoX's class puts nothing before a prompt, and Code Llama's always its begin-of-text token).
/// The added tokens of `config` and their flags go before the file's. Throws Error naming the field of anything that
/// would change the tokens and is not understood, or where `config` and a byte-level file disagree about the first
/// space and the tokeniser's class would not take the file's. "truncation" and "padding" are for batches and are not
/// heeded.
BpeVocabulary read_tokenizer_json(const std::filesystem::path& tokenizer_json, const TokenizerConfig& config = {});

/// The same, but nothing where the file names another model than BPE (Unigram, say).
std::optional<BpeVocabulary> read_tokenizer_json_if_bpe(const std::filesystem::path& tokenizer_json,
                                                        const TokenizerConfig& config = {});

/// The same of what another kind of file says of a byte-level vocabulary: tokens by id, merges "left right" in order of
/// rank, added tokens. `where` opens the messages. Throws Error as the others do.
BpeVocabulary to_bpe_vocabulary(std::vector<std::string> tokens, const std::vector<std::string_view>& merges,
                                const std::vector<AddedToken>& added, BpeRules rules, const std::string& where);

/// The ids that the post-processor of a tokenizer.json puts before a text; empty where there is none, or it adds none.
/// Reads that part of the file alone. Throws Error: not JSON, a post-processor that is not understood, an id that is
/// not below `vocabulary_size`.
std::vector<std::int32_t> read_prefix_ids(const std::filesystem::path& tokenizer_json, std::size_t vocabulary_size);

}  // namespace rometrace
