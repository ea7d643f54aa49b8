#include "rometrace/report/summary_json.hpp"

#include <nlohmann/json.hpp>
#include <string>

#include "report/estimate_json.hpp"
#include "rometrace/text/utf8.hpp"
#include "rometrace/version.hpp"

namespace rometrace {
namespace {

using Json = nlohmann::ordered_json;

Json json_of(const std::vector<double>& values) {
  return values.empty() ? Json(nullptr) : Json(values);
}

/// [L], or [L][H] where there are heads.
Json json_of(const std::vector<double>& values, std::int64_t heads) {
  if (heads == 0 || values.empty()) return json_of(values);
  auto layers = Json::array();
  for (auto layer = values.begin(); layer != values.end(); layer += heads) {
    layers.push_back(std::vector<double>(layer, layer + heads));
  }
  return layers;
}

void add_error_bars(Json& json, const ErrorBars& bars, std::int64_t heads) {
  json["standard_error"] = json_of(bars.standard_error, heads);
  json["normal_low"] = json_of(bars.normal_low, heads);
  json["normal_high"] = json_of(bars.normal_high, heads);
  json["bootstrap_low"] = json_of(bars.bootstrap_low, heads);
  json["bootstrap_high"] = json_of(bars.bootstrap_high, heads);
}

void add_effects(Json& json, const EffectSummary& effects, std::int64_t heads) {
  json["aie"] = json_of(effects.aie, heads);
  add_error_bars(json, effects, heads);
  json["peak"] = json_of(effects.peak);
}

Json json_of(const RoleSummary& role, std::int64_t heads) {
  Json json = {{"facts", role.facts}, {"tokens", role.tokens}, {"score", json_of(role.score, heads)}};
  add_effects(json, role, heads);
  json["largest_score"] = json_of(role.largest_score);
  json["largest_effect"] = json_of(role.largest_effect);
  return json;
}

Json json_of(const KindSummary& kind) {
  auto roles = Json::object();
  for (const auto role : kRoles) {
    roles[std::string(to_string(role))] = json_of(kind.roles[static_cast<std::size_t>(role)], kind.heads);
  }
  Json json = {{"window", kind.window}};
  if (kind.heads > 0) json["heads"] = kind.heads;
  json["largest_score"] = json_of(kind.largest_score);
  json["largest_effect"] = json_of(kind.largest_effect);
  json["roles"] = std::move(roles);
  return json;
}

Json json_of(const GapSummary& gap) {
  auto roles = Json::object();
  for (const auto role : kRoles) {
    const auto& effects = gap.roles[static_cast<std::size_t>(role)];
    Json json = {{"facts", effects.facts}, {"tokens", effects.tokens}};
    add_effects(json, effects, 0);
    roles[std::string(to_string(role))] = std::move(json);
  }
  return {{"roles", std::move(roles)}};
}

Json json_of(const InteractionSummary& interaction) {
  auto roles = Json::object();
  for (const auto role : kRoles) {
    const auto& effects = interaction.roles[static_cast<std::size_t>(role)];
    Json json = {{"facts", effects.facts}, {"tokens", effects.tokens}};
    json["interaction"] = json_of(effects.aie, interaction.heads);
    add_error_bars(json, effects, interaction.heads);
    roles[std::string(to_string(role))] = std::move(json);
  }
  Json json = {{"window", interaction.window}};
  if (interaction.heads > 0) json["heads"] = interaction.heads;
  json["roles"] = std::move(roles);
  return json;
}

Json json_of(const KnockoutSummary& knockout) {
  auto groups = Json::object();
  for (std::size_t i = 0; i < kKnockoutGroups.size(); ++i) {
    const auto& group = knockout.groups[i];
    Json json = {{"facts", group.facts}, {"relative_change", json_of(group.relative_change)}};
    add_error_bars(json, group, 0);
    groups[std::string(kKnockoutGroups[i])] = std::move(json);
  }
  return {{"window", knockout.window}, {"groups", std::move(groups)}};
}

Json json_of(const ReadingSummary& reading) {
  auto kinds = Json::object();
  for (const auto& kind : reading.kinds) {
    auto roles = Json::object();
    for (const auto role : kRoles) {
      const auto& values = kind.roles[static_cast<std::size_t>(role)];
      Json json = {{"facts", values.facts},
                   {"tokens", values.tokens},
                   {"value", json_of(values.value, kind.heads)},
                   {"effect", json_of(values.effect, kind.heads)}};
      add_error_bars(json, values, kind.heads);
      roles[std::string(to_string(role))] = std::move(json);
    }
    Json json = {{"window", kind.window}};
    if (kind.heads > 0) json["heads"] = kind.heads;
    json["roles"] = std::move(roles);
    kinds[kind.kind] = std::move(json);
  }
  Json json = Json::object();
  if (reading.measure.empty()) json["target"] = reading.target ? Json(to_valid_utf8(*reading.target)) : Json(nullptr);
  if (reading.of) json["of"] = to_valid_utf8(*reading.of);
  json["facts"] = reading.facts;
  json["not_numbers"] = reading.not_numbers;
  json["high"] = json_of(reading.high);
  json["low"] = json_of(reading.low);
  json["total_effect"] = json_of(reading.total_effect);
  json["kinds"] = std::move(kinds);
  return json;
}

Json json_of(const NeuronOverlap& overlap) {
  return {{"pairs", overlap.pairs},
          {"shared", rometrace::json_of(overlap.shared)},
          {"share", rometrace::json_of(overlap.share)},
          {"chance", rometrace::json_of(overlap.chance)}};
}

Json json_of(const NeuronCurve& curve) {
  Json json = {{"effect", json_of(curve.effect)}};
  add_error_bars(json, curve, 0);
  return json;
}

Json json_of(const NeuronRoleSummary& role, bool given) {
  Json json = {{"facts", role.facts}, {"tokens", role.tokens}, {"told", role.told}, {"distinct", role.distinct}};
  json["best"] = Json::array();
  for (const auto& best : role.best) {
    Json neuron = {{"layer", best.layer}, {"neuron", best.neuron}, {"facts", best.facts}, {"share", best.share}};
    neuron["indirect_effect"] = json_of(best.effect);
    neuron["promotes"] = to_valid_utf8(best.promotes);
    json["best"].push_back(std::move(neuron));
  }
  if (given) return json;
  json["overlap"] = {{"same_relation", json_of(role.same_relation)},
                     {"same_subject", json_of(role.same_subject)},
                     {"neither", json_of(role.neither)}};
  json["neurons"] = role.sizes.empty() ? Json(nullptr) : Json(role.sizes);
  json["sets"] = json_of(role.sets);
  json["controls"] = {{"change", json_of(role.change)}, {"random", json_of(role.random)}};
  json["half"] = {{"tokens", role.half.tokens},
                  {"none", role.half.none},
                  {"share", json_of(role.half.share)},
                  {"median", rometrace::json_of(role.half.median)}};
  return json;
}

Json json_of(const NeuronSummary& neurons) {
  auto roles = Json::object();
  for (const auto role : kRoles) {
    roles[std::string(to_string(role))] = json_of(neurons.roles[static_cast<std::size_t>(role)], neurons.given);
  }
  return {{"candidates", neurons.candidates}, {"roles", std::move(roles)}};
}

Json json_of(const GroupSummary& group) {
  auto kinds = Json::object();
  for (const auto& kind : group.kinds) kinds[kind.kind] = json_of(kind);
  Json json = {{"facts", group.facts},
               {"high_score", json_of(group.high_score)},
               {"low_score", json_of(group.low_score)},
               {"total_effect", json_of(group.total_effect)},
               {"kinds", std::move(kinds)}};
  for (const auto& gap : group.gaps) json["gaps"][gap.severed] = json_of(gap);
  for (const auto& kind : group.noising) json["noising"][kind.kind] = json_of(kind);
  for (const auto& kind : group.interactions) json["interactions"][kind.kind] = json_of(kind);
  if (group.knockout) json["knockout"] = json_of(*group.knockout);
  if (group.neurons) json["neurons"] = json_of(*group.neurons);
  for (const auto& measure : group.measures) json["measures"][to_valid_utf8(measure.measure)] = json_of(measure);
  for (const auto& target : group.other_targets) json["other_targets"].push_back(json_of(target));
  return json;
}

}  // namespace

Json to_json(const SummaryResult& summary) {
  Json json = {{"schema", "rometrace/summary/1"}, {"rometrace", kVersion}, {"files", Json::array()}};
  for (const auto& file : summary.files) json["files"].push_back(to_valid_utf8(file));
  json["model"] = summary.model;
  json["run"] = summary.run;
  json["facts"] = to_json(summary.selections);
  json["records"] = summary.records;
  json["status"] = {{"traced", summary.traced}, {"skipped", summary.skipped}, {"failed", summary.failed}};
  json["causes"] = summary.causes;
  json["torn_lines"] = summary.torn_lines;
  json["warnings"] = summary.warnings;
  json["bootstrap"] = bootstrap_json(summary.config);
  json["roles"] = {{"rule", role_rule()}};
  json["overall"] = json_of(summary.overall);
  if (summary.config.by_relation) {
    auto relations = Json::object();
    for (const auto& [name, group] : summary.relations) relations[name] = json_of(group);
    json["by"] = {{"relation", std::move(relations)}};
  }
  return json;
}

}  // namespace rometrace
