#include "rometrace/report/summary_result_reader.hpp"

#include <algorithm>
#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "checks.hpp"
#include "files.hpp"
#include "json_damage.hpp"
#include "rometrace/error.hpp"
#include "rometrace/report/summary_json.hpp"
#include "rometrace/report/summary_text.hpp"
#include "summary/summary_lines.hpp"

namespace rometrace::summary_result_reader_test {
namespace {

using testing::as_text;
using testing::Contains;
using testing::header_line;
using testing::message_of;
using testing::neuron_line;
using testing::TemporaryFolder;
using testing::traced_line;
using testing::untraced_line;
using testing::whole_line;
using Ordered = nlohmann::ordered_json;

const std::string kWhere = "summary.json";

SummaryResult summary_of(const std::vector<nlohmann::json>& lines, const SummaryConfig& config) {
  const TemporaryFolder folder;
  Summary summary(config);
  SummaryReader reader(folder.write("results.jsonl", as_text(lines)).string());
  SummaryLine line;
  while (reader.next(line)) summary.add(line);
  summary.end_file(reader);
  auto result = summary.result();
  result.files = {"results.jsonl"};
  return result;
}

nlohmann::json with_readings(std::int64_t record) {
  auto line = traced_line(record);
  const auto scores = line["grids"]["state"]["scores"];
  line["measures"] = {
      {"rank", {{"high", 1}, {"low", 5}, {"grids", {{"state", {{"values", scores}}}}}}},
      {"normalised", {{"of", "probability"}, {"high", 1}, {"low", 0}, {"grids", {{"state", {{"values", scores}}}}}}}};
  line["other_targets"] = {
      {{"target", " b"}, {"high_score", 0.25}, {"low_score", 0.125}, {"grids", {{"mlp", {{"scores", scores}}}}}}};
  return line;
}

nlohmann::json in_both_directions(std::int64_t record) {
  auto line = whole_line(record, {2, 4});
  line["run"]["direction"] = "both";
  line["noising"]["grids"] = line["grids"];
  return line;
}

/// Summaries of all sorts; by name.
std::vector<std::pair<std::string, SummaryResult>> summaries() {
  const SummaryConfig by_relation{true, 20, 3}, plain{false, 0, 1};
  auto noising = traced_line(1);
  noising["run"]["direction"] = "noising";
  noising["run"]["precision"] = {{"asked", 0.01}, {"reached", 0.005}, {"most_samples", 100}};
  const auto skipped = untraced_line(3, "skipped", "other_answer"), failed = untraced_line(4, "failed", "record");
  return {
      {"a batch", summary_of({header_line(4), traced_line(1), traced_line(2, 6, 0, 2), skipped, failed}, by_relation)},
      {"one fact", summary_of({traced_line(1)}, plain)},
      {"nothing traced", summary_of({failed}, by_relation)},
      {"all kinds", summary_of({whole_line(1, {2, 4}), whole_line(2, {2})}, by_relation)},
      {"noising", summary_of({noising}, plain)},
      {"both directions", summary_of({in_both_directions(1), in_both_directions(2)}, {false, 20, 3})},
      {"readings", summary_of({with_readings(1), with_readings(2)}, by_relation)},
      {"neurons", summary_of({neuron_line(1, "plays", "Ada", {{3, 0.5}, {1, 0.1}}, 2),
                              neuron_line(2, "plays", "Bo", {{3, 0.3}, {2, 0.2}}, nullptr)},
                             by_relation)}};
}

TEST_CASE("a summary that is read gives the JSON and the text that it was written as") {
  for (const auto& [name, summary] : summaries()) {
    CAPTURE(name);
    const auto json = Ordered::parse(to_json(summary).dump());
    const auto read = read_summary_result(json, kWhere);
    CHECK(to_json(read).dump() == json.dump());
    const TerminalStyle style = {90, true, true, true};
    CHECK(render_summary(read, style) == render_summary(summary, style));
    CHECK((name == "both directions") == !read.overall.interactions.empty());
  }
}

TEST_CASE("a damaged summary is refused in one line that says where, or shown as something") {
  std::int64_t refused = 0, shown = 0;
  for (const auto& [name, summary] : summaries()) {
    if (name == "a batch" || name == "nothing traced" || name == "both directions") continue;  // others have all of it
    auto json = to_json(summary);
    testing::for_each_damage(json, json, [&](const Ordered& damaged) {
      try {
        const auto text = render_summary(read_summary_result(damaged, kWhere), {80, false, false, true});
        CHECK_FALSE(text.empty());
        ++shown;
      } catch (const Error& error) {
        const std::string message = error.what();
        CHECK_MESSAGE(message.starts_with(kWhere + ": "), message);
        CHECK_MESSAGE(testing::is_one_line(message), message);
        ++refused;
      }
    });
  }
  CHECK(refused > 1000);
  CHECK(shown > 100);
}

TEST_CASE("what is wrong with a summary is said with its place") {
  const auto refusal = [](const std::function<void(Ordered&)>& change) {
    auto json = to_json(summary_of({traced_line(1)}, {false, 0, 1}));
    change(json);
    return message_of<Error>([&] { read_summary_result(json, kWhere); });
  };
  const std::string end = "; expected a summary as rometrace writes it (docs/formats.md)";
  CHECK(refusal([](Ordered& json) { json.erase("overall"); }) == "summary.json: overall is missing" + end);
  CHECK(refusal([](Ordered& json) { json["overall"]["kinds"]["mlp"]["roles"]["last"]["peak"]["layer"] = 2; }) ==
        "summary.json: overall.kinds.mlp.roles.last.peak.layer is 2, more than 1" + end);
  CHECK(refusal([](Ordered& json) { json["overall"]["high_score"]["mean"] = nullptr; }) ==
        "summary.json: overall.high_score.mean is missing" + end);
  CHECK(refusal([](Ordered& json) { json["schema"] = "rometrace/summary/2"; }) ==
        Contains("of the schema \"rometrace/summary/2\"; expected rometrace/summary/1"));
}

TEST_CASE("settings that an older summary lacks are not told") {
  auto json = to_json(summary_of({traced_line(1)}, {false, 0, 1}));
  json["run"] = {{"dtype", "float32"}, {"seed", 1}};
  CHECK(render_summary(read_summary_result(json, kWhere), {80, false, false, true}) == Contains("seed 1, float32"));
}

}  // namespace
}  // namespace rometrace::summary_result_reader_test
