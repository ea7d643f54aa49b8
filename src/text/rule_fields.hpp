#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

// How the readers of a tokenizer.json's rules look at its fields. `where` opens the messages.

namespace rometrace {

/// The member `name` of an object. Throws Error, where there is none, or no object.
const nlohmann::json& member(const nlohmann::json& object, std::string_view name, const std::string& where);

/// Throws an Error that says what `field`, which stands in the message as it is, was found to be.
[[noreturn]] void refuse_field(const std::string& where, const std::string& field, const nlohmann::json& found,
                               const std::string& expected);

std::string quoted(const std::string& name);

struct KnownField {
  const char* name;
  std::vector<nlohmann::json> allowed;  ///< empty: any value
};

/// Refuses each field of `object` that is not known or has a value that would change the tokens.
void check_fields(const nlohmann::json& object, const std::string& where, const std::string& prefix,
                  const std::vector<KnownField>& known);

/// "model", which is to be BPE; with the values that two of its fields may have.
void check_bpe(const nlohmann::json& root, const std::string& where, const std::vector<nlohmann::json>& byte_fallback,
               const std::vector<nlohmann::json>& ignore_merges);

bool has_type(const nlohmann::json& stage, std::string_view type);

/// A stage of the normaliser, say, and its name ("normalizer.normalizers[0]").
using Stage = std::pair<std::string, const nlohmann::json*>;

/// The stages of a Sequence, or the one stage that there is.
std::vector<Stage> stages_of(const nlohmann::json& stage, const std::string& name, const char* member_name,
                             const std::string& where);

bool read_flag(const nlohmann::json& object, const char* name, const std::string& where, const std::string& prefix);

}  // namespace rometrace
