#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <vector>

#include "rometrace/trace/clean_run.hpp"

namespace rometrace {

/// What a pass reads of the other runs of J facts (the clean ones or, when noising, the corrupted ones): of each fact's
/// one run, or of its draws (S).
struct OtherRuns {
  explicit OtherRuns(const std::vector<const Recording*>& facts);

  std::int64_t draws() const { return inputs.size(2); }
  std::int64_t count() const { return inputs.size(1) * draws(); }  ///< J S

  /// Of one layer, views: what enters it [J S positions, D], the outputs of a site [J S (R - b), D], and its neurons
  /// [J S positions, F].
  at::Tensor inputs_of(std::int64_t layer) const { return inputs[layer].flatten(0, 2); }
  at::Tensor outputs_of(Site site, std::int64_t layer) const { return outputs.at(site)[layer].flatten(0, 2); }
  at::Tensor neurons_of(std::int64_t layer) const { return neurons[layer - neuron_layers.begin].flatten(0, 2); }

  at::Tensor inputs;                   ///< [L, J, S, positions, D]
  std::map<Site, at::Tensor> outputs;  ///< [L, J, S, R - b, D]
  at::Tensor neurons;                  ///< [layers, J, S, positions, F], as Recording has them, or undefined
  LayerRange neuron_layers;
  std::vector<std::int64_t> neuron_positions;
};

}  // namespace rometrace
