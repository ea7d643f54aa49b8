#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <stop_token>

#include "rometrace/model/gpt2.hpp"
#include "rometrace/trace/trace.hpp"

namespace rometrace {

/// The clean run of one prompt: the answer, and what restorations will put back. Run once; every engine starts from it.
struct CleanRun {
  /// Prediction and answer with their probabilities; no grids, low_score NaN.
  Trace trace;

  /// The residual stream that enters each layer, [L, T, D], in the model's stream dtype.
  at::Tensor inputs;

  /// The outputs of each site that a kind of the options restores, [L, T, D] likewise.
  std::map<Site, at::Tensor> outputs;
};

/// Throws Error: prompt longer than the model takes, an id or the target outside its vocabulary, output not a number;
/// Interrupted when `stop` is requested (looked at several times a layer).
CleanRun run_clean(const Gpt2& model, const TracePrompt& prompt, const TraceOptions& options,
                   std::stop_token stop = {});

}  // namespace rometrace
