#include "rometrace/report/json.hpp"

#include <algorithm>
#include <cassert>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "report/json_parts.hpp"
#include "report/neuron_json.hpp"
#include "rometrace/text/hex.hpp"
#include "rometrace/text/utf8.hpp"
#include "rometrace/version.hpp"

namespace rometrace {

namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kSchema = "rometrace/trace/1";

/// A grid's `values`, row-major [P, L, H], each mapped, as lists of lists; without the innermost lists where H is 1 but
/// for the kind that is of heads.
template <typename Map>
Json nested(const std::vector<double>& values, const CausalGrid& grid, std::int64_t layers, Map map) {
  const auto L = static_cast<std::size_t>(layers), H = static_cast<std::size_t>(grid.heads);
  Json rows = Json::array();
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (i % (L * H) == 0) rows.push_back(Json::array());
    auto& row = rows.back();
    if (grid.kind != Kind::kHead) {
      row.push_back(number(map(values[i])));
      continue;
    }
    if (i % H == 0) row.push_back(Json::array());
    row.back().push_back(number(map(values[i])));
  }
  return rows;
}

Json nested(const std::vector<double>& values, const CausalGrid& grid, std::int64_t layers) {
  return nested(values, grid, layers, [](double value) { return value; });
}

Json list(std::span<const double> values) {
  Json list = Json::array();
  for (const auto value : values) list.push_back(number(value));
  return list;
}

Json text_or_null(const std::optional<std::string>& text) {
  return text ? Json(to_valid_utf8(*text)) : Json(nullptr);
}

/// The id as the facts file has it; a number of any size keeps its digits only as text.
Json id_json(const FactReference& fact) {
  if (fact.id.empty()) return nullptr;
  if (fact.id_is_number) {
    const auto number = Json::parse(fact.id, nullptr, /*allow_exceptions=*/false);
    if (number.is_number_integer()) return number;
  }
  return to_valid_utf8(fact.id);
}

void add_tokens(Json& json, const TracePrompt& prompt, const TokenTexts& texts) {
  Json tokens = Json::array();
  Json bytes = Json::array();
  for (const auto& text : texts.prompt) {
    tokens.push_back(to_valid_utf8(text));
    bytes.push_back(hex(text));
  }
  json["prompt"] = to_valid_utf8(prompt.prompt);
  json["subject"] = to_valid_utf8(prompt.subject);
  json["tokens"] = std::move(tokens);
  json["token_bytes"] = std::move(bytes);
  json["token_ids"] = prompt.token_ids;
  json["subject_range"] = {prompt.subject_range.begin, prompt.subject_range.end};
  json["subject_span"] = {prompt.subject_span.begin, prompt.subject_span.end};
}

void add_counter(Json& json, const CounterPrompt& counter, const TokenTexts& texts) {
  Json tokens = Json::array();
  for (const auto& text : texts.counter) tokens.push_back(to_valid_utf8(text));
  json["counter"] = {{"prompt", to_valid_utf8(counter.prompt)},
                     {"subject", text_or_null(counter.subject)},
                     {"token_ids", counter.token_ids},
                     {"tokens", std::move(tokens)}};
}

void add_clean_run(Json& json, const TraceRecord& record) {
  const auto& trace = record.trace;
  const auto& texts = record.texts;
  json["answer"] = to_valid_utf8(texts.answer);
  json["answer_bytes"] = hex(texts.answer);
  json["answer_id"] = trace.answer_id();
  json["answer_ids"] = trace.answer_ids;
  if (record.asked_tokens > std::ssize(trace.answer_ids)) json["answer_asked"] = record.asked_tokens;
  json["prediction"] = to_valid_utf8(texts.prediction);
  json["prediction_bytes"] = hex(texts.prediction);
  json["prediction_id"] = trace.prediction_id;
  json["prediction_score"] = number(trace.prediction_score);
  json["high_score"] = number(trace.high_score);
}

