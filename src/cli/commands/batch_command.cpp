#include "cli/commands/batch_command.hpp"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "cli/commands/batch_progress.hpp"
#include "cli/commands/batch_work.hpp"
#include "cli/commands/batch_writer.hpp"
#include "cli/commands/summary_command.hpp"
#include "cli/exit_status.hpp"
#include "cli/files/results_file.hpp"
#include "cli/machine/terminal_info.hpp"
#include "cli/session.hpp"
#include "rometrace/error.hpp"
#include "rometrace/report/batch_json.hpp"
#include "rometrace/report/json.hpp"
#include "rometrace/report/probe_json.hpp"
#include "rometrace/stopwatch.hpp"
#include "rometrace/study/batch.hpp"
#include "rometrace/study/probe.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/text/json_line.hpp"
#include "text/count_text.hpp"

namespace rometrace::cli {
namespace {

// --strict: what can be seen of prompts without running the model.
void check_prompts(const Decoder& model, const Tokenizer& tokenizer, const Work& work, const BatchOptions& options) {
  for (const auto& item : work.items) {
    const auto problem = problem_of_prompt(model, tokenizer, std::get<Fact>(*item.record), options);
    if (problem) throw Error(problem->reason + " (--strict: nothing was begun)");
  }
}

ObjectChoices object_choices(const Tokenizer& tokenizer, const Facts& facts) {
  ObjectChoices choices(tokenizer);
  for (const auto& record : facts.records) {
    if (const auto* fact = std::get_if<Fact>(&record)) choices.add(*fact);
  }
  return choices;
}

// Everything that lines are made of.
struct Session {
  const Options& options;
  const Work& work;
  const Tokenizer& tokenizer;
  const Replicas& models;
  const Decoder& model;  // the first of them
  BatchRecord record;
  std::stop_token stop;
  Workers* workers = nullptr;
};

// `chunk` facts at a time on each model. Nothing if a stop came first.
std::optional<std::vector<ProbeResult>> probe_some(const Session& session, const ObjectChoices& choices,
                                                   std::span<const Fact* const> facts, std::size_t chunk,
                                                   const Progress& progress = {}) {
  ProbeOptions options;
  options.chunk_facts = std::min(options.chunk_facts, static_cast<std::int64_t>(chunk));
  options.special = session.record.options.special_tokens;
  RunControl control;
  control.stop = session.stop;
  control.workers = session.workers;
  if (progress) {  // told of wordings, tells of facts
    control.progress = [&](std::int64_t done, std::int64_t total) {
      progress(done * std::ssize(facts), std::max<std::int64_t>(1, total));
    };
  }
  std::vector<ProbeResult> results;
  try {
    probe_facts(session.models, session.tokenizer, choices, facts, options, control,
                [&](std::size_t, ProbeResult&& result) { results.push_back(std::move(result)); });
  } catch (const Interrupted&) {
    return std::nullopt;
  }
  return results;
}

// Marks what is not known, so that it is skipped. False if a stop came first.
bool keep_known(const Session& session, const ObjectChoices& choices, std::span<BatchItem> items, std::size_t chunk) {
  std::vector<const Fact*> facts;
  std::vector<std::size_t> places;
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (const auto* fact = std::get_if<Fact>(items[i].record)) {
      facts.push_back(fact);
      places.push_back(i);
    }
  }
  const auto& rule = *session.record.known_by;
  const auto results = probe_some(session, choices, facts, chunk);
  if (!results) return false;
  for (std::size_t i = 0; i < results->size(); ++i) {
    if (is_known((*results)[i], rule)) continue;
    const auto reason = (*results)[i].status == ProbeResult::Status::kProbed ? reason_not_known((*results)[i], rule)
                                                                             : (*results)[i].reason;
    items[places[i]].verdict = Verdict::skipped(Cause::kNotKnown, reason);
  }
  return true;
}

// Tokens of the longest prompt with its answer; of a word, which ends nobody knows where, the first.
std::int64_t longest_text(std::vector<TracePrompt> prompts, const BatchOptions& options) {
  const bool word = options.follow == Follow::kPrediction && options.answer.which == AnswerRule::Which::kWord;
  std::int64_t tokens = 0;
  for (auto& prompt : prompts) {
    if (word) prompt.target.resize(1);
    tokens = std::max(tokens, length_of(prompt));
  }
  return tokens;
}

// Tokens of the longest wording.
std::int64_t longest_wording(const Session& session) {
  std::size_t tokens = 0;
  for (const auto& item : session.work.items) {
    const auto* fact = std::get_if<Fact>(item.record);
    if (fact == nullptr) continue;
    for (const auto& wording : fact->wordings) {
      try {
        const auto special = session.record.options.special_tokens;
        tokens = std::max(tokens, session.tokenizer.encode_prompt(wording.prompt, special).size());
      } catch (const Error&) {  // it will have its own line
      }
    }
  }
  return static_cast<std::int64_t>(tokens);
}

bool trace_all(const Session& session, BatchWriter& writer) {
  if (session.work.items.empty() || writer.has(session.work.items.back())) return true;
  RunControl control;
  control.stop = session.stop;
  control.progress = writer.progress().callback();
  control.workers = session.workers;
  auto options = session.record.options;
  auto items = session.work.items;
  std::optional<ObjectChoices> choices;
  if (session.record.known_by) choices = object_choices(session.tokenizer, session.work.facts);
  const auto shapes = shapes_of(session.model, session.tokenizer, items, options);
  say_length_note(session.model, longest_text(shapes, options));
  const auto least = least_memory(session.model, shapes, options);
  control.memory = memory_for_batch(session.options, session.models, least);
  for (const auto& model : session.models.all()) model->prepare(*session.workers);
  for (auto& item : items) item.written = writer.has(item);
  options.chunk = batch_chunk(session.model, shapes, options, control);
  const auto chunk = static_cast<std::size_t>(options.chunk);
  const auto round = static_cast<std::size_t>(batch_round(session.models, options.chunk));
  for (std::size_t begin = 0, count = 0; begin < items.size(); begin += count) {
    if (session.stop.stop_requested()) return false;
    count = std::min(chunk, items.size() - begin);
    if (writer.has(items[begin + count - 1])) continue;
    count = std::min(round, items.size() - begin);
    const auto some = std::span(items).subspan(begin, count);
    if (choices && !keep_known(session, *choices, some, chunk)) return false;
    const bool complete = trace_facts(
        session.models, session.tokenizer, some, options, control, [&](std::size_t i, BatchResult&& result) {
          const auto status = result.verdict.status;
          const auto reason = result.verdict.reason;
          const auto cause = result.verdict.cause ? to_string(*result.verdict.cause) : std::string_view();
          writer.write(some[i], status, cause, reason,
                       to_line(to_json(trace_record(session.record, session.tokenizer, std::move(result)))));
        });
    for (auto& item : some) item.verdict.reset();
    if (!complete) return false;
  }
  return true;
}

ProbeResult result_of(const BadRecord& bad) {
  ProbeResult result;
  result.status = ProbeResult::Status::kFailed;
  result.cause = to_string(Cause::kRecord);
  result.reason = bad.message;
  return result;
}

Status status_of(const ProbeResult& result) {
  if (result.status == ProbeResult::Status::kProbed) return Status::kTraced;
  return result.status == ProbeResult::Status::kSkipped ? Status::kSkipped : Status::kFailed;
}

bool probe_all(const Session& session, BatchWriter& writer) {
  const auto choices = object_choices(session.tokenizer, session.work.facts);
  const auto& items = session.work.items;
  say_length_note(session.model, longest_wording(session));
  if (!items.empty() && !writer.has(items.back())) {
    for (const auto& model : session.models.all()) model->prepare(*session.workers);
  }
  std::vector<const Fact*> all;
  for (const auto& item : items) {
    if (const auto* fact = std::get_if<Fact>(item.record)) all.push_back(fact);
  }
  const auto chunk = static_cast<std::size_t>(probe_chunk(session.model, all));
  for (std::size_t begin = 0, count = 0; begin < items.size(); begin += count) {
    if (session.stop.stop_requested()) return false;
    count = std::min(chunk, items.size() - begin);
    if (writer.has(items[begin + count - 1])) continue;
    count = std::min(chunk * static_cast<std::size_t>(session.models.count()), items.size() - begin);
    const auto some = std::span(items).subspan(begin, count);
    const Stopwatch time;
    std::vector<const Fact*> facts;
    for (const auto& item : some) {
      if (const auto* fact = std::get_if<Fact>(item.record)) facts.push_back(fact);
    }
    auto results = probe_some(session, choices, facts, chunk, writer.progress().callback());
    if (!results) return false;
    std::size_t next = 0;
    for (const auto& item : some) {
      const auto* bad = std::get_if<BadRecord>(item.record);
      ProbeRecord record;
      record.fact = reference_of(item);
      record.result = bad != nullptr ? result_of(*bad) : std::move((*results)[next++]);
      if (const auto* fact = std::get_if<Fact>(item.record)) {
        if (record.result.status == ProbeResult::Status::kFailed) {
          record.result.reason = fact->where + ": " + record.result.reason;
        }
        record.subject = fact->subject;
        record.wordings = fact->wordings;
      }
      if (record.result.object_tokens > 0) record.fact.object_tokens = record.result.object_tokens;
      record.rule = *session.record.known_by;
      record.model = session.record.model;
      record.run = session.record.run;
      record.run.seconds = time.seconds() / static_cast<double>(some.size());
      writer.write(item, status_of(record.result), record.result.cause, record.result.reason, to_line(to_json(record)));
    }
  }
  return true;
}

// The table of what is said and known, read back from the file.
void show_probe_table(const std::string& path) {
  SummaryOptions summary;
  summary.files = {path};
  run_summary(summary, {});
}

// Causes are those of this run.
void say_what_was_done(const BatchWriter& writer, double seconds) {
  say_counts(writer, seconds);
  const auto& counts = writer.counts();
  if (counts.traced == 0 && writer.causes().contains(std::string(to_string(Cause::kOtherAnswer)))) {
    spdlog::info("no answer was the object: --all traces facts all the same, --target object follows their objects");
  }
  if (const auto first = writer.causes().find(std::string(to_string(Cause::kFirstToken)));
      first != writer.causes().end()) {
    spdlog::info(
        "{} answered with the first of their object's tokens: --answer object compares and follows all of them",
        count_of(first->second, "fact"));
  }
}

// Draws the subjects that corrupt those of the items.
void find_swaps(Work& work, const Tokenizer& tokenizer, const BatchOptions& options) {
  const SwapPartners partners(work.facts, tokenizer, {options.trace.corruption.seed, options.special_tokens});
  work.swaps.reserve(work.items.size());  // items point into it
  std::int64_t without = 0;
  for (auto& item : work.items) {
    const auto* fact = std::get_if<Fact>(item.record);
    if (fact == nullptr) continue;
    item.swap = &work.swaps.emplace_back(partners.partner_of(*fact));
    without += std::holds_alternative<NoSwap>(*item.swap) ? 1 : 0;
  }
  if (without > 0) {
    spdlog::info("{} no other subject of as many tokens, of the same relation and with another object",
                 without == 1 ? "1 fact has" : std::to_string(without) + " facts have");
  }
}

}  // namespace

