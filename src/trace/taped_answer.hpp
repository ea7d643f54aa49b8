#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <stop_token>

#include "rometrace/model/decoder.hpp"
#include "rometrace/trace/clean_run.hpp"
#include "trace/layer_tape.hpp"

namespace rometrace {

/// How many runs are differentiated together, and what is kept for it.
struct BackwardPlan {
  std::int64_t rows = 1;
  LayerTape::Graphs graphs = LayerTape::Graphs::kMadeAgain;
};

/// Of `rows` runs of `tokens` tokens through `layers` layers. Graphs are kept where layers are held and `memory` bytes
/// hold those of all rows and layers; else they are made again, of as many rows together as that leaves room for, at
/// least one: for what enters each layer, and one layer's graph.
BackwardPlan plan_backward(const Decoder& model, std::int64_t tokens, std::int64_t layers, std::int64_t rows,
                           std::int64_t memory);

/// The answer's probability after a prompt, in runs side by side that are differentiated a layer at a time downwards.
/// Derivatives are those of its logarithm: the probability's own, where it is tiny, would be rounded away in
/// half-precision products. S runs of R = T + K - 1 tokens, those of the clean run.
class TapedAnswer {
 public:
  /// Sees each site's value [S, R, D] and may put another in its place, never write into it; what it marks on the tape
  /// is what backward() tells of.
  using Tap = std::function<void(Site site, std::int64_t layer, at::Tensor& value, LayerTape& tape)>;

  TapedAnswer(const Decoder& model, const CleanRun& clean, LayerTape::Graphs graphs, std::stop_token stop);
  TapedAnswer(const TapedAnswer&) = delete;

  /// Runs the layers from `first` on, which `x` [S, R, D] enters. The result is the logarithm of the answer's
  /// probability, [S] in double. Throws Interrupted.
  at::Tensor run(at::Tensor x, std::int64_t first, Tap tap);

  /// Tells of what was marked, with the derivatives of each run's own logarithm. Once after run(). Throws Interrupted.
  void backward(const LayerTape::Visit& visit);

 private:
  const Decoder& model_;
  const CleanRun& clean_;
  std::stop_token stop_;
  LayerTape tape_;
  Tap tap_;
  at::Tensor derivative_;  // by what the last layer gives
};

/// The same logarithm without a backward, of what Decoder::forward() gives: [S, R, E] -> [S] in double. Throws
/// Interrupted.
at::Tensor answer_log_probability(const Decoder& model, const CleanRun& clean, const at::Tensor& hidden,
                                  const std::stop_token& stop);

}  // namespace rometrace
