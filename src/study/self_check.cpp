#include "rometrace/study/self_check.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <span>
#include <utility>

#include "rometrace/error.hpp"
#include "rometrace/text/digest.hpp"
#include "rometrace/text/subject.hpp"
#include "rometrace/trace/clean_run.hpp"
#include "rometrace/trace/plain.hpp"
#include "rometrace/trace/sigma.hpp"
#include "rometrace/trace/sweep.hpp"
#include "trace/corruption.hpp"
#include "trace/readout.hpp"

namespace rometrace {
namespace {

constexpr std::int32_t kSeattle = 7312;  // " Seattle"
constexpr double kPaperSigma = 0.13462981581687927;

constexpr std::array<std::pair<const char*, const char*>, 2> kPrompts{{
    {"The Space Needle is in downtown", "The Space Needle"},  // at the beginning of its prompt
    {"The trumpet player Miles Davis plays the", "Miles Davis"},
}};

std::string text(double value, int precision = 6) {
  std::array<char, 32> digits{};
  std::snprintf(digits.data(), digits.size(), "%.*g", precision, value);
  return digits.data();
}

// The largest of some differences, each as a part of the larger value, and how many there were.
struct Difference {
  double largest = 0;
  std::int64_t values = 0;

  void add(double value, double expected) {
    constexpr double kLeast = 1e-30;  // below it float32 has fewer digits
    const auto difference = std::abs(value - expected) / std::max({std::abs(value), std::abs(expected), kLeast});
    // No comparison with a NaN is true, so one that has come must be kept by name.
    if (!std::isnan(largest) && !(difference <= largest)) largest = difference;
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
    read.token_ids = ids_of(tokens);
    read.subject_span = find_subject(prompt, subject);
    read.subject_range = tokens_of_subject(tokens, prompt, read.subject_span);
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
    return check_.engines.sweep(check_.model, prompt, options, control);
  }

  void tell(const Finding& finding) {
    all_hold_ = all_hold_ && finding.outcome != Finding::Outcome::kFails;
    tell_(finding);
  }

  void find(const std::string& claim, const Difference& difference) {
    const auto bound = rounding_bound(check_.model.dtype());
    const bool holds = difference.largest <= bound;
    const auto found = std::isnan(difference.largest) ? "at least one is not a number"
                                                      : "largest difference " + text(difference.largest, 2) +
                                                            " of a score, allowed " + text(bound);
    tell({where_ + claim, holds ? Finding::Outcome::kHolds : Finding::Outcome::kFails,
          std::to_string(difference.values) + (difference.values == 1 ? " score, " : " scores, ") + found});
  }

