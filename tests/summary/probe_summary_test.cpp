#include "rometrace/summary/probe_summary.hpp"

#include <cmath>

#include "checks.hpp"
#include "files.hpp"
#include "probe_records.hpp"
#include "rometrace/error.hpp"
#include "rometrace/text/json_line.hpp"

namespace rometrace::probe_summary_test {
namespace {

using nlohmann::json;
using testing::Contains;
using testing::failed_probe_record;
using testing::message_of;
using testing::probe_record;

json line_of(const ProbeRecord& record) {
  return json::parse(to_line(to_json(record)));
}

ProbeSummary summary_of(const std::vector<json>& lines) {
  ProbeSummary summary;
  for (std::size_t i = 0; i < lines.size(); ++i) summary.add(lines[i], "probe.jsonl, line " + std::to_string(i + 1));
  return summary;
}

json with(json line, const std::string& pointer, const json& value) {
  line[json::json_pointer(pointer)] = value;
  return line;
}

TEST_CASE("Wilson's interval is that of the textbook") {
  // Wilson score interval, no continuity correction: R's prop.test(81, 263, correct = FALSE), Newcombe 1998, table I.
  const auto usual = wilson_interval(81.0 / 263, 263);
  CHECK(usual.low == doctest::Approx(0.2553).epsilon(1e-3));
  CHECK(usual.high == doctest::Approx(0.3662).epsilon(1e-3));
  const auto none = wilson_interval(0, 20);
  CHECK(none.low == 0);
  CHECK(none.high == doctest::Approx(0.1611).epsilon(1e-3));
  const auto all = wilson_interval(1, 29);
  CHECK(all.low == doctest::Approx(0.8830).epsilon(1e-3));
  CHECK(all.high == 1);
  const auto nothing = wilson_interval(std::nan(""), 0);
  CHECK(nothing.low == 0);
  CHECK(nothing.high == 1);
}

TEST_CASE("where each fact is one case the effective cases are the facts") {
  ClusteredShare share;
  for (int i = 0; i < 30; ++i) share.add(i % 3 == 0 ? 1 : 0, 1);
  CHECK(share.count() == 10);
  CHECK(share.share() == doctest::Approx(1.0 / 3));
  CHECK(share.effective_cases() == 30);
}

TEST_CASE("cases of a fact that always agree count as one") {
  ClusteredShare share;
  for (int i = 0; i < 40; ++i) share.add(i % 4 == 0 ? 5 : 0, 5);
  CHECK(share.cases() == 200);
  CHECK(share.share() == doctest::Approx(0.25));
  CHECK(share.effective_cases() == doctest::Approx(40));
}

TEST_CASE("cases of a fact that vary more inside than between facts count as no more than all") {
  ClusteredShare share;
  for (int i = 0; i < 10; ++i) share.add(1 + i % 2, 3);
  CHECK(share.effective_cases() == doctest::Approx(30));
  ClusteredShare alike;  // no spread between facts says nothing
  for (int i = 0; i < 10; ++i) alike.add(1, 2);
  CHECK(alike.effective_cases() == 10);
  ClusteredShare sure;
  for (int i = 0; i < 10; ++i) sure.add(4, 4);
  CHECK(sure.effective_cases() == 10);
}

TEST_CASE("facts are counted as said, known, known but not said, and said but not known") {
  const auto summary = summary_of({
      line_of(probe_record("plays", {1, 1, 1})),  // said, known
      line_of(probe_record("plays", {9, 1, 1})),  // known, not said
      line_of(probe_record("plays", {1, 5, 5})),  // said, not known
      line_of(probe_record("lies", {4, 4, 4})),   // neither
      line_of(probe_record("lies", {1})),         // said; one wording can't tell
      line_of(failed_probe_record()),
  });
  CHECK(summary.records() == 6);
  CHECK(summary.status() == std::map<std::string, std::int64_t>{{"probed", 5}, {"failed", 1}});
  CHECK(summary.causes() == std::map<std::string, std::int64_t>{{"prompt", 1}});
  const auto& all = summary.overall().facts;
  CHECK(all.facts == 5);
  CHECK(all.too_few_wordings == 1);
  CHECK(all.said.count() == 3);
  CHECK(all.said.cases() == 5);
  CHECK(all.known.count() == 2);
  CHECK(all.known.cases() == 4);
  CHECK(all.known_not_said.count() == 1);
  CHECK(all.said_not_known.count() == 1);
  CHECK(all.said_not_known.cases() == 4);
  CHECK(all.not_said_of_known.count() == 1);
  CHECK(all.not_said_of_known.cases() == 2);
  CHECK(all.mean_probability() == doctest::Approx((0.5 + 1.0 / 18 + 0.5 + 0.125 + 0.5) / 5));
  REQUIRE(summary.relations().size() == 2);
  CHECK(summary.relations().at("plays").facts.facts == 3);
  CHECK(summary.relations().at("plays").facts.said.count() == 2);
  CHECK(summary.relations().at("lies").facts.too_few_wordings == 1);
}

TEST_CASE("wordings are counted one by one and, pooled, by whether they are held out") {
  const auto summary = summary_of({
      line_of(probe_record("plays", {1, 1, 3, 3}, 2)),
      line_of(probe_record("plays", {1, 1, 1, 3}, 2)),
  });
  const auto& relation = summary.relations().at("plays");
  REQUIRE(relation.wordings.size() == 4);
  CHECK(relation.wordings[0].text == "{} asks");
  CHECK(relation.wordings[3].text == "{} asks again again again");
  CHECK_FALSE(relation.wordings[1].held_out);
  CHECK(relation.wordings[2].held_out);
  CHECK(relation.wordings[2].group.said.count() == 1);
  CHECK(relation.wordings[2].group.known_not_said.count() == 1);
  CHECK(relation.wordings[3].group.known_not_said.count() == 2);
  for (const ProbeRelation* part : {&summary.overall(), static_cast<const ProbeRelation*>(&relation)}) {
    CHECK(part->other.said.count() == 4);
    CHECK(part->other.said.cases() == 4);
    CHECK(part->held_out.said.count() == 1);
    CHECK(part->held_out.said.cases() == 4);
    CHECK(part->held_out.known.count() == 4);
    CHECK(part->held_out.known_not_said.count() == 3);
    CHECK(part->held_out.facts == 2);
  }
}

TEST_CASE("facts without a relation stand under a name of their own") {
  const auto summary = summary_of({with(line_of(probe_record("plays", {1, 1})), "/fact/relation", nullptr)});
  CHECK(summary.relations().count("(none)") == 1);
}

TEST_CASE("a relation of more wordings than are kept pools the rest") {
  ProbeSummary summary;
  auto line = line_of(probe_record("plays", {1}));
  for (std::size_t i = 0; i < ProbeSummary::kMostWordings + 7; ++i) {
    line["wordings"][0]["prompt"] = "S asks " + std::to_string(i);
    summary.add(line, "probe.jsonl");
  }
  line["wordings"][0]["prompt"] = "S asks 0";
  summary.add(line, "probe.jsonl");
  const auto& relation = summary.relations().at("plays");
  CHECK(relation.wordings.size() == ProbeSummary::kMostWordings);
  CHECK(relation.pooled == 7);
  CHECK(relation.wordings[0].group.facts == 2);
  CHECK(relation.other.facts == static_cast<std::int64_t>(ProbeSummary::kMostWordings) + 8);
}

TEST_CASE("a header's settings count, and lines of other settings are refused with both values and places") {
  const auto line = line_of(probe_record("plays", {1, 1}));
  const json header = {{"schema", "rometrace/batch/1"}, {"command", "probe"},
                       {"model", line["model"]},        {"run", line["run"]},
                       {"known_by", line["known_by"]},  {"special_tokens", false}};
  auto summary = summary_of({header, line});
  CHECK(summary.records() == 1);
  CHECK(summary.setting("known_by.rule") == "said:2");
  CHECK(summary.model()["name"] == "demo");

  const auto refusal = [&](const json& other) {
    return message_of<Error>([&] { summary.add(other, "b.jsonl, line 4"); });
  };
  CHECK(refusal(with(line, "/known_by/rule", "choice:2")) ==
        "b.jsonl, line 4: known_by.rule is \"choice:2\"; expected \"said:2\" as in probe.jsonl, line 1; summarise "
        "results "
        "of different settings apart");
  CHECK(refusal(with(line, "/model/weights_sha256", std::string(64, '1'))) == Contains("model.weights_sha256 is"));
  CHECK(refusal(with(line, "/model/edits", json::array({"a"}))) ==
        Contains("model.edits is [\"a\"]; expected nothing as in probe.jsonl, line 1; summarise"));
  CHECK(refusal(with(line, "/run/dtype", "bfloat16")) == Contains("run.dtype is"));
  CHECK(refusal(with(header, "/special_tokens", true)) == Contains("special_tokens is true; expected false"));
  CHECK(refusal(with(header, "/command", "trace")) == Contains("command is \"trace\"; expected \"probe\""));
  CHECK(summary.records() == 1);
  CHECK(refusal(with(with(line, "/model/name", "elsewhere"), "/run/device", "cuda")) == "(nothing thrown)");
  CHECK(summary.records() == 2);
}

TEST_CASE("a line that is no probe's is refused with its field and changes nothing") {
  const auto line = line_of(probe_record("plays", {1, 1}));
  ProbeSummary summary;
  const auto refusal = [&](const json& other) { return message_of<Error>([&] { summary.add(other, "a, line 2"); }); };
  CHECK(refusal(json::array()) == Contains("a, line 2: expected an object"));
  CHECK(refusal(with(line, "/schema", "rometrace/trace/1")) == Contains("a, line 2: schema is \"rometrace/trace/1\""));
  CHECK(refusal(with(line, "/status", "traced")) == Contains("status is \"traced\""));
  CHECK(refusal(with(line, "/known", 1)) == Contains("known is 1; expected true or false"));
  CHECK(refusal(with(line, "/wordings", json::array())) == Contains("wordings is []"));
  CHECK(refusal(with(line, "/wordings/1/probability", 1.5)) == Contains("probability is 1.5"));
  CHECK(refusal(with(line, "/wordings/1/said", nullptr)) == Contains("said is null"));
  CHECK(refusal(with(line, "/wordings/1", 3)) == Contains("prompt is missing"));
  CHECK(refusal(with(line, "/known_by", nullptr)) == Contains("known_by.wordings is missing"));
  CHECK(refusal(with(line, "/fact/relation", 7)) == Contains("fact.relation is 7"));
  CHECK(refusal(with(line_of(failed_probe_record()), "/cause", nullptr)) == Contains("cause is null"));
  CHECK(summary.records() == 0);
  CHECK(summary.relations().empty());
  CHECK(summary.setting("run.dtype").is_null());
}

TEST_CASE("a wording is its prompt with the subject's first occurrence left open") {
  CHECK(wording_of("Miles Davis plays the", "Miles Davis") == "{} plays the");
  CHECK(wording_of("In Paris, Paris is", "Paris") == "In {}, Paris is");
  CHECK(wording_of("no subject", "Paris") == "no subject");
  CHECK(wording_of("text", "") == "text");
  CHECK(wording_of("The sentiment of 'time' is", "time") == "The sen{}nt of 'time' is");  // of before places were kept
  CHECK(wording_of("The sentiment of 'time' is", "time", ByteRange{18, 22}) == "The sentiment of '{}' is");
  CHECK(wording_of("Paris is", "Paris", ByteRange{4, 90}) == "{} is");  // a place that is not the subject's
}

}  // namespace
}  // namespace rometrace::probe_summary_test
