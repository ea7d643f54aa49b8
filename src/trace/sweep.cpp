#include "rometrace/trace/sweep.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "rometrace/error.hpp"
#include "trace/answer.hpp"
#include "trace/attend.hpp"
#include "trace/corruption.hpp"
#include "trace/draws.hpp"
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

std::int64_t row_bytes(const Gpt2& model) {
  return model.config().n_embd * static_cast<std::int64_t>(c10::elementSize(model.stream_dtype()));
}

// What a pass reads of the clean runs of J facts.
struct CleanRuns {
  explicit CleanRuns(std::span<const SweepFact> facts) {
    inputs = side_by_side(facts, [](const CleanRun& clean) { return clean.inputs; });
    for (const auto& entry : facts.front().clean->outputs) {
      const auto site = entry.first;
      outputs[site] = side_by_side(facts, [&](const CleanRun& clean) { return clean.outputs.at(site); });
    }
    for (const auto& fact : facts) answers.push_back(fact.clean->trace.answer_id);
  }

  at::Tensor inputs;                   // [L, J, b + 1, D]
  std::map<Site, at::Tensor> outputs;  // [L, J, T - b, D]
  std::vector<std::int32_t> answers;   // [J]

 private:
  // [L, ...] of each fact -> [L, J, ...]; of a single fact a view.
  template <typename Part>
  static at::Tensor side_by_side(std::span<const SweepFact> facts, Part part) {
    if (facts.size() == 1) return part(*facts.front().clean).unsqueeze(1);
    std::vector<at::Tensor> parts;
    for (const auto& fact : facts) parts.push_back(part(*fact.clean));
    return at::stack(parts, 1);
  }
};

// One pass up the layers.
class Pass {
 public:
  // `after_block` is called often, with the work done so far in `work`.
  Pass(const Gpt2& model, const CleanRuns& clean, const SweepShape& shape, const SweepPlan& plan,
       std::int64_t block_rows, const std::function<void()>& after_block, TokenLayers& work)
      : model_(model),
        clean_(clean),
        shape_(shape),
        plan_(plan),
        block_rows_(block_rows),
        after_block_(after_block),
        work_(work),
        segments_({shape.corrupted_run()}),
        segment_of_patch_(plan.patches.size()) {
    const auto D = model.config().n_embd;
    const auto like = at::device(model.device()).dtype(model.stream_dtype());
    rows_ = at::empty({plan.rows, D}, like);
    base_ = at::empty({shape.J + shape.draws(), shape.T, 2 * D}, like);
  }

  // From the corrupted embeddings [J N, T, D] to the answer's probability for each draw of the corrupted run, then of
  // each patch: [1 + patches, J, N].
  std::vector<double> run(const at::Tensor& corrupted_embeddings) {
    rows_of(segments_[0]).copy_(corrupted_embeddings.slice(1, shape_.b));
    for (std::int64_t layer = 0; layer < shape_.L; ++layer) {
      fill_base(layer);
      remember_for_admission(layer);
      for (const auto& block : blocks()) {
        advance(layer, block);
        after_block_();
      }
      admit(layer);
    }
    return answers();
  }

 private:
  // Successive rows: either segments whole, or some draws of a single one.
  struct Block {
    std::size_t begin_segment, end_segment;
    std::int64_t first_draw, draws;
    std::int64_t row, rows;
  };

  at::Tensor rows_of(const Segment& segment) const {  // [J N, length, D], a view
    return rows_.slice(0, segment.row, segment.row + shape_.rows(segment))
        .view({shape_.draws(), segment.length, rows_.size(1)});
  }

  // Rows [J N ..] or positions of them as [J, N, ..], a view.
  at::Tensor by_fact(const at::Tensor& draws) const { return draws.unflatten(0, {shape_.J, shape_.N}); }

