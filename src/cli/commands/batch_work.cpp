#include "cli/commands/batch_work.hpp"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "cli/session.hpp"
#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"
#include "text/count_text.hpp"

namespace rometrace::cli {
namespace {

BatchOptions batch_options(const Options& options) {
  BatchOptions batch;
  batch.trace = trace_options(options);
  batch.engine = options.engine;
  batch.answer = options.answer;
  batch.follow = options.facts->follow;
  batch.on_other_answer = options.facts->on_other_answer;
  batch.special_tokens = options.special_tokens ? SpecialTokens::kParse : SpecialTokens::kAsText;
  batch.facts_per_sweep = options.facts->share;
  return batch;
}

}  // namespace

std::string causes_text(const std::map<std::string, std::int64_t>& causes) {
  std::string text;
  for (const auto& [cause, facts] : causes) text += (text.empty() ? "" : ", ") + cause + " " + std::to_string(facts);
  return text;
}

// Says, once, what some facts left open and how it fell.
void say_remarks(const Work& work) {
  std::int64_t count = 0;
  const std::string* first = nullptr;
  for (const auto& item : work.items) {
    const auto* fact = std::get_if<Fact>(item.record);
    if (fact == nullptr || fact->remark.empty()) continue;
    if (++count == 1) first = &fact->remark;
  }
  if (count == 0) return;
  spdlog::warn("{}{}", *first, count == 1 ? "" : "; likewise in " + count_of(count - 1, "further fact"));
}

// How much of the files is needed: nothing where that is all of it.
std::optional<Limit> limit_of(const Options& options) {
  const auto& facts = *options.facts;
  const auto& selection = facts.selection;
  const bool swaps = options.method == CorruptionMethod::kTokens;
  // A sample is of all records; ids may be anybody's, and partners and the objects to choose from too.
  if (!selection.limit || selection.sample || !selection.ids.empty() || facts.probe || facts.only_known || swaps) {
    return std::nullopt;
  }
  const bool of_subjects = options.method == CorruptionMethod::kNoise && options.noise.of_subjects;
  return Limit{*selection.limit,
               of_subjects && !options.noise_facts ? Limit::Beyond::kSubjects : Limit::Beyond::kNothing};
}

std::vector<std::filesystem::path> facts_files(const std::vector<std::string>& names) {
  std::vector<std::filesystem::path> files(names.begin(), names.end());
  for (std::size_t i = 0; i < files.size(); ++i) {
    std::error_code ignored;
    for (std::size_t j = 0; j < i; ++j) {
      if (files[i] == files[j] || std::filesystem::equivalent(files[i], files[j], ignored)) {
        throw Error("--facts: " + label_of(files[i]) + " is named twice; name each file once");
      }
    }
  }
  return files;
}

Work read_work(const Options& options) {
  const auto& facts = *options.facts;
  return choose_work(read_facts(facts_files(facts.files), limit_of(options)), facts);
}

Work choose_work(Facts facts, const FactsOptions& options) {
  Work work;
  work.facts = std::move(facts);
  std::int64_t bad = 0;
  for (const auto& record : work.facts.records) bad += std::holds_alternative<BadRecord>(record) ? 1 : 0;
  const auto chosen = select(work.facts, options.selection);
  work.selected = static_cast<std::int64_t>(chosen.size());
  const Shard shard = options.shard.value_or(Shard{});
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    BatchItem item;
    item.record = &work.facts.records[chosen[i]];
    item.order = static_cast<std::int64_t>(i) + 1;
    const auto* problem = std::get_if<BadRecord>(item.record);
    if (problem != nullptr && options.strict) {
      throw Error(problem->message + " (--strict: " + count_of(bad, "bad record") + ", nothing was begun)");
    }
    if (shard.holds(item.order)) work.items.push_back(item);
  }
  if (options.shard) {
    spdlog::info("shard {}{}: {} of {}", to_string(*options.shard),
                 options.shard_source.empty() ? "" : ", from " + options.shard_source, work.items.size(),
                 count_of(work.selected, "fact"));
  }
  say_remarks(work);
  return work;
}

