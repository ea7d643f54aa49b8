#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>

#include "rometrace/edit/second_moment.hpp"
#include "rometrace/model/config.hpp"

namespace rometrace {

/// What is added to C's diagonal before it is solved with: 1e-2 tr(C) / F where it has fewer than 10 F tokens, or where
/// the MLP's activation is ReLU, whose dead units make it singular; else 0.
double default_ridge(const SecondMoment& moment, Activation activation);

/// A sentence where C is of fewer than 2 F tokens, which say little of its directions.
std::optional<std::string> few_tokens_note(const SecondMoment& moment);

/// C + ridge I, factored once (Cholesky, float64, F^3 / 3 multiply-adds) for any number of solves.
class MomentFactor {
 public:
  /// Throws Error where the matrix is singular to float64, with what to do.
  MomentFactor(const SecondMoment& moment, double ridge);

  /// (C + ridge I)^-1 of keys [F] or, side by side, [F, n]; float64 on the CPU, whatever they are.
  at::Tensor solve(const at::Tensor& keys) const;

  /// (lambda (C + ridge I) + K K^T)^-1 K, K = `keys` [F, n], lambda above 0: MEMIT's adjusted keys, [F, n], float64. By
  /// Woodbury's identity from the same factor.
  at::Tensor solve_with_keys(double lambda, const at::Tensor& keys) const;

  double ridge() const { return ridge_; }

  /// Largest by smallest eigenvalue of C + ridge I, by Lanczos' method: a lower bound, close as a rule.
  double condition() const { return condition_; }

 private:
  at::Tensor factor_;  // [F, F], lower
  double ridge_;
  double condition_ = 0;
};

}  // namespace rometrace
