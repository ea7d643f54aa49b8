#include "rometrace/summary/summary.hpp"

#include "checks.hpp"
#include "files.hpp"
#include "summary/summary_lines.hpp"

namespace rometrace::summary_test {
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
      {"/model/edits", Json::array({"a"}), R"(model.edits is ["a"]; expected nothing)"},
      {"/model/of_a_later_version", 1, "model.of_a_later_version is 1; expected nothing"},
      {"/run/dtype", "float64", R"(run.dtype is "float64"; expected "float32")"},
      {"/run/seed", 2, "run.seed is 2; expected 1"},
      {"/run/samples", 11, "run.samples is 11; expected 10"},
      {"/run/noise/rule", "s", R"(run.noise.rule is "s1"; expected "s3")"},
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

TEST_CASE("a line of the original is refused among those of an edited model, whose edits are told") {
  const Json edits = Json::array({{{"sha256", "0a"}, {"method", "rome"}, {"layers", {5}}, {"requests", 1}}});
  const auto edited = changed(traced_line(1), "/model/edits", edits);
  CHECK(refusal({{edited, traced_line(2)}}) == Contains("a.jsonl, line 2: model.edits is nothing; expected [{"));
  const auto result = summarise({{edited, changed(traced_line(2), "/model/edits", edits)}});
  CHECK(result.model["edits"] == edits);
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

TEST_CASE("what was asked of neurons is compared with headers and with lines") {
  const Json asked = {
      {"positions", "subject-last"}, {"layers", nullptr}, {"top", 20}, {"rank_by", "gradient"}, {"given", nullptr}};
  const auto header = changed(header_line(9), "/neurons", asked);
  for (const auto& [name, value] : std::vector<std::pair<std::string, Json>>{
           {"top", 5}, {"layers", {2, 4}}, {"rank_by", "none"}, {"positions", "last"}, {"given", {{3, 117}}}}) {
    CAPTURE(name);
    CHECK(refusal({{header}, {changed(header, "/neurons/" + name, value)}}) == Contains("neurons." + name + " is "));
  }
  const auto ranked = [](std::int64_t record, const char* by) {
    const Json none = Json::array();
    return changed(traced_line(record), "/neurons",
                   {{"positions", none}, {"layers", {0, 2}}, {"ranked_by", by}, {"candidates", 0}, {"effects", none}});
  };
  const auto line = ranked(1, "gradient");
  CHECK(refusal({{line, ranked(2, "none")}}) == Contains("neurons.ranked_by is \"none\"; expected \"gradient\""));
  CHECK(refusal({{line, traced_line(2)}}) == Contains("kinds is [\"mlp\",\"state\"]; expected [\"mlp\",\"neuron\""));
  CHECK(summarise({{line, ranked(2, "gradient")}}).overall.facts == 2);
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

TEST_CASE("a role counts the positions that the grid lists, and no others") {
  // Of 5 tokens with subject [1, 3): 1 first, 2 last subject token, 3 first subsequent, 4 last.
  auto all = whole_line(3, {0, 1, 2, 3, 4});
  for (auto& [kind, grid] : all["grids"].items()) grid.erase("positions");
  const auto result = summarise({{whole_line(1, {0, 2, 4}), whole_line(2, {2, 3}), all}});
  CHECK(result.traced == 3);
  CHECK(role_in(result, "state", Role::kFirstSubject).facts == 1);
  CHECK(role_in(result, "state", Role::kLastSubject).facts == 3);
  CHECK(role_in(result, "state", Role::kFirstSubsequent).facts == 2);
  CHECK(role_in(result, "state", Role::kLast).facts == 2);
  CHECK(role_in(result, "head", Role::kLastSubject).facts == 3);
  const auto none = summarise({{whole_line(1, {}), whole_line(2, {2})}});
  CHECK(none.traced == 2);
  CHECK(none.overall.find("state")->largest_score.facts == 1);
  CHECK(none.overall.total_effect.facts == 2);
}

TEST_CASE("a head's peak has a layer and a head") {
  const auto result = summarise({{whole_line(1, {2, 4}), whole_line(2, {2, 3})}});
  const auto& role = role_in(result, "head", Role::kLastSubject);
  CHECK(result.overall.find("head")->heads == 2);
  REQUIRE(role.aie.size() == 4);
  CHECK(role.aie[2] == doctest::Approx(0.06).epsilon(1e-12));
  CHECK(role.aie[3] == doctest::Approx((0.125 + 0.06) / 2 - 0.125).epsilon(1e-12));
  CHECK(role.peak->layer == 1);
  CHECK(*role.peak->head == 0);
  CHECK(*role.peak->share == 1);
  CHECK(*role.peak->layers == std::pair<std::int64_t, std::int64_t>{1, 1});
  CHECK(role.bootstrap_low.size() == 4);
  CHECK_FALSE(role_in(result, "state", Role::kLastSubject).peak->head);
}

TEST_CASE("a gap is the state's effect less the severed one at the positions of both") {
  auto line = whole_line(2, {1, 2, 4});
  // Only position 2 is left of the severed MLP's.
  line["grids"]["state_mlp_severed"]["positions"] = {0, 2};
  line["grids"]["state_mlp_severed"]["scores"] = {{0, 0}, {0.1, 0.125}};
  const auto result = summarise({{whole_line(1, {2, 4}), line}});
  REQUIRE(result.overall.gaps.size() == 2);
  const auto& mlp = result.overall.gaps[0];
  CHECK(mlp.severed == "mlp");
  CHECK(mlp.roles[static_cast<std::size_t>(Role::kFirstSubject)].facts == 0);
  CHECK(mlp.roles[static_cast<std::size_t>(Role::kLast)].facts == 1);
  const auto& last_subject = mlp.roles[static_cast<std::size_t>(Role::kLastSubject)];
  CHECK(last_subject.facts == 2);
  const double first = 0.25 * (0.125 + 0.06), second = 0.06;
  CHECK(last_subject.aie[1] == doctest::Approx((first + second) / 2).epsilon(1e-12));
  CHECK(last_subject.standard_error[1] == doctest::Approx((second - first) / 2).epsilon(1e-9));
  CHECK(last_subject.peak->layer == 1);
  const auto& attention = result.overall.gaps[1].roles;
  CHECK(attention[static_cast<std::size_t>(Role::kFirstSubject)].aie[0] ==
        doctest::Approx(0.5 * (0.125 + 0.02)).epsilon(1e-12));
  auto without = whole_line(3, {2});
  without["grids"].erase("state");
  without.erase("measures");
  CHECK(summarise({{without}}).overall.gaps.empty());
  CHECK(summarise({{traced_line(1)}}).overall.gaps.empty());
}

TEST_CASE("knockouts are averaged by group, and a group without a fact is empty") {
  auto other = whole_line(2, {2});
  other["knockout"]["groups"].erase("last");
  other["knockout"]["groups"]["subject"]["relative_change"] = {0.25, -0.5};
  auto never = changed(whole_line(3, {2}), "/high_score", 0);
  never["knockout"]["groups"]["last"]["relative_change"] = {nullptr, nullptr};
  const auto result = summarise({{whole_line(1, {2}), other, never}});
  CHECK(result.traced == 3);
  REQUIRE(result.overall.knockout);
  const auto& knockout = *result.overall.knockout;
  CHECK(knockout.window == 9);
  CHECK(knockout.groups[0].facts == 2);
  CHECK(knockout.groups[0].relative_change == std::vector<double>{0, -0.5});
  CHECK(knockout.groups[0].standard_error[0] == doctest::Approx(0.25).epsilon(1e-12));
  CHECK(knockout.groups[0].standard_error[1] == 0);
  CHECK(knockout.groups[1].facts == 0);
  CHECK(knockout.groups[1].relative_change.empty());
  CHECK(knockout.groups[3].facts == 1);
  auto alone = whole_line(1, {2});
  alone["grids"] = Json::object();
  alone.erase("measures");
  CHECK(summarise({{alone}}).overall.knockout->groups[3].facts == 1);
  CHECK_FALSE(summarise({{traced_line(1)}}).overall.knockout);
  const auto broken = summarise(
      {{whole_line(1, {2}), changed(whole_line(2, {2}), "/knockout/groups/last/relative_change/1", nullptr)}});
  CHECK(broken.failed == 1);
}

TEST_CASE("in noising the effect is what corrupting takes away") {
  std::vector<Json> lines;
  for (int record = 1; record <= 2; ++record) {
    lines.push_back(changed(whole_line(record, {2, 4}), "/run/direction", "noising"));
  }
  const auto result = summarise({lines});
  CHECK(result.run["direction"] == "noising");
  const auto& role = role_in(result, "state", Role::kLastSubject);
  CHECK(role.aie[0] == doctest::Approx(0.75 - (0.125 + 0.03)).epsilon(1e-12));
  CHECK(role.peak->layer == 0);
  CHECK(*role.largest_effect.mean == doctest::Approx(0.75 - (0.125 + 0.03)).epsilon(1e-12));
  CHECK(*role.largest_score.mean == doctest::Approx(0.125 + 0.06).epsilon(1e-12));
  const auto& gap = result.overall.gaps[0].roles[static_cast<std::size_t>(Role::kLastSubject)];
  CHECK(gap.aie[0] == doctest::Approx(-0.25 * (0.125 + 0.03)).epsilon(1e-12));
}

TEST_CASE("draws up to a precision may differ in number, but not in the precision") {
  auto one = changed(traced_line(1), "/run/precision", {{"asked", 0.01}, {"reached", 0.005}, {"most_samples", 100}});
  auto two = changed(changed(one, "/run/samples", 40), "/fact/record", 2);
  two["run"]["precision"]["reached"] = 0.009;
  const auto result = summarise({{one, two}});
  CHECK(result.run["samples"].is_null());
  CHECK(result.run["precision"]["asked"] == 0.01);
  two["run"]["precision"]["asked"] = 0.02;
  CHECK(refusal({{one, two}}) == Contains("run.precision.asked is 0.02; expected 0.01"));
  CHECK(refusal({{one, traced_line(2)}}) == Contains("run.precision.asked is null; expected 0.01"));
  CHECK(summarise({{traced_line(1)}}).run["precision"].is_null());
}

TEST_CASE("kinds of traces are not mixed, and lines without a word on it are of the usual one") {
  const auto first = traced_line(1);
  const auto whole = whole_line(1, {2});
  const std::vector<std::tuple<Json, std::string, Json, std::string>> changes = {
      {first, "/run/direction", "noising", R"(run.direction is "noising"; expected "denoising")"},
      {first, "/run/approximate", true, "run.approximate is true; expected false"},
      {first, "/run/corruption", {{"method", "zero"}}, R"(run.corruption.method is "zero"; expected "noise")"},
      {whole, "/grids/head/window", 3, "head_window is 3; expected 1"},
      {whole, "/knockout/window", 3, "knockout_window is 3; expected 9"},
      {whole, "/knockout", nullptr, R"(kinds is ["head","state","state_attn_severed","state_mlp_severed"]; expected)"},
      {whole,
       "/grids/head",
       {{"window", 1}, {"positions", {2}}, {"scores", {{{1}, {2}}}}},
       "\"head\" is 1; expected 2"}};
  for (const auto& [line, pointer, value, expected] : changes) {
    CAPTURE(pointer);
    auto other = changed(changed(line, "/fact/record", 2), pointer, value);
    if (value.is_null()) other.erase("knockout");
    CHECK(refusal({{line, other}}) == Contains("a.jsonl, line 2: "));
    CHECK(refusal({{line, other}}) == Contains(expected));
  }
  auto told = first;
  told["run"].update({{"direction", "denoising"}, {"approximate", false}, {"corruption", {{"method", "noise"}}}});
  const auto result = summarise({{told, traced_line(2)}});
  CHECK(result.run["direction"] == "denoising");
  CHECK(result.run["corruption"]["method"] == "noise");
  CHECK(summarise({{whole}}).run["kinds"].size() == 5);
  auto header = header_line(9);
  header["kinds"] = {"state", "knockout", "state_mlp_severed", "head", "state_attn_severed"};
  CHECK(summarise({{header, whole}}).traced == 1);
}

TEST_CASE("a line whose positions or knockouts do not fit is refused") {
  const auto line = whole_line(1, {2, 4});
  CHECK(refusal({{changed(line, "/grids/state/positions", {4, 2})}}) ==
        Contains("a.jsonl, line 1: the positions of the grid \"state\" do not ascend; expected"));
  CHECK(refusal({{changed(line, "/grids/state/positions", {2, 2})}}) == Contains("do not ascend"));
  CHECK(refusal({{changed(line, "/grids/state/positions", {2, 5})}}) ==
        Contains("the grid \"state\" has position 5 of 5 tokens"));
  CHECK(refusal({{changed(line, "/grids/state/positions", {2})}}) ==
        Contains("has 2 rows of 2 scores for 1 positions and 2 layers"));
  CHECK(refusal({{changed(line, "/run/direction", "sideways")}}) == Contains("\"direction\" is neither"));
  CHECK(refusal({{changed(line, "/knockout", 3)}}) == Contains("no \"window\""));
  CHECK(refusal({{changed(line, "/knockout/window", "x")}}) == Contains("\"window\" is no whole number"));
  CHECK(refusal({{changed(line, "/knockout/groups", {1})}}) == Contains("\"groups\" of the knockout is no object"));
  CHECK(refusal({{changed(line, "/knockout/groups/near", Json::object())}}) ==
        Contains("the knockout of \"near\", which is none of subject, before, after, last"));
  CHECK(refusal({{changed(line, "/knockout/groups/last", Json::object())}}) == Contains("no \"relative_change\""));
  CHECK(refusal({{changed(line, "/knockout/groups/last/relative_change", {1})}}) ==
        Contains("\"relative_change\" of the knockout of \"last\" is no list of 2 numbers"));
  CHECK(refusal({{changed(line, "/knockout/groups/last/relative_change/0", "x")}}) ==
        Contains("has a value that is no number"));
}

TEST_CASE("many relations with many replicates are refused before they fill the memory") {
  std::vector<Json> lines;
  for (int record = 1; record <= 12; ++record) {
    lines.push_back(changed(whole_line(record, {2}), "/fact/relation", "P" + std::to_string(record)));
    auto& grid = lines.back()["grids"]["head"];
    grid["heads"] = 1400;
    grid["scores"] = {{std::vector<double>(1400, 0.5), std::vector<double>(1400, 0.5)}};
  }
  const auto message = message_of<Error>([&] { summarise({lines}, {true, 100000, 1}); });
  CHECK(message == Contains("1 relations with 100000 replicates need more than 8 GiB of memory"));
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

}  // namespace rometrace::summary_test
