#include "trace/sweep_pass.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <functional>
#include <mutex>
#include <optional>
#include <utility>

#include "trace/attend.hpp"

namespace rometrace {
namespace {

// [L, ...] of each fact -> [L, J, ...]; of a single fact a view.
template <typename Part>
at::Tensor side_by_side(const std::vector<const Recording*>& facts, Part part) {
  if (facts.size() == 1) return part(*facts.front()).unsqueeze(1);
  std::vector<at::Tensor> parts;
  for (const auto* fact : facts) parts.push_back(part(*fact));
  return at::stack(parts, 1);
}

// To some of the rows, each named once. (index_add_ sorts them first, in threads of its own.)
void add_to_rows(const at::Tensor& rows, const at::Tensor& index, const at::Tensor& values) {
  rows.index_copy_(0, index, rows.index_select(0, index).add_(values));
}

class Pass {
 public:
  Pass(const Decoder& model, const PassInput& input, TokenLayers& work)
      : model_(model),
        other_(input.other),
        shape_(input.shape),
        plan_(input.plan),
        asked_block_rows_(input.block_rows),
        workers_(Workers::is_shared() ? nullptr
                                      : input.workers),  // within a piece of theirs there is nobody to share with
        after_block_(input.after_block),
        base_recording_(input.base_recording),
        work_(work),
        segments_({shape_.base_run()}),
        segment_of_patch_(plan_.patches.size()) {
    const auto D = model.config().width;
    const auto like = at::device(model.device()).dtype(model.stream_dtype());
    rows_ = at::empty({plan_.rows, D}, like);
    runs_ = at::empty({other_count() + shape_.draws(), shape_.R, model.config().keys_values_width()}, like);
    if (model.config().rotary.empty()) return;
    positions_ = at::empty({plan_.rows}, rows_.options().dtype(at::kLong));
    number_positions(segments_[0]);
  }

  std::vector<RunValues> run(const at::Tensor& base_embeddings, std::span<const Question> questions,
                             std::span<const Reading> readings) {
    rows_of(segments_[0]).copy_(base_embeddings.slice(1, shape_.b));
    for (std::int64_t layer = 0; layer < shape_.L; ++layer) {
      for (const auto index : plan_.before[static_cast<std::size_t>(layer)]) admit_before(layer, index);
      block_ = model_.block(layer);
      biases_ = block_->attn().biases(shape_.R, rows_);
      const auto all_rows = segments_.back().row + shape_.rows(segments_.back());
      block_rows_ = rows_of_a_block(all_rows);
      fill_runs(layer);
      if (base_recording_ != nullptr) record_inputs(layer);
      remember_for_admission(layer);
      if (base_recording_ != nullptr) record_outputs(layer);
      take_through(layer);
      if (base_recording_ != nullptr) record_states(layer);
      admit(layer);
      block_.reset();
    }
    return read(questions, readings);
  }

 private:
  // Successive rows: either segments whole, or some draws of a single one.
  struct Rows {
    std::size_t begin_segment, end_segment;
    std::int64_t first_draw, draws;
    std::int64_t row, rows;
  };

  // The base run's values of one layer that others are made of, at all its rows that were computed: [J N (R - b), D].
  struct BaseLayer {
    at::Tensor before_attention, mixed, before_mlp;  // where patches begin within the layer
    at::Tensor neurons, product;                     // likewise: [J N (R - b), F], and of the MLP's last matrix
    std::map<Site, at::Tensor> outputs;              // where they are held
  };

  std::int64_t other_count() const { return other_.inputs.size(1) * other_.inputs.size(2); }  // J S
  std::int64_t base_positions() const { return shape_.R - shape_.b; }

  void count(std::int64_t TokenLayers::*what, std::int64_t rows) {
    const std::scoped_lock lock(counting_);
    work_.*what += rows;
  }

  std::int64_t TokenLayers::*rows_of_mlp() const {  // where those of the layer at hand are counted
    return block_->is_mixture() ? &TokenLayers::mixture : &TokenLayers::mlp;
  }

  void tell() {
    const std::scoped_lock lock(counting_);
    after_block_();
  }

