#pragma once

#include <optional>
#include <string>
#include <vector>

#include "rometrace/edit/measures.hpp"
#include "rometrace/edit/request.hpp"
#include "rometrace/edit/rome.hpp"

namespace rometrace {

/// A prompt in the model before and after an edit.
struct MeasuredPrompt {
  std::string prompt;
  PromptMeasure before, after;
};

/// What became of one request.
struct EditedFact {
  EditRequest request;
  std::string true_object;  ///< with its leading space
  std::vector<std::int32_t> true_ids;
  SoughtValue value;
  std::optional<double> divisor, key_ratio;  ///< as RankOneEdit has them; none of MEMIT
  MeasuredPrompt prompt;
  std::vector<MeasuredPrompt> paraphrases, neighbours;
  std::vector<PromptMeasure> behind;  ///< after the edit, behind each template
  EditVerdict verdict;
};

/// exp of the mean -log p of a text's tokens, before and after.
struct EditPerplexity {
  std::string text;  ///< its name
  double before = 0, after = 0;
};

}  // namespace rometrace
