#include "rometrace/report/record_reader.hpp"

#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "checks.hpp"
#include "json_damage.hpp"
#include "rometrace/error.hpp"
#include "rometrace/text/hex.hpp"
#include "rometrace/trace/clean_run.hpp"
#include "rometrace/trace/plain.hpp"

// What is written is read back: of real traces of a tiny question, with all that a record may hold.

namespace rometrace::record_reader_test {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kDemo = ROMETRACE_SOURCE_DIR "/share/rometrace/demo";
const std::string kWhere = "results.jsonl, line 2";

/// A question that the demo model answers, corrupted by two draws.
TraceRecord question() {
  static const auto tokenizer = Tokenizer::load(kDemo);
  TraceRecord record;
  auto& prompt = record.prompt;
  prompt.prompt = "Miles Davis plays the";
  prompt.subject = "Miles Davis";
  const auto tokens = tokenizer.encode_prompt(prompt.prompt, SpecialTokens::kAsText);
  for (const auto& token : tokens) prompt.token_ids.push_back(token.id);
  prompt.subject_span = {0, prompt.subject.size()};
  prompt.subject_range = tokens_of_subject(tokens, prompt.prompt, prompt.subject_span);
  record.options.kinds = {Kind::kState};
  record.options.samples = 2;
  record.options.window = 3;
  record.options.corruption.sigma = 0.25;
  record.run.noise_rule = "0.25";
  record.run.engine = "plain";
  record.run.seconds = 0.5;
  record.model = {"some/model", "GPT2LMHeadModel", 8, 128, 4, 1824000, std::string(64, 'a'), {}};
  return record;
}

TraceRecord traced(TraceRecord record) {
  static const auto model = Decoder::load(kDemo);
  static const auto tokenizer = Tokenizer::load(kDemo);
  const auto clean = run_clean(*model, record.prompt, record.options);
  record.trace = trace_plain(*model, record.prompt, record.options, clean);
  record.texts = token_texts(record.trace, record.prompt, tokenizer);
  return record;
}

std::int32_t token(const std::string& text) {
  static const auto tokenizer = Tokenizer::load(kDemo);
  return encode_answer(tokenizer, text).at(0).id;
}

/// Records of all sorts; by name.
std::vector<std::pair<std::string, TraceRecord>> records() {
  std::vector<std::pair<std::string, TraceRecord>> all;
  const auto add = [&](const std::string& name, const std::function<void(TraceRecord&)>& change) {
    auto record = question();
    change(record);
    all.emplace_back(name, traced(std::move(record)));
  };
  add("states", [](auto&) {});
  add("all grids", [](TraceRecord& record) {
    record.options.kinds = {Kind::kMlp,  Kind::kState, Kind::kStateMlpSevered, Kind::kStateAttnSevered,
                            Kind::kHead, Kind::kAttn,  Kind::kKnockout};
    record.options.positions = PositionRule::parse("1,3");
  });
  add("measures", [](TraceRecord& record) {
    record.options.measures = {Measure::kRank, Measure::kLogitDifference, Measure::kNormalised,
                               Measure::kKl,   Measure::kLogit,           Measure::kLogProbability};
    record.prompt.foil = token(" piano");
    record.prompt.target = {token(" trumpet")};
    record.prompt.other_targets = {token(" guitar"), token(" drums")};
  });
  add("a logit difference that is normalised alone", [](TraceRecord& record) {
    record.options.measures = {Measure::kNormalised};
    record.prompt.foil = token(" piano");
    record.options.neurons.emplace().top = 2;
  });
  add("a normalised probability, when noising", [](TraceRecord& record) {
    record.options.measures = {Measure::kNormalised};
    record.options.direction = Direction::kNoising;
  });
  add("both directions", [](TraceRecord& record) {
    record.options.kinds = {Kind::kMlp, Kind::kKnockout, Kind::kHead};
    record.options.direction = Direction::kBoth;
    record.options.measures = {Measure::kKl, Measure::kNormalised};
    record.prompt.foil = token(" piano");
    record.prompt.target = {token(" trumpet")};
    record.prompt.other_targets = {token(" guitar")};
  });
  add("neurons", [](TraceRecord& record) {
    record.options.kinds = {};
    record.options.measures = {Measure::kKl};
    record.options.neurons.emplace().top = 3;
    record.options.neurons->layers = LayerRange{2, 4};
    record.options.neurons->sets_by_layer = true;
    record.prompt.target = {token(" trumpet")};
    record.prompt.other_targets = {token(" guitar")};
  });
  add("given neurons", [](TraceRecord& record) {
    record.options.neurons.emplace().given = NeuronName::parse_list("3:117,5:9");
    record.options.neurons->positions = PositionRule::parse("0,1");
  });
  add("a single draw", [](TraceRecord& record) {
    record.options.samples = 1;
    record.options.corruption.replace = true;
  });
  add("uniform noise", [](TraceRecord& record) {
    record.options.corruption.distribution = NoiseRule::Distribution::kUniform;
    record.run.noise_rule = "u0.25";
  });
  add("an answer of several tokens", [](TraceRecord& record) {
    record.prompt.target = {token(" trumpet"), token(" and")};
    record.asked_tokens = 3;
  });
  add("no noise", [](TraceRecord& record) {
    record.options.corruption.method = CorruptionMethod::kZero;
    record.options.samples = 1;
    record.run.text = TextRecord{"text.txt", std::string(64, 'b'), 17};
  });
  add("a counter prompt", [](TraceRecord& record) {
    record.options.corruption.method = CorruptionMethod::kTokens;
    record.options.samples = 1;
    record.counter = CounterPrompt{"John Davis plays the", "John Davis", record.prompt.token_ids};
    record.counter->token_ids[0] = token(" John");
    record.prompt.counter_ids = record.counter->token_ids;
  });
  add("draws until it is precise", [](TraceRecord& record) {
    record.options.precision = 0.05;
    record.options.most_samples = 6;
  });
  add("what was asked, a fact, edits", [](TraceRecord& record) {
    record.asked = AskedFor{AnswerRule::parse("greedy:2"), {" trumpet"}, " piano", true};
    record.fact = FactReference{3, 2, "17", true, "plays", "trumpet", 1};
    record.model.edits = {{std::string(64, 'c'), "r-rome", {3}, 1}};
    record.run.tf32 = true;
  });
  auto skipped = all.front().second;
  skipped.verdict = Verdict::skipped(Cause::kOtherAnswer, "the model's answer is another");
  all.emplace_back("skipped", skipped);
  TraceRecord failed;
  failed.verdict = Verdict::failed(Cause::kRecord, "known.json, record 3: no subject");
  failed.fact = FactReference{3, 2, "", false, std::nullopt, std::nullopt, std::nullopt};
  failed.model = skipped.model;
  all.emplace_back("failed", failed);
  return all;
}

}  // namespace