Json grid_json(const CausalGrid& grid, const Trace& trace, Direction direction) {
  const auto effect = [&](double score) {
    return direction == Direction::kNoising ? trace.high_score - score : score - trace.low_score;
  };
  Json json = {{"window", grid.window}, {"positions", grid.positions}};
  if (grid.kind == Kind::kHead) json["heads"] = grid.heads;
  json["scores"] = nested(grid.scores, grid, trace.layers);
  json["indirect_effect"] = nested(grid.scores, grid, trace.layers, effect);
  json["standard_error"] = nested(grid.standard_error, grid, trace.layers);
  return json;
}

Json knockout_json(const CausalGrid& grid, const Trace& trace) {
  const auto L = static_cast<std::size_t>(trace.layers);
  Json groups = Json::object();
  for (std::size_t i = 0; i < grid.groups.size(); ++i) {
    const auto scores = std::span(grid.scores).subspan(i * L, L);
    std::vector<double> change;
    for (const auto score : scores) change.push_back((score - trace.high_score) / trace.high_score);
    Json positions = Json::array();
    for (auto at = grid.groups[i].keys.begin; at < grid.groups[i].keys.end; ++at) positions.push_back(at);
    groups[std::string(grid.groups[i].name)] = {
        {"positions", std::move(positions)}, {"scores", list(scores)}, {"relative_change", list(change)}};
  }
  return {{"window", grid.window}, {"groups", std::move(groups)}};
}

// The grids of one reading, but for knockouts.
Json measured_grids(const Trace& trace, std::span<const CausalGrid> all, std::size_t reading, const char* values) {
  Json grids = Json::object();
  for (const auto& grid : all) {
    if (grid.kind == Kind::kKnockout) continue;
    const auto& measured = grid.measured[reading];
    grids[std::string(to_string(grid.kind))] = {
        {values, nested(measured.values, grid, trace.layers)},
        {"standard_error", nested(measured.standard_error, grid, trace.layers)}};
  }
  return grids;
}

void add_foil(Json& json, const TraceRecord& record) {
  const auto& foil = record.prompt.foil;
  if (!foil || *foil < 0) return;
  json["foil"] = to_valid_utf8(record.texts.foil.value());
  json["foil_bytes"] = hex(record.texts.foil.value());
  json["foil_id"] = *foil;
}

// 0 at the corrupted run's value, 1 at the clean run's.
Json normalised_json(const TraceRecord& record, std::span<const CausalGrid> all) {
  const auto& trace = record.trace;
  std::optional<std::size_t> difference;
  for (std::size_t i = 0; i < trace.measured.size(); ++i) {
    if (trace.measured[i].reading.measure == Measure::kLogitDifference) difference = i;
  }
  const double high = difference ? trace.measured[*difference].high : trace.high_score;
  const double low = difference ? trace.measured[*difference].low : trace.low_score;
  Json grids = Json::object();
  for (const auto& grid : all) {
    if (grid.kind == Kind::kKnockout) continue;
    const auto& values = difference ? grid.measured[*difference].values : grid.scores;
    const auto normalised = [&](double value) { return (value - low) / (high - low); };
    grids[std::string(to_string(grid.kind))] = {{"values", nested(values, grid, trace.layers, normalised)},
                                                {"standard_error", nullptr}};
  }
  Json json = {{"of", to_string(difference ? Measure::kLogitDifference : Measure::kProbability)}};
  if (difference) add_foil(json, record);
  json.update({{"high", 1.0}, {"low", 0.0}, {"low_standard_error", nullptr}, {"grids", std::move(grids)}});
  return json;
}

