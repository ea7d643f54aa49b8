#pragma once

#include <span>
#include <string>

#include "rometrace/model/decoder.hpp"
#include "rometrace/text/tokenizer.hpp"
#include "rometrace/trace/noise.hpp"

namespace rometrace {

/// The unbiased standard deviation, over all elements in float32, of the token embeddings of `subjects`, each
/// tokenised alone and counted as often as it stands there (reference: `collect_embedding_std`). Throws Error if the
/// subjects have no token, or one outside the model's vocabulary.
double subject_embedding_std(const Decoder& model, const Tokenizer& tokenizer, std::span<const std::string> subjects);

}  // namespace rometrace
