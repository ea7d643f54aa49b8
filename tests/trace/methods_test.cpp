#include <cmath>
#include <map>
#include <memory>

#include "checks.hpp"
#include "closeness.hpp"
#include "golden_methods.hpp"
#include "rometrace/trace/clean_run.hpp"
#include "rometrace/trace/plain.hpp"
#include "rometrace/trace/sweep.hpp"

// Every kind, direction, corruption, answer and measure against an independent tracer over transformers
// (tests/judge/make_goldens.py --methods).

namespace rometrace::methods_test {
namespace {

using nlohmann::json;
using testing::Closeness;
using testing::named;
using testing::place_of;

// The numbers of a list of lists, in order; null is NaN.
void flatten(const json& value, std::vector<double>& numbers) {
  if (value.is_array()) {
    for (const auto& item : value) flatten(item, numbers);
  } else {
    numbers.push_back(value.is_null() ? std::nan("") : value.get<double>());
  }
}

void compare_list(Closeness& closeness, const std::string& where, const std::vector<double>& found, const json& list) {
  std::vector<double> expected;
  flatten(list, expected);
  REQUIRE(found.size() == expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    closeness.compare(where + " [" + std::to_string(i) + "]", found[i], expected[i]);
  }
}

void compare_measured(Closeness& values, Closeness& errors, const Trace& trace, std::size_t place, const json& expected,
                      const char* high, const char* low, const char* cells) {
  REQUIRE(place < trace.measured.size());
  values.compare(high, trace.measured[place].high, expected.at(high));
  values.compare(low, trace.measured[place].low, expected.at(low));
  for (const auto& grid : trace.grids) {
    if (grid.kind == Kind::kKnockout) continue;
    const auto& of_kind = expected.at("grids").at(std::string(to_string(grid.kind)));
    compare_list(values, cells, grid.measured[place].values, of_kind.at(cells));
    compare_list(errors, cells, grid.measured[place].standard_error, of_kind.at("standard_error"));
  }
}

void compare(const Trace& trace, const json& expected) {
  Closeness scores({1e-9, 1e-12}), errors({1e-6, 1e-9}), values({1e-9, 1e-9});
  CHECK(trace.answer_ids == expected.at("answer_ids").get<std::vector<std::int32_t>>());
  CHECK(trace.prediction_id == expected.at("prediction_id"));
  CHECK(trace.samples == expected.at("samples"));
  scores.compare("prediction_score", trace.prediction_score, expected.at("prediction_score"));
  scores.compare("high_score", trace.high_score, expected.at("high_score"));
  scores.compare("low_score", trace.low_score, expected.at("low_score"));
  errors.compare("nothing", 0, 0);
  values.compare("nothing", 0, 0);
  const auto L = static_cast<std::size_t>(trace.layers);
  for (const auto& grid : trace.grids) {
    const std::string kind(to_string(grid.kind));
    CAPTURE(kind);
    if (grid.kind == Kind::kKnockout) {
      REQUIRE(grid.groups.size() == expected.at("knockout").size());
      for (std::size_t i = 0; i < grid.groups.size(); ++i) {
        const auto& group = expected.at("knockout").at(std::string(grid.groups[i].name));
        const auto begin = grid.scores.begin() + static_cast<std::ptrdiff_t>(i * L);
        compare_list(scores, "knockout", {begin, begin + static_cast<std::ptrdiff_t>(L)}, group.at("scores"));
        std::vector<std::size_t> positions;
        for (auto at = grid.groups[i].keys.begin; at < grid.groups[i].keys.end; ++at) positions.push_back(at);
        CHECK(positions == group.at("positions").get<std::vector<std::size_t>>());
      }
      continue;
    }
    CHECK(grid.positions == expected.at("positions").get<std::vector<std::int64_t>>());
    compare_list(scores, kind, grid.scores, expected.at("grids").at(kind).at("scores"));
    compare_list(errors, kind, grid.standard_error, expected.at("grids").at(kind).at("standard_error"));
  }
  for (const auto& [name, measure] : expected.at("measures").items()) {
    CAPTURE(name);
    if (name == "normalised" || name == "probability") continue;  // made of others when they are reported
    const auto which = named(json(name), {Measure::kLogProbability, Measure::kLogit, Measure::kLogitDifference,
                                          Measure::kRank, Measure::kKl});
    compare_measured(values, errors, trace, place_of(trace, {which, 0}), measure, "high", "low", "values");
  }
  for (std::size_t i = 0; i < expected.at("other_targets").size(); ++i) {
    compare_measured(scores, errors, trace, place_of(trace, {Measure::kProbability, i + 1}),
                     expected.at("other_targets")[i], "high_score", "low_score", "scores");
  }
  scores.check();
  errors.check();
  values.check();
}

TEST_CASE("both engines give the numbers of an independent tracer for the whole method") {
  const auto root = std::filesystem::path(ROMETRACE_SOURCE_DIR) / "tests/goldens";
  std::map<std::string, std::shared_ptr<const Decoder>> models;
  const auto goldens = testing::read_golden(root / "methods.json").at("traces");
  CHECK(!goldens.empty());
  for (const auto& golden : goldens) {
    const std::string about = golden.at("about"), name = golden.at("model");
    CAPTURE(about);
    CAPTURE(name);
    auto& model = models[name];
    if (!model) model = Decoder::load(root / "models" / name, at::kDouble);
    const auto prompt = testing::golden_method_prompt(golden);
    const auto options = testing::golden_method_options(*model, golden);
    const auto clean = run_clean(*model, prompt, options);
    compare(trace_plain(*model, prompt, options, clean), golden.at("results"));
    compare(trace_sweep(*model, prompt, options, clean).trace, golden.at("results"));
  }
}

}  // namespace
}  // namespace rometrace::methods_test
