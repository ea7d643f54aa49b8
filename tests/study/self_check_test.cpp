#include "rometrace/study/self_check.hpp"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absent_files.hpp"
#include "checks.hpp"
#include "rometrace/facts/facts.hpp"
#include "rometrace/trace/clean_run.hpp"
#include "rometrace/trace/plain.hpp"

namespace rometrace::self_check_test {
namespace {

using Outcome = Finding::Outcome;

const std::filesystem::path kDemo = ROMETRACE_SOURCE_DIR "/share/rometrace/demo";
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

const std::string kNoNoise = "without noise every score is the clean one";
const std::string kLast = "the last token's state after the last layer gives back the clean score";
const std::string kOthers = "other tokens' states after the last layer change nothing";
const std::string kBefore = "states before the subject change nothing";
const std::string kPasses = "cutting the sweep into passes changes nothing";
const std::string kEngines = "the sweep equals the plain engine at the last subject token";

// A check of the demo model. Exact engines run once for each question, however many faults are tried on them.
class Example {
 public:
  Example() : check_{*model_, tokenizer_, 0.1, {}, false, {}, {}} {
    for (auto* engine : {&check_.engines.sweep, &check_.engines.plain}) {
      *engine = [run = *engine, name = engine == &check_.engines.sweep ? "sweep" : "plain"](
                    const Decoder& model, const TracePrompt& prompt, const TraceOptions& options,
                    const RunControl& control) {
        const Question question{name, prompt.prompt + std::to_string(options.corruption.sigma), options.kinds.size(),
                                control.memory};
        auto found = known().find(question);
        if (found == known().end()) found = known().emplace(question, run(model, prompt, options, control)).first;
        return found->second;
      };
    }
  }

  SelfCheck& check() { return check_; }

  // Every trace of the sweep that `which` chooses is changed.
  void spoil_sweep(std::function<bool(const TraceOptions&, const RunControl&)> which,
                   std::function<void(Trace&)> spoil) {
    check_.engines.sweep = [run = check_.engines.sweep, which = std::move(which), spoil = std::move(spoil)](
                               const Decoder& model, const TracePrompt& prompt, const TraceOptions& options,
                               const RunControl& control) {
      auto trace = run(model, prompt, options, control);
      if (which(options, control)) spoil(trace);
      return trace;
    };
  }

  // What was told of a claim, of the prompt whose subject is not at its beginning; and whether all holds.
  bool run() {
    findings_.clear();
    return self_check(check_, [&](const Finding& finding) { findings_.push_back(finding); });
  }
  const std::vector<Finding>& findings() const { return findings_; }
  Outcome outcome(const std::string& claim) const {
    const auto found = std::find_if(findings_.begin(), findings_.end(), [&](const Finding& finding) {
      return finding.claim.find("Miles Davis") != std::string::npos && finding.claim.ends_with(claim);
    });
    REQUIRE(found != findings_.end());
    return found->outcome;
  }
  std::vector<std::string> failures() const {
    std::vector<std::string> claims;
    for (const auto& finding : findings_) {
      if (finding.outcome == Outcome::kFails && finding.claim.find("Miles Davis") != std::string::npos) {
        claims.push_back(finding.claim.substr(finding.claim.rfind("\": ") + 3));
      }
    }
    return claims;
  }

 private:
  using Question = std::tuple<std::string, std::string, std::size_t, std::int64_t>;
  static std::map<Question, Trace>& known() {
    static std::map<Question, Trace> traces;
    return traces;
  }

