#include "rometrace/study/self_check.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <utility>

#include "rometrace/error.hpp"
#include "rometrace/text/subject.hpp"
#include "rometrace/trace/clean_run.hpp"
#include "rometrace/trace/plain.hpp"
#include "rometrace/trace/sigma.hpp"
#include "rometrace/trace/sweep.hpp"

namespace rometrace {
namespace {

// The published numbers, of GPT-2 XL in float32 with the facts of the paper.
constexpr double kSigma = 0.13462981581687927;
constexpr std::int32_t kSeattle = 7312;
constexpr double kHighScore = 0.97638, kLowScore = 0.026176;

constexpr std::array<std::pair<const char*, const char*>, 2> kPrompts{{
    {"The Space Needle is in downtown", "The Space Needle"},  // at the beginning of its prompt
    {"The trumpet player Miles Davis plays the", "Miles Davis"},
}};

std::string text(double value) {
  std::array<char, 32> digits{};
  std::snprintf(digits.data(), digits.size(), "%.6g", value);
  return digits.data();
}

// The largest of some differences, and how many values there were.
struct Difference {
  double largest = 0;
  std::int64_t values = 0;

  void add(double value, double expected) {
    const auto difference = std::abs(value - expected);
    // Not `>`: a NaN stays.
    if (!(difference <= largest)) largest = difference;
    ++values;
  }
};

class Checker {
 public:
  Checker(const SelfCheck& check, const std::function<void(const Finding&)>& tell) : check_(check), tell_(tell) {}

  bool run() {
    for (const auto& [prompt, subject] : kPrompts) {
      prompt_ = read(prompt, subject);
      where_ = std::string("\"") + prompt + "\": ";
      check_no_noise();
      check_places();
      check_engines();
    }
    where_.clear();
    check_published();
    return all_hold_;
  }

 private:
  TracePrompt read(const std::string& prompt, const std::string& subject) const {
    TracePrompt read;
    read.prompt = prompt;
    read.subject = subject;
    const auto tokens = check_.tokenizer.encode_prompt(prompt);
    for (const auto& token : tokens) read.token_ids.push_back(token.id);
    read.subject_range = find_subject(tokens, prompt, subject);
    return read;
  }

  TraceOptions options(double sigma, std::vector<Kind> kinds) const {
    TraceOptions options;
    options.kinds = std::move(kinds);
    options.samples = 3;
    options.corruption.sigma = sigma;
    return options;
  }

  Trace sweep(const TracePrompt& prompt, const TraceOptions& options, const RunControl& control) const {
    const auto clean = run_clean(check_.model, prompt, options, check_.control.stop);
    return trace_sweep(check_.model, prompt, options, clean, control).trace;
  }

  // Of probabilities: what rounding in the dtype of the products may change.
  double tolerance() const {
    if (check_.model.dtype() == at::kDouble) return 1e-9;
    return check_.model.dtype() == at::kFloat ? 1e-4 : 0.05;
  }

  void find(const std::string& claim, const Difference& difference) {
    const bool holds = difference.largest <= tolerance();
    all_hold_ = all_hold_ && holds;
    tell_({where_ + claim, holds ? Finding::Outcome::kHolds : Finding::Outcome::kFails,
           std::to_string(difference.values) + (difference.values == 1 ? " score" : " scores") +
               ", largest difference " + text(difference.largest)});
  }

  void skip(const std::string& claim, const std::string& why) {
    tell_({where_ + claim, Finding::Outcome::kNotChecked, why});
  }

  void check_no_noise() {
    const auto trace = sweep(prompt_, options(0, {Kind::kState, Kind::kMlp, Kind::kAttn}), check_.control);
    Difference difference;
    difference.add(trace.low_score, trace.high_score);
    for (const auto& grid : trace.grids) {
      for (const auto score : grid.scores) difference.add(score, trace.high_score);
    }
    find("without noise every score is the clean one", difference);
  }

