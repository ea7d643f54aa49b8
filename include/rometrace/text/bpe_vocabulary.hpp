#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace rometrace {

/// A byte-level BPE vocabulary as GPT-2's files give it. Tokens are written in GPT-2's byte alphabet (one printable
/// character for each byte, a space is "Ġ").
struct BpeVocabulary {
  std::vector<std::string> tokens;                            ///< by id; empty: unused, or only in `special`
  std::vector<std::pair<std::string, std::string>> merges;    ///< in order of rank
  std::vector<std::pair<std::string, std::int32_t>> special;  ///< added tokens (plain text, not byte alphabet)
};

/// Reads vocab.json and merges.txt. Special tokens are <|endoftext|> where the vocabulary has it and those of
/// added_tokens.json, tokenizer_config.json and tokenizer.json where they lie beside vocab.json. Throws Error:
/// unreadable, not of the format, ids not unique or above 2,097,151, a token outside the byte alphabet, a merge whose
/// parts or result are not in the vocabulary, a neighbouring tokenizer_config.json or tokenizer.json that asks for
/// other tokens than GPT-2's rules give.
BpeVocabulary read_vocab_and_merges(const std::filesystem::path& vocab_json, const std::filesystem::path& merges_txt);

/// Reads a tokenizer.json of byte-level BPE type with GPT-2's pre-tokeniser. Throws Error naming the field of
/// anything that would change the tokens and is not understood (normaliser, other pre-tokeniser, dropout, ...).
/// "truncation" and "padding" are for batches and are not heeded.
BpeVocabulary read_tokenizer_json(const std::filesystem::path& tokenizer_json);

}  // namespace rometrace
