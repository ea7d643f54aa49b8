#include "cli/commands/edit_task.hpp"

#include <algorithm>
#include <optional>

#include "cli/options/option_values.hpp"
#include "rometrace/edit/request.hpp"
#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/text/strip.hpp"
#include "rometrace/text/subject.hpp"
#include "rometrace/text/utf8.hpp"

namespace rometrace::cli {
namespace {

constexpr std::size_t kNeighbours = 10;

// Unlike a trace, which takes the first place and says so, an edit asks which is meant.
PlacedSubject place_in_prompt(const Options& run) {
  const auto place = [&] { return place_subject(run.prompt, run.subject, run.subject_at); };
  auto choice = run.subject_at ? named("--subject-at", place) : place();
  if (choice.occurrences > 1) {
    throw Error("the subject " + in_quotes(run.subject) + " is in the prompt " + std::to_string(choice.occurrences) +
                " times; --subject-at, or {} in its place, says which is meant");
  }
  return std::move(choice.placed);
}

void refuse_broken(const char* option, const std::string& text) {
  if (find_invalid_utf8(text)) {
    throw Error(std::string(option) + ": " + in_quotes(text) + " is not UTF-8; expected whole characters");
  }
}

struct Found {
  const Fact* fact = nullptr;
  std::size_t wording = 0;
};

std::optional<Found> find_fact(const Facts& facts, const PlacedSubject& placed) {
  for (const auto& record : facts.records) {
    const auto* fact = std::get_if<Fact>(&record);
    if (fact == nullptr) continue;
    for (std::size_t i = 0; i < fact->wordings.size(); ++i) {
      const auto& wording = fact->wordings[i];
      if (wording.prompt == placed.prompt && wording.subject.begin == placed.subject.begin) return Found{fact, i};
    }
  }
  return std::nullopt;
}

std::vector<std::string> neighbours_of(const Found& found, const Facts& facts) {
  std::vector<std::string> same_object, others;
  for (const auto& record : facts.records) {
    const auto* fact = std::get_if<Fact>(&record);
    if (fact == nullptr || fact == found.fact || fact->relation != found.fact->relation || !fact->relation) continue;
    if (fact->subject == found.fact->subject) continue;
    const auto& wordings = fact->wordings;
    auto& list = fact->object == found.fact->object ? same_object : others;
    if (list.size() < kNeighbours) list.push_back(wordings[std::min(found.wording, wordings.size() - 1)].prompt);
  }
  return same_object.empty() ? others : same_object;
}

}  // namespace

std::vector<std::int32_t> true_ids_of(const EditTask& task, const Tokenizer& tokenizer) {
  return task.true_ids.empty() ? ids_of(encode_answer(tokenizer, spaced_object(task.true_object))) : task.true_ids;
}

TracePrompt trace_prompt_of(const EditTask& task, const Tokenizer& tokenizer) {
  TracePrompt prompt;
  const auto tokens = tokenizer.encode_prompt(task.prompt);
  prompt.prompt = task.prompt;
  prompt.subject = task.prompt.substr(task.subject_span.begin, task.subject_span.size());
  prompt.token_ids = ids_of(tokens);
  prompt.subject_span = task.subject_span;
  prompt.subject_range = tokens_of_subject(tokens, task.prompt, task.subject_span);
  return prompt;
}

EditTask read_task(const EditOptions& options, const Facts* facts) {
  const auto& run = options.run;
  if (run.prompt.empty()) throw Error("--prompt is empty; expected the text that the model continues");
  refuse_broken("--subject", run.subject);
  refuse_broken("--prompt", run.prompt);
  if (strip(run.subject).empty())
    throw Error("--subject is empty; expected the part of the prompt that the fact is of");
  if (!options.target || strip(*options.target).empty()) throw Error("--target is empty; expected the new object");
  refuse_broken("--target", *options.target);
  if (options.true_object && strip(*options.true_object).empty()) {
    throw Error("--true is empty; expected the old object");
  }
  const auto placed = place_in_prompt(run);
  EditTask task;
  task.prompt = placed.prompt;
  task.subject_span = placed.subject;
  task.target = *options.target;
  task.true_object = options.true_object.value_or("");
  task.paraphrases = options.paraphrases;
  task.neighbours = options.neighbours;
  if (facts == nullptr) return task;
  const auto found = find_fact(*facts, placed);
  if (!found) return task;
  if (task.true_object.empty()) task.true_object = found->fact->object.value_or("");
  if (task.paraphrases.empty()) {
    for (const auto& wording : found->fact->wordings) {
      if (wording.prompt != task.prompt) task.paraphrases.push_back(wording.prompt);
    }
  }
  if (task.neighbours.empty()) task.neighbours = neighbours_of(*found, *facts);
  return task;
}

EditTask task_of(const Fact& fact) {
  EditTask task;
  task.prompt = fact.wordings.front().prompt;
  task.subject_span = fact.wordings.front().subject;
  task.target = fact.new_object.value();
  task.true_object = fact.object.value();
  task.paraphrases = fact.paraphrases;
  task.neighbours = fact.neighbours;
  return task;
}

}  // namespace rometrace::cli
