#include "rometrace/summary/summary_settings.hpp"

#include <algorithm>
#include <array>
#include <vector>

#include "rometrace/error.hpp"
#include "rometrace/trace/noise.hpp"
#include "summary/json_path.hpp"
#include "text/json_shown.hpp"

namespace rometrace {
namespace {

using nlohmann::json;

constexpr std::array kRun = {"run.dtype",       "run.tf32",         "run.seed", "run.corruption.text.sha256",
                             "run.noise.sigma", "run.noise.replace"};
constexpr std::array kHeader = {"command", "window",         "head_window", "knockout_window", "target",
                                "all",     "special_tokens", "only",        "answer",          "foil"};
constexpr std::array kMayDiffer = {"run.device", "run.engine", "run.threads"};

json sorted(json kinds) {
  std::sort(kinds.begin(), kinds.end());
  return kinds;
}

}  // namespace

void SummarySettings::check(const SummaryLine& line) {
  model_.check(line.json, line.where);
  for (const auto* name : kRun) {
    if (const auto* value = value_at(line.json, name)) agree(name, *value, line.where);
  }
  for (const auto* name : kMayDiffer) {
    if (const auto* value = value_at(line.json, name)) note(name, *value, line.where);
  }
  if (line.type == SummaryLine::Type::kHeader) {
    for (const auto* name : kHeader) {
      if (const auto* value = value_at(line.json, name)) agree(name, *value, line.where);
    }
    const auto* kinds = value_at(line.json, "kinds");
    if (kinds != nullptr && kinds->is_array()) agree("kinds", sorted(*kinds), line.where);
    if (const auto* neurons = value_at(line.json, "neurons"); neurons != nullptr && neurons->is_object()) {
      for (const auto& [name, value] : neurons->items()) agree("neurons." + name, value, line.where);
    }
  }
  check_run(line);
  check_windows(line);
  for (const auto& reading : line.readings) {
    if (reading.of) agree("measures." + reading.measure + ".of", *reading.of, line.where);
  }
}

void SummarySettings::check_run(const SummaryLine& line) {
  const auto* run = value_at(line.json, "run");
  if (run == nullptr || !run->is_object()) return;
  const auto agree_or = [&](const std::string& name, const json& otherwise) {
    const auto* value = value_at(*run, name);
    agree("run." + name, value == nullptr ? otherwise : *value, line.where);
  };
  agree_or("approximate", false);
  agree_or("direction", "denoising");
  agree_or("corruption.method", "noise");
  agree_or("precision.asked", nullptr);
  if (const auto* most = value_at(*run, "precision.most_samples"))
    agree("run.precision.most_samples", *most, line.where);
  if (const auto* rule = value_at(*run, "noise.rule"); rule != nullptr && rule->is_string()) {
    agree("run.noise.rule", in_one_spelling(rule->get<std::string>()), line.where);
  }
  const auto* samples = value_at(*run, "samples");
  const bool to_precision = value_at(*run, "precision.asked") != nullptr;
  if (samples != nullptr && !to_precision) agree("run.samples", *samples, line.where);
}

void SummarySettings::check_windows(const SummaryLine& line) {
  const auto* knockout = value_at(line.json, "knockout");
  const auto* neurons = value_at(line.json, "neurons");
  if (line.type != SummaryLine::Type::kTrace || (line.grids.empty() && knockout == nullptr && neurons == nullptr)) {
    return;
  }
  auto kinds = json::array();
  for (const auto& grid : line.grids) {
    kinds.push_back(grid.kind);
    // A state has no window.
    if (grid.kind.starts_with("state")) continue;
    agree(grid.kind == "head" ? "head_window" : "window", grid.window, line.where);
    if (grid.heads > 0) agree("heads of the grid \"head\"", grid.heads, line.where);
  }
  if (knockout != nullptr) {
    kinds.push_back("knockout");
    if (const auto* window = value_at(*knockout, "window")) agree("knockout_window", *window, line.where);
  }
  if (neurons != nullptr) {
    kinds.push_back("neuron");
    if (const auto* rule = value_at(*neurons, "ranked_by")) agree("neurons.ranked_by", *rule, line.where);
    if (const auto* layers = value_at(*neurons, "layers")) agree("layers of neurons", *layers, line.where);
  }
  agree("kinds", sorted(std::move(kinds)), line.where);
}

void SummarySettings::agree(std::string_view name, const json& value, const std::string& where) {
  const auto found = seen_.find(name);
  if (found == seen_.end()) {
    seen_.emplace(name, Seen{value, where});
  } else if (found->second.value != value) {
    throw Error(where + ": " + std::string(name) + " is " + shown(value, kShownBytes) + "; expected " +
                shown(found->second.value, kShownBytes) + " as in " + found->second.where +
                "; summarise results of different settings apart");
  }
}

void SummarySettings::note(std::string_view name, const json& value, const std::string& where) {
  const auto found = seen_.find(name);
  if (found == seen_.end()) {
    seen_.emplace(name, Seen{value, where});
  } else {
    found->second.differs = found->second.differs || found->second.value != value;
  }
}

nlohmann::ordered_json SummarySettings::shared(std::string_view name) const {
  const auto found = seen_.find(name);
  if (found == seen_.end() || found->second.differs) return nullptr;
  return found->second.value;
}

nlohmann::ordered_json SummarySettings::run() const {
  nlohmann::ordered_json run;
  for (const auto* name : {"device", "dtype", "tf32", "engine", "approximate", "threads", "seed", "samples"}) {
    run[name] = shared(std::string("run.") + name);
  }
  const auto precision = shared("run.precision.asked");
  run["precision"] = nullptr;
  if (!precision.is_null()) {
    run["precision"] = {{"asked", precision}, {"most_samples", shared("run.precision.most_samples")}};
  }
  run["direction"] = shared("run.direction");
  run["corruption"] = {{"method", shared("run.corruption.method")},
                       {"text_sha256", shared("run.corruption.text.sha256")}};
  run["noise"] = {{"rule", shared("run.noise.rule")},
                  {"sigma", shared("run.noise.sigma")},
                  {"replace", shared("run.noise.replace")}};
  for (const auto* name :
       {"kinds", "window", "head_window", "knockout_window", "target", "all", "special_tokens", "only", "foil"}) {
    run[name] = shared(name);
  }
  if (seen_.count("neurons.ranked_by") != 0) {
    run["neurons"] = {{"ranked_by", shared("neurons.ranked_by")},
                      {"layers", shared("layers of neurons")},
                      {"top", shared("neurons.top")}};
  }
  return run;
}

}  // namespace rometrace
