#include "rometrace/edit/continuation.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <utility>

#include "edit/row_batch.hpp"
#include "rometrace/error.hpp"

namespace rometrace {

Continuation::Continuation(const Decoder& model, std::span<const std::vector<std::int32_t>> texts, std::stop_token stop)
    : model_(model), stop_(std::move(stop)) {
  const at::NoGradGuard no_grad;
  const auto batch = whole_texts(model, texts);
  std::vector<std::int64_t> last;
  for (std::size_t i = 0; i < texts.size(); ++i) {
    lengths_.push_back(static_cast<std::int64_t>(texts[i].size()));
    last.push_back(batch.begin(i) + lengths_.back() - 1);
  }
  const auto keep = [&](std::int64_t, const LayerRows& rows) {
    auto& of_layer = keys_values_.emplace_back();
    for (std::size_t i = 0; i < texts.size(); ++i) {
      of_layer.push_back(rows.keys_values.narrow(0, batch.begin(i), lengths_[i]).clone());
    }
  };
  const auto x = run_texts(model, batch, texts, model.config().layers, keep, stop_);
  logits_ = model.logits(model.leave(x.index_select(0, at::tensor(last).to(x.device()))));
}

std::int64_t Continuation::longest() const {
  return *std::max_element(lengths_.begin(), lengths_.end());
}

void Continuation::append(std::span<const std::int32_t> ids) {
  const at::NoGradGuard no_grad;
  std::vector<TextPart> parts;
  std::vector<at::Tensor> entering;
  for (std::size_t i = 0; i < lengths_.size(); ++i) {
    parts.push_back({lengths_[i], 1});
    entering.push_back(model_.enter(model_.embed(ids.subspan(i, 1)), lengths_[i]));
  }
  const RowBatch batch(parts, model_.device());
  auto x = at::cat(entering);  // rows of one length: in the order of the texts
  for (std::int64_t layer = 0; layer < model_.config().layers; ++layer) {
    if (stop_.stop_requested()) throw Interrupted();
    auto& earlier = keys_values_[static_cast<std::size_t>(layer)];
    const auto rows = pass_layer(model_.block(layer), x, batch, batch.lent(earlier));
    x = rows.state;
    for (std::size_t i = 0; i < earlier.size(); ++i) {
      earlier[i] = at::cat({earlier[i], rows.keys_values.narrow(0, static_cast<std::int64_t>(i), 1)});
    }
  }
  for (auto& length : lengths_) ++length;
  logits_ = model_.logits(model_.leave(x));
}

std::vector<std::vector<std::int32_t>> continue_greedily(const Decoder& model,
                                                         std::span<const std::vector<std::int32_t>> texts,
                                                         std::int64_t tokens,
                                                         const std::function<bool(std::int32_t)>& ends,
                                                         std::stop_token stop) {
  std::vector<std::vector<std::int32_t>> said(texts.size());
  if (texts.empty() || tokens < 1) return said;
  std::vector<bool> open(texts.size(), true);
  Continuation going(model, texts, std::move(stop));
  for (std::int64_t step = 0; step < tokens; ++step) {
    const auto best = going.logits().argmax(-1).cpu();
    std::vector<std::int32_t> next;
    for (std::size_t i = 0; i < texts.size(); ++i) {
      next.push_back(best[static_cast<std::int64_t>(i)].item<std::int32_t>());
      if (open[i] && ends && ends(next.back())) open[i] = false;
      if (open[i]) said[i].push_back(next.back());
    }
    const bool all_end = std::none_of(open.begin(), open.end(), [](bool each) { return each; });
    if (all_end || step + 1 == tokens || going.longest() + 1 > model.config().max_positions) break;
    going.append(next);
  }
  return said;
}

}  // namespace rometrace
