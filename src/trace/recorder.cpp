#include "trace/recorder.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>

namespace rometrace {

Recording empty_recording(const Decoder& model, const RecordingShape& shape, const std::vector<Site>& sites) {
  const auto& config = model.config();
  const auto of_each_layer = [&](std::int64_t positions, std::int64_t width) {
    return at::empty({config.layers, shape.rows, positions, width},
                     at::device(model.device()).dtype(model.stream_dtype()));
  };
  Recording recording;
  recording.first = shape.first;
  recording.inputs = of_each_layer(shape.inputs, config.width);
  for (const Site site : sites) {
    const auto width = site == Site::kMixed ? config.mixed_width() : config.width;
    recording.outputs.emplace(site, of_each_layer(shape.tokens - shape.first, width));
  }
  recording.neuron_layers = shape.neuron_layers;
  recording.neuron_positions = shape.neuron_positions;
  const auto layers = shape.neuron_layers.end - shape.neuron_layers.begin;
  if (layers == 0 || shape.neuron_positions.empty()) return recording;
  recording.neurons =
      at::empty({layers, shape.rows, static_cast<std::int64_t>(shape.neuron_positions.size()), config.mlp_width},
                at::device(model.device()).dtype(model.stream_dtype()));
  return recording;
}

Recorder::Recorder(const Decoder& model, const RecordingShape& shape, const std::vector<Site>& sites)
    : model_(model), recording_(empty_recording(model, shape, sites)) {
  if (recording_.neurons.defined()) neuron_positions_ = at::tensor(shape.neuron_positions).to(model.device());
}

void Recorder::operator()(Site site, std::int64_t layer, const at::Tensor& value) {
  auto& inputs = recording_.inputs;
  const auto up_to = value.slice(1, 0, inputs.size(2));
  if (site == Site::kEmbedding) inputs[0].copy_(model_.enter(up_to));
  if (site == Site::kState && layer + 1 < inputs.size(0)) inputs[layer + 1].copy_(up_to);
  if (const auto found = recording_.outputs.find(site); found != recording_.outputs.end()) {
    found->second[layer].copy_(value.slice(1, recording_.first));
  }
  if (site == Site::kMlpHidden && recording_.neurons.defined() && recording_.neuron_layers.contains(layer)) {
    recording_.neurons[layer - recording_.neuron_layers.begin].copy_(value.index_select(1, neuron_positions_));
  }
}

}  // namespace rometrace
