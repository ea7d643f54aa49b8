#include "rometrace/trace/sweep.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <stop_token>
#include <utility>
#include <vector>

#include "rometrace/error.hpp"
#include "rometrace/trace/patch.hpp"
#include "trace/both_directions.hpp"
#include "trace/corruption.hpp"
#include "trace/draws.hpp"
#include "trace/neuron_search.hpp"
#include "trace/pass_schedule.hpp"
#include "trace/readout.hpp"
#include "trace/recorder.hpp"
#include "trace/sweep_pass.hpp"
#include "trace/sweep_plan.hpp"

namespace rometrace {
namespace {

std::int64_t row_bytes(const Decoder& model) {
  return model.config().width * static_cast<std::int64_t>(c10::elementSize(model.stream_dtype()));
}

// The corrupted runs of J facts' draws.
struct CorruptedDraws {
  std::vector<Recording> recordings;  // of each fact, S = N
  RunValues values;
};

// A recording with the shape that noising reads corrupted runs in, of all facts side by side.
RecordingShape shape_of_corrupted(const SweepShape& shape) {
  return {shape.J * shape.N, shape.R, shape.b, shape.b + 1};
}

std::vector<Recording> by_fact(const Recording& recording, const SweepShape& shape) {
  std::vector<Recording> facts;
  for (std::int64_t j = 0; j < shape.J; ++j) facts.push_back(recording.rows(j * shape.N, shape.N));
  return facts;
}

// One step of the draws of J facts: what enters the passes. `known`: when noising, the corrupted runs, if another
// direction has computed them.
class Step {
 public:
  Step(const Decoder& model, std::span<const SweepFact> facts, const SweepShape& shape, const TraceOptions& options,
       std::int64_t first_draw, const CorruptedDraws* known, const std::stop_token& stop)
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
    if (shape.noising) corrupted_ = known ? *known : corrupted_runs(model, facts, shape, options, corruptions, stop);
    std::vector<const Recording*> others;
    for (std::size_t j = 0; j < facts.size(); ++j) {
      others.push_back(shape.noising ? &corrupted_.recordings[j] : &facts[j].clean->recording);
    }
    other_.emplace(others);
  }

  const at::Tensor& base_embeddings() const { return base_; }  // [J N, R, D]
  const OtherRuns& other() const { return *other_; }
  // [N, 1 + readings] of a fact; when noising only, where no pass reads the corrupted run.
  std::span<const double> corrupted(std::size_t fact) const {
    const auto count = corrupted_.values.size() / facts_;
    return std::span(corrupted_.values).subspan(fact * count, count);
  }

 private:
  // All facts' side by side: a layer that is read for them is read once.
  static CorruptedDraws corrupted_runs(const Decoder& model, std::span<const SweepFact> facts, const SweepShape& shape,
                                       const TraceOptions& options, const std::vector<Corruption>& corruptions,
                                       const std::stop_token& stop) {
    auto recorded = shape_of_corrupted(shape);
    recorded.neuron_layers = facts.front().clean->recording.neuron_layers;
    recorded.neuron_positions = facts.front().clean->recording.neuron_positions;
    Recorder record(model, recorded, sites_of(options.kinds));
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
    auto values = read_out(model, hidden, questions, question_of, readings_of(*facts.front().prompt, options));
    return {by_fact(record.recording(), shape), std::move(values)};
  }

