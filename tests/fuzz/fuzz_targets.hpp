#pragma once

#include <array>
#include <cstddef>
#include <span>

// What the fuzzers drive, one function for each kind of file that is read. Each reads any bytes as such a file, and
// then uses what was read. Error is the promised answer to bytes that cannot be used; whatever else is thrown, a
// message of more than one line, and a result that breaks its contract end the program: they are findings.

namespace rometrace::fuzzing {

void safetensors(std::span<const std::byte> data);
void torch_file(std::span<const std::byte> data);

/// The first byte says what the others are: an even one tokenizer.json, an odd one vocab.json, a NUL, merges.txt.
void tokenizer(std::span<const std::byte> data);

/// What lies beside a vocabulary, which the first byte chooses: SentencePiece, vocab.json and merges.txt,
/// tokenizer.json. The others are, with a NUL after each, tokenizer_config.json, special_tokens_map.json,
/// added_tokens.json, config.json and members that go into tokenizer.json. Where one is empty, there is no such file.
void tokenizer_config(std::span<const std::byte> data);
void sentencepiece(std::span<const std::byte> data);
void facts(std::span<const std::byte> data);  ///< JSON, JSON Lines and CSV are told by their content
void config(std::span<const std::byte> data);
void edit_file(std::span<const std::byte> data);
void gguf(std::span<const std::byte> data);  ///< its tensors, its config and its tokeniser

struct Target {
  const char* name;  ///< and the folder of its corpus
  void (*run)(std::span<const std::byte> data);
};

inline constexpr std::array<Target, 9> kTargets{{
    {"safetensors", safetensors},
    {"torch_file", torch_file},
    {"tokenizer", tokenizer},
    {"tokenizer_config", tokenizer_config},
    {"sentencepiece", sentencepiece},
    {"facts", facts},
    {"config", config},
    {"edit_file", edit_file},
    {"gguf", gguf},
}};

}  // namespace rometrace::fuzzing
