#include "rometrace/study/batch.hpp"

#include <c10/util/Exception.h>

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "rometrace/error.hpp"
#include "rometrace/stopwatch.hpp"
#include "rometrace/study/probe.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/text/likeness.hpp"
#include "rometrace/text/strip.hpp"
#include "rometrace/text/subject.hpp"
#include "rometrace/trace/clean_run.hpp"
#include "rometrace/trace/gradient.hpp"
#include "rometrace/trace/patch.hpp"
#include "rometrace/trace/plain.hpp"
#include "rometrace/trace/sweep.hpp"
#include "rometrace/work/workers.hpp"

namespace rometrace {
namespace {

// Facts of this prompt's shape that ride in one sweep: as many as asked for or as pay, if memory holds them.
std::int64_t facts_together(const Decoder& model, const TracePrompt& prompt, const BatchOptions& options,
                            const RunControl& control) {
  if (options.engine != Engine::kSweep) return 1;
  if (options.facts_per_sweep == 0) return facts_per_sweep(model, prompt, options.trace, control);
  const auto held = control.memory / least_memory(model, prompt, options.trace);
  return std::clamp<std::int64_t>(options.facts_per_sweep, 1, std::max<std::int64_t>(1, held));
}

// Bytes of a clean run, which waits for the sweep of its fact.
std::int64_t clean_run_bytes(const Decoder& model, const TracePrompt& prompt, const TraceOptions& options) {
  const auto R = static_cast<std::int64_t>(prompt.token_ids.size()) + prompt.answer_tokens() - 1;
  const auto& config = model.config();
  std::int64_t outputs = 0;  // numbers of a position
  for (const auto site : sites_of(options.kinds)) outputs += site == Site::kMixed ? config.mixed_width() : config.width;
  std::int64_t numbers = config.layers * (outputs * (R - prompt.first_corrupted()) + R * config.width);
  if (options.neurons) {
    const auto layers = layers_of(*options.neurons, config);
    const auto positions = static_cast<std::int64_t>(positions_of(options.neurons->positions, prompt).size());
    numbers += (layers.end - layers.begin) * positions * config.mlp_width;
  }
  const auto distribution = config.vocab_size * static_cast<std::int64_t>(sizeof(double));
  return distribution + numbers * static_cast<std::int64_t>(c10::elementSize(model.stream_dtype()));
}

// One fact on its way through a chunk.
struct Job {
  BatchResult result;
  std::vector<std::int32_t> object_ids;  // tokens of " " + object
  std::optional<Verdict> problem;        // told once the clean run is known
  std::unique_ptr<CleanRun> clean;       // of a fact that is still to be traced
  bool done = false;
};

// Tokens and subject, or a verdict.
void read_prompt(const Tokenizer& tokenizer, const Decoder& model, const Fact& fact, const BatchOptions& options,
                 BatchResult& result) {
  const auto& wording = fact.wordings.front();
  const auto& text = wording.prompt;
  result.prompt.prompt = text;
  result.prompt.subject = fact.subject;
  result.prompt.subject_span = wording.subject;
  std::vector<Token> tokens;
  try {
    tokens = tokenizer.encode_prompt(text, options.special_tokens);
  } catch (const Error& error) {
    result.verdict = Verdict::failed(Cause::kPrompt, fact.where + ": " + error.what());
    return;
  }
  const auto most = static_cast<std::size_t>(model.config().longest_prompt());
  if (tokens.size() > most) {
    result.verdict =
        Verdict::failed(Cause::kPrompt, fact.where + ": the prompt has " + std::to_string(tokens.size()) +
                                            " tokens, the model takes " + std::to_string(most) + " at most");
    return;
  }
  result.prompt.token_ids = ids_of(tokens);
  try {
    result.prompt.subject_range = tokens_of_subject(tokens, text, wording.subject);
  } catch (const Error& error) {
    result.verdict = Verdict::failed(Cause::kSubject, fact.where + ": " + error.what());
    return;
  }
  try {
    positions_of(options.trace.positions, result.prompt);
    if (options.trace.neurons) positions_of(options.trace.neurons->positions, result.prompt);
  } catch (const Error& error) {
    result.verdict = Verdict::failed(Cause::kPrompt, fact.where + ": " + error.what());
  }
}

// Tokens of the answer that will be followed, at most, as far as that is known before the model has spoken.
std::int64_t longest_answer(const Tokenizer& tokenizer, const Fact& fact, const BatchOptions& options) {
  const auto of_object = [&]() -> std::int64_t {
    if (!fact.object) return 1;
    try {
      return static_cast<std::int64_t>(object_token_ids(tokenizer, *fact.object).size());
    } catch (const Error&) {  // it will have its own line
      return 1;
    }
  };
  if (options.follow == Follow::kObject) return of_object();
  switch (options.answer.which) {
    case AnswerRule::Which::kToken:
      return 1;
    case AnswerRule::Which::kWord:
      return AnswerRule::kLongestWord;
    case AnswerRule::Which::kGreedy:
      return options.answer.tokens;
    case AnswerRule::Which::kObject:
      return of_object();
  }
  TORCH_INTERNAL_ASSERT(false, "rule not handled");
}

class BatchChunk {
 public:
  /// `models` is null where there is one model.
  BatchChunk(const Decoder& model, const Replicas* models, const Tokenizer& tokenizer, std::span<const BatchItem> items,
             const BatchOptions& options, const RunControl& control)
      : model_(model),
        models_(models),
        tokenizer_(tokenizer),
        items_(items),
        options_(options),
        control_(control),
        jobs_(items.size()) {}