TEST_CASE("a record that is read gives the line that it was written as") {
  for (const auto& [name, record] : records()) {
    CAPTURE(name);
    const auto json = Json::parse(to_json(record).dump());
    CHECK(to_json(read_trace_record(json, kWhere)).dump() == json.dump());
  }
}

TEST_CASE("a damaged record is refused in one line that says where, or read as something") {
  std::int64_t refused = 0, read = 0;
  for (const auto& [name, record] : records()) {
    auto json = to_json(record);
    testing::for_each_damage(json, json, [&](const Json& damaged) {
      try {
        to_json(read_trace_record(damaged, kWhere));
        ++read;
      } catch (const Error& error) {
        const std::string message = error.what();
        CHECK_MESSAGE(message.starts_with(kWhere + ": "), message);
        CHECK_MESSAGE(message.find('\n') == std::string::npos, message);
        ++refused;
      }
    });
  }
  CHECK(refused > 1000);
  CHECK(read > 100);  // numbers that may be others, or null
}

TEST_CASE("what is wrong with a record is said with its place") {
  const auto refusal = [](const std::function<void(Json&)>& change) {
    auto json = to_json(records().front().second);
    change(json);
    try {
      read_trace_record(json, kWhere);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("nothing");
  };
  const std::string end = "; expected a trace's record as rometrace writes it (docs/formats.md)";
  CHECK(refusal([](Json& json) { json.erase("high_score"), json.erase("run"); }) == kWhere + ": run is missing" + end);
  CHECK(refusal([](Json& json) { json["run"]["seed"] = "one"; }) ==
        kWhere + ": run.seed is no whole number from 0" + end);
  CHECK(refusal([](Json& json) { json["grids"]["state"]["scores"].erase(0); }) ==
        kWhere + ": grids.state.scores has 24 numbers, and prompt and model ask for 32" + end);
  CHECK(refusal([](Json& json) { json["grids"]["soul"] = json["grids"]["state"]; }) ==
        kWhere + ": grids.soul is \"soul\", which this version does not know" + end);
  CHECK(refusal([](Json& json) { json["schema"] = "rometrace/batch/1"; }) ==
        kWhere +
            ": a record of the schema \"rometrace/batch/1\"; expected rometrace/trace/1, as rometrace --prompt and "
            "--facts write it");
}

TEST_CASE("hexadecimal is read back, and nothing else") {
  CHECK(unhex(hex(std::string("\x00\xFFz", 3))) == std::string("\x00\xFFz", 3));
  CHECK(unhex("") == "");
  for (const char* text : {"0", "0g", "AB", " 0", "0x"}) CHECK(!unhex(text));
}

}  // namespace rometrace::record_reader_test
