#include "rometrace/report/edit_batch_json.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "report/json_parts.hpp"
#include "rometrace/edit/evaluation.hpp"
#include "rometrace/report/batch_json.hpp"
#include "rometrace/report/edit_json.hpp"
#include "rometrace/text/utf8.hpp"
#include "rometrace/version.hpp"

namespace rometrace {
namespace {

using Json = nlohmann::ordered_json;

Json numbers_json(std::span<const double> values) {
  Json list = Json::array();
  for (const auto value : values) list.push_back(number(value));
  return list;
}

Json scores_json(const EditedFact& fact, PromptMeasure MeasuredPrompt::*side) {
  const auto losses = [&](std::span<const MeasuredPrompt> prompts) {
    std::vector<ObjectLosses> all;
    for (const auto& prompt : prompts) all.push_back(losses_of(prompt.*side));
    return all;
  };
  const auto scores = case_scores(losses_of(fact.prompt.*side), losses(fact.paraphrases), losses(fact.neighbours));
  Json json = Json::object();
  for (const auto score : kScores) {
    const auto& value = score_of(scores, score);
    json[std::string(to_string(score))] = value ? number(*value) : Json(nullptr);
  }
  return json;
}

Json attempt_json(const EditAttempt& attempt, const Tokenizer& tokenizer) {
  Json json = {{"layers", attempt.layers}};
  if (!attempt.fact) {
    json["cause"] = attempt.cause;
    json["reason"] = to_valid_utf8(attempt.reason);
    return json;
  }
  const auto& fact = *attempt.fact;
  json["scores"] = {{"before", scores_json(fact, &MeasuredPrompt::before)},
                    {"after", scores_json(fact, &MeasuredPrompt::after)}};
  json["verdict"] = verdict_json(fact);
  const auto& evaluations = fact.value.evaluations;
  json["evaluations"] = evaluations.size();
  const auto& last = evaluations.back();
  json["loss"] = {{"nll", last.nll}, {"kl", last.kl}, {"decay", last.decay}, {"total", last.total()}};
  json["delta_norm"] = number(fact.value.delta.norm().item<double>());
  json["init_norm"] = number(fact.value.init_norm);
  json["divisor"] = fact.divisor ? number(*fact.divisor) : Json(nullptr);
  json["key_ratio"] = fact.key_ratio ? number(*fact.key_ratio) : Json(nullptr);
  json["matrices"] = Json::array();
  for (const auto& matrix : attempt.matrices) {
    json["matrices"].push_back({{"tensor", matrix.change.tensor},
                                {"layer", matrix.change.layer},
                                {"change_norm", number(matrix.change_norm)},
                                {"original_norm", number(matrix.original_norm)}});
  }
  json["measures"] = measures_json(fact, tokenizer, MeasureDetail::kFew);
  return json;
}

}  // namespace

Json to_json(const EditBatchRecord& batch) {
  const auto& settings = batch.settings;
  Json json = {{"schema", "rometrace/batch/1"}, {"rometrace", kVersion}, {"command", "edit"}};
  json["model"] = to_json(settings.model);
  const auto kind = batch.run.device_kind();  // ranks of one batch have a GPU each
  if (batch.tracing) {
    json["run"] = to_json(batch.run, *batch.tracing);
    json["run"].erase("threads");
    json["run"].erase("seconds");
    json["run"]["device"] = kind;
    json["run"]["tf32"] = batch.run.tf32;
    json["window"] = batch.tracing->window;
  } else {
    json["run"] = {{"device", kind}, {"dtype", batch.run.dtype}, {"tf32", batch.run.tf32}};
  }
  auto hyperparameters = settings.hyperparameters;
  // Of the layers at hand, and of numbers that depend on threads.
  for (const auto* name : {"layers", "ridge", "condition"}) hyperparameters.erase(name);
  Json templates = Json::array();
  for (const auto& text : settings.templates) templates.push_back(to_valid_utf8(text));
  Json moment = nullptr;
  if (settings.moment) moment = {{"text_sha256", settings.moment->sha256}, {"tokens", settings.moment->tokens}};
  json["edit"] = {{"method", settings.method},
                  {"layers", batch.layers.empty() ? Json("trace") : Json(batch.layers)},
                  {"hyperparameters", std::move(hyperparameters)},
                  {"templates", std::move(templates)},
                  {"seed", settings.seed ? Json(*settings.seed) : Json(nullptr)},
                  {"moment", std::move(moment)},
                  {"force", batch.force}};
  json["special_tokens"] = false;
  json["facts"] = facts_json(batch.sources, batch.selection, batch.selected);
  json["shard"] = shard_json(batch.shard);
  return json;
}

Json to_json(const EditedFactRecord& record, const Tokenizer& tokenizer) {
  Json json = {{"schema", "rometrace/edited-fact/1"}, {"rometrace", kVersion}, {"status", record.status}};
  if (!record.cause.empty()) {
    json["cause"] = record.cause;
    json["reason"] = to_valid_utf8(record.reason);
  }
  json["fact"] = to_json(record.fact);
  json["fact"]["new_object"] = record.new_object ? Json(to_valid_utf8(*record.new_object)) : Json(nullptr);
  json["model"] = to_json(record.model);
  json["run"] = {{"device", record.run.device},
                 {"dtype", record.run.dtype},
                 {"threads", record.run.threads},
                 {"seconds", number(record.run.seconds)}};
  const auto made =
      std::find_if(record.edits.begin(), record.edits.end(), [](const auto& edit) { return edit.fact.has_value(); });
  if (made == record.edits.end()) return json;
  const auto& request = made->fact->request;
  json["prompt"] = to_valid_utf8(request.prompt);
  json["subject"] = to_valid_utf8(request.subject);
  json["subject_span"] = {request.subject_span.begin, request.subject_span.end};
  json["objects"] = {{"new", to_valid_utf8(request.target)}, {"old", to_valid_utf8(made->fact->true_object)}};
  json["object_ids"] = {{"new", request.target_ids}, {"old", made->fact->true_ids}};
  json["edits"] = Json::array();
  for (const auto& attempt : record.edits) json["edits"].push_back(attempt_json(attempt, tokenizer));
  if (record.tracing) {
    const auto& curve = *record.tracing;
    json["tracing"] = {{"high_score", number(curve.high_score)},
                       {"low_score", number(curve.low_score)},
                       {"mlp", numbers_json(curve.mlp)},
                       {"state", numbers_json(curve.state)}};
  }
  return json;
}

}  // namespace rometrace