  bool run(const BatchSink& sink) {
    for (std::size_t i = 0; i < items_.size(); ++i) read(items_[i], jobs_[i]);
    try {
      auto* const workers = model_.serves_several() ? control_.workers : nullptr;
      share_groups(workers, groups_to_say(),
                   [this](const auto& group, const auto& model) { say_answers(group, model); });
      share_groups(workers, clean_groups(),
                   [this](const auto& group, const auto& model) { run_clean_of(group, model); });
    } catch (const Interrupted&) {
      tell(sink);
      return false;
    }
    tell(sink);
    const auto trace_and_tell = [&](const std::vector<std::size_t>& group, const Decoder& model) {
      const bool written = std::all_of(group.begin(), group.end(), [&](std::size_t i) { return items_[i].written; });
      if (!written) trace(group, model);
      const std::scoped_lock lock(telling_);
      for (const auto i : group) jobs_[i].done = true;
      tell(sink);
    };
    const auto all = groups();
    try {
      share_groups(go_side_by_side(all) ? control_.workers : nullptr, all, trace_and_tell);
    } catch (const Interrupted&) {  // before a group, or as weights are read for one
      return false;
    }
    return true;
  }

 private:
  // Groups of facts side by side, each by one of several models, or of the workers of one; without either one after the
  // other.
  template <typename Work>
  void share_groups(Workers* workers, const std::vector<std::vector<std::size_t>>& groups, const Work& work) {
    const auto take = [&](std::int64_t i, const Decoder& model) {
      if (control_.stop.stop_requested()) throw Interrupted();
      work(groups[static_cast<std::size_t>(i)], model);
    };
    if (are_several()) return models_->share(std::ssize(groups), take);
    share(workers, std::ssize(groups), [&](std::int64_t i) { take(i, model_); });
  }

  bool are_several() const { return models_ != nullptr && models_->count() > 1; }

  // Which of the parts an item is in whose facts may share sweeps.
  std::size_t part_of(std::size_t item) const {
    return options_.chunk == 0 ? 0 : item / static_cast<std::size_t>(options_.chunk);
  }

  // Whether whole groups are shared out, or the rows of one after the other. Groups are where there is one for each
  // worker, none takes so long that the last one would be waited for, and the memory for rows holds as many at once.
  bool go_side_by_side(const std::vector<std::vector<std::size_t>>& groups) const {
    constexpr double kMostFlops = 1e12;  // of a group: some ten seconds of a core
    if (control_.workers == nullptr || !model_.serves_several()) return false;
    if (options_.engine != Engine::kSweep) return true;
    const auto workers = control_.workers->count();
    if (std::ssize(groups) < workers) return false;
    return std::all_of(groups.begin(), groups.end(), [&](const std::vector<std::size_t>& group) {
      const auto& prompt = jobs_[group.front()].result.prompt;
      const auto facts = std::ssize(group);
      return static_cast<double>(facts) * sweep_flops(model_, prompt, options_.trace) < kMostFlops &&
             facts * least_memory(model_, prompt, options_.trace) <= control_.memory / workers;
    });
  }

