#include "report/neuron_json.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "report/json_parts.hpp"
#include "rometrace/text/hex.hpp"
#include "rometrace/text/utf8.hpp"

namespace rometrace {
namespace {

using Json = nlohmann::ordered_json;

/// The neurons of one record.
class NeuronJson {
 public:
  explicit NeuronJson(const TraceRecord& record)
      : record_(record), trace_(record.trace), neurons_(record.trace.neurons.value()) {}

  Json json() const {
    Json json = {{"positions", neurons_.positions},
                 {"layers", {neurons_.layers.begin, neurons_.layers.end}},
                 {"ranked_by", neurons_.given ? "given" : to_string(neurons_.ranked_by)},
                 {"candidates", neurons_.candidates}};
    json["effects"] = list(neurons_.effects, [&](const auto& effect) { return effect_json(effect); });
    if (neurons_.given) return json;
    const auto set = [&](const auto& each) { return set_json(each, Json::object()); };
    json["sets"] = list(neurons_.sets, set);
    if (!neurons_.sets_by_layer.empty()) json["sets_by_layer"] = list(neurons_.sets_by_layer, set);
    json["controls"] = list(neurons_.controls, [&](const auto& control) {
      return set_json(control.set, {{"order", to_string(control.order)}});
    });
    json["half"] = list(neurons_.half, &half_json);
    return json;
  }

 private:
  template <typename Values, typename Map>
  static Json list(const Values& values, Map map) {
    Json list = Json::array();
    for (const auto& value : values) list.push_back(map(value));
    return list;
  }

  Json effect_json(const NeuronEffect& effect) const {
    Json json = {{"layer", effect.layer}, {"position", effect.position}, {"neuron", effect.neuron}};
    json["estimate"] = number(effect.estimate);
    add_score(json, effect.run);
    json["value"] = {{"clean", number(effect.clean)}, {"corrupted", number(effect.corrupted)}};
    json["row_norm"] = number(effect.row_norm);
    const auto token = [&](const TokenLogit& each) { return token_json(each); };
    json["promotes"] = list(effect.promotes, token);
    json["suppresses"] = list(effect.suppresses, token);
    add_readings(json, effect.run);
    return json;
  }

  Json token_json(const TokenLogit& token) const {
    const auto found = record_.texts.of_neurons.find(token.id);
    const auto text = found == record_.texts.of_neurons.end() ? std::string() : found->second;
    return {
        {"token", to_valid_utf8(text)}, {"token_bytes", hex(text)}, {"id", token.id}, {"logit", number(token.logit)}};
  }

  /// `json` with what is known of the set behind what it has.
  Json set_json(const NeuronSet& set, Json json) const {
    json["position"] = set.position;
    if (set.layer) json["layer"] = *set.layer;
    json["neurons"] = set.neurons;
    add_score(json, set.run);
    add_readings(json, set.run);
    return json;
  }

  static Json half_json(const NeuronHalf& half) {
    Json json = {{"position", half.position}};
    if (half.layer) json["layer"] = *half.layer;
    json["candidates"] = half.candidates;
    json["neurons"] = half.neurons ? Json(*half.neurons) : Json(nullptr);
    return json;
  }

  void add_score(Json& json, const RunScore& run) const {
    const bool noising = record_.options.direction == Direction::kNoising;
    json["score"] = number(run.score);
    json["indirect_effect"] = number(noising ? trace_.high_score - run.score : run.score - trace_.low_score);
    json["standard_error"] = number(run.standard_error);
  }

  bool asked_for(Measure measure) const {
    const auto& asked = record_.options.measures;
    return std::find(asked.begin(), asked.end(), measure) != asked.end();
  }

  void add_readings(Json& json, const RunScore& run) const {
    Json measures = Json::object(), targets = Json::array();
    std::optional<std::size_t> difference;
    for (std::size_t i = 0; i < trace_.measured.size(); ++i) {
      const auto& reading = trace_.measured[i].reading;
      const auto& [value, error] = run.measured[i];
      if (reading.target > 0) {
        Json target = {{"target_ids", Json::array({record_.prompt.other_targets[reading.target - 1]})}};
        target["score"] = number(value);
        target["standard_error"] = number(error);
        targets.push_back(std::move(target));
        continue;
      }
      if (reading.measure == Measure::kLogitDifference) difference = i;
      if (!asked_for(reading.measure)) continue;  // kNormalised needs it
      measures[std::string(to_string(reading.measure))] = {{"value", number(value)}, {"standard_error", number(error)}};
    }
    if (asked_for(Measure::kNormalised)) {
      const double high = difference ? trace_.measured[*difference].high : trace_.high_score;
      const double low = difference ? trace_.measured[*difference].low : trace_.low_score;
      const double value = difference ? run.measured[*difference].value : run.score;
      measures[std::string(to_string(Measure::kNormalised))] = {{"value", number((value - low) / (high - low))},
                                                                {"standard_error", nullptr}};
    }
    if (!measures.empty()) json["measures"] = std::move(measures);
    if (!targets.empty()) json["other_targets"] = std::move(targets);
  }

  const TraceRecord& record_;
  const Trace& trace_;
  const NeuronTrace& neurons_;
};

}  // namespace

Json neurons_json(const TraceRecord& record) {
  return NeuronJson(record).json();
}

Json settings_json(const NeuronOptions& options) {
  const bool ranked = options.given.empty();
  const auto where_ranked = [&](Json value) { return ranked ? std::move(value) : Json(nullptr); };
  Json given = nullptr;
  for (const auto& [layer, neuron] : options.given) given.push_back({layer, neuron});
  Json json = {{"positions", to_string(options.positions)}};
  json["layers"] = ranked && options.layers ? Json::array({options.layers->begin, options.layers->end}) : Json(nullptr);
  json["top"] = where_ranked(options.top);
  json["rank_by"] = where_ranked(to_string(options.ranking));
  json["given"] = std::move(given);
  json["sets"] = ranked && options.sets_by_layer ? Json("layer") : Json(nullptr);
  return json;
}

}  // namespace rometrace