int run_batch(const Options& options, const std::stop_token& stop) {
  return run_batch_on(devices_of(options), options, stop);
}

int run_batch_on(const std::vector<c10::Device>& devices, const Options& options, const std::stop_token& stop) {
  const auto& facts = *options.facts;
  const auto path = batch_output_path(options, facts.shard);
  ResultsFile file(path);
  if (!file.locked()) {
    spdlog::warn("{}: the file system knows no locks; see to it that no other process writes this file", *path);
  }
  const auto edits = read_edits(options);
  auto work = read_work(options);
  const auto located = locate_model(options, stop);
  const auto tokenizer = Tokenizer::load(located.folder);
  const auto models = load_models(options, located.folder, edits, stop, devices);
  const auto* const model = &models.first();
  check_neurons(options, *model);
  if (!facts.probe) say_window_note(options, *model);
  WeightsHash hash(*model, edits, stop);
  Session session{options,   work,
                  tokenizer, models,
                  *model,    batch_record(options, model_record(located.name, *model, edits), *model, tokenizer, work),
                  stop};
  if (!facts.probe && options.method == CorruptionMethod::kTokens) find_swaps(work, tokenizer, session.record.options);
  if (facts.strict) check_prompts(*model, tokenizer, work, session.record.options);
  session.record.model.weights_sha256 = hash.get();
  const auto done = file.begin(to_json(session.record), stop);
  const auto total = static_cast<std::int64_t>(work.items.size());
  say_what_is_there(path, done, total);
  const auto workers = start_workers(options, *model, typical_length(work, tokenizer));
  session.workers = workers.get();
  session.record.run.threads = workers->count();
  if (models.count() > 1) session.record.run.device = session.record.run.device_kind();  // a traced fact says which

  BatchWriter writer(file, done, total, facts.probe ? "probed" : "traced", options.quiet, stop);
  const bool resumes = file.resumes();  // until it is closed
  std::optional<std::stop_callback<std::function<void()>>> announcement;
  if (resumes) {
    announcement.emplace(stop, [streamed = model->streamed()] {
      spdlog::info(streamed
                       ? "leaving the facts at hand, as layers are read from the files; a second Ctrl-C stops at once"
                       : "finishing the facts at hand; a second Ctrl-C stops at once");
    });
  }
  bool complete = false;
  try {
    complete = facts.probe ? probe_all(session, writer) : trace_all(session, writer);
  } catch (const Interrupted&) {  // in the middle of a line, of a stream
  }
  writer.progress().clear();
  file.close();
  if (!complete) {
    say_interrupted(writer, path, total);
    return kInterrupted;
  }
  say_what_was_done(writer, writer.progress().seconds());
  if (facts.probe && resumes && !options.quiet && is_terminal(STDOUT_FILENO)) show_probe_table(*path);
  return writer.counts().failed > 0 ? kSomeNotTraced : kDone;
}

}  // namespace rometrace::cli
