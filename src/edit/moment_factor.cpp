#include "rometrace/edit/moment_factor.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cholesky_solve.h>
#include <ATen/ops/dot.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/linalg_cholesky_ex.h>
#include <ATen/ops/linalg_eigvalsh.h>
#include <ATen/ops/linalg_solve_triangular.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/mv.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "rometrace/error.hpp"

namespace rometrace {
namespace {

// Beyond it a solve in float64 has hardly a digit that is right.
constexpr double kLargestCondition = 1e13;

/// The largest eigenvalue of a symmetric positive operator on [F], from below: by Lanczos's steps, until two in turn
/// raise it by less than one part in ten thousand.
double largest_eigenvalue(std::int64_t width, const std::function<at::Tensor(const at::Tensor&)>& apply) {
  constexpr std::int64_t kSteps = 24;
  constexpr double kRise = 1e-4;
  const auto steps = std::min(kSteps, width);
  auto vector = at::sin(at::arange(1, width + 1, at::kDouble) * 12.9898).add_(0.5);  // like none of the matrix's own
  vector /= vector.norm();
  std::vector<at::Tensor> basis;
  auto projected = at::zeros({steps, steps}, at::kDouble);
  double found = 0;
  for (std::int64_t size = 1, steady = 0;; ++size) {
    basis.push_back(vector);
    auto next = apply(vector);
    projected[size - 1][size - 1] = at::dot(next, vector);
    const double largest = at::linalg_eigvalsh(projected.slice(0, 0, size).slice(1, 0, size)).max().item<double>();
    steady = largest < (1 + kRise) * found ? steady + 1 : 0;
    found = largest;
    if (size == steps || steady == 2) return found;
    const auto all = at::stack(basis);
    for (int twice = 0; twice < 2; ++twice) next = next - at::mv(all.t(), at::mv(all, next));
    const auto length = next.norm().item<double>();
    if (!(length > 1e-12 * projected[size - 1][size - 1].abs().item<double>())) return found;
    projected[size][size - 1] = length;
    projected[size - 1][size] = length;
    vector = next / length;
  }
}

}  // namespace

double default_ridge(const SecondMoment& moment, Activation activation) {
  const bool needed = moment.tokens < 10 * moment.width() || activation == Activation::kRelu;
  return needed ? 1e-2 * moment.mean.trace().item<double>() / static_cast<double>(moment.width()) : 0;
}

std::optional<std::string> few_tokens_note(const SecondMoment& moment) {
  if (moment.tokens >= 2 * moment.width()) return std::nullopt;
  return "the second moment of layer " + std::to_string(moment.layer) + " is of " + std::to_string(moment.tokens) +
         " tokens, fewer than twice the " + std::to_string(moment.width()) +
         " that a key is wide: an edit with it may leak; 10 times as many are usable, 50 times good";
}

MomentFactor::MomentFactor(const SecondMoment& moment, double ridge) : ridge_(ridge) {
  const at::NoGradGuard no_grad;
  const auto width = moment.width();
  const auto refuse = [&](const std::string& found) {
    throw Error("the second moment of layer " + std::to_string(moment.layer) + " is singular (" + found + "; " +
                std::to_string(moment.tokens) + " tokens, keys " + std::to_string(width) +
                " wide); expected one of more text (rometrace moments --tokens), or leave it out (--no-moment)");
  };
  auto matrix = moment.mean.clone();
  matrix.diagonal().add_(ridge);
  auto [factor, info] = at::linalg_cholesky_ex(matrix);
  matrix = at::Tensor();
  if (info.item<std::int64_t>() != 0) refuse("its Cholesky factor does not exist");
  factor_ = factor;
  const auto largest =
      largest_eigenvalue(width, [&](const at::Tensor& x) { return at::mv(factor_, at::mv(factor_.t(), x)); });
  const auto of_inverse = largest_eigenvalue(width, [&](const at::Tensor& x) { return solve(x); });
  condition_ = largest * of_inverse;
  if (!(condition_ < kLargestCondition)) refuse("its condition number is beyond 1e13");
}

at::Tensor MomentFactor::solve(const at::Tensor& keys) const {
  const at::NoGradGuard no_grad;
  // Two triangular solves: cholesky_solve would copy the factor each time.
  const auto columns = keys.to(at::kCPU, at::kDouble);
  const auto forward = at::linalg_solve_triangular(factor_, columns.dim() == 1 ? columns.unsqueeze(1) : columns, false);
  const auto solved = at::linalg_solve_triangular(factor_.t(), forward, true);
  return columns.dim() == 1 ? solved.squeeze(1) : solved;
}

at::Tensor MomentFactor::solve_with_keys(double lambda, const at::Tensor& keys) const {
  const at::NoGradGuard no_grad;
  const auto columns = keys.to(at::kCPU, at::kDouble);
  const auto solved = solve(columns).div_(lambda);
  auto inner = at::matmul(columns.t(), solved);
  inner = (inner + inner.t()).div_(2);
  inner.diagonal().add_(1);
  const auto factor = std::get<0>(at::linalg_cholesky_ex(inner));
  return at::cholesky_solve(solved.t().contiguous(), factor).t().contiguous();
}

}  // namespace rometrace
