#include "rometrace/trace/sweep.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/tensor.h>

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

// One pass up the layers.
class Pass {
 public:
  // `after_block` is called often, with the work done so far in `work`.
  Pass(const Gpt2& model, const CleanRun& clean, const SweepShape& shape, const SweepPlan& plan,
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
    base_ = at::empty({1 + shape.N, shape.T, 2 * D}, like);
  }

  // From the corrupted embeddings [N, T, D] to the answer's probability for each draw of the corrupted run, then of
  // each patch: [(1 + patches) N].
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

  at::Tensor rows_of(const Segment& segment) const {  // [N, length, D], a view
    return rows_.slice(0, segment.row, segment.row + shape_.rows(segment))
        .view({shape_.N, segment.length, rows_.size(1)});
  }

  // The keys and values that patches share: of the clean run's first positions, and of the corrupted run.
  void fill_base(std::int64_t layer) {
    const auto& block = model_.block(layer);
    const auto corrupted = rows_.slice(0, 0, shape_.rows(segments_[0]));
    const auto stream = at::cat({clean_.inputs[layer].slice(0, 0, plan_.clean_rows), corrupted});
    const auto keys_values = at::empty({stream.size(0), base_.size(2)}, base_.options());
    for (std::int64_t begin = 0; begin < stream.size(0); begin += block_rows_) {
      const auto some = stream.slice(0, begin, begin + block_rows_);
      keys_values.slice(0, begin, begin + block_rows_).copy_(block.attn().keys_values(block.ln_1(some)));
    }
    const auto clean = keys_values.slice(0, 0, plan_.clean_rows);
    base_[0].slice(0, 0, plan_.clean_rows).copy_(clean);
    base_.slice(0, 1).slice(1, 0, shape_.b).copy_(clean.slice(0, 0, shape_.b));
    base_.slice(0, 1)
        .slice(1, shape_.b)
        .copy_(keys_values.slice(0, plan_.clean_rows).view({shape_.N, shape_.T - shape_.b, base_.size(2)}));
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
      const bool joins = i > 1 && blocks.back().draws == shape_.N && blocks.back().rows + rows <= block_rows_;
      if (joins) {
        blocks.back().rows += rows;
        blocks.back().end_segment = i + 1;
        continue;
      }
      const auto draws = std::clamp<std::int64_t>(block_rows_ / segment.length, 1, shape_.N);
      for (std::int64_t draw = 0; draw < shape_.N; draw += draws) {
        const auto count = std::min(draws, shape_.N - draw);
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
      return base_.slice(0, 1 + block.first_draw, 1 + block.first_draw + block.draws)
          .slice(1, shape_.b)
          .reshape({block.rows, base_.size(2)});
    }
    work_.keys_values += block.rows;
    return model_.block(layer).attn().keys_values(normalised).to(normalised.scalar_type());
  }

  // Adds the clean outputs in place of those that were left out as restored.
  void put_back(std::int64_t layer, Site site, const Block& block) {
    std::vector<std::int64_t> rows, positions;
    std::int64_t row = 0;
    for (auto i = block.begin_segment; i < block.end_segment; ++i) {
      const auto& segment = segments_[i];
      // In the last layer, for the last position only.
      const bool used = segment.restored_at(site, layer) && (layer < shape_.L - 1 || segment.length == 1);
      for (std::int64_t draw = 0; draw < block.draws; ++draw, row += segment.length) {
        if (!used) continue;
        rows.push_back(row);
        positions.push_back(segment.first - shape_.b);
      }
    }
    if (rows.empty()) return;
    const auto device = rows_.device();
    rows_.slice(0, block.row, block.row + block.rows)
        .index_add_(0, at::tensor(rows).to(device),
                    clean_.outputs.at(site)[layer].index_select(0, at::tensor(positions).to(device)));
  }

