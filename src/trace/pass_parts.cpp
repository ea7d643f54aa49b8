#include "trace/pass_parts.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/stack.h>

#include <utility>

namespace rometrace {

PassLists::PassLists(const Decoder& model, PassSchedule& schedule, WorkCounter& counter)
    : schedule_(schedule),
      numbers_(at::from_blob(schedule.numbers.data(), {static_cast<std::int64_t>(schedule.numbers.size())}, at::kLong)
                   .to(model.device())) {
  output_rows_.resize(schedule.layers.size());
  for (std::size_t layer = 0; layer < schedule.layers.size(); ++layer) {
    const auto& neurons = schedule.layers[layer].neurons;
    if (neurons.empty()) continue;
    output_rows_[layer] = model.mlp_output_rows(static_cast<std::int64_t>(layer), neurons);
    counter.tell();
  }
  if (model.device().is_cpu()) return;
  std::vector<at::Tensor> all;
  for (std::int64_t layer = 0; layer < model.config().layers; ++layer) {
    const auto of_layer = ranks(layer);
    all.push_back(of_layer.defined() ? of_layer.to(model.device()) : of_layer);
  }
  ranks_ = std::move(all);
}

at::Tensor PassLists::ranks(std::int64_t layer) const {
  if (!ranks_.empty()) return ranks_[static_cast<std::size_t>(layer)];
  std::vector<at::Tensor> ranks;
  for (const auto* order : schedule_.layers[static_cast<std::size_t>(layer)].orders) {
    ranks.push_back(order->ranks[layer - order->layers.begin]);
  }
  return ranks.empty() ? at::Tensor() : at::stack(ranks);
}

at::Tensor PassLists::chosen(const NeuronSets& sets, std::int64_t layer) const {
  const auto of_layer = ranks(layer);
  return of_layer.index_select(0, numbers(sets.ranks)) < numbers(sets.counts).to(of_layer.scalar_type()).unsqueeze(1);
}

}  // namespace rometrace
