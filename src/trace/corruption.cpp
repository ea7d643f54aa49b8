#include "trace/corruption.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cassert>

#include "rometrace/trace/embedding_moments.hpp"

namespace rometrace {
namespace {

// [draws, tokens, D], double.
at::Tensor noise_of(const CorruptionOptions& options, std::int64_t first_draw, std::int64_t draws, std::int64_t tokens,
                    std::int64_t D) {
  NoiseDraws asked;
  asked.distribution = options.distribution;
  asked.sigma = options.sigma;
  asked.degrees_of_freedom = options.degrees_of_freedom;
  asked.moments = options.moments.get();
  asked.seed = options.seed;
  asked.first_draw = first_draw;
  asked.draws = draws;
  asked.tokens = tokens;
  asked.width = D;
  auto noise = draw_noise(asked);
  return at::from_blob(noise.data(), {draws, tokens, D}, at::kDouble).clone();
}

}  // namespace

std::string_view to_string(CorruptionMethod method) {
  switch (method) {
    case CorruptionMethod::kNoise:
      return "noise";
    case CorruptionMethod::kZero:
      return "zero";
    case CorruptionMethod::kMean:
      return "mean";
    case CorruptionMethod::kTokens:
      return "tokens";
  }
  return "";
}

std::size_t first_corrupted(TokenRange subject, std::span<const std::int32_t> token_ids,
                            std::span<const std::int32_t> counter_ids) {
  if (counter_ids.empty()) return subject.begin;
  assert(counter_ids.size() == token_ids.size());
  const auto differing = std::mismatch(token_ids.begin(), token_ids.end(), counter_ids.begin()).first;
  return static_cast<std::size_t>(differing - token_ids.begin());
}

Corruption::Corruption(const Decoder& model, const CorruptionOptions& options, TokenRange subject,
                       std::span<const std::int32_t> counter_ids, std::int64_t first_draw, std::int64_t draws)
    : range_(subject), added_(options.method == CorruptionMethod::kNoise && !options.replace) {
  const auto D = model.config().embedding_width;
  switch (options.method) {
    case CorruptionMethod::kNoise:
      values_ = noise_of(options, first_draw, draws, static_cast<std::int64_t>(subject.end - subject.begin), D);
      break;
    case CorruptionMethod::kZero:
      values_ = at::zeros({1, 1, D}, at::kDouble);
      break;
    case CorruptionMethod::kMean:
      assert(options.moments != nullptr);
      values_ = options.moments->mean.view({1, 1, D});
      break;
    case CorruptionMethod::kTokens:
      assert(!counter_ids.empty());
      range_ = {0, counter_ids.size()};
      values_ = model.embed(counter_ids).unsqueeze(0);
      break;
  }
  values_ = values_.to(model.device());
}

void Corruption::apply(const at::Tensor& embeddings) const {
  const auto positions =
      embeddings.slice(1, static_cast<std::int64_t>(range_.begin), static_cast<std::int64_t>(range_.end));
  positions.copy_(added_ ? positions.to(at::kDouble) + values_ : values_);
}

}  // namespace rometrace