  // Rows that go through a product together, of `rows` that there are. Where workers share them they are cut evenly
  // into as many blocks as there are workers, or twice as many where these are still large, so that none is waited for.
  std::int64_t rows_of_a_block(std::int64_t rows) const {
    constexpr std::int64_t kLeast = 64, kWorthSeveral = 128;
    if (asked_block_rows_ > 0) return asked_block_rows_;
    const auto full = full_block_rows(model_.device());
    const std::int64_t workers = workers_ == nullptr || !model_.device().is_cpu() ? 1 : workers_->count();
    if (workers == 1) return full;
    const std::int64_t wanted = rows >= 2 * workers * kWorthSeveral ? 2 : 1;
    const auto each = std::max(wanted, (rows + workers * full - 1) / (workers * full));
    const auto blocks = std::clamp<std::int64_t>(rows / kLeast, 1, workers * each);
    return (rows + blocks - 1) / blocks;
  }

  // Takes all rows through the layer. Blocks of the base run come first where patches are held at its outputs.
  void take_through(std::int64_t layer) {
    const auto all = blocks();
    const auto take = [&](std::size_t begin, std::size_t end) {
      share(workers_, static_cast<std::int64_t>(end - begin), [&](std::int64_t i) {
        advance(layer, all[begin + static_cast<std::size_t>(i)]);
        tell();
      });
    };
    const auto is_of_base = [](const Rows& block) { return block.begin_segment == 0; };
    const auto of_base = static_cast<std::size_t>(std::count_if(all.begin(), all.end(), is_of_base));
    if (plan_.held.empty()) return take(0, all.size());
    take(0, of_base);
    take(of_base, all.size());
  }

  // The place in a list [J, S] of the other run that draw `draw` of a segment belongs to.
  std::int64_t other_of(const Segment& segment, std::int64_t draw) const {
    const auto S = other_.inputs.size(2), fact = segment.first_fact + draw / segment.draws_of_a_fact;
    return fact * S + (S > 1 && segment.draws_of_a_fact > 1 ? draw % segment.draws_of_a_fact : 0);
  }
  // Likewise in [J, N], of the base run.
  std::int64_t base_of(const Segment& segment, std::int64_t draw) const {
    const auto of_facts = segment.draws_of_a_fact > 1 || shape_.N == 1 ? draw : draw * shape_.N;
    return segment.first_fact * shape_.N + of_facts;
  }

  at::Tensor rows_of(const Segment& segment) const {  // [facts draws_of_a_fact, length, D], a view
    return rows_.slice(0, segment.row, segment.row + shape_.rows(segment)).view({-1, segment.length, rows_.size(1)});
  }

  // Rows [J N ..] or positions of them as [J, N, ..], a view.
  at::Tensor by_fact(const at::Tensor& draws) const { return draws.unflatten(0, {shape_.J, shape_.N}); }

  // Where a segment's rows stand in their texts: first .. R - 1, again for each draw.
  void number_positions(const Segment& segment) {
    if (!positions_.defined()) return;
    const auto one = at::arange(segment.first, shape_.R, positions_.options());
    positions_.slice(0, segment.row, segment.row + shape_.rows(segment)).view({-1, segment.length}).copy_(one);
  }

  at::Tensor indices(const std::vector<std::int64_t>& numbers) const { return at::tensor(numbers).to(rows_.device()); }

  // The keys and values that patches share: of the other runs' first positions, and of the base runs.
  void fill_runs(std::int64_t layer) {
    const auto others = other_count(), positions = plan_.other_rows, width = runs_.size(2);
    const auto base = rows_.slice(0, 0, shape_.rows(segments_[0]));
    const auto stream = at::cat({other_.inputs[layer].slice(2, 0, positions).flatten(0, 2), base});
    at::Tensor places;
    if (positions_.defined()) {
      places =
          at::cat({at::arange(positions, positions_.options()).repeat({others}), positions_.slice(0, 0, base.size(0))});
    }
    const auto keys_values = at::empty({stream.size(0), width}, runs_.options());
    share(workers_, (stream.size(0) + block_rows_ - 1) / block_rows_, [&](std::int64_t i) {
      const auto part = [&](const at::Tensor& rows) { return rows.slice(0, i * block_rows_, (i + 1) * block_rows_); };
      const auto input = block_->attn_input(part(stream));
      part(keys_values).copy_(block_->attn().keys_values(input, places.defined() ? part(places) : places));
    });
    const auto other = keys_values.slice(0, 0, others * positions).view({others, positions, width});
    runs_.slice(0, 0, others).slice(1, 0, positions).copy_(other);
    const auto draws = runs_.slice(0, others);
    // Before the first corrupted position all runs are the same.
    const auto same = other.unflatten(0, {shape_.J, -1}).slice(2, 0, shape_.b);
    by_fact(draws).slice(2, 0, shape_.b).copy_(same.slice(1, 0, 1));
    draws.slice(1, shape_.b)
        .copy_(keys_values.slice(0, others * positions).view({shape_.draws(), base_positions(), width}));
    count(&TokenLayers::keys_values, stream.size(0));
  }