  // The keys and values that patches share: of the clean runs' first positions, and of the corrupted runs.
  void fill_base(std::int64_t layer) {
    const auto& block = model_.block(layer);
    const auto J = shape_.J, clean_rows = plan_.clean_rows, width = base_.size(2);
    const auto corrupted = rows_.slice(0, 0, shape_.rows(segments_[0]));
    const auto stream = at::cat({clean_.inputs[layer].slice(1, 0, clean_rows).flatten(0, 1), corrupted});
    const auto keys_values = at::empty({stream.size(0), width}, base_.options());
    for (std::int64_t begin = 0; begin < stream.size(0); begin += block_rows_) {
      const auto some = stream.slice(0, begin, begin + block_rows_);
      keys_values.slice(0, begin, begin + block_rows_).copy_(block.attn().keys_values(block.ln_1(some)));
    }
    const auto clean = keys_values.slice(0, 0, J * clean_rows).view({J, clean_rows, width});
    base_.slice(0, 0, J).slice(1, 0, clean_rows).copy_(clean);
    const auto draws = base_.slice(0, J);
    by_fact(draws).slice(2, 0, shape_.b).copy_(clean.unsqueeze(1).slice(2, 0, shape_.b));
    draws.slice(1, shape_.b)
        .copy_(keys_values.slice(0, J * clean_rows).view({shape_.draws(), shape_.T - shape_.b, width}));
    work_.keys_values += stream.size(0);
  }

  // Restoring an output inside a layer needs the corrupted stream as it was before that output was added.
  void remember_for_admission(std::int64_t layer) {
    const auto corrupted = rows_.slice(0, 0, shape_.rows(segments_[0]));
    before_attention_ = !plan_.admitted_at(layer, Site::kAttn).empty() ? corrupted.clone() : at::Tensor();
    before_mlp_ = !plan_.admitted_at(layer, Site::kMlp).empty() ? at::empty_like(corrupted) : at::Tensor();
  }

  std::vector<Block> blocks() const {
    std::vector<Block> blocks;
    for (std::size_t i = 0; i < segments_.size(); ++i) {
      const auto& segment = segments_[i];
      const auto rows = shape_.rows(segment);
      // The corrupted run is alone: it takes its keys from the base.
      const bool joins = i > 1 && blocks.back().draws == shape_.draws() && blocks.back().rows + rows <= block_rows_;
      if (joins) {
        blocks.back().rows += rows;
        blocks.back().end_segment = i + 1;
        continue;
      }
      const auto draws = std::clamp<std::int64_t>(block_rows_ / segment.length, 1, shape_.draws());
      for (std::int64_t draw = 0; draw < shape_.draws(); draw += draws) {
        const auto count = std::min(draws, shape_.draws() - draw);
        blocks.push_back({i, i + 1, draw, count, segment.row + draw * segment.length, count * segment.length});
      }
    }
    return blocks;
  }

  // Of each draw, the first row of `segment` whose output of `site` is used.
  std::int64_t first_used(const Segment& segment, Site site, std::int64_t layer) const {
    const auto first = layer == shape_.L - 1 ? segment.length - 1 : 0;
    return first == 0 && segment.restored_at(site, layer) ? 1 : first;
  }

  // Those rows of a block, counted from the block's first; nothing if they are all rows.
  std::optional<at::Tensor> used_rows(const Block& block, Site site, std::int64_t layer) const {
    std::vector<std::int64_t> used;
    used.reserve(static_cast<std::size_t>(block.rows));
    std::int64_t row = 0;
    for (auto i = block.begin_segment; i < block.end_segment; ++i) {
      const auto first = first_used(segments_[i], site, layer);
      for (std::int64_t draw = 0; draw < block.draws; ++draw, row += segments_[i].length) {
        for (auto at = first; at < segments_[i].length; ++at) used.push_back(row + at);
      }
    }
    if (static_cast<std::int64_t>(used.size()) == block.rows) return std::nullopt;
    return at::tensor(used).to(rows_.device());
  }

