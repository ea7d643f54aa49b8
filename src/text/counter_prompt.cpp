#include "rometrace/text/counter_prompt.hpp"

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <span>
#include <utility>

#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/text/likeness.hpp"
#include "rometrace/text/subject.hpp"

namespace rometrace {
namespace {

using Ids = std::vector<std::int32_t>;

Ids encode_counter(const Tokenizer& tokenizer, const std::string& prompt, SpecialTokens special) {
  try {
    return ids_of(tokenizer.encode_prompt(prompt, special));
  } catch (const Error& error) {
    throw Error("counter prompt " + in_quotes(prompt, kShownTextBytes) + ": " + error.what());
  }
}

std::string number_of(std::size_t tokens) {
  return std::to_string(tokens) + (tokens == 1 ? " token" : " tokens");
}

/// Shows the tokens of two prompts around what differs.
class Difference {
 public:
  Difference(const Tokenizer& tokenizer, const Ids& one, const Ids& other) : tokenizer_(tokenizer) {
    const auto shorter = std::min(one.size(), other.size());
    while (front_ < shorter && one[front_] == other[front_]) ++front_;
    while (back_ < shorter - front_ && one[one.size() - 1 - back_] == other[other.size() - 1 - back_]) ++back_;
  }

  std::string shown(const Ids& ids) const {
    constexpr std::size_t kBeside = 2, kInside = 16;  // tokens shown of what is common on each side, of what differs
    const auto begin = front_ > kBeside ? front_ - kBeside : 0;
    const auto end = ids.size() - (back_ > kBeside ? back_ - kBeside : 0);
    const auto differing = ids.size() - front_ - back_;
    std::string text = begin > 0 ? "…" : "";
    for (std::size_t i = begin; i < end; ++i) {
      text += text.empty() ? "" : ", ";
      if (differing > kInside && i == front_ + kInside) {
        text += "…";
        i += differing - kInside - 1;
      } else {
        text += in_quotes(tokenizer_.token_bytes(ids[i]));
      }
    }
    return "(" + text + (end < ids.size() ? ", …)" : ")");
  }

 private:
  const Tokenizer& tokenizer_;
  std::size_t front_ = 0;  // tokens that both have at the front
  std::size_t back_ = 0;   // and at the back
};

}  // namespace

CounterPrompt counter_prompt_of_subject(const Tokenizer& tokenizer, std::string_view prompt, const ByteRange& place,
                                        std::string_view counter_subject, SpecialTokens special) {
  const auto tokens = tokenizer.encode_prompt(prompt, special);
  const auto range = tokens_of_subject(tokens, prompt, place);
  const auto subject = prompt.substr(place.begin, place.size());
  const auto name = in_quotes(counter_subject, kShownTextBytes);
  if (counter_subject.empty()) {
    throw Error("the counter subject is empty; expected what is to stand in place of " +
                in_quotes(subject, kShownTextBytes));
  }
  CounterPrompt counter{std::string(prompt), std::string(counter_subject), {}};
  counter.prompt.replace(place.begin, place.size(), counter_subject);
  counter.token_ids = encode_counter(tokenizer, counter.prompt, special);
  const auto ids = ids_of(tokens);
  const auto unlike = unlike_words(counter_subject, subject);
  if (counter.token_ids == ids) {
    throw Error(name + unlike + " in place of " + in_quotes(subject, kShownTextBytes) +
                " leaves the prompt's tokens as they are; expected another subject");
  }
  const Difference difference(tokenizer, ids, counter.token_ids);
  if (counter.token_ids.size() != ids.size()) {
    throw Error(name + unlike + " makes the prompt " + number_of(counter.token_ids.size()) + " " +
                difference.shown(counter.token_ids) + ", the prompt itself has " + std::to_string(ids.size()) + " " +
                difference.shown(ids) + "; expected the same number");
  }
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const bool within_the_subject = range.begin <= i && i < range.end;
    if (within_the_subject || ids[i] == counter.token_ids[i]) continue;
    throw Error(name + unlike + " also changes the token " + in_quotes(tokenizer.token_bytes(ids[i])) + " to " +
                in_quotes(tokenizer.token_bytes(counter.token_ids[i])) + ", which is not of the subject " +
                in_quotes(subject, kShownTextBytes) + ": the tokens are " + difference.shown(counter.token_ids) +
                ", the prompt's own " + difference.shown(ids) + "; expected no other tokens to change");
  }
  return counter;
}

CounterPrompt counter_prompt_of_text(const Tokenizer& tokenizer, std::string_view prompt,
                                     std::string_view counter_prompt, SpecialTokens special) {
  const auto ids = ids_of(tokenizer.encode_prompt(prompt, special));
  if (counter_prompt.empty())
    throw Error("the counter prompt is empty; expected a text with as many tokens as the prompt");
  CounterPrompt counter{std::string(counter_prompt), std::nullopt, {}};
  counter.token_ids = encode_counter(tokenizer, counter.prompt, special);
  const auto unlike = unlike_words(counter_prompt, prompt);
  if (counter.token_ids == ids) {
    throw Error("the counter prompt" + unlike + " has the prompt's own tokens; expected at least one that differs");
  }
  if (counter.token_ids.size() != ids.size()) {
    const Difference difference(tokenizer, ids, counter.token_ids);
    throw Error("the counter prompt" + unlike + " has " + number_of(counter.token_ids.size()) + " " +
                difference.shown(counter.token_ids) + ", the prompt " + std::to_string(ids.size()) + " " +
                difference.shown(ids) + "; expected the same number");
  }
  return counter;
}

}  // namespace rometrace