  at::Tensor base_;
  CorruptedDraws corrupted_;
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
  clean.draws.assign(clean.draws.size(), trace.high_score);
  for (std::size_t i = 0; i < trace.measured.size(); ++i) {
    clean.columns[i + 1] = Tally::of(trace.measured[i].high, tally.draws());
  }
  const auto& base = shape.noising ? clean : tally.corrupted();
  const auto& other = shape.noising ? tally.corrupted() : clean;
  for (std::size_t i = 0; i < patches.size(); ++i) {
    const auto outcome = shape.outcome_of(patches[i].patch);
    const auto& run = outcome == Outcome::kBase ? base : outcome == Outcome::kOther ? other : tally.run(i);
    for (const auto cell : patches[i].cells) {
      if (cells[cell].grid != Cell::kNeurons) put(run, cells[cell], trace);
    }
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
  // For the corrupted run, or for neurons whose runs are as the base run.
  const bool reads_base = std::any_of(patches.begin(), patches.end(), [&](const PatchCells& entry) {
    return entry.patch.fact && shape.outcome_of(entry.patch) == Outcome::kBase;
  });
  if (passes.empty() && (reads_base || !shape.noising)) passes.emplace_back();
  return passes;
}

// The runs of neurons in one round of a fact's search, as cells.
void add_cells(std::vector<Patch> patches, std::int64_t fact, std::vector<Cell>& cells) {
  for (std::size_t run = 0; run < patches.size(); ++run) {
    patches[run].fact = fact;
    cells.push_back({Cell::kNeurons, run, std::move(patches[run])});
  }
}

// What all steps of a sweep have in common.
struct Work {
  const Decoder& model;
  const TraceOptions& options;
  const RunControl& control;
  SharedSweep& sweep;
  CorruptedDraws* corrupted = nullptr;  // if given, denoising leaves its corrupted runs there, and noising reads them
  std::int64_t total = 0;               // token-layers of all passes that are known of
};

// Runs draws `first_draw` .. of some facts: `take_corrupted` is given each fact and the readings [draws, 1 + readings]
// of its corrupted run, `take` a patch, the fact and those of its run. Ends early where nobody hopes for more.
template <typename TakeCorrupted, typename Take, typename IsHopeless>
void run_step(Work& work, std::span<const SweepFact> facts, const std::vector<PatchCells>& patches,
              std::int64_t first_draw, std::int64_t draws, const TakeCorrupted& take_corrupted, const Take& take,
              const IsHopeless& is_hopeless) {
  const auto& model = work.model;
  const auto& control = work.control;
  const auto& first = *facts.front().prompt;
  const auto readings = readings_of(first, work.options);
  std::vector<Question> questions;
  for (const auto& [prompt, clean] : facts) questions.emplace_back(*prompt, *clean);
  auto of_step = work.options;
  of_step.samples = draws;
  const SweepShape shape(first, of_step, model.config().layers, static_cast<std::int64_t>(facts.size()));
  const auto passes = passes_of(patches, shape, row_bytes(model), control.memory, first_draw == 0);
  std::vector<SweepPlan> plans;
  for (const auto& pass : passes) {
    std::vector<const Patch*> of_pass;
    for (const auto i : pass) of_pass.push_back(&patches[i].patch);
    work.total += plans.emplace_back(shape, std::move(of_pass)).token_layers;
  }
  const std::function<void()> after_block = [&] {
    if (control.stop.stop_requested()) throw Interrupted();
    if (control.progress) control.progress(work.sweep.work.keys_values, work.total);
  };
  const Step step(model, facts, shape, work.options, first_draw, work.corrupted, control.stop);
  std::optional<Recording> base_recording;
  if (work.corrupted != nullptr && !shape.noising) {
    base_recording = empty_recording(model, shape_of_corrupted(shape), sites_of(work.options.kinds));
  }
  for (std::size_t j = 0; shape.noising && j < facts.size(); ++j) take_corrupted(j, step.corrupted(j));
  const auto base_is_known = [&](std::size_t j, std::span<const double> base) {
    for (std::size_t i = 0; i < patches.size(); ++i) {
      const bool is_base = shape.outcome_of(patches[i].patch) == Outcome::kBase;
      if (is_base && patches[i].patch.fact == static_cast<std::int64_t>(j)) take(i, j, base);
    }
  };
  for (std::size_t i = 0; i < passes.size(); ++i) {
    const PassInput input{step.other(),       shape,
                          plans[i],           step.base_embeddings(),
                          questions,          readings,
                          control.block_rows, control.workers,
                          after_block,        i == 0 && base_recording ? &*base_recording : nullptr};
    const auto runs = run_pass(model, input, work.sweep.work);
    ++work.sweep.passes;
    if (i == 0 && base_recording) *work.corrupted = {by_fact(*base_recording, shape), runs[0]};
    const auto of_fact = [&](const RunValues& run, std::size_t j) {
      return std::span(run).subspan(j * (run.size() / facts.size()), run.size() / facts.size());
    };
    for (std::size_t j = 0; j < facts.size(); ++j) {
      if (i == 0 && !shape.noising) take_corrupted(j, of_fact(runs[0], j));
      if (i == 0) base_is_known(j, of_fact(runs[0], j));
      for (std::size_t k = 0; k < passes[i].size(); ++k) {
        const auto& fact = patches[passes[i][k]].patch.fact;
        if (!fact) {
          take(passes[i][k], j, of_fact(runs[k + 1], j));
        } else if (*fact == static_cast<std::int64_t>(j)) {
          take(passes[i][k], j, runs[k + 1]);
        }
      }
    }
    if (is_hopeless()) break;
  }
}

// The rounds of a fact's search that follow the first one, with the same draws.
void finish(NeuronSearch& search, const SweepFact& fact, double base, std::int64_t draws, Work& work) {
  while (true) {
    std::vector<Cell> cells;
    add_cells(search.next(base), 0, cells);
    if (cells.empty()) return;
    const auto patches = patches_of(cells);
    for (std::int64_t drawn = 0; drawn < draws;) {
      const auto some = std::min(work.options.samples, draws - drawn);
      const auto take = [&](std::size_t i, std::size_t, std::span<const double> values) {
        for (const auto cell : patches[i].cells) search.add(cells[cell].index, values);
      };
      run_step(
          work, {&fact, 1}, patches, drawn, some, [](std::size_t, std::span<const double>) {}, take,
          [] { return false; });
      drawn += some;
    }
  }
}

// All draws of some facts in one direction. `corrupted`: as in Work.
SharedSweep trace_one_way(const Decoder& model, std::span<const SweepFact> facts, const TraceOptions& options,
                          const RunControl& control, CorruptedDraws* corrupted = nullptr) {
  const at::NoGradGuard no_grad;
  TORCH_INTERNAL_ASSERT(!facts.empty(), "a sweep needs a fact");
  const auto& first = *facts.front().prompt;
  for (const auto& fact : facts) {
    TORCH_INTERNAL_ASSERT(sweep_key(*fact.prompt, options) == sweep_key(first, options),
                          "the facts of a sweep have the same key");
  }
  const auto& config = model.config();
  const auto readings = readings_of(first, options);
  std::vector<std::unique_ptr<NeuronSearch>> searches;  // of each fact, where neurons are traced
  auto cells = cells_of(first, options, config);
  for (std::size_t j = 0; options.neurons && j < facts.size(); ++j) {
    searches.push_back(std::make_unique<NeuronSearch>(model, *facts[j].prompt, options, *facts[j].clean, control));
    add_cells(searches.back()->next(0), static_cast<std::int64_t>(j), cells);
  }
  const auto patches = patches_of(cells);
  std::vector<TraceTally> tallies(facts.size(), TraceTally(patches.size(), readings.size()));
  const auto is_done = [&](const TraceTally& tally) { return tally.is_done(options); };

  SharedSweep sweep;
  Work work{model, options, control, sweep, corrupted};
  for (std::int64_t drawn = 0; !std::all_of(tallies.begin(), tallies.end(), is_done);) {
    const auto running = std::find_if_not(tallies.begin(), tallies.end(), is_done);
    const auto draws = running->next_step(options);
    std::vector<bool> wants(facts.size());  // a fact that is done takes no part, whoever else goes on
    for (std::size_t j = 0; j < facts.size(); ++j) wants[j] = !is_done(tallies[j]);
    const auto take_corrupted = [&](std::size_t j, std::span<const double> values) {
      if (wants[j]) tallies[j].add_corrupted(values, options);
    };
    const auto take = [&](std::size_t i, std::size_t j, std::span<const double> values) {
      if (!wants[j]) return;
      const auto& first_cell = cells[patches[i].cells.front()];
      if (first_cell.grid != Cell::kNeurons) return tallies[j].add_run(i, values, options);
      for (const auto cell : patches[i].cells) searches[j]->add(cells[cell].index, values);
      if (searches[j]->is_told(first_cell.index)) tallies[j].add_run(i, values, options);
    };
    const auto is_hopeless = [&] {
      return std::all_of(tallies.begin(), tallies.end(),
                         [](const TraceTally& tally) { return tally.fault().has_value(); });
    };
    run_step(work, facts, patches, drawn, draws, take_corrupted, take, is_hopeless);
    for (std::size_t j = 0; j < facts.size(); ++j) {
      if (wants[j]) tallies[j].end_step(draws);
    }
    drawn += draws;
  }
  const SweepShape shape(first, options, config.layers);
  for (std::size_t j = 0; j < facts.size(); ++j) {
    if (tallies[j].fault()) {
      sweep.outcomes.emplace_back(*tallies[j].fault());
      continue;
    }
    auto trace = trace_of(tallies[j], facts[j], cells, patches, shape, options, config);
    if (options.neurons) {
      const auto base = options.direction == Direction::kNoising ? trace.high_score : trace.low_score;
      finish(*searches[j], facts[j], base, tallies[j].draws(), work);
      trace.neurons = searches[j]->result(base);
    }
    sweep.outcomes.emplace_back(std::move(trace));
  }
  return sweep;
}

// One direction after the other; the corrupted runs are the base runs of the first and the other runs of the second.
SharedSweep trace_both(const Decoder& model, std::span<const SweepFact> facts, const TraceOptions& options,
                       const RunControl& control) {
  check_both(options);
  CorruptedDraws corrupted;
  const auto run = [&](Direction direction) {
    return trace_one_way(model, facts, in_direction(options, direction), in_direction(control, direction), &corrupted);
  };
  auto denoised = run(Direction::kDenoising);
  if (!has_direction(options)) return denoised;
  auto noised = run(Direction::kNoising);
  for (std::size_t j = 0; j < facts.size(); ++j) {
    auto* trace = std::get_if<Trace>(&denoised.outcomes[j]);
    if (trace == nullptr) continue;
    if (auto* other = std::get_if<Trace>(&noised.outcomes[j])) {
      join_directions(*trace, std::move(*other));
    } else {
      denoised.outcomes[j] = std::get<Error>(noised.outcomes[j]);
    }
  }
  denoised.work += noised.work;
  denoised.passes += noised.passes;
  return denoised;
}

// What one fact of a sweep takes.
struct FactSize {
  std::int64_t rows = 0;             // at the top
  std::int64_t rows_in_a_layer = 0;  // on average, at least 1
};

FactSize size_of(const Decoder& model, const TracePrompt& prompt, const TraceOptions& options) {
  const SweepShape shape(prompt, options, model.config().layers);
  const auto patches = patches_of(cells_of(prompt, options, model.config()));
  std::vector<const Patch*> to_run;
  for (const auto& [patch, cells] : patches) {
    if (shape.outcome_of(patch) == Outcome::kToBeRun) to_run.push_back(&patch);
  }
  const SweepPlan plan(shape, std::move(to_run));
  std::int64_t neurons = 0;  // rows at the top of their runs, which may all begin in the first layer
  if (options.neurons) {
    for (const auto position : positions_of(options.neurons->positions, prompt)) {
      neurons += NeuronSearch::first_runs(*options.neurons, model.config()) * shape.N * (shape.R - position);
    }
  }
  return {plan.rows + neurons, std::max<std::int64_t>(1, plan.token_layers / shape.L + neurons)};
}

}  // namespace

TokenLayers TokenLayers::through_layers(std::int64_t rows, const DecoderConfig& config) {
  TokenLayers work;
  work.keys_values = work.attention = rows * config.layers;
  for (std::int64_t layer = 0; layer < config.layers; ++layer)
    (config.is_mixture(layer) ? work.mixture : work.mlp) += rows;
  return work;
}

TokenLayers& TokenLayers::operator+=(const TokenLayers& more) {
  keys_values += more.keys_values;
  attention += more.attention;
  mlp += more.mlp;
  neurons += more.neurons;
  answers += more.answers;
  mixture += more.mixture;
  return *this;
}

double TokenLayers::flops(const DecoderConfig& config) const {
  const auto number = [](std::int64_t value) { return static_cast<double>(value); };
  const auto D = number(config.width), F = number(config.mlp_width);
  double of_mixture = 0;
  if (config.experts) {
    const auto& experts = *config.experts;
    const auto widths = number(experts.chosen * experts.width + experts.shared_width);
    of_mixture = D * (number(experts.count) + 3 * widths + (experts.shared_width > 0 ? 1 : 0));
  }
  return 2 *
         (number(mixture) * of_mixture + number(keys_values) * D * number(config.keys_values_width()) +
          number(attention) * 2 * D * number(config.mixed_width()) + number(mlp) * (config.gated_mlp ? 3 : 2) * D * F +
          number(neurons) * D * F + number(answers) * number(config.embedding_width) * number(config.vocab_size));
}

double sweep_flops(const Decoder& model, const TracePrompt& prompt, const TraceOptions& options) {
  const auto rows = size_of(model, prompt, options).rows_in_a_layer;
  return TokenLayers::through_layers(rows, model.config()).flops(model.config());
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
  const auto size = size_of(model, prompt, options);
  const auto in_one_pass = control.memory / (size.rows * row_bytes(model));
  const auto rows = size.rows_in_a_layer;
  const auto facts_with = [&](std::int64_t wanted, std::int64_t most) {
    return std::clamp<std::int64_t>(std::min(in_one_pass, (wanted + rows - 1) / rows), 1, most);
  };
  if (model.streamed()) {
    return facts_with(model.device().is_cpu() ? kStreamedRows : kStreamedRowsElsewhere, kMostStreamed);
  }
  // Whoever shares them, so that groups stay the same.
  return facts_with(control.block_rows > 0 ? control.block_rows : full_block_rows(model.device()), kMost);
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
  if (options.direction == Direction::kBoth) return trace_both(model, facts, options, control);
  return trace_one_way(model, facts, options, control);
}

}  // namespace rometrace