  void check_places() {
    const auto trace = sweep(prompt_, options(check_.sigma, {Kind::kState}), check_.control);
    const auto& scores = trace.grids.front().scores;
    const auto L = trace.layers, T = trace.tokens;
    const auto score = [&](std::int64_t position, std::int64_t layer) {
      return scores[static_cast<std::size_t>(position * L + layer)];
    };
    Difference last, others, before;
    last.add(score(T - 1, L - 1), trace.high_score);
    for (std::int64_t t = 0; t + 1 < T; ++t) others.add(score(t, L - 1), trace.low_score);
    const auto begin = static_cast<std::int64_t>(prompt_.subject_range.begin);
    for (std::int64_t t = 0; t < begin; ++t) {
      for (std::int64_t l = 0; l < L; ++l) before.add(score(t, l), trace.low_score);
    }
    find("the last token's state after the last layer gives back the clean score", last);
    find("other tokens' states after the last layer change nothing", others);
    if (begin > 0) find("states before the subject change nothing", before);
    tell_({where_ + "the answer's probability", Finding::Outcome::kFound,
           text(trace.high_score) + ", with noise " + text(trace.low_score)});
  }

  void check_engines() {
    auto traced = options(check_.sigma, {Kind::kState, Kind::kMlp, Kind::kAttn, Kind::kHead, Kind::kStateMlpSevered});
    traced.positions.which = PositionRule::Which::kSubjectLast;
    const auto swept = sweep(prompt_, traced, check_.control);
    auto control = check_.control;
    control.memory = std::min(control.memory, least_memory(check_.model, prompt_, traced));
    compare("cutting the sweep into passes changes nothing", swept, sweep(prompt_, traced, control));

    const std::string claim = "the sweep equals the plain engine at the last subject token";
    if (check_.model.streamed()) {
      skip(claim, "the plain engine would read all weights for each cell; more memory keeps them");
      return;
    }
    traced.kinds = {Kind::kState, Kind::kMlp};
    const auto clean = run_clean(check_.model, prompt_, traced, check_.control.stop);
    compare(claim, sweep(prompt_, traced, check_.control),
            trace_plain(check_.model, prompt_, traced, clean, check_.control));
  }

  void compare(const std::string& claim, const Trace& one, const Trace& other) {
    Difference difference;
    difference.add(one.low_score, other.low_score);
    for (std::size_t grid = 0; grid < one.grids.size(); ++grid) {
      const auto& scores = one.grids[grid].scores;
      for (std::size_t i = 0; i < scores.size(); ++i) difference.add(scores[i], other.grids[grid].scores[i]);
    }
    find(claim, difference);
  }

  static bool has_shape_of_xl(const DecoderConfig& config) {
    return config.family == Family::kGpt2 && config.layers == 48 && config.width == 1600 && config.heads == 25 &&
           config.vocab_size == 50257;
  }

  void check_published() {
    if (!has_shape_of_xl(check_.model.config())) {
      skip("the paper's numbers of GPT-2 XL", "this is another model");
      return;
    }
    const std::string sigma_claim = "s3 over the paper's facts is " + text(kSigma);
    if (check_.paper_subjects) {
      const auto sigma = 3 * subject_embedding_std(check_.model, check_.tokenizer, *check_.paper_subjects);
      published(sigma_claim, sigma, kSigma, 1e-9);
    } else {
      skip(sigma_claim, "it is over the subjects of known_1000.json; give that file with --noise-facts");
    }
    auto prompt = read(kPrompts[0].first, kPrompts[0].second);
    prompt.target = {kSeattle};
    auto once = options(kSigma, {Kind::kState});
    once.samples = 1;
    once.positions.which = PositionRule::Which::kLast;
    const auto trace = sweep(prompt, once, check_.control);
    published("p(\" Seattle\") after \"The Space Needle is in downtown\" is " + text(kHighScore), trace.high_score,
              kHighScore, 1e-5);
    published("with one draw of noise it is " + text(kLowScore), trace.low_score, kLowScore, 1e-6);
  }

  // A number that is printed with so many digits; products of fewer digits have theirs.
  void published(const std::string& claim, double found, double expected, double resolution) {
    const auto allowed = check_.model.dtype() == at::kFloat || check_.model.dtype() == at::kDouble
                             ? std::max(resolution, 1e-4 * expected)
                             : std::max(resolution, 0.05);
    const bool holds = std::abs(found - expected) <= allowed;
    all_hold_ = all_hold_ && holds;
    tell_({claim, holds ? Finding::Outcome::kHolds : Finding::Outcome::kFails, "found " + text(found)});
  }

  const SelfCheck& check_;
  const std::function<void(const Finding&)>& tell_;
  TracePrompt prompt_;
  std::string where_;
  bool all_hold_ = true;
};

}  // namespace

bool self_check(const SelfCheck& check, const std::function<void(const Finding&)>& tell) {
  return Checker(check, tell).run();
}

}  // namespace rometrace
