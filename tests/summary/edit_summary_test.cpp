#include "rometrace/summary/edit_summary.hpp"

#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absent_files.hpp"
#include "checks.hpp"
#include "files.hpp"
#include "rometrace/edit/evaluation.hpp"
#include "rometrace/error.hpp"
#include "rometrace/report/edit_summary_json.hpp"
#include "rometrace/report/edit_summary_text.hpp"

namespace rometrace::edit_summary_test {
namespace {

using doctest::Approx;
using nlohmann::json;
using testing::Contains;
using testing::message_of;

const std::filesystem::path kGoldens = ROMETRACE_SOURCE_DIR "/../shared/editing";

// Sentences as one line each.
std::string unwrapped(std::string text) {
  for (auto at = text.find("\n  "); at != std::string::npos; at = text.find("\n  ", at)) text.replace(at, 3, " ");
  return text;
}

json header(std::int64_t selected, const std::vector<json>& layers = {json::array({1})}) {
  return {{"schema", "rometrace/batch/1"},
          {"command", "edit"},
          {"model", {{"name", "tiny"}, {"layers", 4}, {"weights_sha256", "00ff"}}},
          {"run", {{"device", "cpu"}, {"dtype", "float32"}, {"tf32", false}}},
          {"edit", {{"method", "rome"}, {"layers", layers}, {"hyperparameters", {{"steps", 20}}}, {"force", false}}},
          {"window", 3},
          {"facts", {{"files", json::array()}, {"records", selected}, {"selected", selected}}},
          {"shard", nullptr}};
}

json scores_json(const CaseScores& scores) {
  json object;
  for (const auto score : kScores) {
    const auto& value = score_of(scores, score);
    object[std::string(to_string(score))] = value ? json(*value) : json(nullptr);
  }
  return object;
}

json edit(const CaseScores& before, const CaseScores& after, const char* outcome = "took",
          const json& leaks = json::array()) {
  return {{"layers", json::array({1})},
          {"scores", {{"before", scores_json(before)}, {"after", scores_json(after)}}},
          {"verdict", {{"outcome", outcome}, {"leaks", leaks}}}};
}

// A list of edits that GCC does not take for the edit itself where there is one.
json edited(std::int64_t order, const std::vector<json>& edits, const char* relation = "P1") {
  return {{"schema", "rometrace/edited-fact/1"},
          {"status", "edited"},
          {"fact", {{"order", order}, {"record", order}, {"relation", relation}}},
          {"edits", edits}};
}

json untouched(std::int64_t order, const char* status, const char* cause) {
  return {{"schema", "rometrace/edited-fact/1"},
          {"status", status},
          {"cause", cause},
          {"reason", "because"},
          {"fact", {{"order", order}, {"record", order}, {"relation", "P1"}}}};
}

class Lines {
 public:
  explicit Lines(const SummaryConfig& config = {}) : summary_(config) {}
  void add(const json& line) {
    summary_.add(parse_summary_line(line.dump(), "edits.jsonl, line " + std::to_string(++number_)));
  }
  EditSummaryResult result() { return summary_.result(); }

 private:
  EditSummary summary_;
  int number_ = 0;
};

// Success and difference alike, of ES, PS, NS.
CaseScores scores(double es, std::optional<double> ps, std::optional<double> ns) {
  return {es, es - 0.25, ps, ps, ns, ns};
}

struct Golden {
  ObjectLosses prompt;
  std::vector<ObjectLosses> paraphrases, neighbours;