  // Takes a block of rows through one layer, in place.
  void advance(std::int64_t layer, const Block& block) {
    const auto& weights = model_.block(layer);
    const auto select = [](const at::Tensor& rows, const std::optional<at::Tensor>& used) {
      return used ? rows.index_select(0, *used) : rows;
    };
    const auto add = [](const at::Tensor& rows, const std::optional<at::Tensor>& used, const at::Tensor& output) {
      used ? rows.index_add_(0, *used, output.to(rows.scalar_type())) : rows.add_(output);
    };
    const auto x = rows_.slice(0, block.row, block.row + block.rows);

    const auto asking = used_rows(block, Site::kAttn, layer);
    const auto normalised = weights.ln_1(x);
    AttentionBlock attention;
    attention.queries = weights.attn().queries(select(normalised, asking)).to(x.scalar_type());
    attention.keys_values = own_keys_values(layer, block, normalised);
    attention.base = base_;
    attention.facts = shape_.J;
    attention.first_draw = block.first_draw;
    attention.draws = block.draws;
    for (auto i = block.begin_segment; i < block.end_segment; ++i) {
      const auto& segment = segments_[i];
      attention.segments.push_back(
          {segment.first, segment.length, first_used(segment, Site::kAttn, layer), segment.clean_prefix});
    }
    attention.heads = weights.attn().heads();
    attention.scale = weights.attn().scale();
    work_.attention += attention.queries.size(0);
    if (attention.queries.size(0) > 0) add(x, asking, weights.attn().project(attend(attention)));
    put_back(layer, Site::kAttn, block);

    if (block.begin_segment == 0 && before_mlp_.defined()) {
      before_mlp_.slice(0, block.row, block.row + block.rows).copy_(x);
    }
    const auto used = used_rows(block, Site::kMlp, layer);
    const auto into_mlp = select(x, used);
    work_.mlp += into_mlp.size(0);
    if (into_mlp.size(0) > 0) add(x, used, weights.mlp_output(into_mlp));
    put_back(layer, Site::kMlp, block);
  }

  at::Tensor own_keys_values(std::int64_t layer, const Block& block, const at::Tensor& normalised) {
    if (block.begin_segment == 0) {
      const auto first_run = shape_.J + block.first_draw;
      return base_.slice(0, first_run, first_run + block.draws).slice(1, shape_.b).reshape({block.rows, base_.size(2)});
    }
    work_.keys_values += block.rows;
    return model_.block(layer).attn().keys_values(normalised).to(normalised.scalar_type());
  }

  // Adds the clean outputs in place of those that were left out as restored.
  void put_back(std::int64_t layer, Site site, const Block& block) {
    std::vector<std::int64_t> rows, outputs;
    std::int64_t row = 0;
    for (auto i = block.begin_segment; i < block.end_segment; ++i) {
      const auto& segment = segments_[i];
      // In the last layer, for the last position only.
      const bool used = segment.restored_at(site, layer) && (layer < shape_.L - 1 || segment.length == 1);
      for (std::int64_t draw = 0; draw < block.draws; ++draw, row += segment.length) {
        if (!used) continue;
        rows.push_back(row);
        const auto fact = (block.first_draw + draw) / shape_.N;
        outputs.push_back(fact * (shape_.T - shape_.b) + segment.first - shape_.b);
      }
    }
    if (rows.empty()) return;
    const auto device = rows_.device();
    rows_.slice(0, block.row, block.row + block.rows)
        .index_add_(0, at::tensor(rows).to(device),
                    clean_.outputs.at(site)[layer].flatten(0, 1).index_select(0, at::tensor(outputs).to(device)));
  }