  // Patching an output inside a layer needs the base run as it was before that output was added.
  void remember_for_admission(std::int64_t layer) {
    base_layer_ = {};
    const auto base = rows_.slice(0, 0, shape_.rows(segments_[0]));
    const auto begins = [&](Site site) { return !plan_.admitted_at(layer, site).empty(); };
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
    into.select(1, shape_.b).copy_(rows_of(segments_[0]).select(1, 0));
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
    if (states != base_recording_->outputs.end()) states->second[layer].copy_(rows_of(segments_[0]));
  }

  // The base run's rows, which are alone as it takes its keys from where they are kept for all, and then the patched
  // runs', cut as evenly as segments allow.
  std::vector<Rows> blocks() const {
    std::vector<Rows> blocks;
    const auto base_rows = shape_.rows(segments_[0]);
    const auto patched_rows = segments_.back().row + shape_.rows(segments_.back()) - base_rows;
    const auto cut = std::max<std::int64_t>(1, (patched_rows + block_rows_ - 1) / block_rows_);
    std::int64_t last = -1;  // the cut that the last block is of
    for (std::size_t i = 0; i < segments_.size(); ++i) {
      const auto& segment = segments_[i];
      const auto rows = shape_.rows(segment), of_segment = segment.draws();
      const auto of_same_runs = [&](const Segment& other) {
        return other.first_fact == segment.first_fact && other.facts == segment.facts &&
               other.draws_of_a_fact == segment.draws_of_a_fact;
      };
      const auto middle = segment.row - base_rows + rows / 2;
      const auto mine = i == 0 ? -1 : middle * cut / std::max<std::int64_t>(1, patched_rows);
      const bool joins = i > 1 && mine == last && blocks.back().draws == of_segment &&
                         of_same_runs(segments_[blocks.back().begin_segment]);
      last = mine;
      if (joins) {
        blocks.back().rows += rows;
        blocks.back().end_segment = i + 1;
        continue;
      }
      const auto draws = std::clamp<std::int64_t>(block_rows_ / segment.length, 1, of_segment);
      for (std::int64_t draw = 0; draw < of_segment; draw += draws) {
        const auto count = std::min(draws, of_segment - draw);
        blocks.push_back({i, i + 1, draw, count, segment.row + draw * segment.length, count * segment.length});
      }
    }
    return blocks;
  }

  // Of each draw, the first row of `segment` whose output of `site` is used.
  std::int64_t first_used(const Segment& segment, Site site, std::int64_t layer) const {
    const auto first = layer == shape_.L - 1 ? shape_.last - segment.first : 0;
    return first == 0 && segment.change_at(site, layer) != nullptr ? 1 : std::max<std::int64_t>(first, 0);
  }

  // Those rows of a block, counted from the block's first; nothing if they are all rows.
  std::optional<at::Tensor> used_rows(const Rows& block, Site site, std::int64_t layer) const {
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
    return indices(used);
  }

  // Keeps what the base run has in some of its rows.
  void keep(at::Tensor& kept, const Rows& block, const std::optional<at::Tensor>& used, const at::Tensor& values) {
    if (block.begin_segment != 0 || !kept.defined()) return;
    const auto rows = kept.slice(0, block.row, block.row + block.rows);
    used ? rows.index_copy_(0, *used, values.to(rows.scalar_type())) : rows.copy_(values);
  }

