#include "rometrace/trace/sweep.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <optional>
#include <stop_token>
#include <utility>
#include <vector>

#include "rometrace/error.hpp"
#include "rometrace/trace/patch.hpp"
#include "trace/corruption.hpp"
#include "trace/draws.hpp"
#include "trace/readout.hpp"
#include "trace/recorder.hpp"
#include "trace/sweep_pass.hpp"
#include "trace/sweep_plan.hpp"

namespace rometrace {
namespace {

// Rows that go through a layer's products together. On a CPU they run at their full rate from 512 on, and memory for
// what is in between grows with them.
std::int64_t block_rows(const RunControl& control, at::Device device) {
  constexpr std::int64_t kOnCpu = 1024, kElsewhere = 8192;
  if (control.block_rows > 0) return control.block_rows;
  return device.is_cpu() ? kOnCpu : kElsewhere;
}

std::int64_t row_bytes(const Decoder& model) {
  return model.config().width * static_cast<std::int64_t>(c10::elementSize(model.stream_dtype()));
}

// One step of the draws of J facts: what enters the passes.
class Step {
 public:
  Step(const Decoder& model, std::span<const SweepFact> facts, const SweepShape& shape, const TraceOptions& options,
       std::int64_t first_draw, const std::stop_token& stop)
      : facts_(facts.size()) {
    auto base = at::empty({shape.J, shape.N, shape.R, model.config().embedding_width},
                          at::device(model.device()).dtype(model.stream_dtype()));
    std::vector<Corruption> corruptions;
    for (std::int64_t j = 0; j < shape.J; ++j) {
      const auto& [prompt, clean] = facts[static_cast<std::size_t>(j)];
      base[j].copy_(model.embed(clean->token_ids));
      corruptions.emplace_back(model, options.corruption, prompt->subject_range, prompt->counter_ids, first_draw,
                               shape.N);
      if (!shape.noising) corruptions.back().apply(base[j]);
    }
    base_ = model.enter(base).flatten(0, 1);
    std::vector<Recording> corrupted;
    if (shape.noising) corrupted = corrupted_runs(model, facts, shape, options, corruptions, stop);
    std::vector<const Recording*> others;
    for (std::size_t j = 0; j < facts.size(); ++j) {
      others.push_back(shape.noising ? &corrupted[j] : &facts[j].clean->recording);
    }
    other_.emplace(others);
  }

  const at::Tensor& base_embeddings() const { return base_; }  // [J N, R, D]
  const OtherRuns& other() const { return *other_; }
  // [N, 1 + readings] of a fact; when noising only, where no pass reads the corrupted run.
  std::span<const double> corrupted(std::size_t fact) const {
    const auto count = corrupted_.size() / facts_;
    return std::span(corrupted_).subspan(fact * count, count);
  }

 private:
  // All facts' side by side: a layer that is read for them is read once.
  std::vector<Recording> corrupted_runs(const Decoder& model, std::span<const SweepFact> facts, const SweepShape& shape,
                                        const TraceOptions& options, const std::vector<Corruption>& corruptions,
                                        const std::stop_token& stop) {
    Recorder record(model, {shape.J * shape.N, shape.R, shape.b, shape.b + 1}, sites_of(options.kinds));
    std::vector<std::int32_t> token_ids;
    std::vector<Question> questions;
    std::vector<std::int64_t> question_of;
    for (const auto& [prompt, clean] : facts) {
      for (std::int64_t n = 0; n < shape.N; ++n) {
        token_ids.insert(token_ids.end(), clean->token_ids.begin(), clean->token_ids.end());
        question_of.push_back(static_cast<std::int64_t>(questions.size()));
      }
      questions.emplace_back(*prompt, *clean);
    }
    const auto tap = [&](Site site, std::int64_t layer, at::Tensor& value) {
      if (stop.stop_requested()) throw Interrupted();
      for (std::int64_t j = 0; site == Site::kEmbedding && j < shape.J; ++j) {
        auto draws = value.narrow(0, j * shape.N, shape.N);
        corruptions[static_cast<std::size_t>(j)].apply(draws);
      }
      record(site, layer, value);
    };
    const auto hidden = model.forward_prompts(token_ids, shape.R, shape.R - shape.last, tap);
    corrupted_ = read_out(model, hidden, questions, question_of, readings_of(*facts.front().prompt, options));
    std::vector<Recording> runs;
    for (std::int64_t j = 0; j < shape.J; ++j) runs.push_back(record.recording().rows(j * shape.N, shape.N));
    return runs;
  }

