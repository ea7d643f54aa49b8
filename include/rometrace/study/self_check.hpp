#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
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

/// Clean states that are put back in a corrupted run.
struct Restored {
  TokenRange positions;
  LayerRange layers;
};

/// The mean over the draws of the probability of `answer` in a corrupted run for each of `restored`. The model runs all
/// of it, with the clean run beside: an engine takes some of these scores from what must hold. Throws Error.
std::vector<double> restored_scores(const Decoder& model, const TracePrompt& prompt, const TraceOptions& options,
                                    std::int32_t answer, std::span<const Restored> restored);

/// What a self-check compares: by default trace_sweep() and trace_plain(), each after a clean run of its own, and
/// restored_scores(). Tests put faulty ones in their place.
struct CheckedEngines {
  using Tracer = std::function<Trace(const Decoder&, const TracePrompt&, const TraceOptions&, const RunControl&)>;
  Tracer sweep, plain;
  std::function<std::vector<double>(const Decoder&, const TracePrompt&, const TraceOptions&, std::int32_t,
                                    std::span<const Restored>)>
      restore = restored_scores;

  CheckedEngines();
};

/// What a self-check is run on.
struct SelfCheck {
  const Decoder& model;
  const Tokenizer& tokenizer;
  double sigma = 0;                ///< of the noise, for the laws
  RunControl control;              ///< `memory` as for a trace
  bool published_weights = false;  ///< known from elsewhere: GPT-2 XL's own, as its authors released them
  /// Of the facts file that is to be the paper's; none: no file is at hand.
  std::optional<std::vector<std::string>> subjects;
  CheckedEngines engines = {};
  bool edited = false;  ///< the model is not that of its files: it is not compared with what is published
};

/// Runs the laws that hold for every decoder whatever its weights (without noise every cell has the clean score; the
/// last token's state after the last layer gives it back; positions before the subject change nothing; other positions'
/// last states neither; the sweep equals the plain engine; cutting it into passes changes nothing) and, for a model of
/// GPT-2 XL's shape, compare_with_paper(). Tells of each as it is found. Returns whether none fails. Throws Error,
/// Interrupted.
bool self_check(const SelfCheck& check, const std::function<void(const Finding&)>& tell);

/// The largest difference of two probabilities, as a part of the larger one, that rounding may make between runs that
/// are the same but for the order of their additions. A probability's relative error is at most its logits' absolute
/// one, whatever its size; this is what the logits of deep models differ by with products in `dtype`.
double rounding_bound(c10::ScalarType dtype);

/// One of the published numbers as it was found, or why it was not measured.
struct MeasuredNumber {
  std::optional<double> value;
  std::string why_not = {};
};

/// What arXiv 2202.05262's program gives for GPT-2 XL in float32.
struct PaperNumbers {
  MeasuredNumber sigma;       ///< of s3 over the subjects of known_1000.json
  MeasuredNumber high_score;  ///< p(" Seattle") after "The Space Needle is in downtown"
  MeasuredNumber low_score;   ///< the same with one draw of noise of that sigma on "The Space Needle"
};

/// Holds what was found against what is published. A number that agrees holds. One that does not is a failure only if
/// the weights are known to be those that the numbers are of: `published_weights`, or a probability that agrees, which
/// other weights give by no accident. Else (fine-tuned, edited, other weights of the shape) it is not checked.
std::vector<Finding> compare_with_paper(const PaperNumbers& found, bool published_weights);

/// Whether these are the subjects of the paper's facts file (known_1000.json), each as often and in the same order,
/// whatever the layout of the file that they were read from.
bool are_paper_subjects(std::span<const std::string> subjects);

}  // namespace rometrace
