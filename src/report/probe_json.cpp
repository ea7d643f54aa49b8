#include "rometrace/report/probe_json.hpp"

#include <nlohmann/json.hpp>

#include "report/estimate_json.hpp"
#include "report/json_parts.hpp"
#include "rometrace/text/hex.hpp"
#include "rometrace/text/utf8.hpp"
#include "rometrace/version.hpp"

namespace rometrace {
namespace {

using Json = nlohmann::ordered_json;

std::string_view name_of(ProbeResult::Status status) {
  switch (status) {
    case ProbeResult::Status::kProbed:
      return "probed";
    case ProbeResult::Status::kSkipped:
      return "skipped";
    case ProbeResult::Status::kFailed:
      return "failed";
  }
  return "unknown";
}

std::string_view name_of(KnownRule::Measure measure) {
  switch (measure) {
    case KnownRule::Measure::kSaid:
      return "said";
    case KnownRule::Measure::kChoice:
      return "choice";
    case KnownRule::Measure::kRecall:
      return "recall";
  }
  return "unknown";
}

Json wording_json(const Wording& wording, const ProbedWording& probed) {
  return {{"prompt", to_valid_utf8(wording.prompt)},
          {"subject_span", {wording.subject.begin, wording.subject.end}},
          {"held_out", wording.held_out},
          {"probability", number(probed.probability)},
          {"rank", probed.rank},
          {"choice_rank", probed.choice_rank},
          {"said", probed.said},
          {"answer", to_valid_utf8(probed.answer)},
          {"answer_bytes", hex(probed.answer)},
          {"answer_id", probed.answer_id},
          {"answer_probability", number(probed.answer_probability)}};
}

void add_result(Json& json, const ProbeRecord& record) {
  const auto& result = record.result;
  json["object_token"] = to_valid_utf8(result.object_token);
  json["object_token_bytes"] = hex(result.object_token);
  json["object_token_id"] = result.object_id;
  json["candidates"] = result.candidates;
  json["alike"] = result.alike;
  json["wordings"] = Json::array();
  for (std::size_t i = 0; i < result.wordings.size(); ++i) {
    json["wordings"].push_back(wording_json(record.wordings.at(i), result.wordings[i]));
  }
  json["said"] = result.said();
  json["said_in"] = result.said_in();
  json["choice_in"] = result.choice_in();
  json["best_rank"] = result.best_rank();
  json["known"] = is_known(result, record.rule);
}

Json share_json(const ClusteredShare& share) {
  const auto interval = share.interval();
  const bool none = share.cases() == 0;
  return {{"count", share.count()},
          {"n", share.cases()},
          {"share", number(share.share())},
          {"low", none ? Json(nullptr) : number(interval.low)},
          {"high", none ? Json(nullptr) : number(interval.high)},
          {"effective_n", number(share.effective_cases())}};
}

Json group_json(const ProbeGroup& group) {
  return {{"facts", group.facts},
          {"too_few_wordings", group.too_few_wordings},
          {"said", share_json(group.said)},
          {"known", share_json(group.known)},
          {"known_not_said", share_json(group.known_not_said)},
          {"said_not_known", share_json(group.said_not_known)},
          {"not_said_of_known", share_json(group.not_said_of_known)},
          {"mean_probability", number(group.mean_probability())}};
}

Json relation_json(const ProbeRelation& relation) {
  Json json = group_json(relation.facts);
  json["other_wordings"] = group_json(relation.other);
  json["held_out_wordings"] = group_json(relation.held_out);
  return json;
}

Json wording_group_json(const ProbeWordingGroup& wording) {
  Json json = {{"wording", wording.text}, {"held_out", wording.held_out}};
  json.update(group_json(wording.group));
  return json;
}

}  // namespace

Json to_json(const KnownRule& rule) {
  return {{"rule", to_string(rule)},
          {"measure", name_of(rule.measure)},
          {"wordings", rule.wordings},
          {"rank", rule.measure == KnownRule::Measure::kRecall ? Json(rule.rank) : Json(nullptr)}};
}

Json to_json(const ProbeRecord& record) {
  const auto& result = record.result;
  Json json = {{"schema", "rometrace/probe/1"}, {"rometrace", kVersion}, {"status", name_of(result.status)}};
  if (result.status != ProbeResult::Status::kProbed) {
    json["cause"] = result.cause;
    json["reason"] = to_valid_utf8(result.reason);
  }
  json["fact"] = to_json(record.fact);
  json["model"] = to_json(record.model);
  json["run"] = {{"device", record.run.device},
                 {"dtype", record.run.dtype},
                 {"threads", record.run.threads},
                 {"seconds", number(record.run.seconds)}};
  json["known_by"] = to_json(record.rule);
  if (!record.subject.empty()) json["subject"] = to_valid_utf8(record.subject);
  if (result.status == ProbeResult::Status::kProbed) add_result(json, record);
  return json;
}

Json to_json(const ProbeSummary& summary, const std::vector<std::string>& files) {
  Json json = {{"schema", "rometrace/probe-summary/1"}, {"rometrace", kVersion}, {"files", Json::array()}};
  for (const auto& file : files) json["files"].push_back(to_valid_utf8(file));
  json["model"] = summary.model();
  json["run"] = {{"dtype", summary.setting("run.dtype")}, {"tf32", summary.setting("run.tf32")}};
  json["known_by"] = summary.setting("known_by.rule");
  json["facts"] = to_json(summary.selections());
  json["records"] = summary.records();
  json["status"] = summary.status();
  json["causes"] = summary.causes();
  json["torn_lines"] = summary.torn_lines();
  json["warnings"] = summary.warnings();
  json["intervals"] = {
      {"level", 0.95},
      {"method",
       "Wilson's score interval over effective_n cases. Where a case is a fact, effective_n is n. Where a fact has "
       "several cases, its wordings, they do not count as independent: effective_n is p (1 - p) / v with v = sum over "
       "facts of (hits - p cases)^2 / n^2, at most n; if all cases agree, the number of facts."}};
  json["rules"] = {
      {"said",
       "the object's first token is the top answer, or the top answer's text, stripped, is the object; of a fact: "
       "in its own prompt, the first wording"},
      {"known",
       "over all wordings of the fact, held out or not; facts with fewer wordings than the rule asks for "
       "(too_few_wordings) count in \"said\" alone"},
      {"not_said_of_known", "known_not_said with the known cases as n"}};
  json["overall"] = relation_json(summary.overall());
  json["by"] = {{"relation", Json::object()}};
  for (const auto& [name, relation] : summary.relations()) {
    auto& entry = json["by"]["relation"][to_valid_utf8(name)] = relation_json(relation);
    entry["wordings"] = Json::array();
    for (const auto& wording : relation.wordings) entry["wordings"].push_back(wording_group_json(wording));
    entry["wordings_not_listed"] = relation.pooled;
  }
  return json;
}

}  // namespace rometrace
