#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "rometrace/model/decoder.hpp"
#include "rometrace/text/tokenizer.hpp"
#include "rometrace/trace/trace.hpp"

namespace rometrace {

/// How much of the model's answer is followed, and compared with the object.
struct AnswerRule {
  enum class Which {
    kToken,   ///< its first token
    kWord,    ///< its tokens up to the end of the word, 16 at most
    kGreedy,  ///< `tokens` tokens
    kObject,  ///< as many as the object has; a fact without one: its first token
  };
  static constexpr std::int64_t kLongestWord = 16;

  Which which = Which::kToken;
  std::int64_t tokens = 1;  ///< of kGreedy

  /// Reads "token", "word", "greedy:K" and "object". Throws Error.
  static AnswerRule parse(std::string_view text);
};
std::string to_string(const AnswerRule& rule);  ///< reads back

/// Tokens that the answer has unless the model ends its text before; none for a word, which ends where it ends.
/// `object_tokens` as for say_together().
std::optional<std::int64_t> asked_tokens(const AnswerRule& rule, std::int64_t object_tokens);

/// The answers that the model gives by the rule to prompts of one length, `object_tokens` of each being those of
/// kObject (0: none). Throws as greedy_answers() does.
std::vector<std::vector<std::int32_t>> say_together(const Decoder& model, const Tokenizer& tokenizer,
                                                    std::span<const TracePrompt* const> prompts, const AnswerRule& rule,
                                                    std::span<const std::int64_t> object_tokens,
                                                    std::stop_token stop = {});

/// The same of one prompt.
std::vector<std::int32_t> say(const Decoder& model, const Tokenizer& tokenizer, const TracePrompt& prompt,
                              const AnswerRule& rule, std::int64_t object_tokens = 0, std::stop_token stop = {});

/// Throws Error where the answer that is followed has a token that the tokeniser does not have: a model's vocabulary
/// may be padded with ids that stand for nothing. What the model predicts beside an answer that was asked for may be
/// one.
void check_answer(const Tokenizer& tokenizer, const Trace& trace);

}  // namespace rometrace
