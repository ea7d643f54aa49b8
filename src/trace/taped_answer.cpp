#include "trace/taped_answer.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "rometrace/error.hpp"

namespace rometrace {
namespace {

// Of what the head reads, [S, R, E] -> [S] in double.
at::Tensor log_probability(const Decoder& model, const CleanRun& clean, const at::Tensor& hidden) {
  const auto& ids = clean.trace.answer_ids;
  const auto answer = at::tensor(std::vector<std::int64_t>(ids.begin(), ids.end())).to(model.device()).view({1, -1, 1});
  const auto logits = model.logits(hidden.slice(1, clean.trace.tokens - 1));  // [S, K, V]
  return at::log_softmax(logits, -1, at::kDouble).gather(2, answer.expand({hidden.size(0), -1, 1})).sum({1, 2});
}

// Runs whose logits are held together: their backward takes about four times as much in double.
std::int64_t rows_of_head(const Decoder& model, const CleanRun& clean) {
  constexpr std::int64_t kBytes = std::int64_t{32} << 20;
  const auto of_row = 4 * static_cast<std::int64_t>(clean.trace.answer_ids.size() * sizeof(double));
  return std::max<std::int64_t>(1, kBytes / (of_row * model.config().vocab_size));
}

}  // namespace

BackwardPlan plan_backward(const Decoder& model, std::int64_t tokens, std::int64_t layers, std::int64_t rows,
                           std::int64_t memory) {
  const auto& config = model.config();
  const auto number = static_cast<std::int64_t>(at::elementSize(model.stream_dtype()));
  // What a layer keeps of a run for its backward, with values at its sites and the derivatives by them.
  const auto graph = tokens * (16 * config.width + (config.gated_mlp ? 6 : 4) * config.mlp_width) * number;
  if (!model.streamed() && rows <= memory / (layers * graph)) return {rows, LayerTape::Graphs::kKept};
  const auto row = graph + layers * tokens * config.width * number;
  return {std::clamp<std::int64_t>(memory / row, 1, rows), LayerTape::Graphs::kMadeAgain};
}

TapedAnswer::TapedAnswer(const Decoder& model, const CleanRun& clean, LayerTape::Graphs graphs, std::stop_token stop)
    : model_(model), clean_(clean), stop_(std::move(stop)), tape_(model, graphs) {}

at::Tensor TapedAnswer::run(at::Tensor x, std::int64_t first, Tap tap) {
  tap_ = std::move(tap);
  const auto through = [this](const std::shared_ptr<const Block>& block, const at::Tensor& input, std::int64_t) {
    const auto at_sites = [this](Site site, std::int64_t layer, at::Tensor& value) {
      if (stop_.stop_requested()) throw Interrupted();
      tap_(site, layer, value, tape_);
    };
    return block->forward(input, at_sites, {});
  };
  for (auto layer = first; layer < model_.config().layers; ++layer) x = tape_.run(layer, x, through);

  // The runs do not depend on each other, so that each has its own derivative of the sum.
  const at::AutoGradMode with_gradients(true);
  derivative_ = at::zeros_like(x);
  std::vector<at::Tensor> log_p;
  const auto at_once = rows_of_head(model_, clean_);
  for (std::int64_t row = 0; row < x.size(0); row += at_once) {
    if (stop_.stop_requested()) throw Interrupted();
    const auto leaf = x.slice(0, row, row + at_once).detach().requires_grad_();
    const auto some = log_probability(model_, clean_, model_.leave(leaf));
    derivative_.slice(0, row, row + at_once).copy_(torch::autograd::grad({some.sum()}, {leaf}).front());
    log_p.push_back(some.detach());
  }
  return at::cat(log_p);
}

void TapedAnswer::backward(const LayerTape::Visit& visit) {
  tape_.backward(std::move(derivative_), visit);
}

at::Tensor answer_log_probability(const Decoder& model, const CleanRun& clean, const at::Tensor& hidden) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> log_p;
  const auto at_once = rows_of_head(model, clean);
  for (std::int64_t row = 0; row < hidden.size(0); row += at_once) {
    log_p.push_back(log_probability(model, clean, hidden.slice(0, row, row + at_once)));
  }
  return at::cat(log_p);
}

}  // namespace rometrace
