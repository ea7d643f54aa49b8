#include "cli/commands/trace_command.hpp"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>

#include "cli/exit_status.hpp"
#include "cli/files/report_output.hpp"
#include "cli/machine/terminal_info.hpp"
#include "cli/options/option_values.hpp"
#include "cli/progress_bar.hpp"
#include "cli/session.hpp"
#include "rometrace/error.hpp"
#include "rometrace/report/json.hpp"
#include "rometrace/report/terminal.hpp"
#include "rometrace/stopwatch.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/text/likeness.hpp"
#include "rometrace/text/strip.hpp"
#include "rometrace/text/subject.hpp"
#include "rometrace/text/utf8.hpp"

namespace rometrace::cli {
namespace {

// The prompt with the subject in place; what the options leave open is said.
PlacedSubject read_subject(const Options& options) {
  const auto& [prompt, subject] = std::tie(options.prompt, options.subject);
  if (strip(subject) != subject && !strip(subject).empty()) {
    spdlog::warn("--subject {} has white space at its edge, whose tokens are corrupted too; leave it out",
                 in_quotes(subject));
  }
  const auto place = [&] { return place_subject(prompt, subject, options.subject_at); };
  auto choice = options.subject_at ? named("--subject-at", place) : place();
  if (choice.slot_and_text) {
    spdlog::warn(
        "the prompt has {{}} and, elsewhere, the subject {}; {{}} is taken for its place (where {{}} is text, "
        "give --subject-at)",
        in_quotes(subject));
  } else if (choice.occurrences > 1) {
    spdlog::warn("the subject {} is in the prompt {} times; the first is taken (--subject-at chooses)",
                 in_quotes(subject), choice.occurrences);
  }
  return std::move(choice.placed);
}

TracePrompt read_prompt(const Tokenizer& tokenizer, const Options& options) {
  if (options.prompt.empty()) throw Error("--prompt is empty; expected the text that the model continues");
  if (find_invalid_utf8(options.subject)) {
    throw Error("--subject: " + in_quotes(options.subject) + " is not UTF-8; expected whole characters");
  }
  auto placed = read_subject(options);
  const auto special = options.special_tokens ? SpecialTokens::kParse : SpecialTokens::kAsText;
  const auto tokens = named("--prompt", [&] { return tokenizer.encode_prompt(placed.prompt, special); });
  if (placed.prompt.ends_with(' ')) {
    spdlog::warn(
        "the prompt ends with a space; most models' words begin with theirs, so the answer may be lost; leave it out");
  }
  TracePrompt prompt;
  prompt.prompt = std::move(placed.prompt);
  prompt.subject = options.subject;
  prompt.token_ids = ids_of(tokens);
  prompt.subject_span = placed.subject;
  prompt.subject_range = tokens_of_subject(tokens, prompt.prompt, prompt.subject_span);
  return prompt;
}

// The answers to follow, the foil and what the prompt is corrupted by.
void read_question(const Tokenizer& tokenizer, const Options& options, TraceRecord& record) {
  auto& prompt = record.prompt;
  const auto& targets = options.targets;
  if (targets.size() == 1) {
    if (targets.front().empty()) throw Error("--target is empty; expected the text of an answer");
    prompt.target = ids_of(encode_option(tokenizer, "--target", targets.front()));
    const auto with_space = encode_answer(tokenizer, " " + targets.front()).size();
    if (!targets.front().starts_with(' ') && with_space < prompt.target.size()) {
      spdlog::warn("--target: {} is {} tokens; {}, with a space in front, is {}", in_quotes(targets.front()),
                   prompt.target.size(), in_quotes(" " + targets.front()), with_space);
    }
  } else if (!targets.empty()) {
    prompt.target = {one_token(tokenizer, "--target", targets.front())};
    for (const auto& target : std::span(targets).subspan(1)) {
      const auto id = one_token(tokenizer, "--target", target);
      const auto& others = prompt.other_targets;
      if (id == prompt.target.front() || std::find(others.begin(), others.end(), id) != others.end()) {
        throw Error("--target: " + in_quotes(target) + " is there twice; give each answer once");
      }
      prompt.other_targets.push_back(id);
    }
  }
  if (options.foil) prompt.foil = one_token(tokenizer, "--foil", *options.foil);
  const auto special = options.special_tokens ? SpecialTokens::kParse : SpecialTokens::kAsText;
  if (options.counter_subject) {
    record.counter = named("--counter-subject", [&] {
      return counter_prompt_of_subject(tokenizer, prompt.prompt, prompt.subject_span, *options.counter_subject,
                                       special);
    });
  } else if (options.counter_prompt) {
    record.counter = named("--counter-prompt", [&] {
      return counter_prompt_of_text(tokenizer, prompt.prompt, *options.counter_prompt, special);
    });
  }
  if (record.counter) prompt.counter_ids = record.counter->token_ids;
}

// Skipped if the model's top answer is not the one expected.
Verdict verdict_of(const Options& options, const TokenTexts& texts) {
  const auto& said = options.answer.which == AnswerRule::Which::kToken ? texts.prediction : texts.answer;
  if (!options.expect || strip(said) == strip(*options.expect)) return {};
  return Verdict::skipped(Cause::kOtherAnswer, "the model's answer is " + in_quotes(said) + ", not " +
                                                   in_quotes(*options.expect) + unlike_words(said, *options.expect));
}

}  // namespace

int run_trace(const Options& options, const std::stop_token& stop) {
  ReportOutput output(options.output, options.json);
  const auto edits = read_edits(options);
  const auto located = locate_model(options, stop);
  const auto tokenizer = Tokenizer::load(located.folder);
  TraceRecord record;
  record.prompt = read_prompt(tokenizer, options);
  read_question(tokenizer, options, record);
  const auto model = load_model(options, located.folder, edits, stop);
  check_neurons(options, *model);
  say_window_note(options, *model);
  const auto workers = start_workers(options, *model, record.prompt.token_ids.size());
  record.model = model_record(located.name, *model, edits);
  record.run = run_record(options, *model);
  record.run.threads = workers->count();
  record.options = trace_options(options);
  record.asked = AskedFor{options.answer, options.targets, options.foil, options.special_tokens};
  auto choice = read_corruption(options, *model, tokenizer);
  record.options.corruption = std::move(choice.corruption);
  record.run.text = std::move(choice.text);
  if (options.method == CorruptionMethod::kNoise && !record.run.text) {
    spdlog::debug("noise {}: sigma {}", options.noise_text, record.options.corruption.sigma);
  }
  if (options.answer.which != AnswerRule::Which::kToken) {
    record.prompt.target = say(*model, tokenizer, record.prompt, options.answer, 0, stop);
    record.asked_tokens = asked_tokens(options.answer, 0).value_or(1);
  }
  say_length_note(*model, length_of(record.prompt));

  const Stopwatch tracing;
  model->prepare(*workers);
  const auto clean = run_clean(*model, record.prompt, record.options, stop);
  record.trace = clean.trace;
  check_answer(tokenizer, record.trace);
  record.texts = token_texts(record.trace, record.prompt, tokenizer);
  if (record.prompt.foil == record.trace.answer_id()) {
    spdlog::warn("--foil: {} is what the answer begins with, so there is no difference of logits",
                 in_quotes(*options.foil));
  }
  // Hashing gigabytes takes a while; it runs beside the trace, once the clean run has shown that the input is good.
  WeightsHash hash(*model, edits, stop);
  record.verdict = verdict_of(options, record.texts);
  if (record.verdict.status == Status::kTraced) {
    ProgressBar bar(options.quiet ? ProgressBar::Wish::kNever : ProgressBar::Wish::kOnTerminal);
    record.trace = trace_prompt(options, *model, record.prompt, record.options, clean, *workers, bar.callback(), stop);
  }
  if (record.trace.neurons) record.texts = token_texts(record.trace, record.prompt, tokenizer);  // what these promote
  record.run.seconds = tracing.seconds();
  record.model.weights_sha256 = hash.get();
  if (options.precision && record.trace.largest_error > *options.precision) {
    spdlog::warn(
        "--precision: after {} draws the largest standard error is {:.2g}, not {:.2g}; --most-samples allows more",
        record.trace.samples, record.trace.largest_error, *options.precision);
  }

  const bool skipped = record.verdict.status == Status::kSkipped;
  const auto maps = [&](const TerminalStyle& style) {
    return skipped ? std::string() : render_heat_maps(record, style);
  };
  output.write(to_json(record), maps, stop);
  if (skipped) {
    spdlog::warn("skipped: {}", record.verdict.reason);
    return kSomeNotTraced;
  }
  if (const auto warning = warning_of(record.trace); warning && !output.shows_text()) spdlog::warn("{}", *warning);
  return kDone;
}

}  // namespace rometrace::cli
