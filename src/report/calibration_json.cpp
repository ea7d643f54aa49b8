#include "rometrace/report/calibration_json.hpp"

#include <nlohmann/json.hpp>
#include <string>

#include "report/estimate_json.hpp"
#include "report/json_parts.hpp"
#include "rometrace/version.hpp"

namespace rometrace {
namespace {

using Json = nlohmann::ordered_json;

Json kind_json(const KindPeak& kind) {
  return {{"window", kind.window},
          {"facts", kind.aie.facts},
          {"peak", json_of(kind.peak)},
          {"standard_error", json_of(kind.aie.standard_error)},
          {"normal", json_of(kind.aie.normal)},
          {"bootstrap", json_of(kind.aie.bootstrap)},
          {"stable", kind.stable ? Json(*kind.stable) : Json(nullptr)}};
}

Json factor_json(const FactorResult& factor, double subjects_std) {
  auto kinds = Json::object();
  for (const auto& kind : factor.kinds) kinds[kind.kind] = kind_json(kind);
  const auto share = factor.facts > 0
                         ? Json(static_cast<double>(factor.hardly_lowered) / static_cast<double>(factor.facts))
                         : Json(nullptr);
  return {{"factor", factor.factor},
          {"noise", {{"rule", "s" + factor_text(factor.factor)}, {"sigma", number(factor.factor * subjects_std)}}},
          {"facts", factor.facts},
          {"high_score", json_of(factor.high_score)},
          {"low_score", json_of(factor.low_score)},
          {"total_effect", json_of(factor.total_effect)},
          {"lost", json_of(factor.lost)},
          {"hardly_lowered", {{"facts", factor.hardly_lowered}, {"share", share}}},
          {"strong_enough", factor.strong_enough},
          {"kinds", std::move(kinds)}};
}

}  // namespace

Json to_json(const CalibrationRecord& calibration) {
  auto batch = to_json(calibration.batch);
  const auto& result = calibration.result;
  Json json = {{"schema", "rometrace/calibration/1"}, {"rometrace", kVersion}, {"model", std::move(batch["model"])}};
  auto run = std::move(batch["run"]);
  run["noise"] = {{"subjects_std", number(calibration.subjects_std)},
                  {"replace", calibration.batch.options.trace.corruption.replace}};
  run["threads"] = calibration.batch.run.threads;
  run["seconds"] = number(calibration.batch.run.seconds);
  json["run"] = std::move(run);
  for (const auto* name : {"kinds", "window", "target", "all", "special_tokens", "facts"}) {
    json[name] = std::move(batch[name]);
  }
  json["records"] = result.records;
  json["status"] = {{"traced", result.traced}, {"skipped", result.skipped}, {"failed", result.failed}};
  json["causes"] = result.causes;
  json["warnings"] = result.warnings;
  json["bootstrap"] = bootstrap_json(result.config);
  json["rule"] = recommendation_rule();
  json["factors"] = Json::array();
  for (const auto& factor : result.factors) json["factors"].push_back(factor_json(factor, calibration.subjects_std));
  const auto& chosen = result.recommendation.factor;
  json["recommendation"] = {{"factor", json_of(chosen)}, {"reason", result.recommendation.reason}};
  return json;
}

}  // namespace rometrace