  // Takes a block of rows through one layer, in place.
  void advance(std::int64_t layer, const Rows& block) {
    const auto& weights = *block_;
    const auto select = [](const at::Tensor& rows, const std::optional<at::Tensor>& used) {
      return used ? rows.index_select(0, *used) : rows;
    };
    const auto of_block = [&](const at::Tensor& rows) { return rows.slice(0, block.row, block.row + block.rows); };
    const auto x = of_block(rows_);
    const auto places = positions_.defined() ? of_block(positions_) : at::Tensor();
    const auto add = [&](Site site, const std::optional<at::Tensor>& used, const at::Tensor& output) {
      if (const auto held = base_layer_.outputs.find(site); held != base_layer_.outputs.end()) {
        keep(held->second, block, used, output);
      }
      used ? add_to_rows(x, *used, output.to(x.scalar_type())) : (void)x.add_(output);
    };

    const auto asking = used_rows(block, Site::kAttn, layer);
    const auto input = weights.attn_input(x);
    AttentionBlock attention;
    attention.queries = weights.attn()
                            .queries(select(input, asking), places.defined() ? select(places, asking) : places)
                            .to(x.scalar_type());
    attention.keys_values = own_keys_values(block, input, places);
    attention.runs = runs_;
    attention.draws = block.draws;
    for (std::int64_t draw = 0; draw < block.draws; ++draw) {
      const auto& segment = segments_[block.begin_segment];
      attention.base_runs.push_back(other_count() + base_of(segment, block.first_draw + draw));
      attention.other_runs.push_back(other_of(segment, block.first_draw + draw));
    }
    for (auto i = block.begin_segment; i < block.end_segment; ++i) {
      const auto& segment = segments_[i];
      attention.segments.push_back({segment.first, segment.length, first_used(segment, Site::kAttn, layer),
                                    segment.other_prefix, segment.cut_at(layer)});
    }
    attention.heads = weights.attn().heads();
    attention.kv_heads = weights.attn().kv_heads();
    attention.scale = weights.attn().scale();
    attention.softcap = weights.attn().softcap();
    attention.window = weights.attn().window();
    attention.biases = biases_;
    attention.sinks = weights.attn().sinks();
    // A parallel MLP reads what attention reads.
    const bool parallel = weights.order() == BlockOrder::kParallel;
    const auto used = used_rows(block, Site::kMlp, layer);
    const auto run_mlp = [&] {
      const auto into_mlp = select(x, used);
      count(rows_of_mlp(), into_mlp.size(0));
      if (into_mlp.size(0) == 0) return at::Tensor();
      if (!looks_at_neurons(layer, block)) return weights.mlp_output(into_mlp);
      const auto hidden = weights.mlp_hidden(into_mlp);
      keep(base_layer_.neurons, block, used, hidden);
      put_neurons(layer, block, hidden);
      const auto product = weights.mlp().output(hidden).to(x.scalar_type());
      keep(base_layer_.product, block, used, product);
      return weights.mlp_output_of(product);
    };
    const auto beside = parallel ? run_mlp() : at::Tensor();
    count(&TokenLayers::attention, attention.queries.size(0));
    if (attention.queries.size(0) > 0) {
      const auto mixed = attend(attention);
      keep(base_layer_.mixed, block, asking, mixed);
      put_heads(layer, block, attention.segments, mixed);
      add(Site::kAttn, asking, weights.attn_output(mixed));
    }
    put_back(layer, Site::kAttn, block);
    const bool norms_after = weights.order() == BlockOrder::kPostNorm;
    if (norms_after) x.copy_(weights.after_attn(x));

    keep(base_layer_.before_mlp, block, {}, x);
    const auto output = parallel ? beside : run_mlp();
    if (output.defined()) add(Site::kMlp, used, output);
    put_back(layer, Site::kMlp, block);
    if (norms_after) x.copy_(weights.after_mlp(x));
  }

  at::Tensor own_keys_values(const Rows& block, const at::Tensor& input, const at::Tensor& places) {
    if (block.begin_segment == 0) {
      const auto first_run = other_count() + block.first_draw;
      return runs_.slice(0, first_run, first_run + block.draws).slice(1, shape_.b).reshape({block.rows, runs_.size(2)});
    }
    count(&TokenLayers::keys_values, block.rows);
    return block_->attn().keys_values(input, places).to(input.scalar_type());
  }

  // The other runs' outputs of `site`, [J S (R - b), D], and the place there of a draw's row at a segment's position.
  at::Tensor other_outputs(Site site, std::int64_t layer) const { return other_.outputs.at(site)[layer].flatten(0, 2); }
  std::int64_t other_place(const Segment& segment, std::int64_t draw) const {
    return other_of(segment, draw) * base_positions() + segment.patch->position - shape_.b;
  }

  // Writes the other run's slices of heads over those of the first row of each draw, where a window goes on.
  void put_heads(std::int64_t layer, const Rows& block, const std::vector<AttentionSegment>& asked,
                 const at::Tensor& mixed) const {
    const auto width = block_->attn().head_width();
    std::map<std::int64_t, std::pair<std::vector<std::int64_t>, std::vector<std::int64_t>>> by_head;  // rows, places
    std::int64_t row = 0;
    for (auto i = block.begin_segment; i < block.end_segment; ++i) {
      const auto& segment = segments_[i];
      const auto queries = segment.length - asked[i - block.begin_segment].asking;
      const auto* change = segment.change_at(Site::kMixed, layer);
      const bool used = change != nullptr && asked[i - block.begin_segment].asking == 0;
      for (std::int64_t draw = 0; draw < block.draws; ++draw, row += queries) {
        if (!used) continue;
        auto& [rows, places] = by_head[*change->head];
        rows.push_back(row);
        places.push_back(other_place(segment, block.first_draw + draw));
      }
    }
    for (const auto& [head, found] : by_head) {
      const auto values = other_outputs(Site::kMixed, layer).index_select(0, indices(found.second));
      mixed.slice(1, head * width, (head + 1) * width)
          .index_copy_(0, indices(found.first), values.slice(1, head * width, (head + 1) * width));
    }
  }

