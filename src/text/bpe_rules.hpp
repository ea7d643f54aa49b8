#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "rometrace/text/bpe_vocabulary.hpp"

namespace rometrace {

/// The member `name` of an object. Throws Error, where there is none, or no object.
const nlohmann::json& member(const nlohmann::json& object, std::string_view name, const std::string& where);

/// The rules of a tokenizer.json, which is byte-level BPE; without its prefix. Throws Error naming the field of what
/// would change the tokens and is not understood.
BpeRules read_rules(const nlohmann::json& root, const std::string& where);

/// The ids that a post-processor puts before a text. Throws Error naming what is not understood.
std::vector<std::int32_t> prefix_of(const nlohmann::json& post_processor, const std::string& where);

}  // namespace rometrace