  // All that can be known of a fact before the model has spoken.
  void read(const BatchItem& item, Job& job) {
    auto& result = job.result;
    result.fact = reference_of(item);
    job.done = true;
    if (const auto* bad = std::get_if<BadRecord>(item.record)) {
      result.verdict = Verdict::failed(Cause::kRecord, bad->message);
      return;
    }
    const auto& fact = std::get<Fact>(*item.record);
    read_prompt(tokenizer_, model_, fact, options_, result);
    if (result.verdict.status == Status::kFailed) return;
    if (fact.object) {
      try {
        job.object_ids = object_token_ids(tokenizer_, *fact.object);
        result.fact.object_tokens = static_cast<std::int64_t>(job.object_ids.size());
      } catch (const Error& error) {
        result.verdict = Verdict::failed(Cause::kRecord, fact.where + ", object: " + error.what());
        return;
      }
    }
    job.problem = corrupt(item, result);
    job.done = false;
  }

  // Jobs that still go on, with those of one key side by side where layers are read from the disk for each run; else
  // each alone.
  template <typename Key>
  std::vector<std::vector<std::size_t>> side_by_side(const std::function<Key(const Job&)>& key) const {
    std::vector<std::vector<std::size_t>> groups;
    std::map<Key, std::size_t> group_of;
    for (std::size_t i = 0; i < jobs_.size(); ++i) {
      if (i > 0 && part_of(i) != part_of(i - 1)) group_of.clear();
      if (jobs_[i].done) continue;
      auto group = groups.size();
      if (model_.streamed()) group = group_of.emplace(key(jobs_[i]), group).first->second;
      if (group == groups.size()) groups.emplace_back();
      groups[group].push_back(i);
    }
    return groups;
  }

  // Facts for whose answers of several tokens the model is asked first.
  std::vector<std::vector<std::size_t>> groups_to_say() {
    if (options_.follow == Follow::kObject) {
      for (auto& job : jobs_) {
        if (!job.done) job.result.prompt.target = job.object_ids;
      }
      return {};
    }
    if (options_.answer.which == AnswerRule::Which::kToken) return {};
    return side_by_side<std::size_t>([](const Job& job) { return job.result.prompt.token_ids.size(); });
  }

  std::vector<std::vector<std::size_t>> clean_groups() const {
    return side_by_side<SweepKey>([&](const Job& job) { return sweep_key(job.result.prompt, options_.trace); });
  }

  // The answers to follow. Where there can be none the fact's verdict says so.
  void say_answers(const std::vector<std::size_t>& group, const Decoder& model) {
    const Stopwatch time;
    std::vector<const TracePrompt*> prompts;
    std::vector<std::int64_t> object_tokens;
    for (const auto i : group) {
      prompts.push_back(&jobs_[i].result.prompt);
      object_tokens.push_back(static_cast<std::int64_t>(jobs_[i].object_ids.size()));
    }
    try {
      auto answers = say_together(model, tokenizer_, prompts, options_.answer, object_tokens, control_.stop);
      for (std::size_t k = 0; k < group.size(); ++k) jobs_[group[k]].result.prompt.target = std::move(answers[k]);
    } catch (const EndOfWork&) {
      throw;
    } catch (const Error& error) {
      if (group.size() == 1) return fail(group.front(), error);
      for (const auto i : group) say_answers({i}, model);  // whose it is
      return;
    }
    add_seconds(group, time);
  }

  // An equal share to each.
  void add_seconds(const std::vector<std::size_t>& group, const Stopwatch& time) {
    for (const auto i : group) jobs_[i].result.seconds += time.seconds() / static_cast<double>(group.size());
  }

  void fail(std::size_t i, const Error& error) {
    jobs_[i].done = true;
    jobs_[i].result.verdict =
        Verdict::failed(Cause::kTrace, std::get<Fact>(*items_[i].record).where + ": " + error.what());
  }

