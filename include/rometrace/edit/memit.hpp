#pragma once

#include <functional>
#include <memory>
#include <span>
#include <stop_token>
#include <vector>

#include "rometrace/edit/rome.hpp"

namespace rometrace {

/// A = (lambda C + K K^T)^-1 K of a layer, all float64: `keys` K [F, n] -> [F, n]; C is the second moment of the
/// layer's keys.
using AdjustedKeys = std::function<at::Tensor(std::int64_t layer, const at::Tensor& keys)>;

/// The model with these changes of its weights.
using ChangedModel = std::function<std::shared_ptr<const Decoder>(std::span<const LayerChange> changes)>;

/// An edit of many requests and what it was made of.
struct MemitEdit {
  std::vector<LayerChange> changes;  ///< one a layer: u are rows of A^T [n, F], r of R^T [n, D]
  std::vector<SoughtValue> values;   ///< [n], of the last layer's output
  std::vector<at::Tensor> keys;      ///< by layer, [n, F]
};

/// MEMIT (arXiv 2210.07229, algorithm 1): z of each request at the last layer's output, on the model as it is; then
/// from the first of `layers` (ascending) to the last, on the model edited so far: keys K of all requests, the bare
/// prompt's counting half and those behind templates the other half; R = (Z - Z now) / (layers that are left); the
/// change is R A^T. Throws Error, Interrupted. Progress counts requests.
MemitEdit edit_memit(const Decoder& model, std::span<const EditRequest> requests, std::span<const std::int64_t> layers,
                     const ValueOptions& options, const AdjustedKeys& adjusted, const ChangedModel& changed,
                     std::stop_token stop = {}, const EditProgress& progress = {});

}  // namespace rometrace