void add_measures(Json& json, const TraceRecord& record) {
  const auto& trace = record.trace;
  const auto& asked = record.options.measures;
  Json measures = Json::object();
  Json targets = Json::array();
  for (std::size_t i = 0; i < trace.measured.size(); ++i) {
    const auto& [reading, high, low, error] = trace.measured[i];
    if (reading.target > 0) {
      const auto& text = record.texts.other_targets[reading.target - 1];
      targets.push_back({{"target", to_valid_utf8(text)},
                         {"target_bytes", hex(text)},
                         {"target_ids", {record.prompt.other_targets[reading.target - 1]}},
                         {"high_score", number(high)},
                         {"low_score", number(low)},
                         {"low_standard_error", number(error)},
                         {"grids", measured_grids(trace, trace.grids, i, "scores")}});
      continue;
    }
    if (std::find(asked.begin(), asked.end(), reading.measure) == asked.end()) continue;  // kNormalised needs it
    Json measure = Json::object();
    if (reading.measure == Measure::kLogitDifference) add_foil(measure, record);
    measure["high"] = number(high);
    measure["low"] = number(low);
    measure["low_standard_error"] = number(error);
    measure["grids"] = measured_grids(trace, trace.grids, i, "values");
    measures[std::string(to_string(reading.measure))] = std::move(measure);
  }
  const auto normalised = to_string(Measure::kNormalised);
  if (std::find(asked.begin(), asked.end(), Measure::kNormalised) != asked.end()) {
    measures[std::string(normalised)] = normalised_json(record, trace.grids);
  }
  if (!measures.empty()) json["measures"] = std::move(measures);
  if (!targets.empty()) json["other_targets"] = std::move(targets);
}

// What the readings have of the other direction's grids.
void add_measured_noising(Json& json, const TraceRecord& record) {
  const auto& trace = record.trace;
  const auto& asked = record.options.measures;
  Json measures = Json::object(), targets = Json::array();
  for (std::size_t i = 0; i < trace.measured.size(); ++i) {
    const auto& reading = trace.measured[i].reading;
    if (reading.target > 0) {
      targets.push_back({{"target_ids", {record.prompt.other_targets[reading.target - 1]}},
                         {"grids", measured_grids(trace, trace.noising, i, "scores")}});
    } else if (std::find(asked.begin(), asked.end(), reading.measure) != asked.end()) {
      measures[std::string(to_string(reading.measure))] = {
          {"grids", measured_grids(trace, trace.noising, i, "values")}};
    }
  }
  if (std::find(asked.begin(), asked.end(), Measure::kNormalised) != asked.end()) {
    measures[std::string(to_string(Measure::kNormalised))] = {
        {"grids", normalised_json(record, trace.noising)["grids"]}};
  }
  if (!measures.empty()) json["measures"] = std::move(measures);
  if (!targets.empty()) json["other_targets"] = std::move(targets);
}

Json noising_json(const TraceRecord& record) {
  const auto& trace = record.trace;
  Json json = {{"grids", Json::object()}};
  for (std::size_t i = 0; i < trace.noising.size(); ++i) {
    const auto& grid = trace.noising[i];
    auto of_grid = grid_json(grid, trace, Direction::kNoising);
    of_grid["interaction"] = nested(trace.interaction[i].values, grid, trace.layers);
    of_grid["interaction_standard_error"] = nested(trace.interaction[i].standard_error, grid, trace.layers);
    json["grids"][std::string(to_string(grid.kind))] = std::move(of_grid);
  }
  add_measured_noising(json, record);
  return json;
}

void add_effects(Json& json, const TraceRecord& record) {
  const auto& trace = record.trace;
  json["low_score"] = number(trace.low_score);
  json["low_standard_error"] = number(trace.low_standard_error);
  json["total_effect"] = number(trace.total_effect());
  json["grids"] = Json::object();
  for (const auto& grid : trace.grids) {
    if (grid.kind == Kind::kKnockout) {
      json["knockout"] = knockout_json(grid, trace);
    } else {
      json["grids"][std::string(to_string(grid.kind))] = grid_json(grid, trace, record.options.direction);
    }
  }
  add_measures(json, record);
  if (!trace.noising.empty()) json["noising"] = noising_json(record);
  if (trace.neurons) json["neurons"] = neurons_json(record);
}

Json settings_of_prompt(const TraceRecord& record) {
  const auto& asked = record.asked.value();
  Json json = Json::object();
  add_settings(json, record.options);
  json["samples"] = record.options.samples;
  json["targets"] = Json::array();
  for (const auto& target : asked.targets) json["targets"].push_back(to_valid_utf8(target));
  json["answer"] = to_string(asked.answer);
  json["foil"] = text_or_null(asked.foil);
  json["special_tokens"] = asked.special_tokens;
  return json;
}

}  // namespace

