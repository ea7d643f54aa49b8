#include "rometrace/edit/rome.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/sqrt.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>
#include <limits>
#include <utility>

#include "rometrace/error.hpp"

namespace rometrace {
namespace {

double norm_of(const at::Tensor& x) {
  return x.norm().item<double>();
}

double scalar_product(const at::Tensor& a, const at::Tensor& b) {
  return a.dot(b).item<double>();
}

/// Adam (arXiv 1412.6980) with the usual constants, bias-corrected.
class Adam {
 public:
  Adam(double rate, const at::Tensor& like) : rate_(rate), mean_(at::zeros_like(like)), square_(at::zeros_like(like)) {}

  void step(at::Tensor& x, const at::Tensor& gradient) {
    constexpr double kBeta1 = 0.9, kBeta2 = 0.999, kEpsilon = 1e-8;
    ++steps_;
    mean_ = kBeta1 * mean_ + (1 - kBeta1) * gradient;
    square_ = kBeta2 * square_ + (1 - kBeta2) * gradient * gradient;
    const double correction1 = 1 - std::pow(kBeta1, steps_), correction2 = 1 - std::pow(kBeta2, steps_);
    x -= rate_ / correction1 * mean_ / (at::sqrt(square_) / std::sqrt(correction2) + kEpsilon);
  }

 private:
  double rate_;
  int steps_ = 0;
  at::Tensor mean_, square_;
};

}  // namespace

std::string_view to_string(EditMethod method) {
  switch (method) {
    case EditMethod::kRome:
      return "rome";
    case EditMethod::kRRome:
      return "r-rome";
    case EditMethod::kMemit:
      return "memit";
  }
  return "unknown";
}

SoughtValue seek_value(const Decoder& model, const EditRequest& request, std::int64_t layer, ValueSite site,
                       const ValueOptions& options, std::stop_token stop, const EditProgress& progress,
                       const std::function<void(const at::Tensor& keys)>& use_keys) {
  const auto objective = make_objective(options.engine, model, request, layer, site, std::move(stop));
  SoughtValue sought;
  sought.keys = objective->keys();
  if (use_keys) use_keys(sought.keys);
  sought.values = objective->values();
  sought.init_norm = norm_of(sought.values[0]);
  const double decay = options.decay / (sought.init_norm * sought.init_norm), most = options.clamp * sought.init_norm;
  auto delta = at::zeros({sought.values.size(1)}, at::kDouble);
  Adam adam(options.rate, delta);
  for (std::int64_t evaluation = 1;; ++evaluation) {
    if (progress) progress(evaluation - 1, options.steps);
    const bool steps_on = evaluation < options.steps || evaluation == 1;
    auto loss = objective->evaluate(delta, options.kl,
                                    steps_on ? EditObjective::Gradient::kWanted : EditObjective::Gradient::kNotWanted);
    const double length = norm_of(delta);
    auto gradient = std::move(loss.gradient);
    if (gradient.defined() && length > 0) gradient += decay / length * delta;
    if (evaluation == 1) sought.first_gradient = gradient.clone();
    constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
    sought.evaluations.push_back(
        {loss.nll, options.kl * loss.kl, decay * length, length, gradient.defined() ? norm_of(gradient) : kNone});
    const auto& now = sought.evaluations.back();
    if (!std::isfinite(now.total()) || (gradient.defined() && !std::isfinite(now.gradient_norm))) {
      throw Error("the loss or its gradient is not finite at evaluation " + std::to_string(evaluation) +
                  ": the model's weights are damaged, or too large for the dtype");
    }
    if (now.total() < options.low_enough || evaluation >= options.steps) break;
    adam.step(delta, gradient);
    if (const double reached = norm_of(delta); reached > most) delta *= most / reached;
  }
  if (progress) progress(options.steps, options.steps);
  sought.delta = std::move(delta);
  return sought;
}

RankOneEdit edit_rank_one(EditMethod method, const Decoder& model, const EditRequest& request, std::int64_t layer,
                          const ValueOptions& options, const MomentSolver& solve, std::stop_token stop,
                          const EditProgress& progress) {
  RankOneEdit edit;
  at::Tensor direction;
  const auto find_direction = [&](const at::Tensor& keys) {
    direction = solve ? solve(keys.mean(0)) : keys.mean(0);
    direction = direction / norm_of(direction);
  };
  edit.value =
      seek_value(model, request, layer, ValueSite::kMlpProduct, options, std::move(stop), progress, find_direction);
  const auto& [keys, values, delta, gradient, init_norm, evaluations] = edit.value;
  const auto mean_key = keys.mean(0), bare_key = keys[0];
  const bool mean = method == EditMethod::kRRome;
  edit.divisor = scalar_product(mean ? mean_key : bare_key, direction);
  edit.key_ratio = scalar_product(bare_key, direction) / scalar_product(mean_key, direction);
  const auto target = values[0] + delta;
  edit.change.layer = layer;
  edit.change.u = direction.unsqueeze(0);
  edit.change.r = ((target - (mean ? values.mean(0) : values[0])) / edit.divisor).unsqueeze(0);
  const bool finite = at::isfinite(edit.change.u).all().item<bool>() && at::isfinite(edit.change.r).all().item<bool>();
  if (!finite || edit.divisor == 0) {
    throw Error("the key of the subject's last token at layer " + std::to_string(layer) +
                " has no direction to edit: it is zero, or not finite, in this model");
  }
  return edit;
}

}  // namespace rometrace
