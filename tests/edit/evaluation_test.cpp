#include "rometrace/edit/evaluation.hpp"

#include <cmath>
#include <vector>

#include "checks.hpp"
#include "closeness.hpp"

namespace rometrace::evaluation_test {
namespace {

using doctest::Approx;

double of(const CaseScores& scores, Score score) {
  const auto& value = score_of(scores, score);
  REQUIRE(value);
  return *value;
}

// By a probability each.
ObjectLosses losses(double p_new, double p_true) {
  return {-std::log(p_new), -std::log(p_true)};
}

TEST_CASE("a case's scores are means over its prompts of who is the more probable, and by how much") {
  const std::vector<ObjectLosses> paraphrases = {losses(0.5, 0.1), losses(0.2, 0.3), losses(0.6, 0.2)};
  const std::vector<ObjectLosses> neighbours = {losses(0.1, 0.7), losses(0.4, 0.2)};
  const auto scores = case_scores(losses(0.9, 0.05), paraphrases, neighbours);
  CHECK(of(scores, Score::kES) == 1);
  CHECK(of(scores, Score::kEM) == Approx(0.85));
  CHECK(of(scores, Score::kPS) == Approx(2.0 / 3));
  CHECK(of(scores, Score::kPM) == Approx((0.4 - 0.1 + 0.4) / 3));
  CHECK(of(scores, Score::kNS) == 0.5);
  CHECK(of(scores, Score::kNM) == Approx((0.6 - 0.2) / 2));
}

TEST_CASE("a tie is no success on any prompt") {
  const std::vector<ObjectLosses> tie = {losses(0.25, 0.25)};
  const auto scores = case_scores(tie.front(), tie, tie);
  for (const auto score : {Score::kES, Score::kPS, Score::kNS, Score::kEM, Score::kPM, Score::kNM}) {
    CHECK(of(scores, score) == 0);
  }
}

TEST_CASE("successes compare losses, so that what underflows as a probability is still told apart") {
  const auto scores = case_scores({1000, 1001}, {}, {});
  CHECK(of(scores, Score::kES) == 1);
  CHECK(of(scores, Score::kEM) == 0);
}

TEST_CASE("without paraphrases or neighbours there is no score of them") {
  const auto scores = case_scores(losses(0.9, 0.1), {}, {});
  CHECK(score_of(scores, Score::kES));
  for (const auto score : {Score::kPS, Score::kPM, Score::kNS, Score::kNM}) CHECK(!score_of(scores, score));
}

TEST_CASE("a loss is the mean over an object's tokens, so its probability is their geometric mean") {
  PromptMeasure measure;
  measure.new_object.log_p = {std::log(0.5), std::log(0.125)};
  measure.true_object.log_p = {std::log(0.2)};
  const auto scores = case_scores(losses_of(measure), {}, {});
  CHECK(of(scores, Score::kEM) == Approx(0.25 - 0.2));
}

TEST_CASE("S is the harmonic mean, and 0 where a success is") {
  CHECK(overall_score(1, 1, 1) == Approx(1));
  CHECK(overall_score(0.5, 0.25, 1) == Approx(3.0 / 7));
  CHECK(overall_score(1, 0, 1) == 0);
}

}  // namespace
}  // namespace rometrace::evaluation_test
