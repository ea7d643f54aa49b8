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

  /// The residual stream that enters each layer up to the subject's first position b, [L, b + 1, D], in the model's
  /// stream dtype.
  at::Tensor inputs;

  /// The outputs of each site that a kind of the options restores, from b on: [L, T - b, D] likewise.
  std::map<Site, at::Tensor> outputs;

  /// The output of `site` at `layer` and `position` >= b, [D].
  at::Tensor output(Site site, std::int64_t layer, std::int64_t position) const {
    const auto& all = outputs.at(site);
    return all[layer][position - (trace.tokens - all.size(1))];
  }
};

/// Throws Error: prompt longer than the model takes, an id or the target outside its vocabulary, output not a number;
/// Interrupted when `stop` is requested (looked at several times a layer).
CleanRun run_clean(const Gpt2& model, const TracePrompt& prompt, const TraceOptions& options,
                   std::stop_token stop = {});

}  // namespace rometrace