  at::Tensor base_;
  std::vector<double> corrupted_;  // [J, N, 1 + readings]
  std::size_t facts_;
  std::optional<OtherRuns> other_;
};

// The trace of one fact, when its runs are known.
Trace trace_of(const TraceTally& tally, const SweepFact& fact, const std::vector<Cell>& cells,
               const std::vector<PatchCells>& patches, const SweepShape& shape, const TraceOptions& options,
               const DecoderConfig& config) {
  auto trace = begun_trace(*fact.prompt, options, config, fact.clean->trace, tally);
  // The clean run's numbers have no error.
  RunTally clean = tally.corrupted();
  clean.columns.front() = Tally::of(trace.high_score, tally.draws());
  for (std::size_t i = 0; i < trace.measured.size(); ++i) {
    clean.columns[i + 1] = Tally::of(trace.measured[i].high, tally.draws());
  }
  const auto& base = shape.noising ? clean : tally.corrupted();
  const auto& other = shape.noising ? tally.corrupted() : clean;
  for (std::size_t i = 0; i < patches.size(); ++i) {
    const auto outcome = shape.outcome_of(patches[i].patch);
    const auto& run = outcome == Outcome::kBase ? base : outcome == Outcome::kOther ? other : tally.run(i);
    for (const auto cell : patches[i].cells) put(run, cells[cell], trace);
  }
  return trace;
}

// Which patches of a step's passes ride: those of the clean run only once.
std::vector<std::vector<std::size_t>> passes_of(const std::vector<PatchCells>& patches, const SweepShape& shape,
                                                std::int64_t row_bytes, std::int64_t memory, bool first_step) {
  auto passes = cut_into_passes(patches, shape, row_bytes, memory);
  if (first_step) return passes;
  for (auto& pass : passes) std::erase_if(pass, [&](std::size_t i) { return patches[i].patch.of_clean_run; });
  std::erase_if(passes, [](const auto& pass) { return pass.empty(); });
  if (passes.empty() && !shape.noising) passes.emplace_back();  // for the corrupted run
  return passes;
}

}  // namespace

double TokenLayers::flops(const DecoderConfig& config) const {
  const auto number = [](std::int64_t value) { return static_cast<double>(value); };
  const auto D = number(config.width), F = number(config.mlp_width);
  return 2 *
         (number(keys_values) * D * number(config.keys_values_width()) +
          number(attention) * 2 * D * number(config.mixed_width()) + number(mlp) * (config.gated_mlp ? 3 : 2) * D * F +
          number(answers) * number(config.embedding_width) * number(config.vocab_size));
}

std::int64_t least_memory(const Decoder& model, const TracePrompt& prompt, const TraceOptions& options) {
  const SweepShape shape(prompt, options, model.config().layers);
  // A patch at the first corrupted position has as many rows as the base run.
  return 2 * shape.rows(shape.base_run()) * row_bytes(model);
}

Sweep trace_sweep(const Decoder& model, const TracePrompt& prompt, const TraceOptions& options, const CleanRun& clean,
                  const RunControl& control) {
  const SweepFact fact{&prompt, &clean};
  auto [outcomes, work, passes] = trace_sweeps(model, {&fact, 1}, options, control);
  if (const auto* error = std::get_if<Error>(&outcomes.front())) throw *error;
  return {std::get<Trace>(std::move(outcomes.front())), work, passes};
}

std::int64_t facts_per_sweep(const Decoder& model, const TracePrompt& prompt, const TraceOptions& options,
                             const RunControl& control) {
  // Measured on a CPU: of the time that it takes alone, a fact in company takes 0.4 to 0.8 with fewer than 100 rows in
  // a layer, 0.9 to 1 with some 500, and little less than all with a block of rows. Elsewhere the rule is a guess.
  constexpr std::int64_t kMost = 16;  // more was not measured, and a stop waits for all
  // A layer that is read for each pass is worth so many rows: with fewer the products may wait for a slow disk (0.1
  // GB/s beside 160 GFLOP/s), with more a stop waits for longer and nothing is saved.
  constexpr std::int64_t kStreamedRows = 2048, kStreamedRowsElsewhere = 32 * kStreamedRows;
  constexpr std::int64_t kMostStreamed = 64;
  const SweepShape shape(prompt, options, model.config().layers);
  const auto patches = patches_of(cells_of(prompt, options, model.config()));
  std::vector<const Patch*> to_run;
  for (const auto& [patch, cells] : patches) {
    if (shape.outcome_of(patch) == Outcome::kToBeRun) to_run.push_back(&patch);
  }
  const SweepPlan plan(shape, std::move(to_run));
  const auto in_one_pass = control.memory / (plan.rows * row_bytes(model));
  const auto rows = std::max<std::int64_t>(1, plan.token_layers / shape.L);  // in a layer, on average
  const auto facts_with = [&](std::int64_t wanted, std::int64_t most) {
    return std::clamp<std::int64_t>(std::min(in_one_pass, (wanted + rows - 1) / rows), 1, most);
  };
  if (model.streamed()) {
    return facts_with(model.device().is_cpu() ? kStreamedRows : kStreamedRowsElsewhere, kMostStreamed);
  }
  return facts_with(block_rows(control, model.device()), kMost);
}

SweepKey sweep_key(const TracePrompt& prompt, const TraceOptions& options) {
  const auto& kinds = options.kinds;
  const auto of_subject = [](const PositionRule& rule) {
    return rule.which == PositionRule::Which::kSubject || rule.which == PositionRule::Which::kSubjectLast;
  };
  const bool by_subject = of_subject(options.positions) ||
                          (options.neurons && of_subject(options.neurons->positions)) ||
                          std::find(kinds.begin(), kinds.end(), Kind::kKnockout) != kinds.end();
  const auto& [begin, end] = prompt.subject_range;
  return {static_cast<std::int64_t>(prompt.token_ids.size()),
          prompt.first_corrupted(),
          prompt.answer_tokens(),
          static_cast<std::int64_t>(prompt.other_targets.size()),
          prompt.foil.has_value(),
          by_subject ? static_cast<std::int64_t>(begin) : 0,
          by_subject ? static_cast<std::int64_t>(end) : 0};
}

SharedSweep trace_sweeps(const Decoder& model, std::span<const SweepFact> facts, const TraceOptions& options,
                         const RunControl& control) {
  const at::NoGradGuard no_grad;
  TORCH_INTERNAL_ASSERT(!facts.empty(), "a sweep needs a fact");
  const auto& first = *facts.front().prompt;
  std::vector<Question> questions;
  for (const auto& [prompt, clean] : facts) {
    TORCH_INTERNAL_ASSERT(sweep_key(*prompt, options) == sweep_key(first, options),
                          "the facts of a sweep have the same key");
    questions.emplace_back(*prompt, *clean);
  }
  const auto& config = model.config();
  const auto readings = readings_of(first, options);
  const auto cells = cells_of(first, options, config);
  const auto patches = patches_of(cells);
  std::vector<TraceTally> tallies(facts.size(), TraceTally(patches.size(), readings.size()));
  const auto is_done = [&](const TraceTally& tally) { return tally.is_done(options); };

  const auto rows = block_rows(control, model.device());
  SharedSweep sweep;
  std::int64_t total = 0;
  const std::function<void()> after_block = [&] {
    if (control.stop.stop_requested()) throw Interrupted();
    if (control.progress) control.progress(sweep.work.keys_values, total);
  };
  for (std::int64_t drawn = 0; !std::all_of(tallies.begin(), tallies.end(), is_done);) {
    auto of_step = options;
    const auto running = std::find_if_not(tallies.begin(), tallies.end(), is_done);
    of_step.samples = running->next_step(options);
    const SweepShape shape(first, of_step, config.layers, static_cast<std::int64_t>(facts.size()));
    const auto passes = passes_of(patches, shape, row_bytes(model), control.memory, drawn == 0);
    std::vector<SweepPlan> plans;
    for (const auto& pass : passes) {
      std::vector<const Patch*> of_pass;
      for (const auto i : pass) of_pass.push_back(&patches[i].patch);
      total += plans.emplace_back(shape, std::move(of_pass)).token_layers;
    }
    const Step step(model, facts, shape, options, drawn, control.stop);
    std::vector<bool> wants(facts.size());  // a fact that is done takes no part, whoever else goes on
    for (std::size_t j = 0; j < facts.size(); ++j) {
      wants[j] = !is_done(tallies[j]);
      if (wants[j] && shape.noising) tallies[j].add_corrupted(step.corrupted(j), options);
    }
    for (std::size_t i = 0; i < passes.size(); ++i) {
      const PassInput input{step.other(), shape,    plans[i], step.base_embeddings(),
                            questions,    readings, rows,     after_block};
      const auto runs = run_pass(model, input, sweep.work);
      ++sweep.passes;
      const auto of_fact = [&](const RunValues& run, std::size_t j) {
        return std::span(run).subspan(j * (run.size() / facts.size()), run.size() / facts.size());
      };
      for (std::size_t j = 0; j < facts.size(); ++j) {
        if (!wants[j]) continue;
        if (i == 0 && !shape.noising) tallies[j].add_corrupted(of_fact(runs[0], j), options);
        for (std::size_t k = 0; k < passes[i].size(); ++k) {
          tallies[j].add_run(passes[i][k], of_fact(runs[k + 1], j), options);
        }
      }
      const auto at_fault = [](const TraceTally& tally) { return tally.fault().has_value(); };
      if (std::all_of(tallies.begin(), tallies.end(), at_fault)) break;
    }
    for (std::size_t j = 0; j < facts.size(); ++j) {
      if (wants[j]) tallies[j].end_step(of_step.samples);
    }
    drawn += of_step.samples;
  }
  const SweepShape shape(first, options, config.layers);
  for (std::size_t j = 0; j < facts.size(); ++j) {
    if (tallies[j].fault()) {
      sweep.outcomes.emplace_back(*tallies[j].fault());
    } else {
      sweep.outcomes.emplace_back(trace_of(tallies[j], facts[j], cells, patches, shape, options, config));
    }
  }
  return sweep;
}

}  // namespace rometrace
