#include "summary/traced_neurons.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string_view>

#include "summary/traced_fact.hpp"

namespace rometrace {
namespace {

using nlohmann::json;

constexpr std::array<const char*, 2> kControls = {"change", "random"};

const json& list_of(const SummaryLine& line, const json& object, const char* name) {
  const auto& value = member(line, object, name);
  if (!value.is_array()) refuse(line, std::string("\"") + name + "\" of the neurons is no list");
  return value;
}

std::int64_t whole_in(const SummaryLine& line, const json& object, const char* name) {
  return whole_number(line, member(line, object, name), name);
}

double effect_of(const SummaryLine& line, const json& run) {
  const auto& value = member(line, run, "indirect_effect");
  if (value.is_null()) return std::numeric_limits<double>::quiet_NaN();
  if (!value.is_number()) refuse(line, "\"indirect_effect\" of the neurons is no number");
  return value.get<double>();
}

std::string first_token(const json& effect) {
  const auto tokens = effect.find("promotes");
  if (tokens == effect.end() || !tokens->is_array() || tokens->empty()) return "";
  const auto& first = tokens->front();
  return first.is_object() && first.contains("token") && first["token"].is_string() ? first["token"].get<std::string>()
                                                                                    : "";
}

TracedNeurons::Effect effect_at(const SummaryLine& line, const json& told, std::int64_t layers) {
  TracedNeurons::Effect effect{whole_in(line, told, "layer"), whole_in(line, told, "position"),
                               whole_in(line, told, "neuron"), effect_of(line, told), first_token(told)};
  if (effect.layer >= layers || effect.neuron > std::numeric_limits<std::int32_t>::max()) {
    refuse(line, "the neuron " + std::to_string(effect.layer) + ":" + std::to_string(effect.neuron) +
                     " of a model of " + std::to_string(layers) + " layers");
  }
  return effect;
}

/// Effects at a position in the order of their sizes, which must be those of the line's other curves.
std::vector<double> curve_of(const SummaryLine& line, const json& sets, std::int64_t position, const char* order,
                             std::vector<std::int64_t>& sizes) {
  std::vector<std::int64_t> mine;
  std::vector<double> effects;
  for (const auto& set : sets) {
    if (!set.is_object() || set.contains("layer") || whole_in(line, set, "position") != position) continue;
    if (order != nullptr && member(line, set, "order") != order) continue;
    mine.push_back(whole_in(line, set, "neurons"));
    effects.push_back(effect_of(line, set));
  }
  if (sizes.empty()) sizes = mine;
  if (mine.empty() || mine != sizes) {
    refuse(line, "the sets of neurons at position " + std::to_string(position) + " are not of the sizes of the others");
  }
  return effects;
}

std::optional<std::int64_t> half_at(const SummaryLine& line, const json& halves, std::int64_t position) {
  for (const auto& half : halves) {
    if (!half.is_object() || half.contains("layer") || whole_in(line, half, "position") != position) continue;
    const auto& neurons = member(line, half, "neurons");
    return neurons.is_null() ? std::nullopt : std::optional(whole_number(line, neurons, "neurons"));
  }
  refuse(line, "no \"half\" of the neurons at position " + std::to_string(position));
}

std::vector<std::int64_t> positions_of(const SummaryLine& line, const json& neurons, std::int64_t tokens) {
  std::vector<std::int64_t> positions;
  for (const auto& position : list_of(line, neurons, "positions")) {
    positions.push_back(whole_number(line, position, "positions"));
    if (positions.back() >= tokens) {
      refuse(line,
             "neurons at position " + std::to_string(positions.back()) + " of " + std::to_string(tokens) + " tokens");
    }
  }
  if (std::adjacent_find(positions.begin(), positions.end(), std::greater_equal<>()) != positions.end()) {
    refuse(line, "the positions of the neurons do not ascend");
  }
  return positions;
}

}  // namespace

std::optional<TracedNeurons> traced_neurons(const SummaryLine& line, std::int64_t tokens, std::int64_t layers) {
  const auto found = line.json.find("neurons");
  if (found == line.json.end() || found->is_null()) return std::nullopt;
  TracedNeurons neurons;
  neurons.positions = positions_of(line, *found, tokens);
  neurons.given = member(line, *found, "ranked_by") == "given";
  for (const auto& each : list_of(line, *found, "effects")) {
    neurons.effects.push_back(effect_at(line, each, layers));
    const auto position = neurons.effects.back().position;
    if (!std::binary_search(neurons.positions.begin(), neurons.positions.end(), position)) {
      refuse(line, "a neuron at position " + std::to_string(position) + ", which is none of those of the neurons");
    }
  }
  if (neurons.positions.empty()) return neurons;
  const auto candidates = whole_in(line, *found, "candidates");
  neurons.candidates = candidates / static_cast<std::int64_t>(neurons.positions.size());
  if (neurons.candidates < 1) refuse(line, "neurons of no candidates");
  if (neurons.given) return neurons;
  const auto& sets = list_of(line, *found, "sets");
  const auto& controls = list_of(line, *found, "controls");
  const auto& halves = list_of(line, *found, "half");
  for (const auto position : neurons.positions) {
    TracedNeurons::Place place{position, {}, half_at(line, halves, position)};
    place.curves[0] = curve_of(line, sets, position, nullptr, neurons.sizes);
    for (std::size_t i = 0; i < kControls.size(); ++i) {
      place.curves[i + 1] = curve_of(line, controls, position, kControls[i], neurons.sizes);
    }
    neurons.places.push_back(std::move(place));
  }
  return neurons;
}

bool all_numbers(const TracedNeurons& neurons) {
  const auto is_number = [](double value) { return std::isfinite(value); };
  return std::all_of(neurons.effects.begin(), neurons.effects.end(),
                     [&](const auto& effect) { return is_number(effect.effect); }) &&
         std::all_of(neurons.places.begin(), neurons.places.end(), [&](const auto& place) {
           return std::all_of(place.curves.begin(), place.curves.end(), [&](const std::vector<double>& curve) {
             return std::all_of(curve.begin(), curve.end(), is_number);
           });
         });
}

}  // namespace rometrace
