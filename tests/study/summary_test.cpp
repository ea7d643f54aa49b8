#include "rometrace/study/summary.hpp"

#include "checks.hpp"
#include "files.hpp"
#include "study/summary_lines.hpp"

namespace rometrace {
namespace {

using namespace testing;

SummaryResult summarise(const std::vector<std::vector<Json>>& files, const SummaryConfig& config = {false, 100, 1}) {
  const TemporaryFolder folder;
  Summary summary(config);
  for (std::size_t i = 0; i < files.size(); ++i) {
    const auto path = folder.write(std::string(1, static_cast<char>('a' + i)) + ".jsonl", as_text(files[i]));
    SummaryReader reader(path.string());
    SummaryLine line;
    while (reader.next(line)) summary.add(line);
    summary.end_file(reader);
  }
  return summary.result();
}

std::string refusal(const std::vector<std::vector<Json>>& files) {
  const auto message = message_of<Error>([&] { summarise(files); });
  CHECK(is_one_line(message));
  return message;
}

const RoleSummary& role_in(const SummaryResult& result, std::string_view kind, Role role) {
  return result.overall.find(kind)->roles[static_cast<std::size_t>(role)];
}

Json changed(Json line, const std::string& pointer, const Json& value) {
  line[Json::json_pointer(pointer)] = value;
  return line;
}

}  // namespace

TEST_CASE("a role that a fact lacks is averaged over the facts that have it") {
  // Tokens ".FEUL" less one: [1, 3) of 5 gives F E S L; [3, 5) of 5 gives F L.
  const auto result = summarise({{traced_line(1, 5, 1, 3), traced_line(2, 5, 3, 5), traced_line(3, 7, 0, 4)}});
  CHECK(result.traced == 3);
  CHECK(role_in(result, "state", Role::kFirstSubject).facts == 3);
  CHECK(role_in(result, "state", Role::kLastSubject).facts == 2);
  CHECK(role_in(result, "state", Role::kFirstSubsequent).facts == 2);
  CHECK(role_in(result, "state", Role::kLast).facts == 3);
  const auto& middle = role_in(result, "mlp", Role::kMiddleSubject);
  CHECK(middle.facts == 1);
  CHECK(middle.tokens == 2);
  CHECK(middle.aie[0] == doctest::Approx(0.025).epsilon(1e-12));  // tokens 1 and 2: 0.02 and 0.03
  CHECK(middle.aie[1] == doctest::Approx(0.05).epsilon(1e-12));
  CHECK(middle.standard_error.empty());
  CHECK(middle.bootstrap_low.empty());
  REQUIRE(middle.peak);
  CHECK(middle.peak->layer == 1);
  CHECK_FALSE(middle.peak->share);
  const auto& further = role_in(result, "state", Role::kFurther);
  CHECK(further.facts == 1);
  CHECK(further.tokens == 1);
  const auto& last_subject = role_in(result, "state", Role::kLastSubject);
  CHECK(last_subject.aie[0] == doctest::Approx((0.03 + 0.04) / 2).epsilon(1e-12));
  CHECK(last_subject.standard_error[0] == doctest::Approx(0.005).epsilon(1e-12));
  CHECK(last_subject.bootstrap_low.size() == 2);
  CHECK(*last_subject.largest_effect.mean == doctest::Approx((0.06 + 0.08) / 2).epsilon(1e-12));
}

TEST_CASE("a role without a token has nothing") {
  const auto result = summarise({{traced_line(1, 3, 1, 2)}});
  const auto& middle = role_in(result, "state", Role::kMiddleSubject);
  CHECK(middle.facts == 0);
  CHECK(middle.aie.empty());
  CHECK_FALSE(middle.peak);
  CHECK_FALSE(middle.largest_effect.mean);
}

TEST_CASE("lines are counted by status and cause") {
  const auto result = summarise({{header_line(5), traced_line(1), untraced_line(2, "skipped", "other_answer"),
                                  untraced_line(3, "failed", "subject"), untraced_line(4, "skipped", "other_answer"),
                                  untraced_line(5, "failed", "record")}});
  CHECK(result.records == 5);
  CHECK(result.skipped == 2);
  CHECK(result.failed == 2);
  CHECK(result.causes == std::map<std::string, std::int64_t>{{"other_answer", 2}, {"record", 1}, {"subject", 1}});
  CHECK(result.warnings.empty());
  CHECK(result.run["target"] == "prediction");
  CHECK(result.run["noise"]["sigma"] == 0.25);
  CHECK(result.model["name"] == "tiny");
}

TEST_CASE("a score that is no number fails its fact alone") {
  auto broken = traced_line(2);
  broken["grids"]["mlp"]["scores"][2][1] = nullptr;
  const auto result = summarise({{traced_line(1), broken, changed(traced_line(3), "/low_score", nullptr)}});
  CHECK(result.traced == 1);
  CHECK(result.failed == 2);
  CHECK(result.causes.at("trace") == 2);
  REQUIRE(result.warnings.size() == 1);
  CHECK(result.warnings[0] == Contains("a.jsonl, line 2: a score is not a number, as in 1 more lines"));
}

TEST_CASE("a last line that is not whole is told") {
  const TemporaryFolder folder;
  Summary summary({});
  SummaryReader reader(folder.write("a.jsonl", as_text({header_line(9), traced_line(1)}) + "{\"sch").string());
  SummaryLine line;
  while (reader.next(line)) summary.add(line);
  summary.end_file(reader);
  const auto result = summary.result();
  CHECK(result.torn_lines == 1);
  REQUIRE(result.warnings.size() == 2);
  CHECK(result.warnings[0] == Contains("a.jsonl: the last line is not whole"));
  CHECK(result.warnings[1] == Contains("facts.json: 8 of 9 facts have no line"));
}

TEST_CASE("another setting is refused with field, values and places") {
  const auto first = traced_line(1);
  const std::vector<std::tuple<std::string, Json, std::string>> changes = {
      {"/model/weights_sha256", "11", R"(model.weights_sha256 is "11"; expected "00ff")"},
      {"/model/heads", 4, "model.heads is 4; expected 2"},
      {"/run/dtype", "float64", R"(run.dtype is "float64"; expected "float32")"},
      {"/run/seed", 2, "run.seed is 2; expected 1"},
      {"/run/samples", 11, "run.samples is 11; expected 10"},
      {"/run/noise/rule", "s", R"(run.noise.rule is "s"; expected "s3")"},
      {"/run/noise/sigma", 0.5, "run.noise.sigma is 0.5; expected 0.25"},
      {"/run/noise/replace", true, "run.noise.replace is true; expected false"},
      {"/grids/mlp/window", 5, "window is 5; expected 10"},
      {"/grids/attn", first["grids"]["mlp"], R"(kinds is ["attn","mlp","state"]; expected ["mlp","state"])"}};
  for (const auto& [pointer, value, expected] : changes) {
    CAPTURE(pointer);
    const auto message = refusal({{first, traced_line(2)}, {changed(traced_line(3), pointer, value)}});
    CHECK(message == Contains("b.jsonl, line 1: " + expected + " as in "));
    CHECK(message == Contains("a.jsonl, line 1; summarise"));
  }
}

TEST_CASE("a header's settings are compared with headers and with lines") {
  for (const auto& [pointer, value] : std::vector<std::pair<std::string, Json>>{{"/target", "object"},
                                                                                {"/all", true},
                                                                                {"/special_tokens", true},
                                                                                {"/only", "known"},
                                                                                {"/command", "probe"},
                                                                                {"/window", 4},
                                                                                {"/run/tf32", true},
                                                                                {"/kinds", {"mlp"}}}) {
    CAPTURE(pointer);
    const auto message = refusal({{header_line(9), traced_line(1)}, {changed(header_line(9), pointer, value)}});
    CHECK(message == Contains("b.jsonl, line 1: "));
    CHECK(message == Contains(" as in "));
  }
  CHECK(refusal({{changed(header_line(9), "/run/seed", 5), traced_line(1)}}) ==
        Contains("a.jsonl, line 2: run.seed is 1; expected 5"));
  CHECK(refusal({{changed(header_line(9), "/window", 5), traced_line(1)}}) == Contains("window is 10; expected 5"));
}

TEST_CASE("device, engine and threads may differ, and are then no longer told") {
  auto other = changed(traced_line(2), "/run/device", "cuda");
  other["run"]["engine"] = "plain";
  other["model"]["name"] = "a copy";
  const auto result = summarise({{traced_line(1), other}});
  CHECK(result.run["device"].is_null());
  CHECK(result.run["engine"].is_null());
  CHECK(result.run["threads"] == 1);
  CHECK(result.model["name"] == "tiny");
}

TEST_CASE("a record that comes twice is refused, in one file or in two") {
  const std::string expected = ": record 2 of facts.json was in a line before";
  CHECK(refusal({{header_line(9), traced_line(2), traced_line(2)}}) == Contains("a.jsonl, line 3" + expected));
  CHECK(refusal({{header_line(9), traced_line(2)}, {header_line(9), untraced_line(2, "skipped", "other_answer")}}) ==
        Contains("b.jsonl, line 2" + expected));
  CHECK(refusal({{header_line(9), traced_line(10)}}) == Contains("record 10 of 9"));
}

TEST_CASE("shards are one study, and other facts have other records") {
  const auto shards = summarise({{header_line(3), traced_line(1), traced_line(3)}, {header_line(3), traced_line(2)}});
  CHECK(shards.traced == 3);
  CHECK(shards.warnings.empty());
  REQUIRE(shards.selections.size() == 1);
  CHECK(shards.selections[0].lines == 3);
  const auto studies = summarise({{header_line(1), traced_line(1)}, {header_line(1, "def"), traced_line(1)}});
  CHECK(studies.traced == 2);
  CHECK(studies.selections.size() == 2);
  CHECK(summarise({{header_line(3), traced_line(1)}}).warnings.at(0) == Contains("2 of 3 facts have no line"));
}

TEST_CASE("relations are averaged apart with the weights of the whole") {
  auto other = traced_line(2);
  other["fact"]["relation"] = nullptr;
  auto third = traced_line(3, 6, 2, 3);
  auto bare = traced_line(4);
  bare.erase("fact");
  const auto all = summarise({{traced_line(1), other, third, bare}}, {true, 100, 1});
  REQUIRE(all.relations.size() == 2);
  CHECK(all.relations[0].first == "(none)");
  CHECK(all.relations[0].second.facts == 2);
  CHECK(all.relations[1].first == "P1");
  CHECK(all.relations[1].second.facts == 2);
  for (auto* line : {&other, &bare}) (*line)["fact"]["relation"] = "P1";
  const auto one = summarise({{traced_line(1), other, third, bare}}, {true, 100, 1});
  REQUIRE(one.relations.size() == 1);
  CHECK(one.relations[0].second.find("mlp")->roles[0].bootstrap_low ==
        role_in(one, "mlp", Role::kFirstSubject).bootstrap_low);
}

TEST_CASE("a line that does not fit together is refused") {
  const auto line = traced_line(1);
  CHECK(refusal({{changed(line, "/subject_range", {1, 9})}}) ==
        Contains("\"subject_range\" is not within the 5 tokens"));
  CHECK(refusal({{changed(line, "/subject_range", {3, 3})}}) == Contains("subject_range"));
  CHECK(refusal({{changed(line, "/subject_range", "x")}}) == Contains("subject_range"));
  CHECK(refusal({{changed(line, "/model/layers", 3)}}) == Contains("has 5 rows of 2 scores for 5 tokens and 3 layers"));
  CHECK(refusal({{changed(line, "/tokens", {"a", "b"})}}) == Contains("subject_range"));
  CHECK(refusal({{changed(line, "/status", "done")}}) == Contains("status \"done\""));
  CHECK(refusal({{changed(line, "/high_score", "x")}}) == Contains("\"high_score\" is no number"));
  CHECK(refusal({{changed(line, "/grids", Json::object())}}) == Contains("no grids"));
  auto headless = line;
  headless.erase("model");
  CHECK(refusal({{headless}}) == Contains("no \"model\""));
  auto bare = line;
  bare.erase("fact");
  CHECK(refusal({{header_line(3), bare}}) == Contains("a.jsonl, line 2: no \"fact\""));
  CHECK(refusal({{{{"schema", "rometrace/probe/1"}}}}) == Contains("probe"));
  CHECK(refusal({{header_line(3)}}) == Contains("no result yet"));
  CHECK(refusal({{}}) == Contains("no result yet"));
  CHECK(message_of<Error>([] { Summary summary({false, -1, 1}); }) == Contains("--bootstrap: -1"));
}

TEST_CASE("without a bootstrap the normal interval stays") {
  const auto result = summarise({{traced_line(1), traced_line(2, 6, 1, 3)}}, {false, 0, 1});
  const auto& last = role_in(result, "mlp", Role::kLast);
  CHECK(last.bootstrap_low.empty());
  CHECK(last.normal_low.size() == 2);
  CHECK_FALSE(last.peak->share);
  CHECK(result.overall.total_effect.normal);
  CHECK_FALSE(result.overall.total_effect.bootstrap);
}

}  // namespace rometrace
