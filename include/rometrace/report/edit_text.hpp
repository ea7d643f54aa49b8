#pragma once

#include <optional>
#include <span>
#include <string>

#include "rometrace/edit/edited_fact.hpp"
#include "rometrace/report/terminal.hpp"
#include "rometrace/text/tokenizer.hpp"

namespace rometrace {

/// What an edit did, for a terminal: of each prompt the probability of the new and the old object and what the model
/// says, before and after; then the perplexity and a verdict. `head` is one line on the edit. No line is wider than
/// `style.columns`, and no control character of prompts reaches the terminal. Lines end in "\n".
std::string render_edit(std::span<const EditedFact> facts, const std::string& head,
                        const std::optional<EditPerplexity>& perplexity, const Tokenizer& tokenizer,
                        const TerminalStyle& style);

}  // namespace rometrace
