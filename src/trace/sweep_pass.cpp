#include "trace/sweep_pass.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "trace/admission.hpp"
#include "trace/attend.hpp"
#include "trace/pass_parts.hpp"
#include "trace/pass_schedule.hpp"

namespace rometrace {
namespace {

// To some of the rows, each named once. (index_add_ sorts them first, in threads of its own.)
void add_to_rows(const at::Tensor& rows, const at::Tensor& index, const at::Tensor& values) {
  rows.index_copy_(0, index, rows.index_select(0, index).add_(values));
}

// Within a piece of somebody's workers there is nobody to share with.
Workers* workers_of(const PassInput& input) {
  return Workers::is_shared() ? nullptr : input.workers;
}

ScheduleSizes schedule_sizes(const Decoder& model, const PassInput& input) {
  const auto* workers = workers_of(input);
  ScheduleSizes sizes;
  sizes.other_draws = input.other.draws();
  sizes.other_inputs = input.other.inputs.size(3);
  sizes.neuron_positions = input.other.neuron_positions;
  sizes.blocks = {input.block_rows, full_block_rows(model.device()),
                  workers == nullptr || !model.device().is_cpu() ? 1 : workers->count()};
  sizes.by_products = !model.device().is_cpu();
  return sizes;
}

class Pass {
 public:
  Pass(const Decoder& model, const PassInput& input, TokenLayers& work)
      : model_(model),
        other_(input.other),
        shape_(input.shape),
        plan_(input.plan),
        base_recording_(input.base_recording),
        counter_(work, input.after_block),
        schedule_(shape_, plan_, model.config(), schedule_sizes(model, input)),
        lists_(model, schedule_, counter_),
        parts_{model, other_, schedule_, lists_, workers_of(input), counter_, {}} {
    const auto like = at::device(model.device()).dtype(model.stream_dtype());
    parts_.rows = at::empty({plan_.rows, model.config().width}, like);
    runs_ = at::empty({other_.count() + shape_.draws(), shape_.R, model.config().keys_values_width()}, like);
    if (!schedule_.positions.empty()) positions_ = numbers(schedule_.positions);
  }

  std::vector<RunValues> run(const at::Tensor& base_embeddings, std::span<const Question> questions,
                             std::span<const Reading> readings) {
    by_draw(base_rows()).copy_(base_embeddings.slice(1, shape_.b));
    for (std::int64_t layer = 0; layer < shape_.L; ++layer) {
      admit_before(layer, shape_.noising, parts_);
      block_ = model_.block(layer);
      if (layer == 0) biases_ = block_->attn().biases(shape_.R, parts_.rows);  // all layers have the same
      fill_runs(layer);
      if (base_recording_ != nullptr) record_inputs(layer);
      remember_for_admission(layer);
      if (base_recording_ != nullptr) record_outputs(layer);
      take_through(layer);
      if (base_recording_ != nullptr) record_states(layer);
      admit_after(layer, *block_, base_layer_, parts_);
      block_.reset();
    }
    return read(questions, readings);
  }

 private:
  std::int64_t base_positions() const { return shape_.R - shape_.b; }

  at::Tensor numbers(const Numbers& some) const { return lists_.numbers(some); }
  std::optional<at::Tensor> numbers(const std::optional<Numbers>& some) const {
    return some ? std::optional(lists_.numbers(*some)) : std::nullopt;
  }

  at::Tensor base_rows() const { return parts_.rows.slice(0, 0, shape_.rows(shape_.base_run())); }
  // Rows of the base run by its draws, [J N, R - b, ..], a view.
  at::Tensor by_draw(const at::Tensor& rows) const { return rows.unflatten(0, {shape_.draws(), base_positions()}); }
  // What there is of each draw, [J N ..], as [J, N, ..], a view.
  at::Tensor by_fact(const at::Tensor& draws) const { return draws.unflatten(0, {shape_.J, shape_.N}); }