BatchRecord batch_record(const Options& options, ModelRecord recorded, const Decoder& model, const Tokenizer& tokenizer,
                         const Work& work) {
  const auto& facts = *options.facts;
  BatchRecord record;
  record.what = facts.probe ? BatchRecord::What::kProbe : BatchRecord::What::kTrace;
  record.model = std::move(recorded);
  record.run = run_record(options, model);
  record.options = batch_options(options);
  if (facts.probe || facts.only_known) record.known_by = facts.known_by;
  record.sources = work.facts.sources;
  record.selection = facts.selection;
  record.selected = work.selected;
  record.shard = facts.shard;
  if (!facts.probe) {
    std::string where;
    for (const auto& file : facts.files) where += (where.empty() ? "" : ", ") + file;
    const auto subjects = subjects_of(work.facts);
    const bool own = options.method == CorruptionMethod::kNoise && options.noise.of_subjects && !options.noise_facts;
    auto& corruption = record.options.trace.corruption;
    corruption.seed = options.seed;
    corruption.replace = options.replace;
    if (!own || !subjects.empty()) {  // else all records are bad: each will have its line
      auto choice = read_corruption(options, model, tokenizer, SubjectList{subjects, where});
      corruption = std::move(choice.corruption);
      record.run.text = std::move(choice.text);
    }
    if (options.method == CorruptionMethod::kNoise && !record.run.text) {
      spdlog::info(
          "noise {}: sigma {}{}", options.noise_text, corruption.sigma,
          own ? ", from the embeddings of " + count_of(static_cast<std::int64_t>(subjects.size()), "subject") : "");
    }
    if (options.foil) record.options.foil = one_token(tokenizer, "--foil", *options.foil);
  }
  if (record.known_by) {
    const auto enough = [&](const BatchItem& item) {
      const auto* fact = std::get_if<Fact>(item.record);
      return fact != nullptr && static_cast<std::int64_t>(fact->wordings.size()) >= record.known_by->wordings;
    };
    if (!work.items.empty() && std::none_of(work.items.begin(), work.items.end(), enough)) {
      spdlog::warn("no fact has the {} that --known-by {} asks for: none can be known",
                   count_of(record.known_by->wordings, "wording"), to_string(*record.known_by));
    }
  }
  return record;
}

TraceRecord trace_record(const BatchRecord& batch, const Tokenizer& tokenizer, BatchResult&& result) {
  TraceRecord record;
  record.verdict = std::move(result.verdict);
  record.fact = std::move(result.fact);
  record.trace = std::move(result.trace);
  record.prompt = std::move(result.prompt);
  record.counter = std::move(result.counter);
  record.options = batch.options.trace;
  if (batch.options.follow == Follow::kPrediction) {
    record.asked_tokens = asked_tokens(batch.options.answer, record.fact->object_tokens.value_or(0)).value_or(1);
  }
  record.model = batch.model;
  record.run = batch.run;
  record.run.seconds = result.seconds;
  if (result.device) record.run.device = result.device->str();
  if (record.verdict.status != Status::kFailed) {
    record.texts = token_texts(record.trace, record.prompt, tokenizer);
  }
  return record;
}

std::size_t typical_length(const Work& work, const Tokenizer& tokenizer) {
  for (const auto& item : work.items) {
    const auto* fact = std::get_if<Fact>(item.record);
    if (fact == nullptr) continue;
    try {
      return tokenizer.encode_prompt(fact->wordings.front().prompt).size();
    } catch (const Error&) {  // it will have its own line
    }
  }
  return 1;
}

std::int64_t memory_for_batch(const Options& options, const Replicas& models, std::int64_t least) {
  const auto& model = models.first();
  // A default that does not depend on what is free: which facts share a sweep depends on it. (Whether layers are
  // streamed does, too, where weights are about as large as that.)
  if (!options.memory && model.device().is_cpu()) return std::max(RunControl().memory, least);
  auto memory = memory_for_rows(options, model, least);
  for (const auto& each : models.all()) memory = std::min(memory, memory_for_rows(options, *each, least));
  return memory;
}

}  // namespace rometrace::cli
