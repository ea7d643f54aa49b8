#include "trace/corruption.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/from_blob.h>

namespace rometrace {

Corruption::Corruption(const Gpt2& model, const TracePrompt& prompt, const TraceOptions& options)
    : subject_(prompt.subject_range), replace_(options.replace) {
  const auto tokens = static_cast<std::int64_t>(subject_.end - subject_.begin);
  const auto D = model.config().n_embd;
  auto noise = draw_noise(options.distribution, options.sigma, options.seed, options.samples, tokens, D);
  noise_ = at::from_blob(noise.data(), {options.samples, tokens, D}, at::kDouble).clone().to(model.device());
}

void Corruption::apply(const at::Tensor& embeddings) const {
  const auto subject =
      embeddings.slice(1, static_cast<std::int64_t>(subject_.begin), static_cast<std::int64_t>(subject_.end));
  subject.copy_(replace_ ? noise_ : subject.to(at::kDouble) + noise_);
}

}  // namespace rometrace
