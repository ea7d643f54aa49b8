#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "rometrace/text/bpe_vocabulary.hpp"

namespace rometrace {

/// The rules of a tokenizer.json, which is BPE, byte-level or converted from SentencePiece; without its prefix. Throws
/// Error naming the field of what would change the tokens and is not understood.
BpeRules read_rules(const nlohmann::json& root, const std::string& where);

/// The ids that a post-processor puts before a text. Throws Error naming what is not understood.
std::vector<std::int32_t> prefix_of(const nlohmann::json& post_processor, const std::string& where);

}  // namespace rometrace
