#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "rometrace/text/bpe_vocabulary.hpp"

namespace rometrace {

/// Whether a tokenizer.json writes spaces as "▁", and so was converted from a SentencePiece model.
bool is_converted(const nlohmann::json& root);

/// The rules of such a file, which is BPE with byte_fallback; without its prefix. Throws Error naming the field of what
/// would change the tokens and is not understood.
BpeRules read_converted_rules(const nlohmann::json& root, const std::string& where);

}  // namespace rometrace
