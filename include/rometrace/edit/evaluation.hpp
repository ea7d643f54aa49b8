#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <span>
#include <string_view>

#include "rometrace/edit/measures.hpp"

namespace rometrace {

/// What an edit of one fact is judged by (arXiv 2202.05262, section 3.4, as its authors' program computes it). "S" says
/// which of the request's two objects is the more probable, "M" by how much.
enum class Score {
  kES,  ///< efficacy success, on the prompt itself: 1 where p(new) > p(true)
  kEM,  ///< efficacy magnitude: p(new) - p(true)
  kPS,  ///< paraphrase success
  kPM,
  kNS,  ///< neighbourhood success, on prompts of other subjects: 1 where p(true) > p(new)
  kNM,  ///< p(true) - p(new)
};
inline constexpr std::array kScores = {Score::kES, Score::kEM, Score::kPS, Score::kPM, Score::kNS, Score::kNM};
std::string_view to_string(Score score);  ///< "ES", "EM", "PS", ...

/// One fact's scores in one model, in [0, 1] or [-1, 1]: means over its prompts of the kind; none without such prompts.
using CaseScores = std::array<std::optional<double>, kScores.size()>;

inline const std::optional<double>& score_of(const CaseScores& scores, Score score) {
  return scores[static_cast<std::size_t>(score)];
}

/// The mean -log p by token of both objects behind a prompt.
struct ObjectLosses {
  double new_object = 0, true_object = 0;
};
ObjectLosses losses_of(const PromptMeasure& measure);

/// p is exp(-loss), the geometric mean over the object's tokens. A tie is no success, on either side.
CaseScores case_scores(const ObjectLosses& prompt, std::span<const ObjectLosses> paraphrases,
                       std::span<const ObjectLosses> neighbours);

/// S: the harmonic mean of three mean successes; 0 if one is.
double overall_score(double efficacy, double paraphrase, double neighbourhood);

}  // namespace rometrace