  // Gives rows to the patches that begin with this layer.
  void admit(std::int64_t layer) {
    std::map<Site, at::Tensor> restored;  // [N, T - b, D]
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
          rows.select(1, 0).copy_(restored.at(patch.site).select(1, patch.position - shape_.b));
        }
      }
      segment_of_patch_[index] = segments_.size();
      segments_.push_back(segment);
    }
  }

  // What the corrupted run's rows become when the clean output of `site` is put back in this layer: [N, T - b, D],
  // valid at the positions at which patches are admitted.
  at::Tensor restored_rows(std::int64_t layer, Site site) const {
    const auto clean = clean_.outputs.at(site)[layer];
    const auto by_draw = [&](const at::Tensor& rows) { return rows.view({shape_.N, shape_.T - shape_.b, -1}); };
    if (site == Site::kState) return clean.unsqueeze(0).expand({shape_.N, -1, -1});
    if (site == Site::kMlp) return by_draw(before_mlp_) + clean;
    auto rows = by_draw(before_attention_) + clean;
    std::vector<std::int64_t> admitted;
    for (const auto position : plan_.admitted_at(layer, site)) admitted.push_back(position - shape_.b);
    const auto positions = at::tensor(admitted).to(rows.device());
    const auto used = rows.index_select(1, positions);
    const auto flat = used.view({-1, rows.size(2)});
    for (std::int64_t begin = 0; begin < flat.size(0); begin += block_rows_) {
      const auto some = flat.slice(0, begin, begin + block_rows_);
      some.add_(model_.block(layer).mlp_output(some));
      work_.mlp += some.size(0);
    }
    return rows.index_copy_(1, positions, used);
  }

  std::vector<double> answers() const {
    std::vector<std::int64_t> last_rows;
    for (const auto& segment : segments_) {
      for (std::int64_t draw = 0; draw < shape_.N; ++draw) {
        last_rows.push_back(segment.row + (draw + 1) * segment.length - 1);
      }
    }
    const auto index = at::tensor(last_rows).to(rows_.device());
    std::vector<double> by_segment;
    for (std::int64_t begin = 0; begin < index.size(0); begin += block_rows_) {
      const auto hidden = model_.ln_f(rows_.index_select(0, index.slice(0, begin, begin + block_rows_)));
      const auto some = answer_probabilities(model_, hidden, clean_.trace.answer_id);
      by_segment.insert(by_segment.end(), some.begin(), some.end());
      work_.answers += static_cast<std::int64_t>(some.size());
      after_block_();
    }
    std::vector<double> in_order(by_segment.begin(), by_segment.begin() + shape_.N);
    for (const auto segment : segment_of_patch_) {
      const auto begin = by_segment.begin() + static_cast<std::int64_t>(segment) * shape_.N;
      in_order.insert(in_order.end(), begin, begin + shape_.N);
    }
    return in_order;
  }

  const Gpt2& model_;
  const CleanRun& clean_;
  const SweepShape& shape_;
  const SweepPlan& plan_;
  const std::int64_t block_rows_;
  const std::function<void()>& after_block_;
  TokenLayers& work_;
  std::vector<Segment> segments_;  // the corrupted run, then patches in the order of their admission
  std::vector<std::size_t> segment_of_patch_;
  at::Tensor rows_;                           // [rows of all segments, D]: the residual stream
  at::Tensor base_;                           // [1 + N, T, 2 D]: this layer's keys and values, see AttentionBlock
  at::Tensor before_attention_, before_mlp_;  // the corrupted rows inside this layer, [N (T - b), D]
};

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
  const at::NoGradGuard no_grad;
  const SweepShape shape(prompt, options, clean.trace);
  const auto patches = patches_of(prompt, options, clean.trace);
  const auto passes = cut_into_passes(patches, shape, row_bytes(model), control.memory);
  std::vector<SweepPlan> plans;
  std::int64_t total = 0;
  for (const auto& pass : passes) {
    std::vector<const Patch*> of_pass;
    for (const auto i : pass) of_pass.push_back(&patches[i].patch);
    total += plans.emplace_back(shape, std::move(of_pass)).token_layers;
  }

  auto corrupted = model.embed(prompt.token_ids).unsqueeze(0).repeat({shape.N, 1, 1});  // [N, T, D]
  Corruption(model, prompt, options).apply(corrupted);
  corrupted = corrupted + model.position_embeddings(shape.T);

  Sweep sweep;
  sweep.passes = static_cast<std::int64_t>(passes.size());
  const std::function<void()> after_block = [&] {
    if (control.stop.stop_requested()) throw Interrupted();
    if (control.progress) control.progress(sweep.work.keys_values, total);
  };
  const auto rows = block_rows(control, model.device());
  MeanAndError low;
  std::vector<MeanAndError> scores(patches.size());
  for (std::size_t i = 0; i < passes.size(); ++i) {
    const auto draws = Pass(model, clean, shape, plans[i], rows, after_block, sweep.work).run(corrupted);
    check_finite(draws, options);
    const auto score = [&](std::size_t run) {
      const auto N = static_cast<std::size_t>(shape.N);
      return mean_and_error(std::span(draws).subspan(run * N, N));
    };
    low = score(0);
    for (std::size_t run = 0; run < passes[i].size(); ++run) scores[passes[i][run]] = score(run + 1);
  }
  const MeanAndError high{clean.trace.high_score, shape.N > 1 ? 0 : std::numeric_limits<double>::quiet_NaN()};

  auto& trace = sweep.trace = clean.trace;
  trace.low_score = low.mean;
  trace.low_standard_error = low.standard_error;
  for (const Kind kind : options.kinds) trace.grids.push_back(empty_grid(kind, options, trace));
  for (std::size_t i = 0; i < patches.size(); ++i) {
    const auto outcome = shape.outcome_of(patches[i].patch);
    const auto& score = outcome == Outcome::kCorrupted ? low : outcome == Outcome::kClean ? high : scores[i];
    for (const auto& [grid, index] : patches[i].cells) {
      trace.grids[grid].scores[index] = score.mean;
      trace.grids[grid].standard_error[index] = score.standard_error;
    }
  }
  return sweep;
}

}  // namespace rometrace
