#include "rometrace/report/json.hpp"

#include <cassert>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "report/json_parts.hpp"
#include "rometrace/text/hex.hpp"
#include "rometrace/text/utf8.hpp"
#include "rometrace/version.hpp"

namespace rometrace {

namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kSchema = "rometrace/trace/1";

/// `values`, row-major [rows, columns], less `offset`, as a list of rows.
Json matrix(const std::vector<double>& values, std::int64_t columns, double offset = 0) {
  Json rows = Json::array();
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (i % static_cast<std::size_t>(columns) == 0) {
      rows.push_back(Json::array());
    }
    rows.back().push_back(number(values[i] - offset));
  }
  return rows;
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
}

void add_clean_run(Json& json, const Trace& trace, const TokenTexts& texts) {
  json["answer"] = to_valid_utf8(texts.answer);
  json["answer_bytes"] = hex(texts.answer);
  json["answer_id"] = trace.answer_id;
  json["prediction"] = to_valid_utf8(texts.prediction);
  json["prediction_bytes"] = hex(texts.prediction);
  json["prediction_id"] = trace.prediction_id;
  json["prediction_score"] = number(trace.prediction_score);
  json["high_score"] = number(trace.high_score);
}

Json grid_json(const CausalGrid& grid, const Trace& trace) {
  assert(static_cast<std::int64_t>(grid.scores.size()) == trace.tokens * trace.layers);
  return {{"window", grid.window},
          {"scores", matrix(grid.scores, trace.layers)},
          {"indirect_effect", matrix(grid.scores, trace.layers, trace.low_score)},
          {"standard_error", matrix(grid.standard_error, trace.layers)}};
}

void add_effects(Json& json, const Trace& trace) {
  json["low_score"] = number(trace.low_score);
  json["low_standard_error"] = number(trace.low_standard_error);
  json["total_effect"] = number(trace.total_effect());
  json["grids"] = Json::object();
  for (const auto& grid : trace.grids) {
    json["grids"][std::string(to_string(grid.kind))] = grid_json(grid, trace);
  }
}

}  // namespace

Json to_json(const ModelRecord& model) {
  return {{"name", to_valid_utf8(model.name)},
          {"architecture", to_valid_utf8(model.architecture)},
          {"layers", model.layers},
          {"width", model.width},
          {"heads", model.heads},
          {"parameters", model.parameters},
          {"weights_sha256", model.weights_sha256}};
}

Json to_json(const RunRecord& run, const TraceOptions& options) {
  return {{"device", run.device},
          {"dtype", run.dtype},
          {"threads", run.threads},
          {"engine", run.engine},
          {"seed", options.seed},
          {"samples", options.samples},
          {"noise",
           {{"rule", to_valid_utf8(run.noise_rule)}, {"sigma", number(options.sigma)}, {"replace", options.replace}}},
          {"seconds", number(run.seconds)}};
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
  if (status == Status::kFailed) {
    if (!record.prompt.prompt.empty()) json["prompt"] = to_valid_utf8(record.prompt.prompt);
    if (!record.prompt.subject.empty()) json["subject"] = to_valid_utf8(record.prompt.subject);
    return json;
  }
  add_tokens(json, record.prompt, record.texts);
  add_clean_run(json, record.trace, record.texts);
  if (status == Status::kTraced) add_effects(json, record.trace);
  return json;
}

std::string to_line(const Json& json) {
  constexpr int kOneLine = -1;
  constexpr bool kEscapeNonAscii = false;
  return json.dump(kOneLine, ' ', kEscapeNonAscii, Json::error_handler_t::replace);
}

}  // namespace rometrace
