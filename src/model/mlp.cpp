#include "rometrace/model/mlp.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/scatter.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/topk.h>
#include <ATen/ops/zeros_like.h>

#include <limits>
#include <utility>

namespace rometrace {
namespace {

/// The rows that come to each expert, ascending, and which of their choices it is.
struct Visits {
  std::vector<std::int64_t> rows, choices;
};

// The one thing in a layer that waits for a device: only the host can say which experts are run, and of how many rows.
std::vector<Visits> visits_of(const at::Tensor& chosen, std::int64_t experts) {
  const auto on_cpu = chosen.cpu();
  const auto of = on_cpu.accessor<std::int64_t, 2>();
  std::vector<Visits> visits(static_cast<std::size_t>(experts));
  for (std::int64_t row = 0; row < of.size(0); ++row) {
    for (std::int64_t choice = 0; choice < of.size(1); ++choice) {
      auto& mine = visits[static_cast<std::size_t>(of[row][choice])];
      mine.rows.push_back(row);
      mine.choices.push_back(choice);
    }
  }
  return visits;
}

}  // namespace

Mlp::Mlp(const DecoderConfig& config, std::shared_ptr<const Linear> inputs, std::shared_ptr<const Linear> output)
    : activation_(config.activation),
      gated_(config.gated_mlp),
      gate_limit_(config.gate_limit),
      up_offset_(config.up_offset),
      inputs_(std::move(inputs)),
      output_(std::move(output)) {}

at::Tensor Mlp::hidden(const at::Tensor& x) const {
  if (gate_limit_ > 0) {
    const auto gate = at::clamp(inputs_->product(x), {}, gate_limit_);
    return activated(gate, activation_) * (at::clamp(inputs_->product(x, 1), -gate_limit_, gate_limit_) + up_offset_);
  }
  const auto inner = inputs_->activated_product(x, activation_);
  if (!gated_) return inner;
  return up_offset_ == 0 ? inner * inputs_->product(x, 1) : inner * (inputs_->product(x, 1) + up_offset_);
}

at::Tensor Mlp::output(const at::Tensor& hidden) const {
  return output_->product(hidden);
}

void Mlp::prepare() const {
  inputs_->prepare();
  output_->prepare();
}

Mixture::Choice Mixture::choose(const at::Tensor& scores) const {
  constexpr auto kNone = -std::numeric_limits<double>::infinity();
  switch (experts_.weights) {
    case Experts::Weights::kOfAll: {
      const auto [weights, chosen] = at::topk(at::softmax(scores, -1), experts_.chosen);
      return {chosen, experts_.sums_to_one ? weights / weights.sum(-1, /*keepdim=*/true) : weights};
    }
    case Experts::Weights::kOfChosen: {
      const auto [largest, chosen] = at::topk(scores, experts_.chosen);
      return {chosen, at::softmax(largest, -1)};
    }
    case Experts::Weights::kOneByOne:
      break;
  }
  std::vector<at::Tensor> experts, weights;
  auto left = scores;
  for (std::int64_t choice = 0; choice < experts_.chosen; ++choice) {
    const auto [largest, chosen] = left.max(-1, /*keepdim=*/true);
    const auto far = (largest - scores) / at::clamp(scores.abs(), largest) > experts_.nearness;
    weights.push_back(at::softmax(left.masked_fill(far.detach(), kNone), -1).gather(-1, chosen));
    experts.push_back(chosen);
    left = at::scatter(left, -1, chosen, kNone);
  }
  return {at::cat(experts, -1), at::cat(weights, -1)};
}

at::Tensor Mixture::output(const at::Tensor& x) const {
  const auto rows = x.flatten(0, -2);
  const auto [chosen, weights] = choose(parts_.router->product(rows));
  const auto visits = visits_of(chosen, experts_.count);
  auto sum = at::zeros_like(rows);
  for (std::size_t expert = 0; expert < visits.size(); ++expert) {
    if (visits[expert].rows.empty()) continue;
    const auto mine = at::tensor(visits[expert].rows).to(rows.device());
    const auto choices = at::tensor(visits[expert].choices).to(rows.device());
    const auto& mlp = *parts_.experts[expert];
    const auto output = mlp.output(mlp.hidden(rows.index_select(0, mine))).to(rows.scalar_type());
    const auto of_mine = weights.index_select(0, mine).gather(1, choices.unsqueeze(1));
    sum = sum.index_copy_(0, mine, sum.index_select(0, mine) + output * of_mine);
  }
  if (parts_.shared) {
    const auto shared = parts_.shared->output(parts_.shared->hidden(rows)).to(rows.scalar_type());
    sum = sum + at::sigmoid(parts_.shared_gate->product(rows)) * shared;
  }
  return sum.view(x.sizes());
}

void Mixture::prepare() const {
  parts_.router->prepare();
  if (!parts_.shared) return;
  parts_.shared->prepare();
  parts_.shared_gate->prepare();
}

void Mixture::prepare_experts() const {
  for (const auto& expert : parts_.experts) expert->prepare();
}

}  // namespace rometrace
