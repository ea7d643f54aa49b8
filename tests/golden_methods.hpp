#pragma once

#include <initializer_list>
#include <map>
#include <memory>
#include <stdexcept>

#include "golden_models.hpp"
#include "rometrace/trace/embedding_moments.hpp"

namespace rometrace::testing {

/// The value of the enumeration that has the name.
template <typename Value>
Value named(const nlohmann::json& name, std::initializer_list<Value> values) {
  for (const auto value : values) {
    if (to_string(value) == name.get<std::string>()) return value;
  }
  throw std::logic_error("no such name: " + name.dump());
}

inline TracePrompt golden_method_prompt(const nlohmann::json& golden) {
  const auto& options = golden.at("options");
  auto prompt = golden_prompt(golden);
  if (!options.at("answer_ids").is_null()) prompt.target = options.at("answer_ids").get<std::vector<std::int32_t>>();
  prompt.other_targets = options.at("other_targets").get<std::vector<std::int32_t>>();
  if (!options.at("foil").is_null()) prompt.foil = options.at("foil");
  if (!options.at("counter_ids").is_null()) {
    prompt.counter_ids = options.at("counter_ids").get<std::vector<std::int32_t>>();
  }
  return prompt;
}

/// Its options; kinds may be none.
inline TraceOptions golden_method_options(const Decoder& model, const nlohmann::json& golden) {
  const auto& from = golden.at("options");
  TraceOptions options;
  options.kinds.clear();
  for (const auto& kind : from.at("kinds")) {
    options.kinds.push_back(named(kind, {Kind::kState, Kind::kMlp, Kind::kAttn, Kind::kHead, Kind::kStateMlpSevered,
                                         Kind::kStateAttnSevered, Kind::kKnockout}));
  }
  for (const auto& measure : from.at("measures")) {
    options.measures.push_back(
        named(measure, {Measure::kProbability, Measure::kLogProbability, Measure::kLogit, Measure::kLogitDifference,
                        Measure::kNormalised, Measure::kRank, Measure::kKl}));
  }
  options.window = from.at("window");
  options.head_window = from.at("head_window");
  options.knockout_window = from.at("knockout_window");
  if (!from.at("positions").is_null()) {
    options.positions = {PositionRule::Which::kList, from.at("positions").get<std::vector<std::int64_t>>()};
  }
  options.direction = named(from.at("direction"), {Direction::kDenoising, Direction::kNoising});
  options.samples = from.at("samples");
  if (!from.at("precision").is_null()) options.precision = from.at("precision");
  options.most_samples = from.at("most_samples");
  auto& corruption = options.corruption;
  corruption.method = named(from.at("method"), {CorruptionMethod::kNoise, CorruptionMethod::kZero,
                                                CorruptionMethod::kMean, CorruptionMethod::kTokens});
  using Distribution = NoiseRule::Distribution;
  const std::map<std::string, Distribution> distributions = {{"gaussian", Distribution::kGaussian},
                                                             {"uniform", Distribution::kUniform},
                                                             {"multivariate", Distribution::kMultivariate},
                                                             {"student", Distribution::kStudent}};
  corruption.distribution = distributions.at(from.at("distribution"));
  if (!from.at("sigma").is_null()) corruption.sigma = from.at("sigma");
  if (!from.at("degrees_of_freedom").is_null()) corruption.degrees_of_freedom = from.at("degrees_of_freedom");
  if (!is_random(corruption)) options.samples = 1;
  corruption.replace = from.at("replace");
  corruption.seed = from.at("seed");
  if (!from.at("text_ids").is_null()) {
    const auto text = from.at("text_ids").get<std::vector<std::int32_t>>();
    corruption.moments = std::make_shared<const EmbeddingMoments>(embedding_moments(model, text));
  }
  return options;
}

/// Where the trace has the reading, or where it would be.
inline std::size_t place_of(const Trace& trace, const Reading& reading) {
  std::size_t i = 0;
  while (i < trace.measured.size() && !(trace.measured[i].reading == reading)) ++i;
  return i;
}

}  // namespace rometrace::testing