  // Whether a block's rows are needed, or changed, between activation and last matrix of the layer's MLP.
  bool looks_at_neurons(std::int64_t layer, const Rows& block) const {
    if (block.begin_segment == 0) return base_layer_.neurons.defined();
    for (auto i = block.begin_segment; i < block.end_segment; ++i) {
      if (segments_[i].change_at(Site::kMlpHidden, layer) != nullptr) return true;
    }
    return false;
  }

  // Writes the other run's neurons over those of the first row of each draw, where a set of them goes on. `hidden`: of
  // the rows whose MLP output is used.
  void put_neurons(std::int64_t layer, const Rows& block, const at::Tensor& hidden) const {
    std::vector<std::int64_t> rows, places, sets;
    std::vector<at::Tensor> masks;
    std::int64_t row = 0;
    for (auto i = block.begin_segment; i < block.end_segment; ++i) {
      const auto& segment = segments_[i];
      const auto first = first_used(segment, Site::kMlp, layer);
      const auto* change = segment.change_at(Site::kMlpHidden, layer);
      const bool used = change != nullptr && first == 0;
      if (used) masks.push_back(neurons_of(*change, layer, hidden.size(1)));
      for (std::int64_t draw = 0; draw < block.draws; ++draw, row += segment.length - first) {
        if (!used) continue;
        rows.push_back(row);
        places.push_back(neuron_place(segment, block.first_draw + draw));
        sets.push_back(static_cast<std::int64_t>(masks.size()) - 1);
      }
    }
    if (rows.empty()) return;
    const auto index = indices(rows);
    const auto chosen = at::stack(masks).to(hidden.device()).index_select(0, indices(sets));
    const auto values = other_neurons(layer).index_select(0, indices(places)).to(hidden.scalar_type());
    hidden.index_copy_(0, index, at::where(chosen, values, hidden.index_select(0, index)));
  }

  // The other runs' neurons, [J S positions, F], and the place there of a draw's at a segment's position.
  at::Tensor other_neurons(std::int64_t layer) const {
    return other_.neurons[layer - other_.neuron_layers.begin].flatten(0, 2);
  }
  std::int64_t neuron_place(const Segment& segment, std::int64_t draw) const {
    const auto& positions = other_.neuron_positions;
    const auto at = std::lower_bound(positions.begin(), positions.end(), segment.patch->position);
    return other_of(segment, draw) * static_cast<std::int64_t>(positions.size()) + (at - positions.begin());
  }

  // Adds the outputs that take the place of those that were left out.
  void put_back(std::int64_t layer, Site site, const Rows& block) {
    struct Places {
      std::vector<std::int64_t> rows, outputs;
    } other, base;
    std::int64_t row = 0;
    for (auto i = block.begin_segment; i < block.end_segment; ++i) {
      const auto& segment = segments_[i];
      const auto* change = segment.change_at(site, layer);
      // In the last layer, for the positions that are read only.
      const bool used = change != nullptr && (layer < shape_.L - 1 || segment.first >= shape_.last);
      for (std::int64_t draw = 0; draw < block.draws; ++draw, row += segment.length) {
        if (!used) continue;
        const bool held = change->source == Change::Source::kBase;
        const auto of_all = block.first_draw + draw;
        (held ? base : other).rows.push_back(row);
        (held ? base : other)
            .outputs.push_back(held ? base_of(segment, of_all) * base_positions() + segment.first - shape_.b
                                    : other_place(segment, of_all));
      }
    }
    const auto rows = rows_.slice(0, block.row, block.row + block.rows);
    if (!other.rows.empty()) {
      add_to_rows(rows, indices(other.rows), other_outputs(site, layer).index_select(0, indices(other.outputs)));
    }
    if (!base.rows.empty()) {
      add_to_rows(rows, indices(base.rows), base_layer_.outputs.at(site).index_select(0, indices(base.outputs)));
    }
  }

