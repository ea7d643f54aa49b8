#include "rometrace/study/answer_rule.hpp"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <utility>

#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/text/utf8.hpp"
#include "rometrace/trace/clean_run.hpp"

namespace rometrace {
namespace {

// Whether this token does not go on with the word before it.
bool begins_anew(const Tokenizer& tokenizer, std::int32_t id) {
  const auto text = tokenizer.token_bytes(id);
  const auto first = text.empty() ? ' ' : static_cast<unsigned char>(text.front());
  return first < 0x80 && std::isalnum(first) == 0;
}

}  // namespace

AnswerRule AnswerRule::parse(std::string_view text) {
  constexpr std::int64_t kMost = 1024;
  if (text == "token") return {Which::kToken};
  if (text == "word") return {Which::kWord};
  if (text == "object") return {Which::kObject};
  constexpr std::string_view kGreedy = "greedy:";
  std::int64_t tokens = 0;
  if (text.starts_with(kGreedy)) {
    const auto* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data() + kGreedy.size(), end, tokens);
    if (error == std::errc() && stop == end && tokens >= 1 && tokens <= kMost) return {Which::kGreedy, tokens};
  }
  throw Error(in_quotes(text) + "; expected token, word, object, or greedy:K with K tokens, such as greedy:3");
}

std::string to_string(const AnswerRule& rule) {
  switch (rule.which) {
    case AnswerRule::Which::kToken:
      return "token";
    case AnswerRule::Which::kWord:
      return "word";
    case AnswerRule::Which::kGreedy:
      return "greedy:" + std::to_string(rule.tokens);
    case AnswerRule::Which::kObject:
      return "object";
  }
  return "unknown";
}

std::optional<std::int64_t> asked_tokens(const AnswerRule& rule, std::int64_t object_tokens) {
  switch (rule.which) {
    case AnswerRule::Which::kToken:
      return 1;
    case AnswerRule::Which::kWord:
      return std::nullopt;
    case AnswerRule::Which::kGreedy:
      return rule.tokens;
    case AnswerRule::Which::kObject:
      return std::max<std::int64_t>(1, object_tokens);
  }
  return std::nullopt;
}

std::vector<std::vector<std::int32_t>> say_together(const Decoder& model, const Tokenizer& tokenizer,
                                                    std::span<const TracePrompt* const> prompts, const AnswerRule& rule,
                                                    std::span<const std::int64_t> object_tokens, std::stop_token stop) {
  const bool word = rule.which == AnswerRule::Which::kWord;
  std::vector<std::int64_t> most;
  for (const auto of_object : object_tokens) {
    most.push_back(asked_tokens(rule, of_object).value_or(AnswerRule::kLongestWord));
  }
  const auto ends = [&](std::int32_t id) {
    return id >= tokenizer.size() || is_special_token(tokenizer, id) || (word && begins_anew(tokenizer, id));
  };
  return greedy_answers(model, prompts, most, ends, std::move(stop));
}

std::vector<std::int32_t> say(const Decoder& model, const Tokenizer& tokenizer, const TracePrompt& prompt,
                              const AnswerRule& rule, std::int64_t object_tokens, std::stop_token stop) {
  const TracePrompt* one = &prompt;
  return say_together(model, tokenizer, {&one, 1}, rule, {&object_tokens, 1}, std::move(stop)).front();
}

void check_answer(const Tokenizer& tokenizer, const Trace& trace) {
  for (const auto id : trace.answer_ids) {
    if (id < tokenizer.size()) continue;
    throw Error("the model's answer is token " + std::to_string(id) + ", which its tokeniser does not have (0 to " +
                std::to_string(tokenizer.size() - 1) + "); --target follows another answer");
  }
}

}  // namespace rometrace
