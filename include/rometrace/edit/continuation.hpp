#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <span>
#include <stop_token>
#include <vector>

#include "rometrace/model/decoder.hpp"

namespace rometrace {

/// Texts that go on token by token, side by side. Keys and values of what has been run are kept, so a token costs one
/// row of each layer.
class Continuation {
 public:
  /// `texts` each have at least one token, and no more than the model takes; throws Error otherwise, Interrupted.
  Continuation(const Decoder& model, std::span<const std::vector<std::int32_t>> texts, std::stop_token stop = {});

  /// Scores of each text's next token, [texts, V].
  const at::Tensor& logits() const { return logits_; }
  std::int64_t longest() const;  ///< tokens of the longest text

  /// One more token for each text. The model has to take one more than longest(). Throws Interrupted.
  void append(std::span<const std::int32_t> ids);

 private:
  const Decoder& model_;
  std::stop_token stop_;
  std::vector<std::int64_t> lengths_;
  std::vector<std::vector<at::Tensor>> keys_values_;  // by layer and text, [tokens, K]
  at::Tensor logits_;
};

/// The most probable next tokens of each text, up to `tokens` of them, fewer where the texts reach the model's last
/// position; an id that `ends` accepts, and what would follow, is left off.
std::vector<std::vector<std::int32_t>> continue_greedily(const Decoder& model,
                                                         std::span<const std::vector<std::int32_t>> texts,
                                                         std::int64_t tokens,
                                                         const std::function<bool(std::int32_t)>& ends,
                                                         std::stop_token stop = {});

}  // namespace rometrace
