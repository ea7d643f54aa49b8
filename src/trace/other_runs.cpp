#include "trace/other_runs.hpp"

#include <ATen/ops/stack.h>

namespace rometrace {
namespace {

// [L, ...] of each fact -> [L, J, ...]; of a single fact a view.
template <typename Part>
at::Tensor side_by_side(const std::vector<const Recording*>& facts, Part part) {
  if (facts.size() == 1) return part(*facts.front()).unsqueeze(1);
  std::vector<at::Tensor> parts;
  for (const auto* fact : facts) parts.push_back(part(*fact));
  return at::stack(parts, 1);
}

}  // namespace

OtherRuns::OtherRuns(const std::vector<const Recording*>& facts) {
  inputs = side_by_side(facts, [](const Recording& run) { return run.inputs; });
  for (const auto& entry : facts.front()->outputs) {
    const auto site = entry.first;
    outputs[site] = side_by_side(facts, [&](const Recording& run) { return run.outputs.at(site); });
  }
  neuron_layers = facts.front()->neuron_layers;
  neuron_positions = facts.front()->neuron_positions;
  if (!facts.front()->neurons.defined()) return;
  neurons = side_by_side(facts, [](const Recording& run) { return run.neurons; });
}

}  // namespace rometrace
