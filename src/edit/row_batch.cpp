#include "edit/row_batch.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "rometrace/error.hpp"

namespace rometrace {

RowBatch::RowBatch(std::span<const TextPart> parts, at::Device device) : begins_(parts.size()), device_(device) {
  std::map<std::int64_t, std::vector<std::size_t>> by_length;
  for (std::size_t i = 0; i < parts.size(); ++i) by_length[parts[i].length].push_back(i);
  std::vector<std::int64_t> positions;
  for (auto& [length, texts] : by_length) {
    Group group;
    group.begin = rows_;
    group.length = length;
    for (const auto i : texts) {
      begins_[i] = rows_;
      rows_ += length;
      group.firsts.push_back(parts[i].first);
      group.before = std::max(group.before, parts[i].first);
      for (std::int64_t row = 0; row < length; ++row) positions.push_back(parts[i].first + row);
    }
    group.texts = std::move(texts);
    groups_.push_back(std::move(group));
  }
  positions_ = at::tensor(positions).to(device);
}

std::vector<at::Tensor> RowBatch::lent(const std::vector<at::Tensor>& keys_values) const {
  std::vector<at::Tensor> of_groups;
  for (const auto& group : groups_) {
    std::vector<at::Tensor> filled;
    for (const auto i : group.texts) {
      const auto& own = keys_values[i];
      const auto missing = group.before - own.size(0);
      filled.push_back(missing == 0 ? own : at::cat({at::zeros({missing, own.size(1)}, own.options()), own}));
    }
    of_groups.push_back(at::stack(filled));
  }
  return of_groups;
}

at::Tensor RowBatch::key_positions(const Group& group) const {
  const auto keys = at::arange(group.before + group.length, at::device(device_).dtype(at::kLong));
  return at::tensor(group.firsts).to(device_).unsqueeze(1) + keys - group.before;
}

at::Tensor RowBatch::unseen(const Group& group, std::int64_t window) const {
  auto& known = group.unseen[window];
  if (known.defined()) return known;
  const auto on = at::device(device_).dtype(at::kLong);
  const auto first = at::tensor(group.firsts).to(device_).view({-1, 1, 1, 1});
  const auto query = at::arange(group.length, on).view({1, 1, -1, 1}) + first;  // positions
  const auto key = key_positions(group).unsqueeze(1).unsqueeze(1);
  known = (key < 0).logical_or(key > query);
  if (window > 0) known = known.logical_or(key <= query - window);
  return known;
}

at::Tensor RowBatch::attend(const Attention& attention, const at::Tensor& queries, const at::Tensor& keys_values,
                            std::span<const at::Tensor> lent) const {
  const auto H = attention.heads(), kv_heads = attention.kv_heads(), width = attention.head_width();
  std::vector<at::Tensor> mixed;
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    const auto& group = groups_[g];
    const auto texts = static_cast<std::int64_t>(group.texts.size()), rows = texts * group.length;
    const auto q = queries.narrow(0, group.begin, rows).view({texts, group.length, H, width}).transpose(1, 2);
    auto kv = keys_values.narrow(0, group.begin, rows).view({texts, group.length, -1});
    if (group.before > 0) kv = at::cat({lent[g], kv}, 1);
    const auto both = kv.unflatten(-1, {2, kv_heads, width});
    const auto of_queries = [&](std::int64_t part) {  // [texts, H, keys, d]
      const auto heads = both.select(2, part).transpose(1, 2);
      return kv_heads == H ? heads : heads.repeat_interleave(H / kv_heads, 1);
    };
    auto scores = at::matmul(q, of_queries(0).transpose(-1, -2)) * attention.scale();
    if (const auto cap = attention.softcap(); cap > 0) scores = at::tanh(scores / cap) * cap;
    if (const auto biases = attention.biases(group.end(), q); biases.defined()) {
      scores = scores +
               biases.index_select(1, key_positions(group).clamp(0).flatten()).view({H, texts, 1, -1}).transpose(0, 1);
    }
    scores = scores.masked_fill(unseen(group, attention.window()), -std::numeric_limits<double>::infinity());
    mixed.push_back(at::matmul(at::softmax(scores, -1), of_queries(1)).transpose(1, 2).reshape({rows, H * width}));
  }
  return mixed.size() == 1 ? mixed.front() : at::cat(mixed);
}

RowBatch whole_texts(const Decoder& model, std::span<const std::vector<std::int32_t>> texts) {
  std::vector<TextPart> parts;
  for (const auto& ids : texts) {
    model.check_length(static_cast<std::int64_t>(ids.size()));
    parts.push_back({0, static_cast<std::int64_t>(ids.size())});
  }
  return {parts, model.device()};
}

LayerRows pass_layer(std::shared_ptr<const Block> of_layer, const at::Tensor& x, const RowBatch& batch,
                     std::span<const at::Tensor> lent, const at::Tensor& kept) {
  LayerRows rows;
  rows.block = std::move(of_layer);
  const auto& block = *rows.block;
  const auto input = block.attn_input(x);
  rows.keys_values = block.attn().keys_values(input, batch.positions()).to(x.scalar_type());
  const auto queries = block.attn().queries(input, batch.positions()).to(x.scalar_type());
  const auto attn = block.attn_output(batch.attend(block.attn(), queries, rows.keys_values, lent));
  const auto of_kept = [&](const at::Tensor& all) { return kept.defined() ? all.index_select(0, kept) : all; };
  rows.between = of_kept(block.after_attn(x + attn.to(x.scalar_type())));
  rows.hidden = block.mlp_hidden(block.order() == BlockOrder::kParallel ? of_kept(x) : rows.between);
  rows.product = block.mlp().output(rows.hidden).to(x.scalar_type());
  rows.state = block.after_mlp(rows.between + block.mlp_output_of(rows.product));
  return rows;
}

at::Tensor run_texts(const Decoder& model, const RowBatch& batch, std::span<const std::vector<std::int32_t>> texts,
                     std::int64_t end, const std::function<void(std::int64_t layer, const LayerRows& rows)>& visit,
                     const std::stop_token& stop) {
  std::vector<std::pair<std::int64_t, at::Tensor>> entering;  // by the row where each text begins
  for (std::size_t i = 0; i < texts.size(); ++i) {
    entering.emplace_back(batch.begin(i), model.enter(model.embed(texts[i])));
  }
  std::sort(entering.begin(), entering.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<at::Tensor> in_order;
  for (const auto& [begin, rows] : entering) in_order.push_back(rows);
  auto x = at::cat(in_order);
  for (std::int64_t layer = 0; layer < end; ++layer) {
    if (stop.stop_requested()) throw Interrupted();
    const auto rows = pass_layer(model.block(layer), x, batch, {});
    x = rows.state;
    visit(layer, rows);
  }
  return x;
}

}  // namespace rometrace
