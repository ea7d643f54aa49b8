#include "rometrace/report/json.hpp"

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "checks.hpp"
#include "rometrace/text/json_line.hpp"
#include "rometrace/text/utf8.hpp"
#include "rometrace/version.hpp"

namespace rometrace::json_test {

namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

CausalGrid grid(Kind kind, std::int64_t window, std::vector<std::int64_t> positions, std::vector<double> scores,
                std::vector<double> errors) {
  CausalGrid grid;
  grid.kind = kind;
  grid.window = window;
  grid.positions = std::move(positions);
  grid.scores = std::move(scores);
  grid.standard_error = std::move(errors);
  return grid;
}

/// Two tokens, three layers; the second token and the answer are parts of characters.
TraceRecord example() {
  TraceRecord record;
  record.trace.answer_ids = {7};
  record.trace.prediction_id = 8;
  record.trace.prediction_score = 0.75;
  record.trace.high_score = 0.5;
  record.trace.low_score = 0.125;
  record.trace.low_standard_error = 0.0625;
  record.trace.tokens = 2;
  record.trace.layers = 3;
  record.trace.grids = {
      grid(Kind::kState, 1, {0, 1}, {0.125, 0.25, 0.5, 0.375, 0, 1}, {0, 0.5, 0.25, 0, 0, 0}),
      grid(Kind::kAttn, 10, {0, 1}, {0, 0, 0, 0, 0, 0}, {0, 0, 0, 0, 0, 0}),
  };
  record.prompt = {"A\xC3\xA9", "A", {3, 4}, {0, 1}, {0, 1}};
  record.options.corruption.sigma = 0.13462981581687927;
  record.texts.prompt = {"A", "\xC3"};
  record.texts.answer = "\xA9";
  record.texts.prediction = " trumpet";
  record.model = {"demo", "GPT2LMHeadModel", 3, 4, 2, 1234, "00ff", {}};
  record.run.seconds = 1.5;
  return record;
}

std::vector<std::string> keys_of(const nlohmann::ordered_json& json) {
  std::vector<std::string> keys;
  for (const auto& item : json.items()) {
    keys.push_back(item.key());
  }
  return keys;
}

}  // namespace

TEST_CASE("a traced record is this line") {
  auto record = example();
  record.trace.grids.pop_back();
  CHECK(
      to_line(to_json(record)) ==
      R"({"schema":"rometrace/trace/1","rometrace":")" + std::string(kVersion) +
          R"(","status":"traced",)"
          R"("model":{"name":"demo","architecture":"GPT2LMHeadModel","layers":3,"width":4,"heads":2,"parameters":1234,)"
          R"("weights_sha256":"00ff"},)"
          R"("run":{"device":"cpu","dtype":"float32","threads":1,"engine":"plain","approximate":false,)"
          R"("direction":"denoising","corruption":{"method":"noise"},"seed":1,"samples":10,)"
          R"("noise":{"rule":"s3","sigma":0.13462981581687927,"replace":false},"seconds":1.5},)"
          "\"prompt\":\"A\xC3\xA9\",\"subject\":\"A\",\"tokens\":[\"A\",\"\xEF\xBF\xBD\"],"
          R"("token_bytes":["41","c3"],"token_ids":[3,4],"subject_range":[0,1],"subject_span":[0,1],)"
          "\"answer\":\"\xEF\xBF\xBD\",\"answer_bytes\":\"a9\",\"answer_id\":7,"
          R"("answer_ids":[7],)"
          R"("prediction":" trumpet","prediction_bytes":"207472756d706574","prediction_id":8,"prediction_score":0.75,)"
          R"("high_score":0.5,"low_score":0.125,"low_standard_error":0.0625,"total_effect":0.375,)"
          R"("grids":{"state":{"window":1,"positions":[0,1],"scores":[[0.125,0.25,0.5],[0.375,0.0,1.0]],)"
          R"("indirect_effect":[[0.0,0.125,0.375],[0.25,-0.125,0.875]],)"
          R"("standard_error":[[0.0,0.5,0.25],[0.0,0.0,0.0]]}}})");
}

TEST_CASE("the edits of a model stand behind the rest of it, in order, and only where there are some") {
  auto record = example();
  CHECK(!to_json(record)["model"].contains("edits"));
  record.model.edits = {{"0a", "r-rome", {5}, 1}, {"0b", "memit", {3, 4}, 100}};
  CHECK(to_json(record)["model"].dump() ==
        R"({"name":"demo","architecture":"GPT2LMHeadModel","layers":3,"width":4,"heads":2,"parameters":1234,)"
        R"("weights_sha256":"00ff","edits":[{"sha256":"0a","method":"r-rome","layers":[5],"requests":1},)"
        R"({"sha256":"0b","method":"memit","layers":[3,4],"requests":100}]})");
}