  at::Tensor give_rows(std::size_t patch) {  // [facts draws_of_a_fact, length, D], a view
    auto segment = shape_.segment_of(*plan_.patches[patch]);
    segment.row = segments_.back().row + shape_.rows(segments_.back());
    segment_of_patch_[patch] = segments_.size();
    segments_.push_back(segment);
    number_positions(segment);
    return rows_of(segment);
  }

  // Gives rows to a patch that changes this layer's attention: those of the clean run.
  void admit_before(std::int64_t layer, std::size_t index) {
    const auto rows = give_rows(index);
    const auto& segment = segments_.back();
    if (shape_.noising) {
      rows.copy_(by_fact(rows_of(segments_[0])).select(1, 0).slice(1, segment.first - shape_.b));
    } else {
      rows.copy_(other_.inputs[layer].select(1, 0).slice(1, segment.first));
    }
  }

  // Gives rows to the patches that begin with this layer.
  void admit(std::int64_t layer) {
    const auto patched = patched_rows(layer);
    struct Copy {
      at::Tensor to, from, row;  // the last one, if any, takes the place of the first position's
    };
    std::vector<Copy> copies;
    for (const auto& [index, parent] : plan_.admissions[static_cast<std::size_t>(layer)]) {
      const auto rows = give_rows(index);
      const auto& segment = segments_.back();
      if (parent) {
        copies.push_back({rows, rows_of(segments_[segment_of_patch_[*parent]]), {}});
        continue;
      }
      const auto base = base_draws(rows_of(segments_[0]), *segment.patch).slice(1, segment.first - shape_.b);
      copies.push_back({rows, base, segment.first == segment.patch->position ? patched.at(index) : at::Tensor()});
    }
    // Parents come first, and are copied before those that are made of them.
    const auto copy = [&](std::size_t begin, std::size_t end) {
      constexpr std::size_t kAtOnce = 16;
      share(workers_, static_cast<std::int64_t>((end - begin + kAtOnce - 1) / kAtOnce), [&](std::int64_t piece) {
        const auto first = begin + static_cast<std::size_t>(piece) * kAtOnce;
        for (auto i = first; i < std::min(end, first + kAtOnce); ++i) {
          copies[i].to.copy_(copies[i].from);
          if (copies[i].row.defined()) copies[i].to.select(1, 0).copy_(copies[i].row);
        }
      });
    };
    const auto first_of_parent = static_cast<std::size_t>(
        std::find_if(plan_.admissions[static_cast<std::size_t>(layer)].begin(),
                     plan_.admissions[static_cast<std::size_t>(layer)].end(),
                     [](const SweepPlan::Admission& admission) { return admission.parent.has_value(); }) -
        plan_.admissions[static_cast<std::size_t>(layer)].begin());
    copy(0, first_of_parent);
    copy(first_of_parent, copies.size());
  }

  // Of the base run's draws, [J N, ...], those of a patch's facts.
  at::Tensor base_draws(const at::Tensor& draws, const Patch& patch) const {
    return patch.fact ? draws.narrow(0, *patch.fact * shape_.N, shape_.N) : draws;
  }

