#include "rometrace/edit/request.hpp"

#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/text/subject.hpp"

namespace rometrace {
namespace {

EditText text_of(const Tokenizer& tokenizer, const std::string& text, const ByteRange& subject) {
  const auto tokens = tokenizer.encode_prompt(text);
  return {ids_of(tokens), static_cast<std::int64_t>(tokens_of_subject(tokens, text, subject).end) - 1};
}

}  // namespace

std::string spaced_object(std::string_view object) {
  return (object.starts_with(' ') ? "" : " ") + std::string(object);
}

EditRequest make_request(const Tokenizer& tokenizer, const std::string& prompt, const ByteRange& subject,
                         const std::string& target, std::span<const std::string> templates,
                         std::int64_t max_positions) {
  EditRequest request;
  request.prompt = prompt;
  request.subject = prompt.substr(subject.begin, subject.end - subject.begin);
  request.subject_span = subject;
  request.target = target;
  request.target_ids = ids_of(encode_answer(tokenizer, target));
  if (request.target_ids.empty() || target == " ") throw Error("the new object is empty; expected a text");

  const auto add = [&](const std::string& text, const ByteRange& place, const std::string& what) {
    request.texts.push_back(text_of(tokenizer, text, place));
    const auto tokens = request.texts.back().token_ids.size() + request.target_ids.size() - 1;
    if (tokens <= static_cast<std::size_t>(max_positions)) return;
    throw Error(what + " has " + std::to_string(tokens) + " tokens with its object; this model takes " +
                std::to_string(max_positions));
  };
  add(prompt, subject, "the prompt");
  for (const auto& each : templates) {
    const auto [text, place] = fill_slot(each, prompt);
    add(text, {place.begin + subject.begin, place.begin + subject.end},
        "the prompt behind the template " + in_quotes(each));
  }
  // What comes after the subject tells its tokens from those of a longer word, and is not run.
  const auto alone = text_of(tokenizer, request.subject + " is a", {0, request.subject.size()});
  request.subject_alone = alone;
  request.subject_alone.token_ids.resize(static_cast<std::size_t>(alone.fact) + 1);
  return request;
}

}  // namespace rometrace
