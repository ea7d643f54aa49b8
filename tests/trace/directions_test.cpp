#include <cmath>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "checks.hpp"
#include "closeness.hpp"
#include "rometrace/text/tokenizer.hpp"
#include "rometrace/trace/clean_run.hpp"
#include "rometrace/trace/gradient.hpp"
#include "rometrace/trace/plain.hpp"
#include "rometrace/trace/sweep.hpp"

// Direction::kBoth is the two directions with the same draws, and what they hide from each other.

namespace rometrace::directions_test {
namespace {

using testing::Closeness;

constexpr const char* kDemo = ROMETRACE_SOURCE_DIR "/share/rometrace/demo";

const Decoder& model() {
  static const auto loaded = [] {
    LoadOptions load;
    load.dtype = at::kDouble;
    return Decoder::load(kDemo, load);
  }();
  return *loaded;
}

TracePrompt prompt_of(const std::string& text, const std::string& subject) {
  static const auto tokenizer = Tokenizer::load(kDemo);
  const auto tokens = tokenizer.encode_prompt(text, SpecialTokens::kAsText);
  TracePrompt prompt;
  prompt.prompt = text;
  prompt.subject = subject;
  prompt.token_ids = ids_of(tokens);
  prompt.subject_span = {0, subject.size()};
  prompt.subject_range = tokens_of_subject(tokens, text, prompt.subject_span);
  return prompt;
}

const TracePrompt& miles() {
  static const auto prompt = prompt_of("Miles Davis plays the", "Miles Davis");
  return prompt;
}

TraceOptions options(Direction direction) {
  TraceOptions options;
  options.direction = direction;
  options.kinds = {Kind::kKnockout, Kind::kMlp, Kind::kHead, Kind::kState, Kind::kStateMlpSevered};
  options.window = 3;
  options.samples = 3;
  options.corruption.sigma = 0.25;
  options.measures = {Measure::kKl};
  return options;
}

using Engine = std::function<Trace(const TracePrompt&, const TraceOptions&)>;

const std::map<std::string, Engine>& engines() {
  static const std::map<std::string, Engine> all = {
      {"plain",
       [](const auto& prompt, const auto& asked) {
         return trace_plain(model(), prompt, asked, run_clean(model(), prompt, asked));
       }},
      {"sweep", [](const auto& prompt, const auto& asked) {
         return trace_sweep(model(), prompt, asked, run_clean(model(), prompt, asked)).trace;
       }}};
  return all;
}

std::vector<CausalGrid> with_direction(const Trace& trace) {
  auto grids = trace.grids;
  std::erase_if(grids, [](const CausalGrid& grid) { return grid.kind == Kind::kKnockout; });
  return grids;
}

void check_same(const std::vector<CausalGrid>& found, const std::vector<CausalGrid>& expected) {
  REQUIRE(found.size() == expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    CHECK(found[i].kind == expected[i].kind);
    CHECK(found[i].positions == expected[i].positions);
    CHECK(found[i].draws.empty());
    Closeness scores({1e-11, 1e-13}), errors({1e-8, 1e-12}), measured({1e-9, 1e-11});  // other rows share the products
    for (std::size_t c = 0; c < found[i].scores.size(); ++c) {
      scores.compare("score", found[i].scores[c], expected[i].scores[c]);
      errors.compare("error", found[i].standard_error[c], expected[i].standard_error[c]);
      measured.compare("measure", found[i].measured[0].values[c], expected[i].measured[0].values[c]);
    }
    scores.check();
    measured.check();
    errors.check();
  }
}

}  // namespace

TEST_CASE("both directions are what either gives alone, and the clean run is the same") {
  for (const auto& [name, trace] : engines()) {
    CAPTURE(name);
    const auto both = trace(miles(), options(Direction::kBoth));
    const auto denoised = trace(miles(), options(Direction::kDenoising));
    const auto noised = trace(miles(), options(Direction::kNoising));
    CHECK(both.high_score == denoised.high_score);
    CHECK(both.low_score == denoised.low_score);
    CHECK(both.low_draws.empty());
    CHECK(both.grids.front().kind == Kind::kKnockout);
    CHECK(both.grids.front().scores == denoised.grids.front().scores);
    check_same(with_direction(both), with_direction(denoised));
    check_same(both.noising, with_direction(noised));
  }
}

TEST_CASE("an interaction is what noising takes away less what denoising brings back, with the draws' own error") {
  for (const auto& [name, trace] : engines()) {
    CAPTURE(name);
    const auto both = trace(miles(), options(Direction::kBoth));
    auto kept = options(Direction::kDenoising);
    kept.keep_draws = true;
    const auto denoised = trace(miles(), kept);
    kept.direction = Direction::kNoising;
    const auto noised = trace(miles(), kept);
    const auto grids = with_direction(denoised), others = with_direction(noised);
    constexpr std::size_t N = 3;
    REQUIRE(denoised.low_draws.size() == N);
    REQUIRE(both.interaction.size() == grids.size());
    Closeness values({1e-9, 1e-12}), errors({1e-7, 1e-11}), means({1e-12, 1e-12});
    double largest = 0;
    for (std::size_t i = 0; i < grids.size(); ++i) {
      for (std::size_t c = 0; c < grids[i].scores.size(); ++c) {
        double sum = 0, squares = 0, mean = 0;
        for (std::size_t n = 0; n < N; ++n) {
          const double apart =
              (noised.high_score - others[i].draws[c * N + n]) - (grids[i].draws[c * N + n] - denoised.low_draws[n]);
          sum += apart;
          squares += apart * apart;
          mean += grids[i].draws[c * N + n] / N;
        }
        means.compare("mean of draws", mean, grids[i].scores[c]);
        values.compare("interaction", both.interaction[i].values[c], sum / N);
        const double variance = std::max(0.0, (squares - sum * sum / N) / (N - 1));
        errors.compare("error", both.interaction[i].standard_error[c], std::sqrt(variance / N));
        largest = std::max(largest, std::abs(sum / N));
      }
    }
    means.check();
    values.check();
    errors.check();
    CHECK(largest > 0.05);
  }
}

TEST_CASE("sweep and plain have the same interactions, and so have facts that share a sweep") {
  const auto other = prompt_of("Ray Brown plays the", "Ray Brown");
  const auto asked = options(Direction::kBoth);
  REQUIRE(sweep_key(miles(), asked) == sweep_key(other, asked));
  const auto first = run_clean(model(), miles(), asked), second = run_clean(model(), other, asked);
  const std::vector<SweepFact> facts = {{&miles(), &first}, {&other, &second}};
  const auto shared = trace_sweeps(model(), facts, asked);
  for (std::size_t j = 0; j < facts.size(); ++j) {
    const auto& trace = std::get<Trace>(shared.outcomes[j]);
    const auto plain = trace_plain(model(), *facts[j].prompt, asked, *facts[j].clean);
    REQUIRE(trace.interaction.size() == plain.interaction.size());
    Closeness closeness({1e-9, 1e-10});
    for (std::size_t i = 0; i < plain.interaction.size(); ++i) {
      for (std::size_t c = 0; c < plain.interaction[i].values.size(); ++c) {
        closeness.compare("interaction", trace.interaction[i].values[c], plain.interaction[i].values[c]);
        closeness.compare("error", trace.interaction[i].standard_error[c], plain.interaction[i].standard_error[c]);
      }
    }
    closeness.check();
  }
}

TEST_CASE("progress goes once from nothing to all, and a knockout alone has one direction") {
  const auto asked = options(Direction::kBoth);
  std::vector<double> shares;
  RunControl control;
  control.progress = [&](std::int64_t done, std::int64_t total) {
    shares.push_back(static_cast<double>(done) / static_cast<double>(std::max<std::int64_t>(1, total)));
  };
  trace_sweep(model(), miles(), asked, run_clean(model(), miles(), asked), control);
  CHECK(std::is_sorted(shares.begin(), shares.end()));
  CHECK(shares.back() == 1);
  auto knockout = asked;
  knockout.kinds = {Kind::kKnockout};
  for (const auto& [name, trace] : engines()) {
    CAPTURE(name);
    const auto found = trace(miles(), knockout);
    CHECK(found.noising.empty());
    CHECK(found.interaction.empty());
  }
}

TEST_CASE("a single draw has an interaction without an error, and gradients have approximate ones") {
  auto asked = options(Direction::kBoth);
  asked.samples = 1;
  asked.kinds = {Kind::kState};
  const auto single = engines().at("sweep")(miles(), asked);
  CHECK(std::isnan(single.interaction[0].standard_error[0]));
  CHECK(std::isfinite(single.interaction[0].values[0]));
  asked.samples = 2;
  asked.measures.clear();
  const auto gradient = trace_gradient(model(), miles(), asked, run_clean(model(), miles(), asked));
  REQUIRE(gradient.interaction.size() == 1);
  CHECK(std::isfinite(gradient.interaction[0].standard_error.back()));
}

}  // namespace rometrace::directions_test
