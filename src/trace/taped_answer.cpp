#include "trace/taped_answer.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/logaddexp.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include "rometrace/error.hpp"

namespace rometrace {
namespace {

// Runs that go through the head together: a slice of their logits takes about four times as much in double.
std::int64_t rows_of_head(const CleanRun& clean) {
  constexpr std::int64_t kBytes = std::int64_t{32} << 20, kSlice = 8192;
  const auto of_row = 4 * kSlice * static_cast<std::int64_t>(clean.trace.answer_ids.size() * sizeof(double));
  return std::max<std::int64_t>(1, kBytes / of_row);
}

// The head's part in the answer's probability. It goes over the vocabulary slice by slice, so that neither all logits
// are held nor, where layers are streamed, all of the head.
class AnswerHead {
 public:
  // `hidden` [S, K, E]: what the head reads where the answer is said.
  AnswerHead(const Decoder& model, const CleanRun& clean, at::Tensor hidden, const std::stop_token& stop)
      : head_(model.head()), answer_(clean.trace.answer_ids), hidden_(std::move(hidden)), stop_(stop) {
    const at::NoGradGuard no_grad;
    for_each_slice(hidden_, [&](const at::Tensor& logits, std::int64_t begin) {
      const auto all = at::logsumexp(logits.to(at::kDouble), {-1});
      log_sum_ = log_sum_.defined() ? at::logaddexp(log_sum_, all) : all;
      if (!said_.defined()) said_ = at::zeros_like(all);
      for_answers_in(begin, logits.size(-1), [&](std::int64_t k, std::int64_t id) {
        said_.select(1, k).copy_(logits.select(1, k).select(1, id));
      });
    });
  }

  // The logarithm, [S] in double; NaN where a logit is infinite, too.
  at::Tensor log_probability() const { return (said_ - log_sum_ + 0 * log_sum_).sum(1); }

  // The derivative by `hidden`.
  at::Tensor derivative() const {
    const at::AutoGradMode with_gradients(true);
    const auto leaf = hidden_.detach().requires_grad_();
    auto sum = at::zeros_like(hidden_);
    for_each_slice(leaf, [&](const at::Tensor& logits, std::int64_t begin) {
      const auto by_logits = at::exp(logits.detach().to(at::kDouble) - log_sum_.unsqueeze(-1)).neg_();
      for_answers_in(begin, logits.size(-1),
                     [&](std::int64_t k, std::int64_t id) { by_logits.select(1, k).select(1, id).add_(1); });
      sum.add_(torch::autograd::grad({logits}, {leaf}, {by_logits.to(logits.scalar_type())}).front());
    });
    return sum;
  }

 private:
  template <class Use>
  void for_each_slice(const at::Tensor& hidden, const Use& use) const {
    std::int64_t begin = 0;
    for (std::size_t part = 0; part < head_.parts(); ++part) {
      if (stop_.stop_requested()) throw Interrupted();
      const auto logits = head_.logits(hidden, part);  // [S, K, width of the slice]
      use(logits, begin);
      begin += logits.size(-1);
    }
  }

  // The answer's tokens in a slice, counted from its begin.
  template <class Use>
  void for_answers_in(std::int64_t begin, std::int64_t width, const Use& use) const {
    for (std::size_t k = 0; k < answer_.size(); ++k) {
      const auto id = answer_[k] - begin;
      if (0 <= id && id < width) use(static_cast<std::int64_t>(k), id);
    }
  }

  const Head& head_;
  const std::vector<std::int32_t>& answer_;
  at::Tensor hidden_;
  std::stop_token stop_;
  at::Tensor log_sum_, said_;  // [S, K] in double
};

}  // namespace

BackwardPlan plan_backward(const Decoder& model, std::int64_t tokens, std::int64_t layers, std::int64_t rows,
                           std::int64_t memory) {
  const auto& config = model.config();
  const auto number = static_cast<std::int64_t>(at::elementSize(model.stream_dtype()));
  // What a layer keeps of a run for its backward, with values at its sites and the derivatives by them.
  std::int64_t mlp = (config.gated_mlp ? 6 : 4) * config.mlp_width;
  if (const auto& experts = config.experts) {  // with copies of the rows for each expert that they come to
    mlp = std::max(mlp, experts->chosen * (6 * experts->width + 4 * config.width) + 6 * experts->shared_width +
                            4 * experts->count);
  }
  const auto graph = tokens * (16 * config.width + mlp) * number;
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

  const at::AutoGradMode with_gradients(true);
  derivative_ = at::zeros_like(x);
  std::vector<at::Tensor> log_p;
  const auto at_once = rows_of_head(clean_);
  for (std::int64_t row = 0; row < x.size(0); row += at_once) {
    const auto leaf = x.slice(0, row, row + at_once).detach().requires_grad_();
    const auto hidden = model_.leave(leaf.slice(1, clean_.trace.tokens - 1));
    const AnswerHead head(model_, clean_, hidden.detach(), stop_);
    const auto derivative = torch::autograd::grad({hidden}, {leaf}, {head.derivative()}).front();
    derivative_.slice(0, row, row + at_once).copy_(derivative);
    log_p.push_back(head.log_probability());
  }
  return at::cat(log_p);
}

void TapedAnswer::backward(const LayerTape::Visit& visit) {
  tape_.backward(std::move(derivative_), visit);
}

at::Tensor answer_log_probability(const Decoder& model, const CleanRun& clean, const at::Tensor& hidden,
                                  const std::stop_token& stop) {
  std::vector<at::Tensor> log_p;
  const auto at_once = rows_of_head(clean);
  for (std::int64_t row = 0; row < hidden.size(0); row += at_once) {
    const auto says = hidden.slice(0, row, row + at_once).slice(1, clean.trace.tokens - 1);
    log_p.push_back(AnswerHead(model, clean, says, stop).log_probability());
  }
  return at::cat(log_p);
}

}  // namespace rometrace
