#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <span>

#include "rometrace/model/decoder.hpp"

namespace rometrace {

/// Mean and covariance of the token embeddings of a text, each token counted as often as it stands there. On the CPU,
/// in double.
struct EmbeddingMoments {
  at::Tensor mean;  ///< [D]
  /// [D, D]: the symmetric square root of the covariance (divisor n - 1, about the mean); undefined where only the
  /// mean was asked for.
  at::Tensor root;
  std::int64_t tokens = 0;  ///< of the text, repeats included
};

/// Both moments of a text's tokens. Costs one product for each distinct token and an eigendecomposition, eigenvalues
/// below 0 by rounding being taken as 0. Throws Error for fewer than 2 tokens, one outside the model's vocabulary, and
/// embeddings whose covariance is not finite.
EmbeddingMoments embedding_moments(const Decoder& model, std::span<const std::int32_t> token_ids);

/// The mean alone, the same to the last bit. Throws Error for no token, or one outside the model's vocabulary.
EmbeddingMoments mean_embedding(const Decoder& model, std::span<const std::int32_t> token_ids);

/// What embedding_moments() gives, from a file in `cache_dir` where it is known already, and then kept there. The
/// file's name is a SHA-256 over the tokens, their counts and embeddings, so it never belongs to another text or model.
/// A file that is damaged is made anew; where none can be written, or `cache_dir` is empty, there is no cache.
EmbeddingMoments cached_embedding_moments(const Decoder& model, std::span<const std::int32_t> token_ids,
                                          const std::filesystem::path& cache_dir);

/// $XDG_CACHE_HOME/rometrace, else ~/.cache/rometrace; empty where neither is known (a relative path counts as unset).
std::filesystem::path default_cache_dir();

}  // namespace rometrace
