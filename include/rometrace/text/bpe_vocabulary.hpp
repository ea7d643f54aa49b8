#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "rometrace/text/added_tokens.hpp"
#include "rometrace/text/pretokenizer.hpp"
#include "rometrace/text/tokenizer_config.hpp"

namespace rometrace {

/// What becomes of a text before and after byte-pair encoding.
struct BpeRules {
  enum class Normalizer { kNone, kNfc };
  enum class FirstSpace {
    kAsItIs,
    kAdded,  ///< a text, and each stretch between added tokens, gets a space unless it begins with one
  };
  enum class WholeParts {
    kMerged,    ///< only merges make tokens
    kAsTokens,  ///< a part that is a token is this token ("ignore_merges")
  };
  Normalizer normalizer = Normalizer::kNone;
  FirstSpace first_space = FirstSpace::kAsItIs;
  std::vector<SplitRule> splits;
  WholeParts whole_parts = WholeParts::kMerged;
  std::vector<std::int32_t> prefix_ids;  ///< go before a prompt
};

/// A byte-level BPE vocabulary as GPT-2's files, or a tokenizer.json, give it. Tokens are written in GPT-2's byte
/// alphabet (one printable character for each byte, a space is "Ġ").
struct BpeVocabulary {
  std::vector<std::string> tokens;                          ///< by id; empty: unused, or only in `added`
  std::vector<std::pair<std::string, std::string>> merges;  ///< in order of rank
  std::vector<AddedToken> added;                            ///< one for each of their ids
  BpeRules rules;
};

/// Reads vocab.json and merges.txt as GPT-2's tokeniser does. Added tokens are <|endoftext|> where the vocabulary has
/// it and those of `config`, whose add_prefix_space and begin-of-text token are heeded. Throws Error: unreadable, not
/// of the format, ids not unique or above 2,097,151, a token outside the byte alphabet, a merge whose parts or result
/// are not in the vocabulary, a tokeniser class with other rules than GPT-2's.
BpeVocabulary read_vocab_and_merges(const std::filesystem::path& vocab_json, const std::filesystem::path& merges_txt,
                                    const TokenizerConfig& config = {});

/// Reads a tokenizer.json of byte-level BPE type: normaliser NFC or none; pre-tokeniser ByteLevel, after Split and
/// Digits where it is a Sequence; added tokens; ignore_merges; the begin-of-text token of its post-processor. The added
/// tokens of `config` and their flags go before the file's. Throws Error naming the field of anything that would change
/// the tokens and is not understood, or where `config` and the file disagree about the first space and the tokeniser's
/// class would not take the file's. "truncation" and "padding" are for batches and are not heeded.
BpeVocabulary read_tokenizer_json(const std::filesystem::path& tokenizer_json, const TokenizerConfig& config = {});

/// The ids that the post-processor of a tokenizer.json puts before a text; empty where there is none, or it adds none.
/// Reads that part of the file alone. Throws Error: not JSON, a post-processor that is not understood.
std::vector<std::int32_t> read_prefix_ids(const std::filesystem::path& tokenizer_json);

}  // namespace rometrace