Json to_json(const RunRecord& run, const TraceOptions& options) {
  using Distribution = NoiseRule::Distribution;
  const auto& corruption = options.corruption;
  Json corruption_json = {{"method", to_string(corruption.method)}};
  if (run.text) {
    corruption_json["text"] = {
        {"name", to_valid_utf8(run.text->name)}, {"sha256", run.text->sha256}, {"tokens", run.text->tokens}};
  }
  Json noise = nullptr;
  if (corruption.method == CorruptionMethod::kNoise) {
    const bool scaled =
        corruption.distribution == Distribution::kGaussian || corruption.distribution == Distribution::kUniform;
    noise = {{"rule", to_valid_utf8(run.noise_rule)},
             {"sigma", scaled ? number(corruption.sigma) : Json(nullptr)},
             {"replace", corruption.replace}};
  }
  return {{"device", run.device},
          {"dtype", run.dtype},
          {"threads", run.threads},
          {"engine", run.engine},
          {"approximate", run.engine == to_string(Engine::kGradient)},
          {"direction", to_string(options.direction)},
          {"corruption", std::move(corruption_json)},
          {"seed", corruption.seed},
          {"samples", options.samples},
          {"noise", std::move(noise)},
          {"seconds", number(run.seconds)}};
}

void add_settings(Json& json, const TraceOptions& options) {
  json["kinds"] = Json::array();
  for (const auto kind : options.kinds) json["kinds"].push_back(to_string(kind));
  if (options.neurons) json["kinds"].push_back("neuron");
  json["window"] = options.window;
  json["head_window"] = options.head_window;
  json["knockout_window"] = options.knockout_window;
  json["positions"] = to_string(options.positions);
  if (options.neurons) json["neurons"] = settings_json(*options.neurons);
  json["measures"] = Json::array();
  for (const auto measure : options.measures) json["measures"].push_back(to_string(measure));
}

Json to_json(const FactReference& fact) {
  return {{"record", fact.record},
          {"order", fact.order},
          {"id", id_json(fact)},
          {"relation", text_or_null(fact.relation)},
          {"object", text_or_null(fact.object)},
          {"object_tokens", fact.object_tokens ? Json(*fact.object_tokens) : Json(nullptr)}};
}

Json to_json(const TraceRecord& record) {
  const auto status = record.verdict.status;
  Json json = {{"schema", kSchema}, {"rometrace", kVersion}, {"status", to_string(status)}};
  if (status != Status::kTraced) {
    assert(record.verdict.cause);
    json["cause"] = to_string(*record.verdict.cause);
    json["reason"] = to_valid_utf8(record.verdict.reason);
  }
  if (record.fact) json["fact"] = to_json(*record.fact);
  json["model"] = to_json(record.model);
  json["run"] = to_json(record.run, record.options);
  if (record.options.precision) {
    if (status == Status::kTraced) json["run"]["samples"] = record.trace.samples;
    json["run"]["precision"] = {
        {"asked", *record.options.precision},
        {"reached", status == Status::kTraced ? number(record.trace.largest_error) : Json(nullptr)},
        {"most_samples", record.options.most_samples}};
  }
  if (record.run.tf32) json["run"]["tf32"] = true;
  if (record.asked) json["settings"] = settings_of_prompt(record);
  if (status == Status::kFailed) {
    if (!record.prompt.prompt.empty()) json["prompt"] = to_valid_utf8(record.prompt.prompt);
    if (!record.prompt.subject.empty()) json["subject"] = to_valid_utf8(record.prompt.subject);
    return json;
  }
  add_tokens(json, record.prompt, record.texts);
  if (record.counter) add_counter(json, *record.counter, record.texts);
  add_clean_run(json, record);
  if (status == Status::kTraced) add_effects(json, record);
  return json;
}

}  // namespace rometrace