  // Gives rows to the patches that begin with this layer.
  void admit(std::int64_t layer) {
    std::map<Site, at::Tensor> restored;  // [J, N, T - b, D]
    for (const auto& [index, parent] : plan_.admissions[static_cast<std::size_t>(layer)]) {
      const auto& patch = *plan_.patches[index];
      auto segment = shape_.segment_of(patch);
      segment.row = segments_.back().row + shape_.rows(segments_.back());
      const auto rows = rows_of(segment);
      if (parent) {
        rows.copy_(rows_of(segments_[segment_of_patch_[*parent]]));
      } else {
        rows.copy_(rows_of(segments_[0]).slice(1, segment.first - shape_.b));
        if (segment.first == patch.position) {
          if (restored.find(patch.site) == restored.end()) {
            restored.emplace(patch.site, restored_rows(layer, patch.site));
          }
          by_fact(rows.select(1, 0)).copy_(restored.at(patch.site).select(2, patch.position - shape_.b));
        }
      }
      segment_of_patch_[index] = segments_.size();
      segments_.push_back(segment);
    }
  }

  // What the corrupted run's rows become when the clean output of `site` is put back in this layer: [J, N, T - b, D],
  // valid at the positions at which patches are admitted.
  at::Tensor restored_rows(std::int64_t layer, Site site) const {
    const auto clean = clean_.outputs.at(site)[layer].unsqueeze(1);  // [J, 1, T - b, D]
    const auto by_draw = [&](const at::Tensor& rows) {
      return rows.view({shape_.J, shape_.N, shape_.T - shape_.b, -1});
    };
    if (site == Site::kState) return clean.expand({-1, shape_.N, -1, -1});
    if (site == Site::kMlp) return by_draw(before_mlp_) + clean;
    auto rows = by_draw(before_attention_) + clean;
    std::vector<std::int64_t> admitted;
    for (const auto position : plan_.admitted_at(layer, site)) admitted.push_back(position - shape_.b);
    const auto positions = at::tensor(admitted).to(rows.device());
    const auto used = rows.index_select(2, positions);
    const auto flat = used.view({-1, rows.size(3)});
    for (std::int64_t begin = 0; begin < flat.size(0); begin += block_rows_) {
      const auto some = flat.slice(0, begin, begin + block_rows_);
      some.add_(model_.block(layer).mlp_output(some));
      work_.mlp += some.size(0);
    }
    return rows.index_copy_(2, positions, used);
  }

  std::vector<double> answers() const {
    std::vector<std::int64_t> last_rows;
    std::vector<std::int32_t> answers;
    for (const auto& segment : segments_) {
      for (std::int64_t draw = 0; draw < shape_.draws(); ++draw) {
        last_rows.push_back(segment.row + (draw + 1) * segment.length - 1);
        answers.push_back(clean_.answers[static_cast<std::size_t>(draw / shape_.N)]);
      }
    }
    const auto index = at::tensor(last_rows).to(rows_.device());
    std::vector<double> by_segment;
    for (std::int64_t begin = 0; begin < index.size(0); begin += block_rows_) {
      const auto hidden = model_.ln_f(rows_.index_select(0, index.slice(0, begin, begin + block_rows_)));
      const auto of_rows =
          std::span(answers).subspan(static_cast<std::size_t>(begin)).first(static_cast<std::size_t>(hidden.size(0)));
      const auto some = answer_probabilities(model_, hidden, of_rows);
      by_segment.insert(by_segment.end(), some.begin(), some.end());
      work_.answers += static_cast<std::int64_t>(some.size());
      after_block_();
    }
    std::vector<double> in_order(by_segment.begin(), by_segment.begin() + shape_.draws());
    for (const auto segment : segment_of_patch_) {
      const auto begin = by_segment.begin() + static_cast<std::int64_t>(segment) * shape_.draws();
      in_order.insert(in_order.end(), begin, begin + shape_.draws());
    }
    return in_order;
  }

  const Gpt2& model_;
  const CleanRuns& clean_;
  const SweepShape& shape_;
  const SweepPlan& plan_;
  const std::int64_t block_rows_;
  const std::function<void()>& after_block_;
  TokenLayers& work_;
  std::vector<Segment> segments_;  // the corrupted run, then patches in the order of their admission
  std::vector<std::size_t> segment_of_patch_;
  at::Tensor rows_;                           // [rows of all segments, D]: the residual stream
  at::Tensor base_;                           // [J + J N, T, 2 D]: this layer's keys and values, see AttentionBlock
  at::Tensor before_attention_, before_mlp_;  // the corrupted rows inside this layer, [J N (T - b), D]
};

