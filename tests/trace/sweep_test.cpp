#include "rometrace/trace/sweep.hpp"

#include "checks.hpp"
#include "closeness.hpp"
#include "golden_models.hpp"
#include "rometrace/trace/plain.hpp"

namespace rometrace {
namespace {

using testing::Closeness;
using testing::golden_models;
using testing::golden_options;
using testing::golden_prompt;
using testing::Tolerance;

void compare_with_plain(const Gpt2& model, const TracePrompt& prompt, const TraceOptions& options,
                        const RunControl& control, Tolerance scores, Tolerance errors) {
  const auto clean = run_clean(model, prompt, options);
  const auto swept = trace_sweep(model, prompt, options, clean, control).trace;
  const auto plain = trace_plain(model, prompt, options, clean);
  CHECK(swept.answer_id == plain.answer_id);
  CHECK(swept.high_score == plain.high_score);
  REQUIRE(swept.grids.size() == plain.grids.size());
  Closeness close_scores(scores), close_errors(errors);
  close_scores.compare("low_score", swept.low_score, plain.low_score);
  for (std::size_t g = 0; g < plain.grids.size(); ++g) {
    CHECK(swept.grids[g].kind == plain.grids[g].kind);
    CHECK(swept.grids[g].window == plain.grids[g].window);
    for (std::size_t i = 0; i < plain.grids[g].scores.size(); ++i) {
      const auto cell = std::string(to_string(plain.grids[g].kind)) + " [" +
                        std::to_string(static_cast<std::int64_t>(i) / plain.layers) + "][" +
                        std::to_string(static_cast<std::int64_t>(i) % plain.layers) + "]";
      close_scores.compare(cell, swept.grids[g].scores[i], plain.grids[g].scores[i]);
      close_errors.compare("error of " + cell, swept.grids[g].standard_error[i], plain.grids[g].standard_error[i]);
    }
  }
  close_scores.check();
  close_errors.check();
}

TEST_CASE("sweep = plain on every golden trace, in float64") {
  for (const auto& golden : golden_models()) {
    const auto model = Gpt2::load(golden.folder, at::kDouble);
    for (const auto& trace : golden.golden.at("traces")) {
      CAPTURE(golden.name);
      compare_with_plain(*model, golden_prompt(trace), golden_options(trace), {}, {1e-9, 1e-12}, {1e-6, 1e-9});
    }
  }
}

TEST_CASE("sweep = plain on every golden trace, in float32") {
  for (const auto& golden : golden_models()) {
    const auto model = Gpt2::load(golden.folder);
    for (const auto& trace : golden.golden.at("traces")) {
      CAPTURE(golden.name);
      compare_with_plain(*model, golden_prompt(trace), golden_options(trace), {}, {1e-5, 1e-7}, {1e-3, 1e-6});
    }
  }
}

}  // namespace
}  // namespace rometrace