  std::shared_ptr<const Decoder> model_ = Decoder::load(kDemo);
  Tokenizer tokenizer_ = Tokenizer::load(kDemo);
  SelfCheck check_;
  std::vector<Finding> findings_;
};

bool without_noise(const TraceOptions& options, const RunControl&) {
  return options.corruption.sigma == 0;
}

double& cell(Trace& trace, std::int64_t position, std::int64_t layer) {
  return trace.grids.front().scores.at(static_cast<std::size_t>(position * trace.layers + layer));
}

TEST_CASE("every law of a self-check holds of the demo model, and the paper's numbers are not asked of it") {
  Example example;
  CHECK(example.run());
  CHECK(example.failures().empty());
  for (const auto& claim : {kNoNoise, kLast, kOthers, kBefore, kPasses, kEngines}) {
    CAPTURE(claim);
    CHECK(example.outcome(claim) == Outcome::kHolds);
  }
  CHECK(example.findings().back().outcome == Outcome::kNotChecked);
  CHECK(example.findings().back().detail == "this is another model");
}

TEST_CASE("a law fails by one score that is not a number, wherever it stands among good ones") {
  const auto spoil_at = [](double place) {
    return [place](Trace& trace) {
      auto& scores = trace.grids.back().scores;
      scores[static_cast<std::size_t>(place * static_cast<double>(scores.size() - 1))] = kNan;
    };
  };
  for (const double place : {0.0, 0.5, 1.0}) {
    CAPTURE(place);
    Example example;
    example.spoil_sweep(without_noise, spoil_at(place));
    CHECK_FALSE(example.run());
    CHECK(example.failures() == std::vector{kNoNoise});
  }
  Example low;
  low.spoil_sweep(without_noise, [](Trace& trace) { trace.low_score = kNan; });
  CHECK_FALSE(low.run());
  CHECK(low.failures() == std::vector{kNoNoise});
  CHECK(low.findings().front().detail.ends_with(" scores, at least one is not a number"));
}

TEST_CASE("each law of a place fails by the run that it is about, and by no other") {
  const std::vector<std::string> laws = {kLast, kOthers, kBefore};
  for (std::size_t run = 0; run < laws.size(); ++run) {
    CAPTURE(laws[run]);
    Example example;
    example.check().engines.restore = [run](const auto&... arguments) {
      auto scores = restored_scores(arguments...);
      scores.at(run) *= 1.001;
      return scores;
    };
    CHECK_FALSE(example.run());
    CHECK(example.failures() == std::vector{laws[run]});
  }
}

TEST_CASE("states restored by the model itself are those of the plain engine's cells") {
  const auto model = Decoder::load(kDemo);
  TracePrompt prompt;
  prompt.token_ids = {5, 60, 61, 7, 9};
  prompt.subject_range = {1, 3};
  TraceOptions options;
  options.kinds = {Kind::kState};
  options.samples = 3;
  options.corruption.sigma = 0.3;
  auto trace = trace_plain(*model, prompt, options, run_clean(*model, prompt, options));
  std::vector<Restored> restored;
  for (std::size_t position = 1; position < 5; ++position) {
    for (std::int64_t layer = 0; layer < trace.layers; ++layer) {
      restored.push_back({{position, position + 1}, {layer, layer + 1}});
    }
  }
  const auto scores = restored_scores(*model, prompt, options, trace.answer_ids.front(), restored);
  for (std::size_t i = 0; i < scores.size(); ++i) {
    const auto place = static_cast<std::int64_t>(i);
    CHECK(scores[i] == doctest::Approx(cell(trace, 1 + place / trace.layers, place % trace.layers)).epsilon(1e-4));
  }
  CHECK(std::abs(trace.low_score - trace.high_score) > 0.01);
}

TEST_CASE("a difference between the engines, or between passes, fails") {
  Example passes;
  passes.spoil_sweep(
      [](const TraceOptions& options, const RunControl& control) {
        return options.kinds.size() == 5 && control.memory != RunControl().memory;
      },
      [](Trace& trace) { trace.grids.back().scores.back() *= 1.001; });
  CHECK_FALSE(passes.run());
  CHECK(passes.failures() == std::vector{kPasses});

  Example engines;
  engines.check().engines.plain = [run = engines.check().engines.plain](const auto&... arguments) {
    auto trace = run(arguments...);
    trace.grids.back().scores.front() *= 1.001;
    return trace;
  };
  CHECK_FALSE(engines.run());
  CHECK(engines.failures() == std::vector{kEngines});
}

TEST_CASE("what a law allows is a part of the scores, so that small ones are held to it as well") {
  for (const double scale : {1e-6, 1.0}) {
    for (const double factor : {1 + 0.9 * rounding_bound(at::kFloat), 1 + 1.2 * rounding_bound(at::kFloat)}) {
      CAPTURE(scale);
      CAPTURE(factor);
      Example example;
      example.spoil_sweep(without_noise, [&](Trace& trace) {
        for (auto& grid : trace.grids) std::fill(grid.scores.begin(), grid.scores.end(), scale);
        trace.low_score = trace.high_score = scale;
        cell(trace, 1, 1) = factor * scale;
      });
      CHECK(example.run() == (factor < 1 + rounding_bound(at::kFloat)));
    }
  }
  CHECK(rounding_bound(at::kDouble) < rounding_bound(at::kFloat));
  CHECK(rounding_bound(at::kFloat) < rounding_bound(at::kHalf));
  CHECK(rounding_bound(at::kHalf) < rounding_bound(at::kBFloat16));
}

constexpr double kSigma = 0.13462981581687927, kHigh = 0.97638, kLow = 0.026176;

// "holds fails -": of sigma, of the high and of the low score; "-" is not checked.
std::string outcomes(const PaperNumbers& found, bool published = false) {
  std::string all;
  for (const auto& finding : compare_with_paper(found, published)) {
    all += all.empty() ? "" : " ";
    all += finding.outcome == Outcome::kHolds ? "holds" : finding.outcome == Outcome::kFails ? "fails" : "-";
  }
  return all;
}

TEST_CASE("the paper's numbers hold to the digits that are printed") {
  CHECK(outcomes({{kSigma}, {kHigh}, {kLow}}) == "holds holds holds");
  CHECK(outcomes({{kSigma * (1 + 1e-7)}, {kHigh + 4e-6}, {kLow - 4e-6}}) == "holds holds holds");
}

TEST_CASE("where a probability shows the published weights, another number that differs is a failure") {
  CHECK(outcomes({{kSigma * 1.0001}, {kHigh}, {kLow}}) == "fails holds holds");
  CHECK(outcomes({{0.1350}, {kHigh}, {0.0264}}) == "fails holds fails");
  CHECK(outcomes({{kSigma}, {0.9765}, {kLow}}) == "holds fails holds");
  CHECK(outcomes({{kSigma}, {kHigh}, {kNan}}) == "holds holds fails");
}

TEST_CASE("numbers of other weights of the same shape neither hold nor fail, unless they are known to be published") {
  const PaperNumbers tuned{{0.13464}, {0.9712}, {0.0311}};
  CHECK(outcomes(tuned) == "- - -");
  CHECK(outcomes(tuned, true) == "fails fails fails");
  // Edited in one MLP: the embeddings are the published ones, what it says is not.
  CHECK(outcomes({{kSigma}, {0.41}, {0.02}}) == "holds - -");
  CHECK(compare_with_paper(tuned, false).front().detail.find("found 0.13464, but nothing shows that these are") == 0);
}

TEST_CASE("a number that was not measured is not checked, and says why") {
  const auto findings = compare_with_paper({{{}, "no file"}, {kHigh}, {{}, "no digits"}}, true);
  CHECK(findings.at(0).outcome == Outcome::kNotChecked);
  CHECK(findings.at(0).detail == "no file");
  CHECK(findings.at(1).outcome == Outcome::kHolds);
  CHECK(findings.at(2).detail == "no digits");
}

TEST_CASE("the paper's facts are known by their subjects") {
  CHECK_FALSE(are_paper_subjects({}));
  CHECK_FALSE(are_paper_subjects(read_subjects(ROMETRACE_SOURCE_DIR "/share/rometrace/facts.json")));
  const std::filesystem::path file = ROMETRACE_SOURCE_DIR "/../shared/facts/known_1000.json";
  if (testing::is_absent(file)) return;
  auto subjects = read_subjects(file);
  CHECK(are_paper_subjects(subjects));
  subjects.back() += "x";
  CHECK_FALSE(are_paper_subjects(subjects));
}

}  // namespace
}  // namespace rometrace::self_check_test
