#include "report/estimate_json.hpp"

#include <string>
#include <utility>

namespace rometrace {

using Json = nlohmann::ordered_json;

namespace {

constexpr const char* kMethod =
    "Poisson bootstrap over facts: for each traced fact, in the order of the lines, a weight for each replicate, "
    "Poisson(1) by inverse CDF of numpy.random.RandomState(seed).random_sample(replicates); a replicate's mean is the"
    " weighted sum over the weighted count, and replicates that draw no fact of a mean are left out of it; the "
    "interval is the 2.5th to the 97.5th percentile, linear between neighbours";

}  // namespace

Json json_of(const std::optional<double>& value) {
  return value ? Json(*value) : Json(nullptr);
}

Json json_of(const std::optional<Bounds>& interval) {
  return interval ? Json{interval->low, interval->high} : Json(nullptr);
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
  Json json = {{"layer", peak->layer}};
  if (peak->head) json["head"] = *peak->head;
  json["aie"] = peak->aie;
  json["share"] = json_of(peak->share);
  json["layers"] = peak->layers ? Json{peak->layers->first, peak->layers->second} : Json(nullptr);
  return json;
}

Json to_json(const std::vector<SelectionSummary>& selections) {
  auto all = Json::array();
  for (const auto& selection : selections) {
    auto facts = selection.facts;
    facts["lines"] = selection.lines;
    all.push_back(std::move(facts));
  }
  return all;
}

Json bootstrap_json(const SummaryConfig& config) {
  return {{"replicates", config.replicates}, {"seed", config.seed}, {"level", kLevel}, {"method", kMethod}};
}

}  // namespace rometrace
