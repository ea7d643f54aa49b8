#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "rometrace/model/decoder.hpp"
#include "rometrace/text/tokenizer.hpp"
#include "rometrace/trace/trace.hpp"

namespace rometrace {

/// One thing that must hold of any model, or of one whose numbers are published, and whether it does.
struct Finding {
  enum class Outcome { kHolds, kFails, kNotChecked, kFound };
  std::string claim;
  Outcome outcome = Outcome::kHolds;
  std::string detail;  ///< what was found (kFound: that is all, whatever it is); of what is not checked, why
};

/// What a self-check is run on.
struct SelfCheck {
  const Decoder& model;
  const Tokenizer& tokenizer;
  double sigma = 0;    ///< of the noise, for the laws
  RunControl control;  ///< `memory` as for a trace
  /// Subjects of the paper's facts file (known_1000.json), whose embeddings set the published sigma; none: not at hand.
  std::optional<std::vector<std::string>> paper_subjects;
};

/// Runs the laws that hold for every decoder whatever its weights (without noise every cell has the clean score; the
/// last token's state after the last layer gives it back; positions before the subject change nothing; other positions'
/// last states neither; the sweep equals the plain engine; cutting it into passes changes nothing) and, for a model of
/// GPT-2 XL's shape, the numbers of arXiv 2202.05262 (sigma of s3; p(" Seattle")). Tells of each as it is found.
/// Returns whether all hold. Throws Error, Interrupted.
bool self_check(const SelfCheck& check, const std::function<void(const Finding&)>& tell);

}  // namespace rometrace
