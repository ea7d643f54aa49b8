#include "rometrace/report/edit_summary_json.hpp"

#include <nlohmann/json.hpp>
#include <string>

#include "report/estimate_json.hpp"
#include "rometrace/summary/probe_summary.hpp"
#include "rometrace/text/utf8.hpp"
#include "rometrace/version.hpp"

namespace rometrace {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kScale = 100;

Json scaled(const std::optional<double>& value) {
  return value ? Json(kScale * *value) : Json(nullptr);
}

Json scaled(const std::optional<Bounds>& bounds) {
  return bounds ? Json{kScale * bounds->low, kScale * bounds->high} : Json(nullptr);
}

Json means_json(const ScoreMeans& means) {
  Json json = Json::object();
  for (const auto score : kScores) {
    const auto& mean = means.of(score);
    json[std::string(to_string(score))] = {{"mean", scaled(mean.mean)},
                                           {"deviation", scaled(mean.deviation)},
                                           {"n", mean.facts},
                                           {"bootstrap", scaled(mean.bootstrap)}};
  }
  json["S"] = {{"mean", scaled(means.overall)}, {"bootstrap", scaled(means.overall_bootstrap)}};
  return json;
}

Json wilson_json(std::int64_t count, std::int64_t of) {
  if (of == 0) return {{"count", count}, {"n", of}, {"share", nullptr}, {"low", nullptr}, {"high", nullptr}};
  const double share = static_cast<double>(count) / static_cast<double>(of);
  const auto interval = wilson_interval(share, static_cast<double>(of));
  return {{"count", count}, {"n", of}, {"share", share}, {"low", interval.low}, {"high", interval.high}};
}

Json groups_json(const std::vector<EditGroupSummary>& groups) {
  Json list = Json::array();
  for (const auto& group : groups) {
    list.push_back({{"layers", group.layers ? Json(*group.layers) : Json(nullptr)},
                    {"facts", group.facts},
                    {"refused", group.refused},
                    {"before", means_json(group.before)},
                    {"after", means_json(group.after)},
                    {"verdicts",
                     {{"took", wilson_json(group.took, group.facts)},
                      {"took_only_behind_prefixes", wilson_json(group.behind_prefixes, group.facts)},
                      {"no_effect", wilson_json(group.no_effect, group.facts)},
                      {"leaks", wilson_json(group.leaks, group.with_neighbours)}}}});
  }
  return list;
}

Json curve_json(const TracingSummary::Curve& curve) {
  const auto bound = [](const std::vector<double>& values) { return values.empty() ? Json(nullptr) : Json(values); };
  return {{"aie", bound(curve.effect)},
          {"bootstrap_low", bound(curve.bootstrap_low)},
          {"bootstrap_high", bound(curve.bootstrap_high)},
          {"peak", json_of(curve.peak)}};
}

// The parts that the schema names, in its order; sorting parsers lose it.
template <typename Object>
Json in_order(const Object& object, std::initializer_list<const char*> names) {
  Json json = Json::object();
  for (const auto* name : names) {
    if (const auto value = object.find(name); value != object.end()) json[name] = *value;
  }
  return json;
}

}  // namespace

Json to_json(const EditSummaryResult& result) {
  Json json = {{"schema", "rometrace/edit-summary/1"}, {"rometrace", kVersion}, {"files", Json::array()}};
  for (const auto& file : result.files) json["files"].push_back(to_valid_utf8(file));
  json["model"] = in_order(
      result.model, {"name", "architecture", "layers", "width", "heads", "parameters", "weights_sha256", "edits"});
  json["run"] = result.run;
  json["edit"] = in_order(result.edit, {"method", "layers", "hyperparameters", "templates", "seed", "moment", "force"});
  json["facts"] = Json::array();
  for (const auto& selection : result.selections) {
    auto facts = in_order(selection.facts, {"files", "records", "selection", "selected"});
    facts["lines"] = selection.lines;
    json["facts"].push_back(std::move(facts));
  }
  json["records"] = result.records;
  json["status"] = result.status;
  json["causes"] = result.causes;
  json["torn_lines"] = result.torn_lines;
  json["warnings"] = Json::array();
  for (const auto& warning : result.warnings) json["warnings"].push_back(to_valid_utf8(warning));
  json["bootstrap"] = bootstrap_json(result.config);
  json["rules"] = {
      {"scores",
       "times 100. p is exp(-mean NLL by token). ES: share of facts with p(new) > p(true) on the prompt; EM: "
       "p(new) - p(true); PS, PM: the same over the fact's paraphrases; NS, NM: p(true) > p(new) and p(true) - p(new) "
       "over its neighbours. A tie is no success. Means over a fact's prompts, then over facts; deviation: of the "
       "population (divided by n). S: harmonic mean of the means of ES, PS and NS"},
      {"verdicts",
       "took: p(new) > p(true) on the prompt; took_only_behind_prefixes: not there, but behind most templates; leaks: "
       "on a neighbour p(new) > p(true) where it was not so before, of the facts with neighbours. Wilson's intervals, "
       "95 %"},
      {"tracing", "effect on the old object's probability of clean values at the subject's last token"}};
  json["layers"] = groups_json(result.layers);
  Json best = nullptr;
  if (result.best) {
    const auto& peak = *result.best;
    best = {{"layer", peak.layer},
            {"S", kScale * peak.aie},
            {"share", json_of(peak.share)},
            {"layers", peak.layers ? Json{peak.layers->first, peak.layers->second} : Json(nullptr)}};
  }
  json["best"] = std::move(best);
  json["by"] = nullptr;
  if (result.config.by_relation) {
    json["by"] = {{"relation", Json::object()}};
    for (const auto& [name, groups] : result.relations) {
      json["by"]["relation"][to_valid_utf8(name)] = groups_json(groups);
    }
  }
  json["tracing"] = nullptr;
  if (result.tracing) {
    const auto& tracing = *result.tracing;
    json["tracing"] = {{"facts", tracing.facts},
                       {"window", tracing.window},
                       {"mlp", curve_json(tracing.mlp)},
                       {"state", curve_json(tracing.state)}};
  }
  return json;
}

}  // namespace rometrace
