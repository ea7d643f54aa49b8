#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "rometrace/text/subject.hpp"
#include "rometrace/trace/noise.hpp"

namespace rometrace {

/// What becomes of the token embeddings in a corrupted run.
enum class CorruptionMethod {
  kNoise,   ///< noise added to those of the subject's tokens, or put in their place
  kZero,    ///< the subject's are 0
  kMean,    ///< the subject's are the mean embedding of a text's tokens
  kTokens,  ///< all are those of a counter prompt with the same number of tokens
};
std::string_view to_string(CorruptionMethod method);  ///< "noise", "zero", "mean", "tokens"

struct CorruptionOptions {
  CorruptionMethod method = CorruptionMethod::kNoise;
  /// The noise, see NoiseDraws.
  NoiseRule::Distribution distribution = NoiseRule::Distribution::kGaussian;
  double sigma = 0;
  double degrees_of_freedom = 0;
  bool replace = false;  ///< noise in place of the token embedding instead of added to it
  std::uint32_t seed = 1;
  /// Multivariate and Student's noise, and kMean, which reads the mean only.
  std::shared_ptr<const EmbeddingMoments> moments;
};

/// Whether draws differ. Where they do not there is one draw only.
inline bool is_random(const CorruptionOptions& options) {
  return options.method == CorruptionMethod::kNoise;
}

/// The first position that is corrupted, b: the subject's first token, or with a counter prompt the first that differs
/// from the prompt's; T if none does. `counter_ids` is empty or as long as `token_ids`, [T].
std::size_t first_corrupted(TokenRange subject, std::span<const std::int32_t> token_ids,
                            std::span<const std::int32_t> counter_ids);

}  // namespace rometrace
