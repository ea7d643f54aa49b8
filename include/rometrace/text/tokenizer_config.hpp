#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "rometrace/text/added_tokens.hpp"
#include "rometrace/text/spaces.hpp"

namespace rometrace {

/// What the small files beside a vocabulary say of its use: tokenizer_config.json, and where that lists no added
/// tokens, special_tokens_map.json and added_tokens.json; config.json for the model's type.
struct TokenizerConfig {
  std::string where;            ///< opens messages about switches: tokenizer_config.json's path
  std::string class_where;      ///< of the file that names the class, or else the model's type, which may
  std::string bos_where;        ///< of the file that names the begin-of-text token; empty: none does
  std::string added_where;      ///< of the file that lists the added tokens
  std::string tokenizer_class;  ///< without "Fast"; empty: not given
  std::string model_type;       ///< of config.json; empty: not given
  std::optional<bool> add_bos_token;
  std::optional<bool> add_prefix_space;
  std::optional<bool> legacy;  ///< of Llama's tokenisers: each part between special tokens gets its space
  bool lower_case = false;     ///< "do_lower_case"
  std::optional<std::string> bos_token;
  std::vector<std::string> named;  ///< begin, end, unknown, padding, ...: special wherever the vocabulary has them
  std::vector<std::string> extra;  ///< more special tokens, unless another file says that they are none
  std::vector<AddedToken> added;   ///< with their ids
};

/// Reads what is there of these files; all may be absent. Throws Error: not JSON, a field of the wrong type, an option
/// of an added token that is not known.
TokenizerConfig read_tokenizer_config(const std::filesystem::path& folder);

/// Whether the begin-of-text token goes before a prompt: "add_bos_token", else as the tokeniser's class has it (Llama's
/// and Gemma's do); the class of a folder that names none follows from the model's type.
bool begins_with_bos(const TokenizerConfig& config);

/// The rule of LlamaTokenizer of transformers 5 and of its like, which keep all white space; nothing for another class,
/// and for Mistral's models, which come with Llama's class and are read as their own files say.
std::optional<FirstSpace> first_space_of_class(const TokenizerConfig& config);

/// The begin-of-text token's text: "bos_token", else as the tokeniser's class has it.
std::string bos_token_of(const TokenizerConfig& config);

/// Throws the Error of a begin-of-text token that is not in the vocabulary.
[[noreturn]] void refuse_bos(const TokenizerConfig& config, const std::string& bos);

}  // namespace rometrace