// What goes into layer 0 of the corrupted runs, [J N, T, D].
at::Tensor corrupted_embeddings(const Gpt2& model, std::span<const SweepFact> facts, const SweepShape& shape,
                                const TraceOptions& options) {
  auto rows = at::empty({shape.J, shape.N, shape.T, model.config().n_embd},
                        at::device(model.device()).dtype(model.stream_dtype()));
  for (std::int64_t j = 0; j < shape.J; ++j) {
    const auto& prompt = *facts[static_cast<std::size_t>(j)].prompt;
    rows[j].copy_(model.embed(prompt.token_ids));
    Corruption(model, prompt, options).apply(rows[j]);
  }
  return rows.add_(model.position_embeddings(shape.T)).flatten(0, 1);
}

// What is known of one fact's runs so far.
struct FactScores {
  MeanAndError low;
  std::vector<MeanAndError> patches;
  std::optional<Error> fault;

  // Reads what a pass found, [1 + patches, J, N], of fact `j`. `patches_of_pass`: which patches rode in it.
  void read(std::span<const double> draws, std::int64_t j, const SweepShape& shape,
            const std::vector<std::size_t>& patches_of_pass, const TraceOptions& options) {
    const auto score = [&](std::size_t run) {
      const auto first = run * static_cast<std::size_t>(shape.draws()) + static_cast<std::size_t>(j * shape.N);
      const auto some = draws.subspan(first, static_cast<std::size_t>(shape.N));
      if (!fault) fault = fault_of(some, options);
      return mean_and_error(some);
    };
    low = score(0);
    for (std::size_t run = 0; run < patches_of_pass.size(); ++run) patches[patches_of_pass[run]] = score(run + 1);
  }
};

Trace trace_of(const FactScores& scores, const CleanRun& clean, const std::vector<PatchCells>& patches,
               const SweepShape& shape, const TraceOptions& options) {
  const MeanAndError high{clean.trace.high_score, shape.N > 1 ? 0 : std::numeric_limits<double>::quiet_NaN()};
  auto trace = clean.trace;
  trace.low_score = scores.low.mean;
  trace.low_standard_error = scores.low.standard_error;
  for (const Kind kind : options.kinds) trace.grids.push_back(empty_grid(kind, options, trace));
  for (std::size_t i = 0; i < patches.size(); ++i) {
    const auto outcome = shape.outcome_of(patches[i].patch);
    const auto& score = outcome == Outcome::kCorrupted ? scores.low
                        : outcome == Outcome::kClean   ? high
                                                       : scores.patches[i];
    for (const auto& [grid, index] : patches[i].cells) {
      trace.grids[grid].scores[index] = score.mean;
      trace.grids[grid].standard_error[index] = score.standard_error;
    }
  }
  return trace;
}

}  // namespace

double TokenLayers::flops(const Gpt2Config& config) const {
  const auto D = static_cast<double>(config.n_embd), F = static_cast<double>(config.n_inner),
             V = static_cast<double>(config.vocab_size);
  return 2 * (static_cast<double>(keys_values) * 2 * D * D + static_cast<double>(attention) * 2 * D * D +
              static_cast<double>(mlp) * 2 * D * F + static_cast<double>(answers) * D * V);
}

std::int64_t least_memory(const Gpt2& model, const TracePrompt& prompt, const TraceOptions& options) {
  const auto rows = options.samples * static_cast<std::int64_t>(prompt.token_ids.size() - prompt.subject_range.begin);
  return 2 * rows * row_bytes(model);  // a patch at the subject's first position has as many rows as the corrupted run
}

Sweep trace_sweep(const Gpt2& model, const TracePrompt& prompt, const TraceOptions& options, const CleanRun& clean,
                  const RunControl& control) {
  const SweepFact fact{&prompt, &clean};
  auto [outcomes, work, passes] = trace_sweeps(model, {&fact, 1}, options, control);
  if (const auto* error = std::get_if<Error>(&outcomes.front())) throw *error;
  return {std::get<Trace>(std::move(outcomes.front())), work, passes};
}