TEST_CASE("grids are named by kind, in the order of the trace") {
  CHECK(keys_of(to_json(example())["grids"]) == std::vector<std::string>{"state", "attn"});
}

TEST_CASE("what does not exist is null") {
  auto record = example();
  record.trace.low_standard_error = kNan;
  record.trace.grids[0].standard_error.assign(6, kNan);
  record.trace.grids[0].scores[1] = std::numeric_limits<double>::infinity();
  const auto json = nlohmann::json::parse(to_line(to_json(record)));
  CHECK(json["low_standard_error"].is_null());
  CHECK(json["grids"]["state"]["standard_error"].dump() == "[[null,null,null],[null,null,null]]");
  CHECK(json["grids"]["state"]["scores"][0][1].is_null());
  CHECK(json["grids"]["state"]["indirect_effect"][0][1].is_null());
}

TEST_CASE("a head's cells are lists over the heads, at the positions of the grid") {
  auto record = example();
  record.trace.grids = {grid(Kind::kHead, 2, {1}, {0, 0.125, 0.25, 0.375, 0.5, 1}, {0, 0, 0, 0, 0, kNan})};
  record.trace.grids[0].heads = 2;
  const auto head = to_json(record)["grids"]["head"];
  CHECK(head.dump() == R"({"window":2,"positions":[1],"heads":2,"scores":[[[0.0,0.125],[0.25,0.375],[0.5,1.0]]],)"
                       R"("indirect_effect":[[[-0.125,0.0],[0.125,0.25],[0.375,0.875]]],)"
                       R"("standard_error":[[[0.0,0.0],[0.0,0.0],[0.0,null]]]})");
}

TEST_CASE("when noising, effects are what is lost") {
  auto record = example();
  record.options.direction = Direction::kNoising;
  const auto json = to_json(record);
  CHECK(json["run"]["direction"] == "noising");
  CHECK(json["grids"]["state"]["indirect_effect"].dump() == "[[0.375,0.25,0.0],[0.125,0.5,-0.5]]");
}

TEST_CASE("a knockout stands beside the grids") {
  auto record = example();
  auto& knockout = record.trace.grids.emplace_back(grid(Kind::kKnockout, 9, {}, {0.25, 0.5, 1}, {kNan, kNan, kNan}));
  knockout.groups = {{"subject", {0, 1}}};
  const auto json = to_json(record);
  CHECK(keys_of(json["grids"]) == std::vector<std::string>{"state", "attn"});
  CHECK(json["knockout"].dump() == R"({"window":9,"groups":{"subject":{"positions":[0],"scores":[0.25,0.5,1.0],)"
                                   R"("relative_change":[-0.5,0.0,1.0]}}})");
}

TEST_CASE("measures and other targets have their own ends and grids") {
  auto record = example();
  record.trace.grids.pop_back();
  record.options.measures = {Measure::kNormalised, Measure::kRank};
  record.prompt.foil = 5;
  record.prompt.other_targets = {6};
  record.texts.foil = " foil";
  record.texts.other_targets = {" other"};
  record.trace.measured = {{{Measure::kLogitDifference, 0}, 4, 2, 0.5},
                           {{Measure::kRank, 0}, 1, 9, 3},
                           {{Measure::kProbability, 1}, 0.25, 0.5, 0}};
  for (const double first : {2.0, 9.0, 0.5}) {
    record.trace.grids[0].measured.push_back({{first, 3, 4, 2, 2, 6}, {0, 0, 0, 0, 0, 0}});
  }
  const auto json = to_json(record);
  CHECK(keys_of(json["measures"]) == std::vector<std::string>{"rank", "normalised"});
  CHECK(json["measures"]["normalised"]["of"] == "logit_difference");
  CHECK(json["measures"]["normalised"]["grids"]["state"]["values"].dump() == "[[0.0,0.5,1.0],[0.0,0.0,2.0]]");
  CHECK(json["measures"]["rank"]["low"] == 9);
  CHECK(json["measures"]["rank"]["grids"]["state"]["values"][0][0] == 9);
  REQUIRE(json["other_targets"].size() == 1);
  CHECK(json["other_targets"][0]["target"] == " other");
  CHECK(json["other_targets"][0]["target_ids"].dump() == "[6]");
  CHECK(json["other_targets"][0]["high_score"] == 0.25);
  CHECK(json["other_targets"][0]["grids"]["state"]["scores"][0][0] == 0.5);

  record.options.measures.push_back(Measure::kLogitDifference);
  CHECK(to_json(record)["measures"]["logit_difference"]["foil"] == " foil");
  record.prompt.foil.reset();
  record.trace.measured.erase(record.trace.measured.begin());
  record.trace.grids[0].measured.erase(record.trace.grids[0].measured.begin());
  record.options.measures = {Measure::kNormalised};
  const auto of_probability = to_json(record)["measures"]["normalised"];
  CHECK(of_probability["of"] == "probability");
  CHECK(of_probability["grids"]["state"]["values"][0].dump() == "[0.0,0.3333333333333333,1.0]");
}