  CaseScores scores() const { return case_scores(prompt, paraphrases, neighbours); }
};

/// A golden's prompts: the one edited, a paraphrase, two neighbours.
Golden golden_of(const json& prompts) {
  const auto losses = [&](std::size_t i) {
    return ObjectLosses{prompts.at(i).at("nll_new").get<double>(), prompts.at(i).at("nll_true").get<double>()};
  };
  return {losses(0), {losses(1)}, {losses(2), losses(3)}};
}

json read(const char* name) {
  std::ifstream file(kGoldens / name);
  return json::parse(file);
}

std::string rounded(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f", value);
  return text;
}

void check_authors(const ScoreMean& mean, const json& authors) {
  REQUIRE(mean.mean);
  CHECK(rounded(100 * *mean.mean) == rounded(authors.at(0).get<double>()));
  CHECK(rounded(100 * *mean.deviation) == rounded(authors.at(1).get<double>()));
}

// The authors print means and deviations of their 21 cases, two neighbours each. Of successes these determine how many
// cases have 0, 1/2 and 1: with n the cases and a, b of 1 and 1/2, mean = (a + b/2) / n and mean square = (a + b/4) /
// n.
struct Counts {
  int ones = 0, halves = 0;
};
Counts counts_of(const json& authors, int cases) {
  const double mean = authors.at(0).get<double>() / 100, deviation = authors.at(1).get<double>() / 100;
  const double sum = mean * cases, squares = (deviation * deviation + mean * mean) * cases;
  const auto halves = static_cast<int>(std::lround(4 * (sum - squares)));
  return {static_cast<int>(std::lround(sum - halves / 2.0)), halves};
}

std::vector<double> successes(const json& authors, int cases) {
  const auto [ones, halves] = counts_of(authors, cases);
  std::vector<double> values(static_cast<std::size_t>(cases), 0.0);
  std::fill_n(values.begin(), ones, 1.0);
  std::fill_n(values.begin() + ones, halves, 0.5);
  return values;
}

TEST_CASE("means, deviations and S of the authors' 21 cases are those that their program prints") {
  if (testing::is_absent(kGoldens)) return;
  const auto summary = read("sequence.json").at("summary");
  const auto& authors = summary.at("authors");
  const int cases = static_cast<int>(summary.at("cases").size());
  REQUIRE(cases == 21);
  const auto of = [&](const char* name) { return successes(authors.at(name), cases); };
  const auto es0 = of("pre_rewrite_success"), ps0 = of("pre_paraphrase_success"), ns0 = of("pre_neighborhood_success");
  const auto es1 = of("post_rewrite_success"), ps1 = of("post_paraphrase_success"),
             ns1 = of("post_neighborhood_success");
  Lines lines;
  lines.add(header(cases));
  for (std::size_t i = 0; i < static_cast<std::size_t>(cases); ++i) {
    lines.add(edited(static_cast<std::int64_t>(i) + 1,
                     {edit(scores(es0[i], ps0[i], ns0[i]), scores(es1[i], ps1[i], ns1[i]))}));
  }
  const auto result = lines.result();
  const auto& group = result.layers.front();
  check_authors(group.before.of(Score::kES), authors.at("pre_rewrite_success"));
  check_authors(group.before.of(Score::kPS), authors.at("pre_paraphrase_success"));
  check_authors(group.before.of(Score::kNS), authors.at("pre_neighborhood_success"));
  check_authors(group.after.of(Score::kES), authors.at("post_rewrite_success"));
  check_authors(group.after.of(Score::kPS), authors.at("post_paraphrase_success"));
  check_authors(group.after.of(Score::kNS), authors.at("post_neighborhood_success"));
  CHECK(rounded(100 * *group.before.overall) == rounded(authors.at("pre_score").at(0).get<double>()));
  CHECK(rounded(100 * *group.after.overall) == rounded(authors.at("post_score").at(0).get<double>()));
}

TEST_CASE("scores of the authors' edits, summarised, are what their losses give by hand") {
  if (testing::is_absent(kGoldens)) return;
  const auto edits = read("rome.json").at("edits");
  REQUIRE(edits.size() == 8);
  Lines lines;
  lines.add(header(8));
  std::vector<double> magnitudes;
  double successes_after = 0, leaks = 0;
  std::int64_t order = 0;
  for (const auto& each : edits) {
    const auto before = golden_of(each.at("before")), after = golden_of(each.at("after"));
    lines.add(edited(++order, {edit(before.scores(), after.scores())}));
    const auto& prompt = each.at("after").at(0);
    magnitudes.push_back(prompt.at("p_new").get<double>() - prompt.at("p_true").get<double>());
    successes_after += prompt.at("nll_true").get<double>() > prompt.at("nll_new").get<double>() ? 1 : 0;
    for (const std::size_t i : {2U, 3U}) {
      const auto& neighbour = each.at("after").at(i);
      leaks += neighbour.at("p_new").get<double>() > neighbour.at("p_true").get<double>() ? 1 : 0;
    }
  }
  double mean = 0, square = 0;
  for (const double value : magnitudes) mean += value / 8;
  for (const double value : magnitudes) square += (value - mean) * (value - mean) / 8;
  const auto result = lines.result();
  const auto& after = result.layers.front().after;
  CHECK(*after.of(Score::kEM).mean == Approx(mean).epsilon(1e-9));
  CHECK(*after.of(Score::kEM).deviation == Approx(std::sqrt(square)).epsilon(1e-9));
  CHECK(*after.of(Score::kES).mean == Approx(successes_after / 8));
  CHECK(*after.of(Score::kNS).mean == Approx(1 - leaks / 16));
}

TEST_CASE("facts without paraphrases or neighbours count where they have something, and S needs all three") {
  Lines lines;
  lines.add(header(3));
  lines.add(edited(1, {edit(scores(0, 0, 1), scores(1, 1, 0.5))}));
  lines.add(
      edited(2, {edit(scores(0, std::nullopt, std::nullopt), scores(0, std::nullopt, std::nullopt), "no effect")}));
  lines.add(untouched(3, "skipped", "said_already"));
  const auto result = lines.result();
  const auto& group = result.layers.front();
  CHECK(result.records == 3);
  CHECK(result.status == std::map<std::string, std::int64_t>{{"edited", 2}, {"skipped", 1}});
  CHECK(result.causes == std::map<std::string, std::int64_t>{{"said_already", 1}});
  CHECK(group.facts == 2);
  CHECK(group.after.of(Score::kES).facts == 2);
  CHECK(*group.after.of(Score::kES).mean == 0.5);
  CHECK(*group.after.of(Score::kES).deviation == 0.5);
  CHECK(group.after.of(Score::kPS).facts == 1);
  CHECK(*group.after.overall == Approx(3 / (1 / 0.5 + 1 / 1.0 + 1 / 0.5)));
  CHECK(*group.before.overall == 0);
  CHECK(group.took == 1);
  CHECK(group.no_effect == 1);
  CHECK(group.with_neighbours == 1);

  Lines bare;
  bare.add(header(1));
  bare.add(edited(1, {edit(scores(0, std::nullopt, 1), scores(1, std::nullopt, 1))}));
  CHECK(!bare.result().layers.front().after.overall);
}

TEST_CASE("intervals are the bootstrap's over facts, the same of ES as a plain mean's and around S") {
  SummaryConfig config;
  config.replicates = 500;
  Lines lines(config);
  constexpr std::int64_t kFacts = 40;
  lines.add(header(kFacts));
  ClusterMeans plain(1, 500);
  PoissonWeights weights(config.seed, 500);
  for (std::int64_t i = 1; i <= kFacts; ++i) {
    const double success = i % 4 == 0 ? 0 : 1;
    lines.add(edited(i, {edit(scores(0, 0, 1), scores(success, success, i % 3 == 0 ? 0.5 : 1))}));
    plain.add(1, std::vector{success}, weights.draw());
  }
  const auto result = lines.result();
  const auto& after = result.layers.front().after;
  const auto expected = percentile_interval(plain.replicates(0));
  REQUIRE(expected);
  CHECK(after.of(Score::kES).bootstrap->low == Approx(expected->low));
  CHECK(after.of(Score::kES).bootstrap->high == Approx(expected->high));
  REQUIRE(after.overall_bootstrap);
  CHECK(after.overall_bootstrap->low < *after.overall);
  CHECK(after.overall_bootstrap->high > *after.overall);
  CHECK(after.overall_bootstrap->high - after.overall_bootstrap->low < 0.3);
}

TEST_CASE("relations are apart where they are asked for") {
  SummaryConfig config;
  config.by_relation = true;
  Lines lines(config);
  lines.add(header(3));
  lines.add(edited(1, {edit(scores(0, 0, 1), scores(1, 1, 1))}, "P1"));
  lines.add(edited(2, {edit(scores(0, 0, 1), scores(0, 0, 1), "took only behind prefixes", {0})}, "P2"));
  lines.add(edited(3, {edit(scores(0, 0, 1), scores(1, 0, 1))}, "P1"));
  const auto result = lines.result();
  REQUIRE(result.relations.size() == 2);
  CHECK(result.relations.front().first == "P1");
  CHECK(result.relations.front().second.front().facts == 2);
  CHECK(*result.relations.front().second.front().after.of(Score::kPS).mean == 0.5);
  CHECK(result.relations.back().second.front().behind_prefixes == 1);
  CHECK(result.relations.back().second.front().leaks == 1);
  CHECK(result.layers.front().facts == 3);
}

json traced(json line, double peak) {
  line["tracing"] = {
      {"high_score", 0.5}, {"low_score", 0.125}, {"mlp", {0.125, peak, 0.25}}, {"state", {0.25, 0.25, peak}}};
  return line;
}

TEST_CASE("several layers stand beside the tracing curve of the same facts") {
  Lines lines;
  lines.add(header(2, {json::array({0}), json::array({1}), json::array({2})}));
  const auto bad = edit(scores(0, 0, 1), scores(0, 0, 1), "no effect");
  const auto good = edit(scores(0, 0, 1), scores(1, 1, 1));
  const json refused = {{"layers", {2}}, {"cause", "key_ratio"}, {"reason", "because"}};
  lines.add(traced(edited(1, {bad, bad, good}), 0.375));
  lines.add(traced(edited(2, {bad, bad, refused}), 0.4375));
  const auto result = lines.result();
  REQUIRE(result.layers.size() == 3);
  CHECK(result.layers[2].layers == std::vector<std::int64_t>{2});
  CHECK(result.layers[2].facts == 1);
  CHECK(result.layers[2].refused == 1);
  CHECK(result.layers[1].facts == 2);
  REQUIRE(result.best);
  CHECK(result.best->layer == 2);
  CHECK(result.best->aie == 1);
  REQUIRE(result.tracing);
  CHECK(result.tracing->facts == 2);
  CHECK(result.tracing->window == 3);
  CHECK(result.tracing->mlp.effect == std::vector<double>{0, 0.28125, 0.125});
  CHECK(result.tracing->mlp.peak->layer == 1);
  CHECK(result.tracing->state.peak->layer == 2);
  CHECK(result.tracing->mlp.bootstrap_low.size() == 3);

  const auto record = to_json(result);
  CHECK(record["layers"][2]["after"]["S"]["mean"] == 100);
  CHECK(record["tracing"]["mlp"]["aie"][1] == 0.28125);
  CHECK(record["best"]["layer"] == 2);
  const auto text = render_edit_summary(result, {.columns = 80, .color = false});
  CHECK(text == Contains("S is largest in layer 2"));
  CHECK(unwrapped(text) == Contains("around layer 1"));
}

TEST_CASE("a table shows scores times 100 and what became of the edits") {
  Lines lines;
  lines.add(header(2));
  lines.add(edited(1, {edit(scores(0, 0, 1), scores(1, 1, 0.5), "took", {0})}));
  lines.add(edited(2, {edit(scores(0, 0, 1), scores(1, 0, 1))}));
  const auto text = render_edit_summary(lines.result(), {.columns = 80, .color = false});
  CHECK(text == Contains("ES        0.00       0.00    100.00       0.00   [100.00, 100.00]"));
  CHECK(text == Contains("PS        0.00       0.00     50.00      50.00"));
  CHECK(text == Contains("NS      100.00       0.00     75.00      25.00"));
  CHECK(text == Contains("leaks to a neighbour"));
  CHECK(text == Contains("1 of 2"));
  CHECK(unwrapped(text) == Contains("by rome in layer 1;"));
}

TEST_CASE("lines that do not belong together are refused, naming the line") {
  const auto message_after = [](const std::vector<json>& before, const json& line) {
    return message_of<Error>([&] {
      Lines lines;
      for (const auto& each : before) lines.add(each);
      lines.add(line);
    });
  };
  const auto good = edited(1, {edit(scores(0, 0, 1), scores(1, 1, 1))});
  CHECK(message_after({}, good) == Contains("line 1: no header before it"));
  CHECK(message_after({header(2), good}, good) == Contains("line 3: record 1 of"));
  CHECK(message_after({header(2)}, edited(3, {edit(scores(0, 0, 1), scores(1, 1, 1))})) == Contains("record 3 of 2"));
  auto other = header(2);
  other["edit"]["method"] = "r-rome";
  CHECK(message_after({header(2), good}, other) == Contains("edit.method is \"r-rome\"; expected \"rome\""));
  auto another_model = header(2);
  another_model["model"]["edits"] = {{{"sha256", "ab"}}};
  CHECK(message_after({header(2), good}, another_model) == Contains("model.edits"));
  auto renamed = header(2);
  renamed["model"]["name"] = "/elsewhere/tiny";
  renamed["shard"] = {{"index", 2}, {"count", 2}};
  CHECK(message_after({header(2), good}, renamed) == "(nothing thrown)");
  CHECK(message_after({header(2)}, edited(1, json::array())) == Contains("\"edits\" is no list of 1"));
  auto wrong = good;
  wrong["edits"][0]["scores"]["after"]["ES"] = "much";
  CHECK(message_after({header(2)}, wrong) == Contains("\"ES\" is no number"));
  wrong["edits"][0]["scores"]["after"]["ES"] = 100;
  CHECK(message_after({header(2)}, wrong) == Contains("\"ES\" is 100, not within -1 and 1"));
  wrong = good;
  wrong["edits"][0]["verdict"]["outcome"] = "fine";
  CHECK(message_after({header(2)}, wrong) == Contains("\"outcome\" is \"fine\""));
  auto probe = header(2);
  probe["command"] = "probe";
  CHECK(message_after({header(2)}, probe) == Contains("results of \"probe\" among those of edits"));
}

}  // namespace
}  // namespace rometrace::edit_summary_test
