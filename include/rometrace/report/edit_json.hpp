#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "rometrace/edit/edited_fact.hpp"
#include "rometrace/text/tokenizer.hpp"

namespace rometrace {

/// What an edit file and its record say of one request (share/rometrace/schema/edit-1.schema.json): prompt, subject,
/// objects, every evaluation of the loss, norms, and the measures before and after.
nlohmann::ordered_json to_json(const EditedFact& fact, const Tokenizer& tokenizer);

/// "took; leaks to 2 of 10 neighbours"
std::string verdict_text(const EditedFact& fact);

}  // namespace rometrace
