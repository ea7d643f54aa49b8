#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "rometrace/text/added_tokens.hpp"

namespace rometrace {

/// One entry of "added_tokens" (tokenizer.json) or "added_tokens_decoder" (tokenizer_config.json), whose id is given
/// apart. Flags that are left out are false; "normalized" is then the opposite of "special". Throws Error: no text, a
/// flag that is no boolean, "single_word".
AddedToken read_added_token(const nlohmann::json& entry, const nlohmann::json& id, const std::string& where);

/// A token's id. Throws Error unless it is a whole number in the range of ids.
std::int32_t read_token_id(const nlohmann::json& value, const std::string& where, std::string_view token);

}  // namespace rometrace