  void run_clean_of(const std::vector<std::size_t>& group, const Decoder& model) {
    const Stopwatch time;
    std::vector<const TracePrompt*> prompts;
    for (const auto i : group) prompts.push_back(&jobs_[i].result.prompt);
    auto runs = run_clean_together(model, prompts, options_.trace, control_.stop);
    for (std::size_t k = 0; k < group.size(); ++k) {
      const auto i = group[k];
      jobs_[i].result.device = model.device();
      if (const auto* error = std::get_if<Error>(&runs[k])) {
        fail(i, *error);
        continue;
      }
      jobs_[i].clean = std::make_unique<CleanRun>(std::get<CleanRun>(std::move(runs[k])));
      judge(items_[i], jobs_[i]);
    }
    add_seconds(group, time);
  }

  // What becomes of a fact whose clean run is known.
  void judge(const BatchItem& item, Job& job) {
    auto& result = job.result;
    const auto& fact = std::get<Fact>(*item.record);
    job.done = true;
    result.trace = job.clean->trace;
    try {
      check_answer(tokenizer_, result.trace);
    } catch (const Error& error) {
      result.trace = {};
      result.verdict = Verdict::failed(Cause::kTrace, fact.where + ": " + error.what());
      return;
    }
    result.verdict = item.verdict ? *item.verdict : job.problem ? *job.problem : verdict_of(fact, job);
    job.done = result.verdict.status != Status::kTraced;
    if (job.done) job.clean.reset();
  }

  // What takes the subject's place, where the batch's corruption is another prompt; or why there is none.
  std::optional<Verdict> corrupt(const BatchItem& item, BatchResult& result) const {
    result.prompt.foil = options_.foil;
    if (options_.trace.corruption.method != CorruptionMethod::kTokens) return std::nullopt;
    TORCH_INTERNAL_ASSERT(item.swap != nullptr, "a fact that is corrupted by tokens needs them");
    if (const auto* none = std::get_if<NoSwap>(item.swap)) return Verdict::skipped(Cause::kNoPartner, none->reason);
    const auto& [partner, counter] = std::get<Swap>(*item.swap);
    result.counter = counter;
    result.prompt.counter_ids = counter.token_ids;
    const auto& measures = options_.trace.measures;
    const bool wanted = std::find(measures.begin(), measures.end(), Measure::kLogitDifference) != measures.end();
    if (result.prompt.foil || !wanted) return std::nullopt;
    try {
      const auto foil = object_token_ids(tokenizer_, partner->object.value_or(""));
      if (!foil.empty()) result.prompt.foil = foil.front();
    } catch (const Error&) {  // said of the partner itself
    }
    if (result.prompt.foil) return std::nullopt;
    result.prompt.counter_ids.clear();
    result.counter.reset();
    return Verdict::skipped(Cause::kNoPartner, "the object of its partner, " + in_quotes(partner->subject) +
                                                   ", has no token to be the foil");
  }

  Verdict verdict_of(const Fact& fact, const Job& job) const {
    if (options_.follow == Follow::kObject) {
      if (!job.object_ids.empty()) return {};
      return Verdict::skipped(Cause::kNoObject, "the record has no object to follow");
    }
    if (!fact.object || options_.on_other_answer == OnOtherAnswer::kTrace) return {};
    const auto& answer = job.clean->trace.answer_ids;
    std::string text;
    for (const auto id : answer) text += tokenizer_.token_bytes(id);
    if (strip(text) == strip(*fact.object)) return {};
    const auto found = "the model's answer is " + in_quotes(text) + ", ";
    if (answer.size() == 1 && job.object_ids.size() > 1 && job.object_ids.front() == answer.front()) {
      return Verdict::skipped(Cause::kFirstToken, found + "the first of " + std::to_string(job.object_ids.size()) +
                                                      " tokens of " + in_quotes(*fact.object));
    }
    return Verdict::skipped(Cause::kOtherAnswer,
                            found + "not " + in_quotes(*fact.object) + unlike_words(text, *fact.object));
  }