std::int64_t facts_per_sweep(const Gpt2& model, const TracePrompt& prompt, const TraceOptions& options,
                             const RunControl& control) {
  // Measured on a CPU: of the time that it takes alone, a fact in company takes 0.4 to 0.8 with fewer than 100 rows in
  // a layer, 0.9 to 1 with some 500, and little less than all with a block of rows. Elsewhere the rule is a guess.
  constexpr std::int64_t kMost = 16;  // more was not measured, and a stop waits for all
  const SweepShape shape(prompt, options, model.config().n_layer);
  const auto patches = patches_of(shape, options);
  std::vector<const Patch*> to_run;
  for (const auto& [patch, cells] : patches) {
    if (shape.outcome_of(patch) == Outcome::kToBeRun) to_run.push_back(&patch);
  }
  const SweepPlan plan(shape, std::move(to_run));
  const auto in_one_pass = control.memory / (plan.rows * row_bytes(model));
  const auto rows = std::max<std::int64_t>(1, plan.token_layers / shape.L);  // in a layer, on average
  const auto to_fill_a_block = (block_rows(control, model.device()) + rows - 1) / rows;
  return std::clamp<std::int64_t>(std::min(in_one_pass, to_fill_a_block), 1, kMost);
}

SharedSweep trace_sweeps(const Gpt2& model, std::span<const SweepFact> facts, const TraceOptions& options,
                         const RunControl& control) {
  const at::NoGradGuard no_grad;
  TORCH_INTERNAL_ASSERT(!facts.empty(), "a sweep needs a fact");
  const auto& first = *facts.front().prompt;
  for (const auto& [prompt, clean] : facts) {
    TORCH_INTERNAL_ASSERT(
        prompt->token_ids.size() == first.token_ids.size() && prompt->subject_range.begin == first.subject_range.begin,
        "the facts of a sweep have prompts of one shape");
  }
  const SweepShape shape(first, options, model.config().n_layer, static_cast<std::int64_t>(facts.size()));
  const auto patches = patches_of(shape, options);
  const auto passes = cut_into_passes(patches, shape, row_bytes(model), control.memory);
  std::vector<SweepPlan> plans;
  std::int64_t total = 0;
  for (const auto& pass : passes) {
    std::vector<const Patch*> of_pass;
    for (const auto i : pass) of_pass.push_back(&patches[i].patch);
    total += plans.emplace_back(shape, std::move(of_pass)).token_layers;
  }

  SharedSweep sweep;
  sweep.passes = static_cast<std::int64_t>(passes.size());
  const std::function<void()> after_block = [&] {
    if (control.stop.stop_requested()) throw Interrupted();
    if (control.progress) control.progress(sweep.work.keys_values, total);
  };
  const auto rows = block_rows(control, model.device());
  const CleanRuns clean(facts);
  const auto corrupted = corrupted_embeddings(model, facts, shape, options);
  std::vector<FactScores> scores(facts.size());
  for (auto& fact : scores) fact.patches.resize(patches.size());
  for (std::size_t i = 0; i < passes.size(); ++i) {
    const auto draws = Pass(model, clean, shape, plans[i], rows, after_block, sweep.work).run(corrupted);
    for (std::int64_t j = 0; j < shape.J; ++j) {
      scores[static_cast<std::size_t>(j)].read(draws, j, shape, passes[i], options);
    }
    if (std::all_of(scores.begin(), scores.end(), [](const auto& fact) { return fact.fault.has_value(); })) break;
  }
  for (std::size_t j = 0; j < facts.size(); ++j) {
    if (scores[j].fault) {
      sweep.outcomes.emplace_back(*scores[j].fault);
    } else {
      sweep.outcomes.emplace_back(trace_of(scores[j], *facts[j].clean, patches, shape, options));
    }
  }
  return sweep;
}

}  // namespace rometrace