  // The keys and values that patches share: of the other runs' first positions, and of the base runs.
  void fill_runs(std::int64_t layer) {
    const auto others = other_.count(), positions = plan_.other_rows, width = runs_.size(2);
    const auto stream = at::cat({other_.inputs[layer].slice(2, 0, positions).flatten(0, 2), base_rows()});
    const auto places = positions_.defined() ? numbers(schedule_.shared_positions) : at::Tensor();
    const auto keys_values = at::empty({stream.size(0), width}, runs_.options());
    const auto at_once = parts_.of(layer).block_rows;
    share(parts_.workers, (stream.size(0) + at_once - 1) / at_once, [&](std::int64_t i) {
      const auto part = [&](const at::Tensor& rows) { return rows.slice(0, i * at_once, (i + 1) * at_once); };
      const auto input = block_->attn_input(part(stream));
      part(keys_values).copy_(block_->attn().keys_values(input, places.defined() ? part(places) : places));
    });
    const auto other = keys_values.slice(0, 0, others * positions).view({others, positions, width});
    runs_.slice(0, 0, others).slice(1, 0, positions).copy_(other);
    const auto draws = runs_.slice(0, others);
    // Before the first corrupted position all runs are the same.
    const auto same = other.unflatten(0, {shape_.J, -1}).slice(2, 0, shape_.b);
    by_fact(draws).slice(2, 0, shape_.b).copy_(same.slice(1, 0, 1));
    draws.slice(1, shape_.b).copy_(by_draw(keys_values.slice(0, others * positions)));
    counter_.add(&TokenLayers::keys_values, stream.size(0));
  }

  // Patching an output inside a layer needs the base run as it was before that output was added.
  void remember_for_admission(std::int64_t layer) {
    base_layer_ = {};
    const auto base = base_rows();
    const auto begins = [&](Site site) { return parts_.of(layer).has_beginning(site); };
    if (begins(Site::kAttn) || begins(Site::kMixed)) base_layer_.before_attention = base.clone();
    if (begins(Site::kMixed))
      base_layer_.mixed = at::empty({base.size(0), model_.config().mixed_width()}, base.options());
    if (begins(Site::kMlp) || begins(Site::kMlpHidden)) base_layer_.before_mlp = at::empty_like(base);
    if (begins(Site::kMlpHidden)) {
      base_layer_.neurons = at::empty({base.size(0), model_.config().mlp_width}, base.options());
      base_layer_.product = at::empty_like(base);
    }
    for (const auto site : plan_.held) base_layer_.outputs[site] = at::empty_like(base);
  }

  // What enters the layer in the base runs; before the first corrupted position it is the other runs'.
  void record_inputs(std::int64_t layer) {
    const auto into = base_recording_->inputs[layer];  // [J N, b + 1, D]
    by_fact(into).slice(2, 0, shape_.b).copy_(other_.inputs[layer].slice(1, 0, 1).slice(2, 0, shape_.b));
    into.select(1, shape_.b).copy_(by_draw(base_rows()).select(1, 0));
  }

  // Has the base run's outputs kept in the recording. In the last layer only those that are used are computed.
  void record_outputs(std::int64_t layer) {
    for (const auto& [site, outputs] : base_recording_->outputs) {
      if (site == Site::kState) continue;
      const auto kept = outputs[layer].flatten(0, 1);
      if (site == Site::kMixed) {
        base_layer_.mixed = kept;
      } else {
        base_layer_.outputs[site] = kept;
      }
    }
  }

  void record_states(std::int64_t layer) {
    const auto states = base_recording_->outputs.find(Site::kState);
    if (states != base_recording_->outputs.end()) states->second[layer].copy_(by_draw(base_rows()));
  }

  // Takes all rows through the layer. Blocks of the base run come first where patches are held at its outputs.
  void take_through(std::int64_t layer) {
    const auto& all = parts_.of(layer);
    const auto take = [&](std::size_t begin, std::size_t end) {
      share(parts_.workers, static_cast<std::int64_t>(end - begin), [&](std::int64_t i) {
        advance(layer, all.blocks[begin + static_cast<std::size_t>(i)]);
        counter_.tell();
      });
    };
    if (plan_.held.empty()) return take(0, all.blocks.size());
    take(0, all.base_blocks);
    take(all.base_blocks, all.blocks.size());
  }

  // Keeps what the base run has in some of its rows.
  void keep(at::Tensor& kept, const BlockSchedule& block, const std::optional<at::Tensor>& used,
            const at::Tensor& values) {
    if (!block.of_base_run() || !kept.defined()) return;
    const auto rows = kept.slice(0, block.row, block.row + block.rows);
    used ? rows.index_copy_(0, *used, values.to(rows.scalar_type())) : rows.copy_(values);
  }

