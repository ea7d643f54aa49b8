#include "rometrace/trace/plain.hpp"

#include "checks.hpp"
#include "closeness.hpp"
#include "golden_models.hpp"
#include "rometrace/error.hpp"

namespace rometrace::plain_test {
namespace {

using testing::Closeness;
using testing::golden_models;
using testing::golden_options;
using testing::golden_prompt;
using testing::Tolerance;

// The whole trace, clean run included.
Trace plain(const Decoder& model, const TracePrompt& prompt, const TraceOptions& options,
            const RunControl& control = {}) {
  return trace_plain(model, prompt, options, run_clean(model, prompt, options), control);
}

constexpr Kind kAllKinds[] = {Kind::kState, Kind::kMlp, Kind::kAttn};

void compare_grids(at::ScalarType dtype, Tolerance scores, Tolerance errors) {
  for (const auto& golden : golden_models()) {
    const auto model = Decoder::load(golden.folder, dtype);
    for (const auto& expected : golden.golden.at("traces")) {
      const std::string setting =
          golden.name + " " +
          nlohmann::json({expected.at("kind"), expected.at("window"), expected.at("subject_range")}).dump();
      CAPTURE(setting);
      const auto trace = plain(*model, golden_prompt(expected), golden_options(expected));
      CHECK(trace.answer_id() == expected.at("answer_id"));
      CHECK(trace.prediction_id == expected.at("prediction_id"));
      const auto& grid = trace.grids.at(0);
      const auto& rows = expected.at("scores");
      REQUIRE(static_cast<std::size_t>(trace.tokens) == rows.size());
      REQUIRE(static_cast<std::size_t>(trace.layers) == rows[0].size());

      Closeness close_scores(scores), close_errors(errors);
      close_scores.compare("prediction_score", trace.prediction_score, expected.at("prediction_score"));
      close_scores.compare("high_score", trace.high_score, expected.at("high_score"));
      close_scores.compare("low_score", trace.low_score, expected.at("low_score"));
      for (std::size_t t = 0; t < rows.size(); ++t) {
        for (std::size_t l = 0; l < rows[t].size(); ++l) {
          const auto cell = "[" + std::to_string(t) + "][" + std::to_string(l) + "]";
          const auto index = t * rows[t].size() + l;
          const auto& error = expected.at("standard_error")[t][l];
          close_scores.compare("score " + cell, grid.scores[index], rows[t][l]);
          close_errors.compare("standard_error " + cell, grid.standard_error[index],
                               error.is_null() ? NAN : error.get<double>());
        }
      }
      close_scores.check();
      close_errors.check();
    }
  }
}

TEST_CASE("grids in float64 are those of an independent tracer over transformers in float64") {
  // Only the order of additions differs.
  compare_grids(at::kDouble, {1e-9, 1e-12}, {1e-6, 1e-12});
}

TEST_CASE("grids in float32 are those of an independent tracer over transformers in float64 to 1e-5") {
  // The floor is what float32 leaves of a probability that is far below 1. A standard error is a small difference
  // of probabilities, each rounded, so its own relative error is larger.
  compare_grids(at::kFloat, {1e-5, 1e-7}, {1e-3, 1e-6});
}

// A model and a prompt for the laws: several layers, subject in the middle.
struct Example {
  std::shared_ptr<const Decoder> model;
  TracePrompt prompt;
  TraceOptions options;
  std::int64_t T, L, begin;
};

Example an_example() {
  for (const auto& golden : golden_models()) {
    for (const auto& trace : golden.golden.at("traces")) {
      const auto prompt = golden_prompt(trace);
      if (prompt.subject_range.begin < 1 || prompt.subject_range.end + 1 >= prompt.token_ids.size()) continue;
      auto model = Decoder::load(golden.folder);
      if (model->config().layers < 3) continue;
      auto options = golden_options(trace);
      options.kinds.assign(std::begin(kAllKinds), std::end(kAllKinds));
      options.window = 3;
      options.corruption.replace = false;
      options.samples = 4;
      const auto L = model->config().layers;
      return {std::move(model),
              prompt,
              options,
              static_cast<std::int64_t>(prompt.token_ids.size()),
              L,
              static_cast<std::int64_t>(prompt.subject_range.begin)};
    }
  }
  throw std::logic_error("no golden has a subject in the middle");
}

double score(const Trace& trace, Kind kind, std::int64_t position, std::int64_t layer) {
  for (const auto& grid : trace.grids) {
    if (grid.kind == kind) return grid.scores.at(static_cast<std::size_t>(position * trace.layers + layer));
  }
  throw std::logic_error("no such grid");
}

// Two runs of one batch shape differ by rounding only where the matrix product depends on the rows around.
constexpr double kRounding = 1e-6;

TEST_CASE("law: without noise every cell is the high score") {
  auto example = an_example();
  example.options.corruption.sigma = 0;
  const auto trace = plain(*example.model, example.prompt, example.options);
  CHECK(trace.low_score == doctest::Approx(trace.high_score).epsilon(kRounding));
  for (const auto& grid : trace.grids) {
    for (const double value : grid.scores) CHECK(value == doctest::Approx(trace.high_score).epsilon(kRounding));
    for (const double error : grid.standard_error) CHECK(error < kRounding);
  }
}

TEST_CASE("law: restoring the last token's state at the last layer gives back the clean probability") {
  const auto [model, prompt, options, T, L, begin] = an_example();
  const auto trace = plain(*model, prompt, options);
  REQUIRE(std::abs(trace.high_score - trace.low_score) > 0.01);
  CHECK(score(trace, Kind::kState, T - 1, L - 1) == doctest::Approx(trace.high_score).epsilon(kRounding));
}

TEST_CASE("law: cells before the subject are the low score exactly") {
  const auto [model, prompt, options, T, L, begin] = an_example();
  const auto trace = plain(*model, prompt, options);
  REQUIRE(begin > 0);
  for (const Kind kind : kAllKinds) {
    for (std::int64_t t = 0; t < begin; ++t) {
      for (std::int64_t l = 0; l < L; ++l) CHECK(score(trace, kind, t, l) == trace.low_score);
    }
  }
}

TEST_CASE("law: restoring the last layer's state at another position than the last changes nothing") {
  const auto [model, prompt, options, T, L, begin] = an_example();
  const auto trace = plain(*model, prompt, options);
  for (std::int64_t t = 0; t + 1 < T; ++t) {
    CHECK(score(trace, Kind::kState, t, L - 1) == doctest::Approx(trace.low_score).epsilon(kRounding));
  }
}

TEST_CASE("law: with the last token as the subject, restoring its state at any layer gives the clean probability") {
  // From the restored layer on its own stream is exactly the clean one, and no position after it can have read the
  // noise.
  auto [model, prompt, options, T, L, begin] = an_example();
  prompt.subject_range = {prompt.token_ids.size() - 1, prompt.token_ids.size()};
  const auto trace = plain(*model, prompt, options);
  for (std::int64_t l = 0; l < L; ++l) {
    CHECK(score(trace, Kind::kState, T - 1, l) == doctest::Approx(trace.high_score).epsilon(kRounding));
  }
}

TEST_CASE("a window that covers the model gives one score a position, whatever its centre") {
  // A window as wide as twice the model restores every layer, whatever its centre.
  auto [model, prompt, options, T, L, begin] = an_example();
  options.kinds = {Kind::kMlp, Kind::kAttn};
  options.window = 2 * L;
  const auto trace = plain(*model, prompt, options);
  for (const Kind kind : options.kinds) {
    for (std::int64_t t = 0; t < T; ++t) {
      for (std::int64_t l = 1; l < L; ++l) CHECK(score(trace, kind, t, l) == score(trace, kind, t, 0));
    }
  }
}

TEST_CASE("with replace, the low score is measured with replace too, and does not depend on the embedding replaced") {
  auto [model, prompt, options, T, L, begin] = an_example();
  options.corruption.replace = true;
  prompt.target = {1};
  const auto trace = plain(*model, prompt, options);
  auto other = prompt;
  const auto at = static_cast<std::size_t>(begin);
  other.token_ids[at] = (other.token_ids[at] + 1) % static_cast<std::int32_t>(model->config().vocab_size);
  CHECK(plain(*model, other, options).low_score == doctest::Approx(trace.low_score).epsilon(kRounding));
}

TEST_CASE("a target is followed instead of the prediction, which stays known") {
  auto [model, prompt, options, T, L, begin] = an_example();
  const auto predicted = run_clean(*model, prompt, options).trace.prediction_id;
  prompt.target = {predicted == 0 ? 1 : 0};
  const auto trace = plain(*model, prompt, options);
  CHECK(trace.answer_id() == prompt.target.front());
  CHECK(trace.prediction_id == predicted);
  CHECK(trace.high_score < trace.prediction_score);
}

TEST_CASE("progress is told before the first cell and after each, up to the total") {
  auto [model, prompt, options, T, L, begin] = an_example();
  std::vector<std::int64_t> seen;
  std::int64_t cells = 0;
  RunControl control;
  control.progress = [&](std::int64_t done, std::int64_t total) {
    seen.push_back(done);
    cells = total;
  };
  plain(*model, prompt, options, control);
  CHECK(cells == 3 * (T - begin) * L);
  REQUIRE(seen.size() == static_cast<std::size_t>(cells) + 1);
  for (std::size_t i = 0; i < seen.size(); ++i) CHECK(seen[i] == static_cast<std::int64_t>(i));
}

TEST_CASE("a stop request ends the trace with Interrupted") {
  const auto [model, prompt, options, T, L, begin] = an_example();
  std::stop_source source;
  RunControl control;
  control.progress = [&](std::int64_t done, std::int64_t) {
    if (done == 3) source.request_stop();
  };
  control.stop = source.get_token();
  CHECK_THROWS_AS(plain(*model, prompt, options, control), Interrupted);
}

TEST_CASE("windows are the reference's: from l - w/2 up to l + ceil(w/2), cut at the ends") {
  const auto check = [](std::int64_t layer, std::int64_t window, std::int64_t begin, std::int64_t end) {
    const auto range = window_of(layer, window, 48);
    CHECK(range.begin == begin);
    CHECK(range.end == end);
  };
  check(17, 10, 12, 22);
  check(17, 1, 17, 18);
  check(17, 3, 16, 19);
  check(0, 10, 0, 5);
  check(47, 10, 42, 48);
  check(47, 3, 46, 48);
}

}  // namespace
}  // namespace rometrace::plain_test
