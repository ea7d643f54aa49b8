#include "rometrace/study/calibration.hpp"

#include <limits>

#include "checks.hpp"
#include "files.hpp"
#include "rometrace/error.hpp"
#include "summary/summary_lines.hpp"

namespace rometrace::calibration_test {
namespace {

using namespace testing;
using doctest::Approx;

/// A factor whose mean total effect is `effect` and whose kinds peak at these layers; -1: no peak.
FactorResult made(double factor, double effect, const std::vector<std::pair<std::string, std::int64_t>>& peaks) {
  FactorResult result;
  result.factor = factor;
  result.facts = 10;
  result.total_effect.facts = 10;
  result.total_effect.mean = effect;
  for (const auto& [kind, layer] : peaks) {
    KindPeak peak;
    peak.kind = kind;
    if (layer >= 0) peak.peak = Peak{layer, std::nullopt, 0.1, std::nullopt, std::nullopt};
    result.kinds.push_back(peak);
  }
  return result;
}

FactorResult state(double factor, double effect, std::int64_t layer) {
  return made(factor, effect, {{"state", layer}});
}

std::string reason(std::vector<FactorResult> factors) {
  const auto recommendation = recommend(factors);
  CHECK_FALSE(recommendation.factor);
  return recommendation.reason;
}

SummaryLine line_of(const Json& json, const std::string& where = "line") {
  return parse_summary_line(json.dump(), where);
}

/// traced_line() with another answer's probability under noise; its effects stay what they are.
Json corrupted_line(std::int64_t record, double low) {
  auto line = traced_line(record);
  const double up = low - 0.125;
  for (auto* grid : {&line["grids"]["state"], &line["grids"]["mlp"]}) {
    for (auto& row : (*grid)["scores"]) {
      for (auto& score : row) score = score.get<double>() + up;
    }
  }
  line["low_score"] = low;
  line["total_effect"] = 0.75 - low;
  line["low_standard_error"] = nullptr;
  return line;
}

}  // namespace

TEST_CASE("the smallest factor of nearly the full effect and a steady peak is recommended") {
  std::vector<FactorResult> factors = {state(1, 0.2, 6), state(2, 0.46, 5), state(3, 0.47, 3), state(4, 0.49, 4),
                                       state(5, 0.5, 4)};
  const auto recommendation = recommend(factors);
  CHECK(recommendation.factor == 3);
  CHECK(
      recommendation.reason ==
      "factor 3 is the smallest that takes away at least 90 % of the total effect of factor 5, the largest, and whose "
      "peak layers lie within one layer of those of factor 4");
  // Factor 1 is steady but weak, factor 2 strong but two layers from factor 3.
  std::vector<bool> strong, stable;
  for (const auto& factor : factors) {
    strong.push_back(factor.strong_enough);
    stable.push_back(factor.kinds.front().stable.value());
  }
  CHECK(strong == std::vector<bool>{false, true, true, true, true});
  CHECK(stable == std::vector<bool>{true, false, true, true, true});
}

TEST_CASE("every kind has to keep its peak") {
  std::vector<FactorResult> factors = {made(1, 0.5, {{"state", 1}, {"mlp", 5}}),
                                       made(2, 0.5, {{"state", 1}, {"mlp", 2}}),
                                       made(3, 0.5, {{"state", 2}, {"mlp", 3}})};
  CHECK(recommend(factors).factor == 2);
  factors[2].kinds[1].peak->layer = 0;
  CHECK_FALSE(recommend(factors).factor);
  CHECK(reason(factors) ==
        "of the factors that take away at least 90 % of the total effect of factor 3, the largest (1, 2, 3), none has "
        "all its peak layers within one layer of its neighbour's (mlp)");
}

TEST_CASE("the largest factor is compared with the one before") {
  std::vector<FactorResult> factors = {state(1, 0.1, 5), state(2.5, 0.5, 4)};
  const auto recommendation = recommend(factors);
  CHECK(recommendation.factor == 2.5);
  CHECK(recommendation.reason ==
        "factor 2.5, the largest, is the only one that takes away at least 90 % of its total effect and whose peak "
        "layers lie within one layer of those of factor 1; the effect still grows with the factor, so larger ones are "
        "worth trying");
  // A weaker effect of the largest factor is the measure all the same.
  factors = {state(1, 0.5, 5), state(2, 0.3, 4)};
  CHECK(recommend(factors).factor == 1);
}

TEST_CASE("without a neighbour, a peak, an effect or a fact no factor is recommended, and it is said why") {
  CHECK(reason({state(3, 0.5, 4)}) ==
        "peak layers are compared between neighbouring factors, and there is only one; expected two or more");
  CHECK(reason({made(1, 0.5, {{"state", 2}, {"mlp", -1}}), made(2, 0.5, {{"state", 2}, {"mlp", -1}})}) ==
        "restored at the last subject token, mlp brings nothing back on average, so there is no peak to compare");
  CHECK(reason({state(1, -0.1, 4), state(2, -0.2, 4)}) ==
        "not even factor 2 takes away any of the answer's probability on average");
  CHECK(reason({state(1, 0, 4), state(2, 0, 4)}) == Contains("not even factor 2"));
  CHECK(reason({state(1, 0.3, 4), state(2, -0.2, 4)}) == Contains("not even factor 2"));
  FactorResult none;
  none.factor = 1;
  CHECK(reason({none, none}) == "no fact was traced");
  CHECK(reason({state(0.5, 0.5, 4), none}) == "with factor 1 no fact's scores are numbers");
  CHECK(reason({}) == "no factor was tried");
}

TEST_CASE("a factor whose peak is missing is a neighbour to none") {
  std::vector<FactorResult> factors = {state(1, 0.5, 4), state(2, 0.5, -1), state(3, 0.5, 4), state(4, 0.5, 4)};
  CHECK(recommend(factors).factor == 3);
  CHECK(factors[0].kinds[0].stable == false);
  CHECK(factors[1].kinds[0].stable == false);
}

TEST_CASE("a negative effect is not strong enough, however small the largest factor's") {
  std::vector<FactorResult> factors = {state(1, -0.001, 4), state(2, 0.001, 4)};
  CHECK(recommend(factors).factor == 2);
  CHECK_FALSE(factors[0].strong_enough);
}

TEST_CASE("a calibration averages each factor's lines, and counts what was not traced once") {
  Calibration calibration({1, 2}, {false, 100, 1});
  calibration.add(0, line_of(corrupted_line(1, 0.75 - 1.0 / 32)));  // falls by a 24th
  calibration.add(0, line_of(corrupted_line(2, 0.5)));
  calibration.add(0, line_of(untraced_line(3, "skipped", "other_answer")));
  calibration.add(0, line_of(untraced_line(4, "failed", "record")));
  calibration.add(1, line_of(corrupted_line(1, 0.125)));
  calibration.add(1, line_of(corrupted_line(2, 0.25)));
  const auto result = calibration.result();
  CHECK(result.records == 4);
  CHECK(result.traced == 2);
  CHECK(result.skipped == 1);
  CHECK(result.failed == 1);
  CHECK(result.causes == std::map<std::string, std::int64_t>{{"other_answer", 1}, {"record", 1}});
  CHECK(result.warnings.empty());
  REQUIRE(result.factors.size() == 2);
  const auto& weak = result.factors[0];
  CHECK(weak.facts == 2);
  CHECK(weak.hardly_lowered == 1);
  CHECK(*weak.total_effect.mean == Approx(9.0 / 64));
  CHECK(*weak.lost == Approx(9.0 / 48));
  CHECK_FALSE(weak.strong_enough);
  const auto& strong = result.factors[1];
  CHECK(strong.hardly_lowered == 0);
  CHECK(*strong.total_effect.mean == Approx(0.5625));
  REQUIRE(strong.kinds.size() == 2);
  CHECK(strong.kinds[0].kind == "state");
  CHECK(strong.kinds[1].window == 10);
  // The last subject token is token 2: 0.03 at layer 0, 0.06 at layer 1.
  CHECK(strong.kinds[1].peak->layer == 1);
  CHECK(*strong.kinds[1].aie.mean == Approx(0.06));
  CHECK(strong.kinds[1].aie.facts == 2);
  CHECK(strong.kinds[1].aie.bootstrap->low == Approx(0.06));
  CHECK(strong.kinds[1].aie.normal->high == Approx(0.06));
  CHECK(strong.kinds[1].peak->share == 1.0);
  CHECK(result.recommendation.factor == 2);
}

TEST_CASE("a peak without an average effect above 0 is none") {
  auto line = traced_line(1);
  for (auto& score : line["grids"]["state"]["scores"][2]) score = 0.125;
  Calibration calibration({3});
  calibration.add(0, line_of(line));
  const auto factor = calibration.result().factors.at(0);
  CHECK_FALSE(factor.kinds[0].peak);
  CHECK(factor.kinds[0].aie.facts == 1);
  CHECK(factor.kinds[1].peak);
  CHECK_FALSE(factor.kinds[1].aie.standard_error);
}

TEST_CASE("facts whose scores are no numbers under one factor are told") {
  Calibration calibration({1, 2});
  auto broken = corrupted_line(2, 0.75);
  broken["grids"]["state"]["scores"][2][0] = nullptr;
  calibration.add(0, line_of(corrupted_line(1, 0.25)));
  calibration.add(0, line_of(corrupted_line(2, 0.25)));
  calibration.add(1, line_of(corrupted_line(1, 0.25)));
  calibration.add(1, line_of(broken));
  const auto result = calibration.result();
  CHECK(result.factors[1].facts == 1);
  CHECK(result.factors[1].hardly_lowered == 0);
  REQUIRE(result.warnings.size() == 1);
  CHECK(result.warnings[0] == "factor 2: averages over 1 facts, not 2: the scores of the others are not numbers there");
}

TEST_CASE("a calibration without a line has no numbers and no recommendation") {
  const auto result = Calibration({1, 3}).result();
  CHECK(result.records == 0);
  REQUIRE(result.factors.size() == 2);
  CHECK_FALSE(result.factors[1].total_effect.mean);
  CHECK_FALSE(result.factors[1].lost);
  CHECK(result.recommendation.reason == "no fact was traced");
}

TEST_CASE("factors ascend and are above 0") {
  CHECK_THROWS_WITH_AS(Calibration({}), "no noise factor; expected one or more, such as 1,3,5", Error);
  CHECK_THROWS_WITH_AS(Calibration({0}), "noise factor 0; expected a number above 0", Error);
  CHECK_THROWS_AS(Calibration({std::numeric_limits<double>::infinity()}), Error);
  CHECK_THROWS_WITH_AS(Calibration({1, 2.5, 2.5}), "noise factor 2.5 after 2.5; expected ascending ones", Error);
}

}  // namespace rometrace::calibration_test
