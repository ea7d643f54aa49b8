#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <stop_token>
#include <variant>
#include <vector>

#include "rometrace/error.hpp"
#include "rometrace/model/decoder.hpp"
#include "rometrace/trace/trace.hpp"

namespace rometrace {

/// What a run, or several draws of one side by side (S), leave for other runs to be patched with; in the model's stream
/// dtype.
struct Recording {
  /// The residual stream that enters each layer, of the first positions: [L, S, positions, D].
  at::Tensor inputs;

  /// The outputs of the sites that are asked for, from the first corrupted position b on: [L, S, T + K - 1 - b, D].
  std::map<Site, at::Tensor> outputs;

  std::int64_t first = 0;  ///< b

  /// What the last matrices of the MLPs read (Site::kMlpHidden), where neurons are traced: of some layers at some
  /// positions, [layers, S, positions, F].
  at::Tensor neurons;
  LayerRange neuron_layers;
  std::vector<std::int64_t> neuron_positions;  ///< ascending

  /// The output of `site` at `layer` and `position` >= b, [S, D].
  at::Tensor output(Site site, std::int64_t layer, std::int64_t position) const {
    return outputs.at(site)[layer].select(1, position - first);
  }

  /// The neurons of a layer at a position, both among those that are kept: [S, F].
  at::Tensor neurons_at(std::int64_t layer, std::int64_t position) const;

  /// Some of the runs, S = count; a view.
  Recording rows(std::int64_t begin, std::int64_t count) const;

  /// The same on a device; itself where it is there already.
  Recording to(at::Device device) const;
};

/// The clean run of one prompt: the answer, and what restorations will put back. Run once; every engine starts from it.
struct CleanRun {
  /// Prediction and answer with their probabilities; no grids, what is of the corrupted run NaN.
  Trace trace;

  /// What is run: the prompt's tokens and, as they are read for the answer's later tokens, the answer's but for the
  /// last: [T + K - 1].
  std::vector<std::int32_t> token_ids;

  /// Of that run, S = 1.
  Recording recording;

  /// Natural logarithm of the next-token distribution after the prompt, [V] in double.
  at::Tensor log_probabilities;

  /// Takes what is recorded to the device of a model, so that it may be traced on another one than it was run on.
  void move_to(at::Device device);
};

/// Throws Error: prompt and answer longer than the model takes, an id, target or foil outside its vocabulary, output
/// not a number; Interrupted when `stop` is requested (looked at several times a layer).
CleanRun run_clean(const Decoder& model, const TracePrompt& prompt, const TraceOptions& options,
                   std::stop_token stop = {});

/// The same of several prompts that have one length, one first corrupted position and one number of answer tokens, side
/// by side: each layer's weights are used once for all of them. A prompt that run_clean() would refuse has its error.
/// Throws Interrupted.
std::vector<std::variant<CleanRun, Error>> run_clean_together(const Decoder& model,
                                                              std::span<const TracePrompt* const> prompts,
                                                              const TraceOptions& options, std::stop_token stop = {});

/// The tokens that the model says after each of the prompts, one after the other: the first one, and up to `most[i]`
/// while `ends` does not hold for the next one. The prompts have one length, and each layer's weights are used once for
/// a token of all of them. Throws Error for an id outside the vocabulary or more tokens than the model takes (an answer
/// that goes on there is refused, not cut), whichever prompt has them; Interrupted.
std::vector<std::vector<std::int32_t>> greedy_answers(const Decoder& model, std::span<const TracePrompt* const> prompts,
                                                      std::span<const std::int64_t> most,
                                                      const std::function<bool(std::int32_t)>& ends,
                                                      std::stop_token stop = {});

}  // namespace rometrace