  // Facts that ride in one sweep, by place in the chunk; each group in the order of its facts, groups in that of their
  // first ones.
  std::vector<std::vector<std::size_t>> groups() const {
    struct Open {
      std::size_t group;
      std::size_t room;  // facts that it still takes
    };
    std::vector<std::vector<std::size_t>> groups;
    std::map<SweepKey, std::size_t> together;
    std::map<SweepKey, Open> open;
    for (std::size_t i = 0; i < jobs_.size(); ++i) {
      if (i > 0 && part_of(i) != part_of(i - 1)) open.clear();
      if (jobs_[i].done) continue;
      const auto& prompt = jobs_[i].result.prompt;
      const auto shape = sweep_key(prompt, options_.trace);
      if (!together.contains(shape)) {
        together[shape] = static_cast<std::size_t>(facts_together(model_, prompt, options_, control_));
      }
      const auto [entry, is_new] = open.emplace(shape, Open{groups.size(), together[shape]});
      if (is_new) groups.emplace_back();
      groups[entry->second.group].push_back(i);
      if (--entry->second.room == 0) open.erase(entry);
    }
    return groups;
  }

  void trace(const std::vector<std::size_t>& group, const Decoder& model) {
    const Stopwatch time;
    RunControl control = control_;
    control.stop = {};  // the sweep at hand is finished
    for (const auto i : group) {
      jobs_[i].clean->move_to(model.device());
      jobs_[i].result.device = model.device();
    }
    if (are_several()) {
      control.workers = nullptr;
      control.progress = {};  // of one among several
    } else if (Workers::is_shared()) {
      control.memory /= control_.workers->count();
      control.progress = {};
    } else if (control_.progress) {
      const auto facts = static_cast<std::int64_t>(group.size());
      control.progress = [&, facts](std::int64_t done, std::int64_t total) { control_.progress(facts * done, total); };
    }
    if (options_.engine != Engine::kSweep) {
      for (const auto i : group) settle(jobs_[i], trace_alone(jobs_[i], model, control));
    } else {
      std::vector<SweepFact> facts;
      for (const auto i : group) facts.push_back({&jobs_[i].result.prompt, jobs_[i].clean.get()});
      auto sweep = trace_shared(group.front(), facts, model, control);
      for (std::size_t k = 0; k < group.size(); ++k) settle(jobs_[group[k]], std::move(sweep.outcomes[k]));
    }
    add_seconds(group, time);
  }

  SharedSweep trace_shared(std::size_t first, std::span<const SweepFact> facts, const Decoder& model,
                           const RunControl& control) const {
    try {
      return trace_sweeps(model, facts, options_.trace, control);
    } catch (const EndOfWork&) {
      throw;
    } catch (const Error& error) {
      throw Error(std::get<Fact>(*items_[first].record).where + ": " + error.what());
    }
  }

  std::variant<Trace, Error> trace_alone(const Job& job, const Decoder& model, const RunControl& control) const {
    try {
      const auto trace = options_.engine == Engine::kGradient ? trace_gradient : trace_plain;
      return trace(model, job.result.prompt, options_.trace, *job.clean, control);
    } catch (const EndOfWork&) {
      throw;
    } catch (const Error& error) {
      return error;
    }
  }

  void settle(Job& job, std::variant<Trace, Error>&& outcome) {
    if (auto* error = std::get_if<Error>(&outcome)) {
      const auto& item = items_[static_cast<std::size_t>(&job - jobs_.data())];
      job.result.verdict = Verdict::failed(Cause::kTrace, std::get<Fact>(*item.record).where + ": " + error->what());
      job.result.trace = {};
    } else {
      job.result.trace = std::move(std::get<Trace>(outcome));
    }
    job.clean.reset();
  }

  // The results that are complete and next in order.
  void tell(const BatchSink& sink) {
    for (; told_ < jobs_.size() && jobs_[told_].done; ++told_) {
      if (!items_[told_].written) sink(told_, std::move(jobs_[told_].result));
    }
  }

