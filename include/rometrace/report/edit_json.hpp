#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "rometrace/edit/edited_fact.hpp"
#include "rometrace/text/tokenizer.hpp"

namespace rometrace {

/// What an edit file and its record say of one request (share/rometrace/schema/edit-1.schema.json): prompt, subject,
/// objects, every evaluation of the loss, norms, and the measures before and after.
nlohmann::ordered_json to_json(const EditedFact& fact, const Tokenizer& tokenizer);

/// How much is said of each prompt: kFew leaves out probabilities by token and what the model goes on with.
enum class MeasureDetail { kAll, kFew };

/// Its members `measures` and `verdict`.
nlohmann::ordered_json measures_json(const EditedFact& fact, const Tokenizer& tokenizer, MeasureDetail detail);
nlohmann::ordered_json verdict_json(const EditedFact& fact);

/// "took; leaks to 2 of 10 neighbours"
std::string verdict_text(const EditedFact& fact);

}  // namespace rometrace