  void skip(const std::string& claim, const std::string& why) {
    tell({where_ + claim, Finding::Outcome::kNotChecked, why});
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
    auto traced = options(check_.sigma, {Kind::kState});
    traced.positions.which = PositionRule::Which::kLast;
    const auto trace = sweep(prompt_, traced, check_.control);
    const auto L = trace.layers;
    const auto T = prompt_.token_ids.size(), begin = prompt_.subject_range.begin;
    const std::array<Restored, 3> restored = {
        {{{T - 1, T}, {L - 1, L}}, {{0, T - 1}, {L - 1, L}}, {{0, begin}, {0, L}}}};
    const auto scores = check_.engines.restore(check_.model, prompt_, traced, trace.answer_ids.front(), restored);
    Difference last, others, before;
    last.add(scores[0], trace.high_score);
    others.add(scores[1], trace.low_score);
    before.add(scores[2], trace.low_score);
    find("the last token's state after the last layer gives back the clean score", last);
    find("other tokens' states after the last layer change nothing", others);
    if (begin > 0) find("states before the subject change nothing", before);
    tell({where_ + "the answer's probability", Finding::Outcome::kFound,
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
    compare(claim, sweep(prompt_, traced, check_.control),
            check_.engines.plain(check_.model, prompt_, traced, check_.control));
  }

  void compare(const std::string& claim, const Trace& one, const Trace& other) {
    Difference difference;
    difference.add(one.low_score, other.low_score);
    for (std::size_t grid = 0; grid < one.grids.size(); ++grid) {
      const auto& scores = one.grids[grid].scores;
      const auto& others = other.grids.at(grid).scores;
      for (std::size_t i = 0; i < scores.size(); ++i) difference.add(scores[i], others.at(i));
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
    if (check_.edited) {
      skip("the paper's numbers of GPT-2 XL", "this model is edited");
      return;
    }
    PaperNumbers found;
    found.sigma = measure_sigma();
    if (check_.model.dtype() == at::kFloat || check_.model.dtype() == at::kDouble) {
      auto prompt = read(kPrompts[0].first, kPrompts[0].second);
      prompt.target = {kSeattle};
      auto once = options(kPaperSigma, {Kind::kState});
      once.samples = 1;
      once.positions.which = PositionRule::Which::kLast;
      const auto trace = sweep(prompt, once, check_.control);
      found.high_score.value = trace.high_score;
      found.low_score.value = trace.low_score;
    } else {
      found.high_score.why_not = found.low_score.why_not = "products of fewer digits than float32's change it";
    }
    for (const auto& finding : compare_with_paper(found, check_.published_weights)) tell(finding);
  }

  MeasuredNumber measure_sigma() const {
    if (!check_.subjects) {
      return {{}, "it is over the subjects of known_1000.json; give that file with --noise-facts"};
    }
    if (!are_paper_subjects(*check_.subjects)) {
      return {{}, "it is over the subjects of known_1000.json, and the file given with --noise-facts has others"};
    }
    return {3 * subject_embedding_std(check_.model, check_.tokenizer, *check_.subjects)};
  }

  const SelfCheck& check_;
  const std::function<void(const Finding&)>& tell_;
  TracePrompt prompt_;
  std::string where_;
  bool all_hold_ = true;
};

// A published number, and how near it another right implementation comes.
struct Published {
  std::string claim;
  double value;
  double allowed;
};

// Of a probability printed to `last_digit`: half of that, and what float32 leaves of the logits.
Published probability(const std::string& claim, double value, double last_digit) {
  const auto rounding = rounding_bound(at::kFloat) * value * (1 - value);
  return {claim + text(value), value, last_digit / 2 + rounding};
}

bool agrees(const MeasuredNumber& found, const Published& expected) {
  return found.value && std::abs(*found.value - expected.value) <= expected.allowed;
}

Finding judge(const MeasuredNumber& found, const Published& expected, bool right_weights) {
  if (!found.value) return {expected.claim, Finding::Outcome::kNotChecked, found.why_not};
  const auto detail = "found " + text(*found.value, 9) + ", allowed difference " + text(expected.allowed, 2);
  if (agrees(found, expected)) return {expected.claim, Finding::Outcome::kHolds, detail};
  if (right_weights) return {expected.claim, Finding::Outcome::kFails, detail};
  return {expected.claim, Finding::Outcome::kNotChecked,
          "found " + text(*found.value, 9) +
              ", but nothing shows that these are the published weights of GPT-2 XL, and others give other numbers"};
}

}  // namespace

CheckedEngines::CheckedEngines()
    : sweep(
          [](const Decoder& model, const TracePrompt& prompt, const TraceOptions& options, const RunControl& control) {
            return trace_sweep(model, prompt, options, run_clean(model, prompt, options, control.stop), control).trace;
          }),
      plain(
          [](const Decoder& model, const TracePrompt& prompt, const TraceOptions& options, const RunControl& control) {
            return trace_plain(model, prompt, options, run_clean(model, prompt, options, control.stop), control);
          }) {}

std::vector<double> restored_scores(const Decoder& model, const TracePrompt& prompt, const TraceOptions& options,
                                    std::int32_t answer, std::span<const Restored> restored) {
  const at::NoGradGuard no_grad;
  const auto N = options.samples, runs = static_cast<std::int64_t>(restored.size());
  const Corruption corruption(model, options.corruption, prompt.subject_range, prompt.counter_ids, 0, N);
  // The first row is the clean run.
  const auto rows_of = [&](const at::Tensor& value, std::int64_t run) {
    return value.slice(0, 1 + run * N, 1 + (run + 1) * N);
  };
  const auto tap = [&](Site site, std::int64_t layer, at::Tensor& value) {
    for (std::int64_t run = 0; run < runs; ++run) {
      const auto& [positions, layers] = restored[static_cast<std::size_t>(run)];
      if (site == Site::kEmbedding) corruption.apply(rows_of(value, run));
      if (site != Site::kState || !layers.contains(layer)) continue;
      const auto begin = static_cast<std::int64_t>(positions.begin), end = static_cast<std::int64_t>(positions.end);
      rows_of(value, run).slice(1, begin, end).copy_(value.slice(0, 0, 1).slice(1, begin, end));
    }
  };
  const auto hidden = model.forward(prompt.token_ids, 1 + runs * N, tap);
  Question question;
  question.answer = {answer};
  const auto probabilities = read_logits(model.logits(hidden.slice(1, hidden.size(1) - 1)), question, {});
  std::vector<double> scores;
  for (std::int64_t run = 0; run < runs; ++run) {
    const auto first = probabilities.begin() + 1 + run * N;
    scores.push_back(std::accumulate(first, first + N, 0.0) / static_cast<double>(N));
  }
  return scores;
}

bool self_check(const SelfCheck& check, const std::function<void(const Finding&)>& tell) {
  return Checker(check, tell).run();
}

double rounding_bound(c10::ScalarType dtype) {
  switch (dtype) {
    case at::kDouble:
      return 1e-9;
    case at::kFloat:
      return 2e-4;
    case at::kHalf:  // 11 bits
      return 0.02;
    default:  // bfloat16: 8 bits
      return 0.1;
  }
}

std::vector<Finding> compare_with_paper(const PaperNumbers& found, bool published_weights) {
  // Of the embeddings alone, read in float32 whatever the products' dtype: what another order of additions changes.
  const Published sigma{"s3 over the paper's facts is " + text(kPaperSigma, 9), kPaperSigma, 1e-5 * kPaperSigma};
  const auto high = probability("p(\" Seattle\") after \"The Space Needle is in downtown\" is ", 0.97638, 1e-5);
  const auto low = probability("with one draw of noise it is ", 0.026176, 1e-6);
  const bool right = published_weights || agrees(found.high_score, high) || agrees(found.low_score, low);
  return {judge(found.sigma, sigma, right), judge(found.high_score, high, right), judge(found.low_score, low, right)};
}

bool are_paper_subjects(std::span<const std::string> subjects) {
  Sha256 hash;
  for (const auto& subject : subjects) {
    const auto line = subject + "\n";
    hash.update(std::as_bytes(std::span(line)));
  }
  return hash.hex_digest() == "91cdea234d8ad18815c547c202186a0a8f73a2a9513f603810a33964843b0257";
}

}  // namespace rometrace