  // Takes a block of rows through one layer, in place.
  void advance(std::int64_t layer, const BlockSchedule& block) {
    const auto& weights = *block_;
    const auto select = [](const at::Tensor& rows, const std::optional<at::Tensor>& used) {
      return used ? rows.index_select(0, *used) : rows;
    };
    const auto of_block = [&](const at::Tensor& rows) { return rows.slice(0, block.row, block.row + block.rows); };
    const auto x = of_block(parts_.rows);
    const auto places = positions_.defined() ? of_block(positions_) : at::Tensor();
    const auto add = [&](Site site, const std::optional<at::Tensor>& used, const at::Tensor& output) {
      if (const auto held = base_layer_.outputs.find(site); held != base_layer_.outputs.end()) {
        keep(held->second, block, used, output);
      }
      used ? add_to_rows(x, *used, output.to(x.scalar_type())) : (void)x.add_(output);
    };

    const auto asking = numbers(block.asking);
    const auto input = weights.attn_input(x);
    auto attention = attention_of(block);
    attention.queries = weights.attn()
                            .queries(select(input, asking), places.defined() ? select(places, asking) : places)
                            .to(x.scalar_type());
    attention.keys_values = own_keys_values(block, input, places);
    // A parallel MLP reads what attention reads.
    const bool parallel = weights.order() == BlockOrder::kParallel;
    const auto used = numbers(block.used);
    const auto run_mlp = [&] {
      const auto into_mlp = select(x, used);
      counter_.add_mlp(weights, into_mlp.size(0));
      if (into_mlp.size(0) == 0) return at::Tensor();
      if (!block.looks_at_neurons) return weights.mlp_output(into_mlp);
      const auto hidden = weights.mlp_hidden(into_mlp);
      keep(base_layer_.neurons, block, used, hidden);
      put_neurons(layer, block, hidden);
      const auto product = weights.mlp().output(hidden).to(x.scalar_type());
      keep(base_layer_.product, block, used, product);
      return weights.mlp_output_of(product);
    };
    const auto beside = parallel ? run_mlp() : at::Tensor();
    counter_.add(&TokenLayers::attention, attention.queries.size(0));
    if (attention.queries.size(0) > 0) {
      const auto mixed = attend(attention);
      keep(base_layer_.mixed, block, asking, mixed);
      put_heads(layer, block, mixed);
      add(Site::kAttn, asking, weights.attn_output(mixed));
    }
    put_back(layer, Site::kAttn, block.attn, x);
    const bool norms_after = weights.order() == BlockOrder::kPostNorm;
    if (norms_after) x.copy_(weights.after_attn(x));

    keep(base_layer_.before_mlp, block, {}, x);
    const auto output = parallel ? beside : run_mlp();
    if (output.defined()) add(Site::kMlp, used, output);
    put_back(layer, Site::kMlp, block.mlp, x);
    if (norms_after) x.copy_(weights.after_mlp(x));
  }

  // But for queries, keys and values.
  AttentionBlock attention_of(const BlockSchedule& block) const {
    const auto& attn = block_->attn();
    AttentionBlock attention;
    attention.runs = runs_;
    for (const auto& prefix : block.prefixes) attention.prefixes.push_back(numbers(prefix));
    attention.segments = block.segments;
    attention.groups = block.groups;
    for (std::size_t i = 0; i < block.groups.size(); ++i) {
      attention.groups[i].table = numbers(block.tables[i]).view({-1, AttentionGroup::kColumns});
    }
    attention.heads = attn.heads();
    attention.kv_heads = attn.kv_heads();
    attention.scale = attn.scale();
    attention.softcap = attn.softcap();
    attention.window = attn.window();
    attention.biases = biases_;
    attention.sinks = attn.sinks();
    return attention;
  }

  at::Tensor own_keys_values(const BlockSchedule& block, const at::Tensor& input, const at::Tensor& places) {
    if (block.of_base_run()) {
      const auto& draws = block.parts.front();
      const auto own = runs_.narrow(0, other_.count() + draws.first, draws.count).slice(1, shape_.b);
      return own.reshape({block.rows, runs_.size(2)});
    }
    counter_.add(&TokenLayers::keys_values, block.rows);
    return block_->attn().keys_values(input, places).to(input.scalar_type());
  }

