#include "rometrace/report/record_comparison.hpp"

#include <cmath>
#include <limits>

#include "checks.hpp"

namespace rometrace::record_comparison_test {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr Rounding kRounding{1e-4, 1e-6};

TraceRecord record() {
  TraceRecord record;
  record.prompt.token_ids = {1, 2};
  record.trace.answer_ids = {7};
  record.trace.prediction_id = 7;
  record.trace.prediction_score = record.trace.high_score = 0.5;
  record.trace.low_score = 0.1;
  record.trace.low_standard_error = 0.02;
  record.trace.tokens = record.trace.layers = 2;
  CausalGrid grid;
  grid.kind = Kind::kHead;
  grid.positions = {0, 1};
  grid.heads = 2;
  grid.scores.assign(8, 0.25);
  grid.standard_error.assign(8, 1e-5);
  for (const auto measure : {Measure::kRank, Measure::kLogit}) {
    record.options.measures.push_back(measure);
    record.trace.measured.push_back({{measure, 0}, 3, 4, 0.5});
    grid.measured.push_back({std::vector<double>(8, 4), std::vector<double>(8, 0.5)});
  }
  record.trace.grids.push_back(grid);
  return record;
}

TraceRecord with_neurons() {
  auto all = record();
  all.trace.neurons.emplace().positions = {1};
  for (const auto& [neuron, estimate] : {std::pair{17, 0.3}, {5, -0.2}, {9, 0.1}}) {
    NeuronEffect effect;
    effect.layer = 1;
    effect.position = 1;
    effect.neuron = neuron;
    effect.estimate = estimate;
    effect.run = {0.25, 1e-5, {{3, 0.5}, {3, 0.5}}};
    all.trace.neurons->effects.push_back(effect);
  }
  return all;
}

}  // namespace

TEST_CASE("a record equals itself to the last bit, what is no number included") {
  auto all = with_neurons();
  all.trace.grids[0].standard_error[3] = kNan;
  const auto found = compare_records(all, all, kRounding);
  CHECK(found.equal());
  CHECK(!found.largest);
  CHECK(found.numbers == 4 + 2 * 3 + 8 * 6 + 3 * 9);
}

TEST_CASE("numbers may differ by what is stated, and are named by their place") {
  const auto was = record();
  auto is = was;
  is.trace.grids[0].scores[5] = 0.25 * (1 + 0.9e-4);
  auto found = compare_records(was, is, kRounding);
  CHECK(found.equal());
  REQUIRE(found.largest);
  CHECK(found.largest->path == "grids.head.scores[1][0][1]");
  CHECK(found.largest->was == 0.25);
  is.trace.grids[0].scores[5] = 0.25 * (1 + 1.2e-4);
  is.trace.low_score = kNan;
  found = compare_records(was, is, kRounding);
  REQUIRE(found.beyond.size() == 2);
  CHECK(found.beyond[0].path == "low_score");
  CHECK(std::isinf(found.beyond[0].excess));
  CHECK(found.largest->path == "low_score");
  CHECK(!found.equal());
}

TEST_CASE("an error is as exact as its score, a logit as those around 10, and a rank may move by one") {
  const auto was = record();
  auto is = was;
  is.trace.grids[0].standard_error[0] = 1e-5 + 2e-5;  // of a score of 0.25
  is.trace.grids[0].measured[1].values[0] = 4 + 9e-4;
  is.trace.grids[0].measured[0].values[0] = 5;
  CHECK(compare_records(was, is, kRounding).equal());
  is.trace.grids[0].standard_error[0] = 1e-5 + 4e-5;
  is.trace.grids[0].measured[1].values[0] = 4 + 2e-3;
  is.trace.grids[0].measured[0].values[0] = 5.1;
  const auto found = compare_records(was, is, kRounding);
  REQUIRE(found.beyond.size() == 3);
  CHECK(found.beyond[0].path == "grids.head.standard_error[0][0][0]");
  CHECK(found.beyond[1].path == "measures.rank.grids.head.values[0][0][0]");
  CHECK(found.beyond[2].path == "measures.logit.grids.head.values[0][0][0]");
}

TEST_CASE("neurons are compared by name, and only the last may be another") {
  const auto was = with_neurons();
  auto is = was;
  std::swap(is.trace.neurons->effects[0], is.trace.neurons->effects[1]);
  CHECK(compare_records(was, is, kRounding).equal());
  is.trace.neurons->effects[2].neuron = 10;  // as strong as the one that was last
  CHECK(compare_records(was, is, kRounding).equal());
  is = was;
  is.trace.neurons->effects[0].neuron = 18;
  const auto found = compare_records(was, is, kRounding);
  REQUIRE(found.others.size() == 2);
  CHECK(found.others[0].starts_with("the file alone has neurons.effects[1:17, position 1].estimate and 8 other"));
  CHECK(found.others[1].starts_with("this run alone has neurons.effects[1:18, position 1].estimate"));
}

TEST_CASE("another answer and other tokens are said, and of what was skipped only the clean run counts") {
  auto was = record();
  auto is = was;
  is.trace.prediction_id = 8;
  is.prompt.token_ids = {1, 3};
  CHECK(compare_records(was, is, kRounding).others.size() == 2);
  was.verdict = is.verdict = Verdict::skipped(Cause::kOtherAnswer, "another");
  is = was;
  is.trace.low_score = 0.9;
  const auto found = compare_records(was, is, kRounding);
  CHECK(found.equal());
  CHECK(found.numbers == 2);
}

TEST_CASE("every dtype has its rounding") {
  CHECK(Rounding::of_dtype("float64").relative == 1e-9);
  CHECK(Rounding::of_dtype("float32").absolute == 1e-6);
  CHECK(Rounding::of_dtype("float16").relative < Rounding::of_dtype("bfloat16").relative);
  CHECK(Rounding::of_tolerance(0.5).absolute == 0.005);
}

}  // namespace rometrace::record_comparison_test
