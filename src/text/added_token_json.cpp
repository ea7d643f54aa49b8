#include "text/added_token_json.hpp"

#include "rometrace/error.hpp"
#include "text/bpe_tokens.hpp"
#include "text/json_shown.hpp"

namespace rometrace {

using nlohmann::json;

std::int32_t read_token_id(const json& value, const std::string& where, std::string_view token) {
  const bool whole = value.is_number_unsigned() && value.get<std::uint64_t>() < static_cast<std::uint64_t>(kMaxTokens);
  if (!whole) {
    throw Error(where + ": token " + in_quotes(token) + " has the id " + shown(value) +
                "; expected a whole number from 0 to " + std::to_string(kMaxTokens - 1));
  }
  return value.get<std::int32_t>();
}

AddedToken read_added_token(const json& entry, const json& id, const std::string& where) {
  const json content = entry.is_object() ? entry.value("content", json()) : json();
  if (!content.is_string()) {
    throw Error(where + ": \"content\" is " + shown(content) + "; expected the token's text");
  }
  AddedToken token;
  token.content = content.get<std::string>();
  if (token.content.empty()) throw Error(where + ": an added token is empty; expected at least one character");
  const auto flag = [&](const char* name, bool absent) {
    const json value = entry.value(name, json());
    if (value.is_null()) return absent;
    if (value.is_boolean()) return value.get<bool>();
    throw Error(where + ": added token " + in_quotes(token.content) + " has \"" + name + "\": " + shown(value) +
                "; expected true or false");
  };
  token.special = flag("special", false);
  token.normalized = flag("normalized", !token.special);
  token.lstrip = flag("lstrip", false);
  token.rstrip = flag("rstrip", false);
  if (flag("single_word", false)) {
    throw Error(where + ": added token " + in_quotes(token.content) +
                " has \"single_word\": true; expected false; rometrace does not know this option");
  }
  token.id = read_token_id(id, where, token.content);
  return token;
}

}  // namespace rometrace
