#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "rometrace/text/tokenizer.hpp"
#include "rometrace/trace/trace.hpp"

namespace rometrace {

/// The bytes that the token ids of a result stand for; a token may be part of a UTF-8 character.
struct TokenTexts {
  std::vector<std::string> prompt;  ///< [T], the prompt's tokens
  std::string answer;               ///< all its tokens
  std::string prediction;           ///< empty for an id that the tokeniser does not have, as of a padded vocabulary
  std::vector<std::string> other_targets;
  std::optional<std::string> foil;
  std::vector<std::string> counter;  ///< [T], the counter prompt's tokens; none without one
  /// Those that neurons promote or suppress, by id, but for ids that the tokeniser does not have.
  std::map<std::int32_t, std::string> of_neurons = {};
};

/// Looks the ids of `trace` and `prompt` up. Throws Error for an id outside the vocabulary, but for the prediction's and
/// those of neurons.
TokenTexts token_texts(const Trace& trace, const TracePrompt& prompt, const Tokenizer& tokenizer);

}  // namespace rometrace