  // What the base run's row becomes in each patch that begins with this layer: [facts N, D].
  std::map<std::size_t, at::Tensor> patched_rows(std::int64_t layer) {
    std::map<std::size_t, at::Tensor> patched;
    std::vector<std::function<void()>> pieces;
    const auto add = [&](const std::vector<std::size_t>& admitted, auto rows_of_patches) {
      const auto at_once = static_cast<std::size_t>(std::max<std::int64_t>(1, block_rows_ / shape_.draws()));
      for (std::size_t begin = 0; begin < admitted.size(); begin += at_once) {
        const std::vector<std::size_t> some(
            admitted.begin() + static_cast<std::ptrdiff_t>(begin),
            admitted.begin() + static_cast<std::ptrdiff_t>(std::min(admitted.size(), begin + at_once)));
        for (const auto index : some) patched.try_emplace(index);
        pieces.emplace_back([&patched, some, rows_of_patches] {
          const auto rows = rows_of_patches(some);
          for (std::size_t i = 0; i < some.size(); ++i) patched.at(some[i]) = rows[static_cast<std::int64_t>(i)];
        });
      }
    };
    const auto& block = *block_;
    // [patches, facts N, D]. All patches that begin at one site are of as many facts.
    const auto at_positions = [&](const at::Tensor& base, std::span<const std::size_t> of) {
      const auto rows = base.view({shape_.draws(), base_positions(), -1});
      std::vector<at::Tensor> list;
      for (const auto i : of) {
        const auto& patch = *plan_.patches[i];
        list.push_back(base_draws(rows, patch).select(1, patch.position - shape_.b));
      }
      return at::stack(list);
    };
    const auto others = [&](Site site, std::span<const std::size_t> of) {  // likewise
      const auto outputs = other_.outputs.at(site)[layer].expand({-1, shape_.N, -1, -1}).flatten(0, 1);
      return at_positions(outputs.reshape({-1, outputs.size(2)}), of);
    };
    const auto after = [&](const at::Tensor& before, const at::Tensor& attn) {
      count(rows_of_mlp(), before.size(0) * before.size(1));
      return block.after(before, attn);
    };
    using Some = std::span<const std::size_t>;
    const auto begun_at = [&](Site site) { return plan_.admitted_at(layer, site); };
    add(begun_at(Site::kState), [&](Some some) { return others(Site::kState, some); });
    add(begun_at(Site::kMlp), [&](Some some) {
      return block.after_mlp(at_positions(base_layer_.before_mlp, some) + others(Site::kMlp, some));
    });
    add(begun_at(Site::kAttn),
        [&](Some some) { return after(at_positions(base_layer_.before_attention, some), others(Site::kAttn, some)); });
    add(begun_at(Site::kMixed), [&](Some some) {
      const auto mixed = at_positions(base_layer_.mixed, some), other = others(Site::kMixed, some);
      const auto width = block.attn().head_width();
      for (std::size_t i = 0; i < some.size(); ++i) {
        const auto first = *plan_.patches[some[i]]->changes.front().head * width;
        const auto row = static_cast<std::int64_t>(i);
        mixed[row].slice(1, first, first + width).copy_(other[row].slice(1, first, first + width));
      }
      count(&TokenLayers::attention, mixed.size(0) * mixed.size(1));
      return after(at_positions(base_layer_.before_attention, some), block.attn_output(mixed));
    });
    // A changed neuron adds its row of the MLP's last matrix to the product; a set of them has a product of its own.
    std::vector<std::size_t> single, sets;
    for (const auto i : plan_.admitted_at(layer, Site::kMlpHidden)) {
      (plan_.patches[i]->changes.front().neuron ? single : sets).push_back(i);
    }
    const auto after_product = [&](Some some, const at::Tensor& product) {
      return block.after_mlp(at_positions(base_layer_.before_mlp, some) + block.mlp_output_of(product));
    };
    add(single, [&](Some some) {
      const auto product = at_positions(base_layer_.product, some);
      return after_product(some,
                           product + changes_of_neurons(layer, some).unsqueeze(-1) * rows_of_neurons(layer, some));
    });
    add(sets, [&](Some some) {
      auto neurons = at_positions(base_layer_.neurons, some);
      for (std::size_t i = 0; i < some.size(); ++i) {
        const auto mine = neurons[static_cast<std::int64_t>(i)];
        const auto chosen = neurons_of(plan_.patches[some[i]]->changes.front(), layer, mine.size(1)).to(mine.device());
        mine.copy_(at::where(chosen, others_of_neurons(layer, some[i]), mine));
      }
      count(&TokenLayers::neurons, neurons.size(0) * neurons.size(1));
      return after_product(some, block.mlp().output(neurons).to(rows_.scalar_type()));
    });
    share(workers_, static_cast<std::int64_t>(pieces.size()),
          [&](std::int64_t i) { pieces[static_cast<std::size_t>(i)](); });
    return patched;
  }

  // The other run's neurons at a patch's position, of each of its draws: [facts N, F].
  at::Tensor others_of_neurons(std::int64_t layer, std::size_t patch) const {
    const auto segment = shape_.segment_of(*plan_.patches[patch]);
    std::vector<std::int64_t> places;
    for (std::int64_t draw = 0; draw < segment.draws(); ++draw) places.push_back(neuron_place(segment, draw));
    return other_neurons(layer).index_select(0, indices(places));
  }

  // How the patches of one neuron each change its value: [patches, facts N].
  at::Tensor changes_of_neurons(std::int64_t layer, std::span<const std::size_t> some) const {
    const auto base = base_layer_.neurons.view({shape_.draws(), base_positions(), -1});
    std::vector<at::Tensor> changes;
    for (const auto i : some) {
      const auto& patch = *plan_.patches[i];
      const auto neuron = *patch.changes.front().neuron;
      changes.push_back(others_of_neurons(layer, i).select(1, neuron) -
                        base_draws(base, patch).select(1, patch.position - shape_.b).select(1, neuron));
    }
    return at::stack(changes);
  }