  // Writes the other run's slices of heads over those of `mixed`, of the rows whose attention output is used.
  void put_heads(std::int64_t layer, const BlockSchedule& block, const at::Tensor& mixed) const {
    const auto& [rows, from] = block.heads;
    if (rows.empty()) return;
    const auto width = block_->attn().head_width();
    const auto others = heads_of(other_.outputs_of(Site::kMixed, layer), width);
    heads_of(mixed, width).index_copy_(0, numbers(rows), others.index_select(0, numbers(from)));
  }

  // Writes the other run's neurons over those of `hidden`, of the rows whose MLP output is used.
  void put_neurons(std::int64_t layer, const BlockSchedule& block, const at::Tensor& hidden) const {
    const auto& [rows, from] = block.neurons;
    if (rows.empty()) return;
    const auto index = numbers(rows);
    const auto values = other_.neurons_of(layer).index_select(0, numbers(from)).to(hidden.scalar_type());
    hidden.index_copy_(0, index,
                       at::where(lists_.chosen(block.neuron_sets, layer), values, hidden.index_select(0, index)));
  }

  // Adds the outputs that take the place of those that were left out, to a block's rows.
  void put_back(std::int64_t layer, Site site, const OutputWrites& outputs, const at::Tensor& rows) const {
    const auto put = [&](const Writes& writes, const auto& values) {
      if (!writes.rows.empty()) add_to_rows(rows, numbers(writes.rows), values().index_select(0, numbers(writes.from)));
    };
    put(outputs.other, [&] { return other_.outputs_of(site, layer); });
    put(outputs.base, [&] { return base_layer_.outputs.at(site); });
  }

  std::vector<RunValues> read(std::span<const Question> questions, std::span<const Reading> readings) {
    const Readout read_out(model_, questions, readings);
    const auto rows = numbers(schedule_.answers), question_of = numbers(schedule_.questions);
    const auto runs = question_of.size(0), K = shape_.K, at_once = schedule_.answer_block;
    const auto table = at::empty({runs, read_out.width()}, at::device(model_.device()).dtype(at::kDouble));
    share(parts_.workers, (runs + at_once - 1) / at_once, [&](std::int64_t piece) {
      const auto begin = piece * at_once, count = std::min(at_once, runs - begin);
      const auto hidden = model_.leave(parts_.rows.index_select(0, rows.narrow(0, begin * K, count * K)));
      table.narrow(0, begin, count).copy_(read_out(hidden.view({count, K, -1}), question_of.narrow(0, begin, count)));
      counter_.add(&TokenLayers::answers, count * K);
      counter_.tell();
    });
    const auto on_cpu = table.cpu();  // the one time that the pass waits for the device
    const auto* values = on_cpu.const_data_ptr<double>();
    std::vector<RunValues> of_segments;
    for (const auto& segment : schedule_.segments) {
      const auto count = segment.draws() * read_out.width();
      of_segments.emplace_back(values, values + count);
      values += count;
    }
    std::vector<RunValues> in_order = {std::move(of_segments.front())};
    for (const auto segment : schedule_.segment_of_patch) in_order.push_back(std::move(of_segments[segment]));
    return in_order;
  }

  const Decoder& model_;
  const OtherRuns& other_;
  const SweepShape& shape_;
  const SweepPlan& plan_;
  Recording* const base_recording_;
  WorkCounter counter_;
  PassSchedule schedule_;
  const PassLists lists_;
  PassParts parts_;
  at::Tensor positions_;                // [rows of all segments], where positions matter to a layer
  std::shared_ptr<const Block> block_;  // the layer at hand
  at::Tensor biases_;                   // [H, R] of a layer's scores, or undefined
  at::Tensor runs_;  // [J S + J N, R, K]: this layer's keys and values of the other and the base runs
  BaseLayer base_layer_;
};

}  // namespace

std::vector<RunValues> run_pass(const Decoder& model, const PassInput& input, TokenLayers& work) {
  const Workers::Alone alone(input.workers);
  return Pass(model, input, work).run(input.base_embeddings, input.questions, input.readings);
}

}  // namespace rometrace
