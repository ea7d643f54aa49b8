#include "rometrace/report/probe_json.hpp"

#include <limits>
#include <nlohmann/json.hpp>

#include "checks.hpp"
#include "probe_records.hpp"
#include "rometrace/text/json_line.hpp"
#include "rometrace/version.hpp"

namespace rometrace::probe_json_test {
namespace {

using testing::failed_probe_record;
using testing::probe_record;

TEST_CASE("a probed fact is this line") {
  CHECK(to_line(to_json(probe_record("plays", {1, 4}, 1))) ==
        R"({"schema":"rometrace/probe/1","rometrace":")" + std::string(kVersion) +
            R"(","status":"probed",)"
            R"("fact":{"record":17,"order":3,"id":16,"relation":"plays","object":"trumpet","object_tokens":1},)"
            R"("model":{"name":"demo","architecture":"GPT2LMHeadModel","layers":3,"width":4,"heads":2,)"
            R"("parameters":1234,"weights_sha256":")" +
            std::string(64, '0') +
            R"("},"run":{"device":"cpu","dtype":"float32","threads":1,"seconds":0.25},)"
            R"("known_by":{"rule":"said:2","measure":"said","wordings":2,"rank":null},"subject":"S",)"
            R"("object_token":" trumpet","object_token_bytes":"207472756d706574","object_token_id":5,)"
            R"("candidates":4,"alike":1,)"
            R"("wordings":[{"prompt":"S asks","subject_span":[0,1],"held_out":false,"probability":0.5,"rank":1,"choice_rank":1,)"
            R"("said":true,"answer":" trumpet","answer_bytes":"207472756d706574","answer_id":5,)"
            R"("answer_probability":0.5},)"
            R"({"prompt":"S asks again","subject_span":[0,1],"held_out":true,"probability":0.125,"rank":4,"choice_rank":2,)"
            "\"said\":false,\"answer\":\"\xEF\xBF\xBD\",\"answer_bytes\":\"e383\",\"answer_id\":6,"
            R"("answer_probability":0.5}],)"
            R"("said":true,"said_in":1,"choice_in":1,"best_rank":1,"known":false})");
}

TEST_CASE("a failed fact has its cause and nothing of the model's answers") {
  const auto json = to_json(failed_probe_record());
  CHECK(json["status"] == "failed");
  CHECK(json["cause"] == "prompt");
  CHECK(json["reason"] == "too long");
  CHECK(json["fact"]["object_tokens"].is_null());
  for (const char* name : {"object_token", "wordings", "said", "known", "best_rank", "candidates"}) {
    CHECK_FALSE(json.contains(name));
  }
}

TEST_CASE("ids stay what they were and a rule's rank is written where it has one") {
  auto record = probe_record("plays", {1});
  record.fact.id_is_number = false;
  record.rule = parse_known_rule("recall:10:2");
  const auto json = to_json(record);
  CHECK(json["fact"]["id"] == "16");
  CHECK(json["known_by"].dump() == R"({"rule":"recall:10:2","measure":"recall","wordings":2,"rank":10})");
  record.fact.id = "123456789012345678901234567890";  // no integer type holds it
  record.fact.id_is_number = true;
  CHECK(to_json(record)["fact"]["id"] == "123456789012345678901234567890");
}

TEST_CASE("a summary's JSON has counts, shares and intervals for all facts and by relation and wording") {
  ProbeSummary summary;
  for (const auto& record : {probe_record("plays", {1, 1, 3, 3}, 2), probe_record("plays", {1, 1, 1, 3}, 2)}) {
    summary.add(nlohmann::json::parse(to_line(to_json(record))), "probe.jsonl");
  }
  const auto json = to_json(summary, {"probe.jsonl"});
  CHECK(json["schema"] == "rometrace/probe-summary/1");
  CHECK(json["files"].dump() == R"(["probe.jsonl"])");
  CHECK(json["known_by"] == "said:2");
  CHECK(json["model"]["layers"] == 3);
  CHECK(json["status"]["probed"] == 2);
  CHECK(json["overall"]["said"]["count"] == 2);
  CHECK(json["overall"]["said"]["share"] == 1.0);
  CHECK(json["overall"]["said"]["high"] == 1.0);
  CHECK(json["overall"]["said"]["low"].get<double>() == doctest::Approx(2 / (2 + 3.841458820694124)));
  CHECK(json["overall"]["held_out_wordings"]["said"]["n"] == 4);
  const auto& relation = json["by"]["relation"]["plays"];
  REQUIRE(relation["wordings"].size() == 4);
  CHECK(relation["wordings"][2]["wording"] == "{} asks again again");
  CHECK(relation["wordings"][2]["held_out"] == true);
  CHECK(relation["wordings"][2]["known_not_said"]["share"] == 0.5);
  CHECK(relation["wordings_not_listed"] == 0);

  const auto empty = to_json(ProbeSummary(), {});
  CHECK(empty["overall"]["said"]["share"].is_null());
  CHECK(empty["overall"]["mean_probability"].is_null());
  CHECK(empty["model"].is_null());
}

}  // namespace
}  // namespace rometrace::probe_json_test