TEST_CASE("a trace drawn to a precision says what it took") {
  auto record = example();
  record.options.precision = 0.5;
  record.trace.samples = 40;
  record.trace.largest_error = 0.25;
  const auto run = to_json(record)["run"];
  CHECK(run["samples"] == 40);
  CHECK(run["precision"].dump() == R"({"asked":0.5,"reached":0.25,"most_samples":1000})");
}

TEST_CASE("another corruption than noise has no noise") {
  auto record = example();
  record.options.corruption.method = CorruptionMethod::kTokens;
  record.counter = CounterPrompt{"B\xC3\xA9", "B", {5, 4}};
  record.texts.counter = {"B", "\xC3"};
  auto json = to_json(record);
  CHECK(json["run"]["noise"].is_null());
  CHECK(json["run"]["corruption"]["method"] == "tokens");
  CHECK(json["counter"]["subject"] == "B");
  CHECK(json["counter"]["token_ids"].dump() == "[5,4]");
  record.options.corruption.method = CorruptionMethod::kMean;
  record.run.text = TextRecord{"corpus.txt", "00", 12};
  json = to_json(record);
  CHECK(json["run"]["corruption"].dump() ==
        R"({"method":"mean","text":{"name":"corpus.txt","sha256":"00","tokens":12}})");
}

TEST_CASE("a skipped record has cause and reason and nothing of a corrupted run") {
  auto record = example();
  auto expected = keys_of(to_json(record));
  record.verdict = Verdict::skipped(Cause::kOtherAnswer, "predicted \xFF, not this");
  const auto json = to_json(record);
  expected.resize(expected.size() - 4);
  expected.insert(expected.begin() + 3, {"cause", "reason"});
  CHECK(keys_of(json) == expected);
  CHECK(json["status"] == "skipped");
  CHECK(json["cause"] == "other_answer");
  CHECK(json["reason"] == "predicted \xEF\xBF\xBD, not this");
}

TEST_CASE("an answer that ended before it had as many tokens as asked for says how many these were") {
  auto record = example();
  CHECK_FALSE(to_json(record).contains("answer_asked"));
  record.asked_tokens = 3;
  CHECK(to_json(record)["answer_asked"] == 3);
  record.trace.answer_ids = {7, 8, 9};
  CHECK_FALSE(to_json(record).contains("answer_asked"));
}

TEST_CASE("a failed record says which fact it was and what is known of its prompt") {
  TraceRecord record;
  record.verdict = Verdict::failed(Cause::kRecord, "facts.csv, line 3: no subject");
  record.fact = FactReference{3, 2, "", false, std::nullopt, "trumpet", std::nullopt};
  CHECK(keys_of(to_json(record)) ==
        std::vector<std::string>{"schema", "rometrace", "status", "cause", "reason", "fact", "model", "run"});
  CHECK(to_json(record)["fact"].dump() ==
        R"({"record":3,"order":2,"id":null,"relation":null,"object":"trumpet","object_tokens":null})");
  record.prompt.prompt = "Miles plays";
  CHECK(to_json(record)["prompt"] == "Miles plays");
}

TEST_CASE("an id is a number where the facts file has a number") {
  const FactReference number{1, 1, "16", true, "P30", std::nullopt, 2};
  CHECK(to_json(number).dump() == R"({"record":1,"order":1,"id":16,"relation":"P30","object":null,"object_tokens":2})");
  const FactReference text{1, 1, "16", false, std::nullopt, std::nullopt, std::nullopt};
  CHECK(to_json(text)["id"] == "16");
}

TEST_CASE("whatever bytes a record holds, one line of UTF-8 comes out") {
  auto record = example();
  using std::string_literals::operator""s;
  const std::string hostile = "\0\n\r\x1b\x7f\"\\\xED\xA0\x80\xFF\xE2\x80\xA8"s;
  record.prompt.prompt = record.prompt.subject = record.model.name = record.model.architecture = hostile;
  record.run.noise_rule = record.texts.answer = record.texts.prompt[0] = hostile;
  const auto line = to_line(to_json(record));
  CHECK_FALSE(find_invalid_utf8(line));
  CHECK(line.find_first_of("\n\r\x1b") == std::string::npos);
  CHECK(nlohmann::json::parse(line)["prompt"] == to_valid_utf8(hostile));
}

}  // namespace rometrace::json_test
