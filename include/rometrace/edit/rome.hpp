#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <span>
#include <stop_token>
#include <string_view>
#include <vector>

#include "rometrace/edit/objective.hpp"
#include "rometrace/edit/request.hpp"
#include "rometrace/model/decoder.hpp"

namespace rometrace {

enum class EditMethod {
  kRome,   ///< arXiv 2202.05262: the direction from the mean key, the division by the bare prompt's
  kRRome,  ///< arXiv 2403.07175: the mean key and value in both places
  kMemit,  ///< arXiv 2210.07229: many requests, several layers
};
std::string_view to_string(EditMethod method);  ///< "rome", "r-rome", "memit"

/// How the value is sought; the defaults are those published for GPT-2 XL.
struct ValueOptions {
  std::int64_t steps = 20;   ///< evaluations of the loss at most, so one less step of Adam
  double rate = 0.5;         ///< of Adam
  double decay = 0.5;        ///< factor of |delta| / |v0|^2 in the loss
  double clamp = 4;          ///< largest |delta|, times |v0|
  double kl = 0.0625;        ///< factor of the divergence in the loss
  double low_enough = 0.05;  ///< a loss below this ends it
  EditEngine engine = EditEngine::kFast;
};

/// One evaluation of the loss.
struct Evaluation {
  double nll = 0;    ///< nats a token
  double kl = 0;     ///< weighted
  double decay = 0;  ///< weighted
  double delta_norm = 0;
  double gradient_norm = 0;  ///< NaN of the last one that is allowed, after which no step is made

  double total() const { return nll + kl + decay; }
};

/// The value that a layer is to give, and how it was found. Tensors are float64 on the CPU.
struct SoughtValue {
  at::Tensor keys;            ///< [R, F], of EditObjective
  at::Tensor values;          ///< [R, D]
  at::Tensor delta;           ///< [D], what the bare prompt's value gains
  at::Tensor first_gradient;  ///< [D], of the loss at delta 0
  double init_norm = 0;       ///< |v0|, of the bare prompt's value
  std::vector<Evaluation> evaluations;
};

/// Told of evaluations done, of all.
using EditProgress = std::function<void(std::int64_t done, std::int64_t total)>;

/// Adam (beta 0.9 and 0.999, epsilon 1e-8) on delta, from 0, drawn back onto the ball of radius clamp |v0| after each
/// step. The gradient of |delta| at 0 is taken as 0. `use_keys`, if any, is shown the keys [R, F] before the search.
/// Throws Error if the loss is not finite, Interrupted.
SoughtValue seek_value(const Decoder& model, const EditRequest& request, std::int64_t layer, ValueSite site,
                       const ValueOptions& options, std::stop_token stop = {}, const EditProgress& progress = {},
                       const std::function<void(const at::Tensor& keys)>& use_keys = {});

/// A change of a layer's last MLP matrix: the sum over n of r u^T, [out, in].
struct LayerChange {
  std::int64_t layer = 0;
  at::Tensor u;  ///< [n, F], float64
  at::Tensor r;  ///< [n, D], float64
};

/// C^-1 k of a key [F], float64, where C is the second moment of the layer's keys; none: the identity. Asked once an
/// edit, before the value is sought.
using MomentSolver = std::function<at::Tensor(const at::Tensor& key)>;

/// A rank-one edit and what it was made of.
struct RankOneEdit {
  LayerChange change;  ///< u of length 1
  SoughtValue value;
  double divisor = 0;    ///< what r was divided by: k . u
  double key_ratio = 0;  ///< k1 . u / kbar . u, k1 of the bare prompt, kbar the mean over the texts
};

/// ROME or, with kRRome, its correction: u = C^-1 kbar / |C^-1 kbar|; r = (v0 + delta - v) / (k . u), where k and v are
/// those of the bare prompt (ROME) or means over the texts (r-ROME). So afterwards W k + b = v0 + delta. Throws Error
/// where k . u is 0 or a number is not finite; Interrupted.
RankOneEdit edit_rank_one(EditMethod method, const Decoder& model, const EditRequest& request, std::int64_t layer,
                          const ValueOptions& options, const MomentSolver& solve, std::stop_token stop = {},
                          const EditProgress& progress = {});

}  // namespace rometrace
