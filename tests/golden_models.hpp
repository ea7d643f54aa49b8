#pragma once

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "rometrace/model/decoder.hpp"
#include "rometrace/trace/trace.hpp"

namespace rometrace::testing {

/// A model folder under tests/goldens/models and what transformers computed for it (tests/judge/make_goldens.py).
struct GoldenModel {
  std::string name;
  std::filesystem::path folder;
  nlohmann::json golden;
};

inline nlohmann::json read_golden(const std::filesystem::path& path) {
  std::ifstream file(path);
  return nlohmann::json::parse(file);
}

/// All of them, sorted by name.
inline std::vector<GoldenModel> golden_models() {
  std::vector<GoldenModel> models;
  const auto root = std::filesystem::path(ROMETRACE_SOURCE_DIR) / "tests/goldens/models";
  for (const auto& entry : std::filesystem::directory_iterator(root)) {
    models.push_back({entry.path().filename(), entry.path(), read_golden(entry.path() / "golden.json")});
  }
  std::sort(models.begin(), models.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  return models;
}

/// The prompt of one golden trace. Random models have no tokeniser, so the texts are empty.
inline TracePrompt golden_prompt(const nlohmann::json& golden) {
  const auto& range = golden.at("subject_range");
  TracePrompt prompt;
  prompt.token_ids = golden.at("token_ids").get<std::vector<std::int32_t>>();
  prompt.subject_range = {range[0], range[1]};
  if (golden.contains("target") && !golden.at("target").is_null()) prompt.target = {golden.at("target")};
  return prompt;
}

inline TraceOptions golden_options(const nlohmann::json& golden) {
  TraceOptions options;
  const std::string kind = golden.at("kind");
  options.kinds = {kind == "state" ? Kind::kState : kind == "mlp" ? Kind::kMlp : Kind::kAttn};
  options.window = golden.at("window");
  options.samples = golden.at("samples");
  options.corruption.seed = golden.at("seed");
  options.corruption.distribution =
      golden.at("distribution") == "uniform" ? NoiseRule::Distribution::kUniform : NoiseRule::Distribution::kGaussian;
  options.corruption.sigma = golden.at("sigma");
  options.corruption.replace = golden.at("replace");
  return options;
}

}  // namespace rometrace::testing
