#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "rometrace/text/subject.hpp"
#include "rometrace/text/tokenizer.hpp"

namespace rometrace {

/// A prompt whose tokens take the places of another's, one for one (arXiv 2309.16042).
struct CounterPrompt {
  std::string prompt;
  std::optional<std::string> subject;   ///< what stands in the subject's place, where only that was given
  std::vector<std::int32_t> token_ids;  ///< [T], as many as the prompt's, not all the same
};

/// `prompt` with `counter_subject` in place of its bytes `subject`. Throws Error, in one line that shows both
/// tokenisations, if that has another number of tokens or other tokens beside the subject's (see tokens_of_subject), or
/// changes none; also where `counter_subject` is empty or a text cannot be tokenised.
CounterPrompt counter_prompt_of_subject(const Tokenizer& tokenizer, std::string_view prompt, const ByteRange& subject,
                                        std::string_view counter_subject,
                                        SpecialTokens special = SpecialTokens::kAsText);

/// `counter_prompt` for `prompt`, wherever they differ. Throws Error likewise for another number of tokens, and where
/// the tokens are the same.
CounterPrompt counter_prompt_of_text(const Tokenizer& tokenizer, std::string_view prompt,
                                     std::string_view counter_prompt, SpecialTokens special = SpecialTokens::kAsText);

}  // namespace rometrace