  // Their rows of the MLP's last matrix: [patches, 1, D].
  at::Tensor rows_of_neurons(std::int64_t layer, std::span<const std::size_t> some) const {
    std::vector<std::int64_t> neurons;
    for (const auto i : some) neurons.push_back(*plan_.patches[i]->changes.front().neuron);
    return model_.mlp_output_rows(layer, neurons).unsqueeze(1);
  }

  std::vector<RunValues> read(std::span<const Question> questions, std::span<const Reading> readings) {
    std::vector<std::int64_t> rows, question_of;  // [runs, K] and [runs]
    std::vector<std::size_t> first_run;           // of each segment
    for (const auto& segment : segments_) {
      first_run.push_back(question_of.size());
      for (std::int64_t draw = 0; draw < segment.draws(); ++draw) {
        for (std::int64_t k = 0; k < shape_.K; ++k) {
          rows.push_back(segment.row + (draw + 1) * segment.length - shape_.K + k);
        }
        question_of.push_back(segment.first_fact + draw / segment.draws_of_a_fact);
      }
    }
    first_run.push_back(question_of.size());
    const auto index = indices(rows).view({-1, shape_.K});
    const auto width = 1 + readings.size();
    std::vector<double> values(static_cast<std::size_t>(index.size(0)) * width);
    const auto at_once = std::max<std::int64_t>(1, rows_of_a_block(index.numel()) / shape_.K);
    share(workers_, (index.size(0) + at_once - 1) / at_once, [&](std::int64_t piece) {
      const auto begin = piece * at_once;
      const auto some = index.slice(0, begin, begin + at_once);
      const auto hidden = model_.leave(rows_.index_select(0, some.flatten())).view({some.size(0), shape_.K, -1});
      const auto of_rows =
          std::span(question_of).subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(hidden.size(0)));
      const auto found = read_out(model_, hidden, questions, of_rows, readings);
      std::copy(found.begin(), found.end(), values.begin() + begin * static_cast<std::ptrdiff_t>(width));
      count(&TokenLayers::answers, hidden.size(0) * shape_.K);
      tell();
    });
    const auto of_segment = [&](std::size_t segment) {
      return RunValues(values.begin() + static_cast<std::ptrdiff_t>(first_run[segment] * width),
                       values.begin() + static_cast<std::ptrdiff_t>(first_run[segment + 1] * width));
    };
    std::vector<RunValues> in_order = {of_segment(0)};
    for (const auto segment : segment_of_patch_) in_order.push_back(of_segment(segment));
    return in_order;
  }

  const Decoder& model_;
  const OtherRuns& other_;
  const SweepShape& shape_;
  const SweepPlan& plan_;
  const std::int64_t asked_block_rows_;
  Workers* const workers_;
  const std::function<void()>& after_block_;
  Recording* const base_recording_;
  std::mutex counting_;  // of work, and for whoever is told of it
  TokenLayers& work_;
  std::int64_t block_rows_ = 0;    // of the layer at hand
  std::vector<Segment> segments_;  // the base run, then patches in the order of their admission
  std::vector<std::size_t> segment_of_patch_;
  at::Tensor rows_;                     // [rows of all segments, D]: the residual stream
  at::Tensor positions_;                // [rows of all segments], where positions matter to a layer
  std::shared_ptr<const Block> block_;  // the layer at hand
  at::Tensor biases_;                   // [H, R] of its scores, or undefined
  at::Tensor runs_;  // [J S + J N, R, K]: this layer's keys and values of the other and the base runs
  BaseLayer base_layer_;
};

}  // namespace

OtherRuns::OtherRuns(const std::vector<const Recording*>& facts) {
  inputs = side_by_side(facts, [](const Recording& run) { return run.inputs; });
  for (const auto& entry : facts.front()->outputs) {
    const auto site = entry.first;
    outputs[site] = side_by_side(facts, [&](const Recording& run) { return run.outputs.at(site); });
  }
  neuron_layers = facts.front()->neuron_layers;
  neuron_positions = facts.front()->neuron_positions;
  if (!facts.front()->neurons.defined()) return;
  neurons = side_by_side(facts, [](const Recording& run) { return run.neurons; });
}

std::int64_t full_block_rows(at::Device device) {
  constexpr std::int64_t kOnCpu = 1024, kElsewhere = 8192;
  return device.is_cpu() ? kOnCpu : kElsewhere;
}

std::vector<RunValues> run_pass(const Decoder& model, const PassInput& input, TokenLayers& work) {
  const Workers::Alone alone(input.workers);
  return Pass(model, input, work).run(input.base_embeddings, input.questions, input.readings);
}

}  // namespace rometrace
