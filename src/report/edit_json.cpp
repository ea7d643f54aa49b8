#include "rometrace/report/edit_json.hpp"

#include <cmath>
#include <span>
#include <utility>

#include "report/json_parts.hpp"
#include "rometrace/text/utf8.hpp"

namespace rometrace {
namespace {

using Json = nlohmann::ordered_json;

Json object_json(const ObjectScore& score, MeasureDetail detail) {
  Json json = {{"probability", number(score.probability())},
               {"mean_by_token", number(score.mean_by_token())},
               {"nll", number(score.nll())}};
  if (detail == MeasureDetail::kFew) return json;
  json["by_token"] = Json::array();
  for (const double log_p : score.log_p) json["by_token"].push_back(number(std::exp(log_p)));
  return json;
}

Json side_json(const PromptMeasure& measure, const Tokenizer& tokenizer, MeasureDetail detail) {
  const auto token = [&](std::int32_t id) { return id < tokenizer.size() ? tokenizer.token_bytes(id) : std::string(); };
  Json json = {{"new", object_json(measure.new_object, detail)},
               {"old", object_json(measure.true_object, detail)},
               {"top",
                {{"token", to_valid_utf8(token(measure.top_id))},
                 {"id", measure.top_id},
                 {"probability", number(measure.top_probability)}}}};
  if (detail == MeasureDetail::kFew) return json;
  std::string said;
  for (const auto id : measure.greedy) said += token(id);
  json["greedy"] = to_valid_utf8(said);
  return json;
}

Json prompt_json(const MeasuredPrompt& prompt, const Tokenizer& tokenizer, MeasureDetail detail) {
  return {{"prompt", prompt.prompt},
          {"before", side_json(prompt.before, tokenizer, detail)},
          {"after", side_json(prompt.after, tokenizer, detail)}};
}

Json prompts_json(std::span<const MeasuredPrompt> prompts, const Tokenizer& tokenizer, MeasureDetail detail) {
  Json list = Json::array();
  for (const auto& prompt : prompts) list.push_back(prompt_json(prompt, tokenizer, detail));
  return list;
}

}  // namespace

Json measures_json(const EditedFact& fact, const Tokenizer& tokenizer, MeasureDetail detail) {
  return {{"prompt", prompt_json(fact.prompt, tokenizer, detail)},
          {"paraphrases", prompts_json(fact.paraphrases, tokenizer, detail)},
          {"neighbours", prompts_json(fact.neighbours, tokenizer, detail)},
          {"behind_templates", {{"took", count_of_new(fact.behind)}, {"of", fact.behind.size()}}}};
}

Json verdict_json(const EditedFact& fact) {
  return {{"outcome", to_string(fact.verdict.outcome)}, {"leaks", fact.verdict.leaks}, {"text", verdict_text(fact)}};
}

std::string verdict_text(const EditedFact& fact) {
  std::string text(to_string(fact.verdict.outcome));
  if (const auto leaks = fact.verdict.leaks.size(); leaks > 0) {
    text += "; leaks to " + std::to_string(leaks) + " of " + std::to_string(fact.neighbours.size()) +
            (fact.neighbours.size() == 1 ? " neighbour" : " neighbours");
  }
  return text;
}

Json to_json(const EditedFact& fact, const Tokenizer& tokenizer) {
  const auto& request = fact.request;
  Json json = {{"prompt", request.prompt},
               {"subject", request.subject},
               {"subject_span", {request.subject_span.begin, request.subject_span.end}},
               {"objects", {{"new", request.target}, {"old", fact.true_object}}},
               {"object_ids", {{"new", request.target_ids}, {"old", fact.true_ids}}}};
  Json nll = Json::array(), kl = Json::array(), decay = Json::array(), total = Json::array(), delta = Json::array(),
       gradient = Json::array();
  for (const auto& each : fact.value.evaluations) {
    nll.push_back(number(each.nll));
    kl.push_back(number(each.kl));
    decay.push_back(number(each.decay));
    total.push_back(number(each.total()));
    delta.push_back(number(each.delta_norm));
    gradient.push_back(number(each.gradient_norm));
  }
  json["losses"] = {
      {"nll", nll}, {"kl", kl}, {"decay", decay}, {"total", total}, {"delta_norm", delta}, {"gradient_norm", gradient}};
  json["delta_norm"] = fact.value.delta.norm().item<double>();
  json["init_norm"] = fact.value.init_norm;
  json["divisor"] = fact.divisor ? number(*fact.divisor) : Json(nullptr);
  json["key_ratio"] = fact.key_ratio ? number(*fact.key_ratio) : Json(nullptr);
  json["measures"] = measures_json(fact, tokenizer, MeasureDetail::kAll);
  json["verdict"] = verdict_json(fact);
  return json;
}

}  // namespace rometrace
