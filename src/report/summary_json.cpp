#include "rometrace/report/summary_json.hpp"

#include <nlohmann/json.hpp>
#include <string>

#include "rometrace/text/utf8.hpp"
#include "rometrace/version.hpp"

namespace rometrace {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kMethod =
    "Poisson bootstrap over facts: for each traced fact, in the order of the lines, a weight for each replicate, "
    "Poisson(1) "
    "by inverse CDF of numpy.random.RandomState(seed).random_sample(replicates); a replicate's mean is the weighted "
    "sum "
    "over the weighted count, and replicates that draw no fact of a mean are left out of it; the interval is the 2.5th "
    "to the 97.5th percentile, linear between neighbours";

template <typename Value>
Json json_of(const std::optional<Value>& value) {
  return value ? Json(*value) : Json(nullptr);
}

Json json_of(const std::optional<Bounds>& interval) {
  return interval ? Json{interval->low, interval->high} : Json(nullptr);
}

Json json_of(const std::vector<double>& values) {
  return values.empty() ? Json(nullptr) : Json(values);
}

Json json_of(const Estimate& estimate) {
  return {{"mean", json_of(estimate.mean)},
          {"n", estimate.facts},
          {"standard_error", json_of(estimate.standard_error)},
          {"normal", json_of(estimate.normal)},
          {"bootstrap", json_of(estimate.bootstrap)}};
}

Json json_of(const std::optional<Peak>& peak) {
  if (!peak) return nullptr;
  return {{"layer", peak->layer},
          {"aie", peak->aie},
          {"share", json_of(peak->share)},
          {"layers", peak->layers ? Json{peak->layers->first, peak->layers->second} : Json(nullptr)}};
}

Json json_of(const RoleSummary& role) {
  return {{"facts", role.facts},
          {"tokens", role.tokens},
          {"score", json_of(role.score)},
          {"aie", json_of(role.aie)},
          {"standard_error", json_of(role.standard_error)},
          {"normal_low", json_of(role.normal_low)},
          {"normal_high", json_of(role.normal_high)},
          {"bootstrap_low", json_of(role.bootstrap_low)},
          {"bootstrap_high", json_of(role.bootstrap_high)},
          {"peak", json_of(role.peak)},
          {"largest_score", json_of(role.largest_score)},
          {"largest_effect", json_of(role.largest_effect)}};
}

Json json_of(const KindSummary& kind) {
  auto roles = Json::object();
  for (const auto role : kRoles)
    roles[std::string(to_string(role))] = json_of(kind.roles[static_cast<std::size_t>(role)]);
  return {{"window", kind.window},
          {"largest_score", json_of(kind.largest_score)},
          {"largest_effect", json_of(kind.largest_effect)},
          {"roles", std::move(roles)}};
}

Json json_of(const GroupSummary& group) {
  auto kinds = Json::object();
  for (const auto& kind : group.kinds) kinds[kind.kind] = json_of(kind);
  return {{"facts", group.facts},
          {"high_score", json_of(group.high_score)},
          {"low_score", json_of(group.low_score)},
          {"total_effect", json_of(group.total_effect)},
          {"kinds", std::move(kinds)}};
}

Json selections_json(const SummaryResult& summary) {
  auto selections = Json::array();
  for (const auto& selection : summary.selections) {
    auto facts = selection.facts;
    facts["lines"] = selection.lines;
    selections.push_back(std::move(facts));
  }
  return selections;
}

}  // namespace

Json to_json(const SummaryResult& summary) {
  Json json = {{"schema", "rometrace/summary/1"}, {"rometrace", kVersion}, {"files", Json::array()}};
  for (const auto& file : summary.files) json["files"].push_back(to_valid_utf8(file));
  json["model"] = summary.model;
  json["run"] = summary.run;
  json["facts"] = selections_json(summary);
  json["records"] = summary.records;
  json["status"] = {{"traced", summary.traced}, {"skipped", summary.skipped}, {"failed", summary.failed}};
  json["causes"] = summary.causes;
  json["torn_lines"] = summary.torn_lines;
  json["warnings"] = summary.warnings;
  json["bootstrap"] = {
      {"replicates", summary.config.replicates}, {"seed", summary.config.seed}, {"level", kLevel}, {"method", kMethod}};
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