  const Decoder& model_;
  const Replicas* const models_;
  const Tokenizer& tokenizer_;
  std::span<const BatchItem> items_;
  const BatchOptions& options_;
  const RunControl& control_;
  std::vector<Job> jobs_;
  std::mutex telling_;
  std::size_t told_ = 0;
};

}  // namespace

std::string_view to_string(Follow follow) {
  switch (follow) {
    case Follow::kPrediction:
      return "prediction";
    case Follow::kObject:
      return "object";
  }
  return "unknown";
}

FactReference reference_of(const BatchItem& item) {
  FactReference reference;
  reference.order = item.order;
  if (const auto* bad = std::get_if<BadRecord>(item.record)) {
    reference.record = bad->record;
    reference.id = bad->id.value_or("");
    reference.id_is_number = bad->id_is_number;
    return reference;
  }
  const auto& fact = std::get<Fact>(*item.record);
  reference.record = fact.record;
  reference.id = fact.id;
  reference.id_is_number = fact.id_is_number;
  reference.relation = fact.relation;
  reference.object = fact.object;
  return reference;
}

bool trace_facts(const Decoder& model, const Tokenizer& tokenizer, std::span<const BatchItem> items,
                 const BatchOptions& options, const RunControl& control, const BatchSink& sink) {
  return BatchChunk(model, nullptr, tokenizer, items, options, control).run(sink);
}

bool trace_facts(const Replicas& models, const Tokenizer& tokenizer, std::span<const BatchItem> items,
                 const BatchOptions& options, const RunControl& control, const BatchSink& sink) {
  return BatchChunk(models.first(), &models, tokenizer, items, options, control).run(sink);
}

std::optional<Verdict> problem_of_prompt(const Decoder& model, const Tokenizer& tokenizer, const Fact& fact,
                                         const BatchOptions& options) {
  BatchResult result;
  read_prompt(tokenizer, model, fact, options, result);
  if (result.verdict.status == Status::kFailed) return result.verdict;
  return std::nullopt;
}

std::vector<TracePrompt> shapes_of(const Decoder& model, const Tokenizer& tokenizer, std::span<const BatchItem> items,
                                   const BatchOptions& options) {
  std::vector<TracePrompt> shapes;
  std::set<SweepKey> seen;
  for (const auto& item : items) {
    const auto* fact = std::get_if<Fact>(item.record);
    if (fact == nullptr) continue;
    BatchResult result;
    read_prompt(tokenizer, model, *fact, options, result);
    if (result.verdict.status == Status::kFailed) continue;
    if (item.swap != nullptr) {
      if (!std::holds_alternative<Swap>(*item.swap)) continue;
      result.prompt.counter_ids = std::get<Swap>(*item.swap).counter.token_ids;
    }
    const auto room = model.config().longest_prompt() + 1 - static_cast<std::int64_t>(result.prompt.token_ids.size());
    result.prompt.target.resize(static_cast<std::size_t>(std::min(room, longest_answer(tokenizer, *fact, options))));
    if (!seen.insert(sweep_key(result.prompt, options.trace)).second) continue;
    shapes.push_back(std::move(result.prompt));
  }
  return shapes;
}

std::int64_t least_memory(const Decoder& model, std::span<const TracePrompt> shapes, const BatchOptions& options) {
  std::int64_t least = 0;
  for (const auto& shape : shapes) least = std::max(least, least_memory(model, shape, options.trace));
  return least;
}

std::int64_t batch_chunk(const Decoder& model, std::span<const TracePrompt> shapes, const BatchOptions& options,
                         const RunControl& control) {
  constexpr std::int64_t kSweeps = 8;
  const std::int64_t most = model.streamed() ? 512 : 128;  // a chunk's results wait for its first one
  // Where layers are read for each chunk, it is worth more memory, beside control.memory.
  const auto clean_runs = std::max(std::int64_t{256} << 20, model.streamed() ? control.memory / 4 : 0);
  std::int64_t together = 1, largest = 1;
  for (const auto& shape : shapes) {
    together = std::max(together, facts_together(model, shape, options, control));
    largest = std::max(largest, clean_run_bytes(model, shape, options.trace));
  }
  if (together == 1) return 1;
  return std::clamp<std::int64_t>(clean_runs / largest, 1, std::max(together, std::min(most, kSweeps * together)));
}

std::int64_t batch_round(const Replicas& models, std::int64_t chunk) {
  constexpr std::int64_t kFew = 4;
  return models.count() == 1 ? chunk : models.count() * chunk * std::max<std::int64_t>(1, kFew / chunk);
}

}  // namespace rometrace
