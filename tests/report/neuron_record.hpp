#pragma once

#include <cstdint>
#include <tuple>

#include "rometrace/report/json.hpp"

namespace rometrace::testing {

/// "Miles Davis plays the" with neurons alone, as an engine would fill them: two layers of four neurons at the
/// subject's last token, the two best of eight, found by gradients. high_score 0.5, low_score 0.125.
inline TraceRecord neuron_record() {
  const auto run = [](double score, double error) { return RunScore{score, error, {}}; };
  TraceRecord record;
  record.options.kinds.clear();
  record.options.neurons.emplace();
  record.options.neurons->top = 2;
  record.prompt = {"Miles Davis plays the", "Miles Davis", {3, 4, 5, 6}, {0, 2}, {0, 11}};
  record.model = {"demo", "GPT2LMHeadModel", 2, 4, 2, 1234, "00ff", {}};
  record.texts.prompt = {"Miles", " Davis", " plays", " the"};
  record.texts.answer = record.texts.prediction = " trumpet";
  record.texts.of_neurons = {{7, " trumpet"}, {8, "\xC3"}, {9, " sax"}};
  auto& trace = record.trace;
  trace.answer_ids = {7};
  trace.prediction_id = 7;
  trace.prediction_score = trace.high_score = 0.5;
  trace.low_score = 0.125;
  trace.low_standard_error = 0.0625;
  trace.tokens = 4;
  trace.layers = 2;
  trace.samples = 10;
  auto& neurons = trace.neurons.emplace();
  neurons.positions = {1};
  neurons.layers = {0, 2};
  neurons.candidates = 8;
  neurons.effects = {{1, 1, 3, 0.125, run(0.25, 0.0625), 2, -0.5, 1.5, {{7, 2}, {9, 1}}, {{8, -1}}},
                     {0, 1, 2, 0.0625, run(0.0625, 0.03125), 0.25, 4, 0.5, {{100, 3}}, {{9, -2}}}};
  neurons.sets = {
      {1, {}, 1, run(0.25, 0)}, {1, {}, 2, run(0.3125, 0)}, {1, {}, 4, run(0.375, 0)}, {1, {}, 8, run(0.4375, 0)}};
  for (const auto& [size, changed, random] : {std::tuple(1, 0.125, 0.125), {2, 0.1875, 0.15625}, {4, 0.25, 0.1875}}) {
    neurons.controls.push_back({NeuronControl::Order::kChange, {1, {}, size, run(changed, 0)}});
    neurons.controls.push_back({NeuronControl::Order::kRandom, {1, {}, size, run(random, 0.03125)}});
  }
  neurons.half = {{1, {}, 8, 2}};
  return record;
}

/// The same with sets of each layer.
inline TraceRecord neuron_record_by_layer() {
  auto record = neuron_record();
  record.options.neurons->sets_by_layer = true;
  auto& neurons = *record.trace.neurons;
  for (const std::int64_t layer : {0, 1}) {
    for (const std::int64_t size : {1, 2, 4}) {
      const double score = layer == 0 ? 0.125 : 0.125 + 0.03125 * static_cast<double>(size);
      neurons.sets_by_layer.push_back({1, layer, size, {score, 0, {}}});
      if (size == 4) continue;
      neurons.controls.push_back({NeuronControl::Order::kChange, {1, layer, size, {0.15625, 0, {}}}});
      neurons.controls.push_back({NeuronControl::Order::kRandom, {1, layer, size, {0.140625, 0, {}}}});
    }
  }
  neurons.half.push_back({1, 0, 4, {}});
  neurons.half.push_back({1, 1, 4, 2});
  return record;
}

}  // namespace rometrace::testing
