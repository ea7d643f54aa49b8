#pragma once

#include <nlohmann/json_fwd.hpp>

#include "rometrace/report/json.hpp"
#include "rometrace/trace/neurons.hpp"

namespace rometrace {

/// What a trace found of neurons, which it has, as the member "neurons" of schema "rometrace/trace/1". Where neurons
/// were given there are no sets, controls and half.
nlohmann::ordered_json neurons_json(const TraceRecord& record);

/// What was asked of neurons, as the member "neurons" of schema "rometrace/batch/1": {"positions", "layers": [b, e) or
/// null, "top", "rank_by", "given": [[layer, neuron], ..] or null, "sets": "layer" or null}. What does nothing where
/// neurons are given is null there.
nlohmann::ordered_json settings_json(const NeuronOptions& options);

}  // namespace rometrace
