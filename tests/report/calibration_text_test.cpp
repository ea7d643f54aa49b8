#include "rometrace/report/calibration_text.hpp"

#include <nlohmann/json.hpp>
#include <sstream>

#include "checks.hpp"
#include "files.hpp"
#include "report/widest_line.hpp"
#include "summary/summary_lines.hpp"

namespace rometrace::calibration_text_test {
namespace {

using namespace testing;

const FactsSource kSource = {"facts.json", std::string(64, 'a'), 3, "made up"};
const TerminalStyle kPlain = {80, false, false, true};

SummaryLine line_of(Json line, double low) {
  line["low_score"] = low;
  line["total_effect"] = line["high_score"].get<double>() - low;
  line["low_standard_error"] = nullptr;
  return parse_summary_line(line.dump(), "line");
}

/// Two facts of three, traced with two factors; the weak one leaves all but a 24th of the answer.
CalibrationRecord example() {
  Calibration calibration({1.5, 3}, {false, 100, 1});
  for (std::int64_t fact : {1, 2}) {
    calibration.add(0, line_of(traced_line(fact), 0.71875));
    calibration.add(1, line_of(traced_line(fact), 0.125));
  }
  calibration.add(0, parse_summary_line(untraced_line(3, "skipped", "other_answer").dump(), "line"));
  CalibrationRecord record;
  record.batch.model.name = "a\x1b[31mmodel";
  record.batch.options.trace.samples = 10;
  record.batch.sources = std::span(&kSource, 1);
  record.subjects_std = 0.0857;
  record.result = calibration.result();
  return record;
}

}  // namespace

TEST_CASE("a calibration says what each factor takes away, where effects peak, and what is recommended") {
  const auto text = render_calibration(example(), kPlain);
  CHECK(text == Contains("3 facts of facts.json: 2 traced, 1 skipped, 0 failed (other_answer 1)\n"));
  CHECK(text == Contains("sigma = factor x 0.0857"));
  CHECK(text == Contains("\nclean: 75.00  [ 75.00,  75.00]\n"));
  CHECK(text == Contains("\n   1.5   71.88  [ 71.88,  71.88]    3.12  [  3.12,   3.12]     4       5    100\n"));
  CHECK(text == Contains("\n     3   12.50  [ 12.50,  12.50]   62.50  [ 62.50,  62.50]    83     100      0\n"));
  CHECK(text == Contains("\nmlp: the MLP's output restored in 10 layers around each layer\n"));
  // The weak factor's effects are all below 0, as its low_score is above the scores.
  CHECK(text == Contains("\n   1.5       2                                  none                         no\n"));
  CHECK(text == Contains("\n     3       2    6.00  [  6.00,   6.00]           1       100 %     1-1     no\n"));
  CHECK(text == Contains("No factor is recommended: "));
}

TEST_CASE("no line of a calibration is wider than the terminal or holds a control character of a file's") {
  for (const int columns : {79, 100}) {
    const auto text = render_calibration(example(), {columns, false, false, false});
    CHECK(widest_line(text) <= columns);
    std::istringstream lines(text);
    std::string line;
    while (std::getline(lines, line)) {
      CAPTURE(line);
      CHECK(is_one_line(line));
      CHECK_FALSE(line.ends_with(' '));
    }
  }
}

TEST_CASE("a recommendation names the option's value") {
  CHECK(recommendation_text({2.5, "factor 2.5 is good"}) == "Recommended: --noise s2.5, as factor 2.5 is good");
  CHECK(recommendation_text({std::nullopt, "no fact was traced"}) == "No factor is recommended: no fact was traced");
}

TEST_CASE("a calibration without traces has no tables") {
  auto record = example();
  record.result = Calibration({1, 2}).result();
  const auto text = render_calibration(record, kPlain);
  CHECK(text == Contains("No factor is recommended: no fact was traced.\n"));
  CHECK(text.find("clean") == std::string::npos);
}

TEST_CASE("a calibration's record has each factor's numbers, and null for what does not exist") {
  const auto json = to_json(example());
  CHECK(json["schema"] == "rometrace/calibration/1");
  CHECK(json["run"]["noise"]["subjects_std"] == 0.0857);
  CHECK(json["status"]["traced"] == 2);
  CHECK(json["status"]["skipped"] == 1);
  CHECK(json["rule"] == recommendation_rule());
  const auto& factor = json["factors"][0];
  CHECK(factor["factor"] == 1.5);
  CHECK(factor["noise"]["rule"] == "s1.5");
  CHECK(factor["noise"]["sigma"] == 1.5 * 0.0857);
  CHECK(factor["hardly_lowered"]["facts"] == 2);
  CHECK(factor["hardly_lowered"]["share"] == 1.0);
  CHECK(factor["kinds"]["mlp"]["peak"].is_null());
  CHECK(factor["kinds"]["mlp"]["facts"] == 2);
  CHECK(json["factors"][1]["kinds"]["mlp"]["peak"]["layer"] == 1);
  CHECK(json["factors"][1]["strong_enough"] == true);
  CHECK(json["recommendation"]["factor"].is_null());
}

}  // namespace rometrace::calibration_text_test
