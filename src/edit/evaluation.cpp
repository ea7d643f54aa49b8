#include "rometrace/edit/evaluation.hpp"

#include <cmath>

namespace rometrace {
namespace {

/// Means over prompts of whether `wanted` is the more probable object, and by how much.
class Means {
 public:
  void add(double wanted, double other) {
    ++prompts_;
    success_ += wanted < other ? 1 : 0;
    difference_ += std::exp(-wanted) - std::exp(-other);
  }
  std::optional<double> success() const { return mean(success_); }
  std::optional<double> difference() const { return mean(difference_); }

 private:
  std::optional<double> mean(double sum) const {
    if (prompts_ == 0) return std::nullopt;
    return sum / static_cast<double>(prompts_);
  }

  std::size_t prompts_ = 0;
  double success_ = 0, difference_ = 0;
};

}  // namespace

std::string_view to_string(Score score) {
  constexpr std::array<std::string_view, kScores.size()> kNames = {"ES", "EM", "PS", "PM", "NS", "NM"};
  return kNames[static_cast<std::size_t>(score)];
}

ObjectLosses losses_of(const PromptMeasure& measure) {
  return {measure.new_object.nll(), measure.true_object.nll()};
}

CaseScores case_scores(const ObjectLosses& prompt, std::span<const ObjectLosses> paraphrases,
                       std::span<const ObjectLosses> neighbours) {
  Means rewrite, paraphrased, neighbourhood;
  rewrite.add(prompt.new_object, prompt.true_object);
  for (const auto& each : paraphrases) paraphrased.add(each.new_object, each.true_object);
  for (const auto& each : neighbours) neighbourhood.add(each.true_object, each.new_object);
  return {rewrite.success(),        rewrite.difference(),    paraphrased.success(),
          paraphrased.difference(), neighbourhood.success(), neighbourhood.difference()};
}

double overall_score(double efficacy, double paraphrase, double neighbourhood) {
  if (efficacy <= 0 || paraphrase <= 0 || neighbourhood <= 0) return 0;
  return 3 / (1 / efficacy + 1 / paraphrase + 1 / neighbourhood);
}

}  // namespace rometrace
