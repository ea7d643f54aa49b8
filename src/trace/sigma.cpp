#include "rometrace/trace/sigma.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/std.h>

#include <vector>

#include "rometrace/error.hpp"

namespace rometrace {

double subject_embedding_std(const Decoder& model, const Tokenizer& tokenizer, std::span<const std::string> subjects) {
  const at::NoGradGuard no_grad;
  std::vector<std::int32_t> ids;
  for (const auto& subject : subjects) {
    for (const auto& token : tokenizer.encode(subject)) ids.push_back(token.id);
  }
  if (ids.empty()) throw Error("the noise rule needs the tokens of at least one subject; the facts file has none");
  return at::std(model.embed(ids).to(at::kFloat).cpu()).item<float>();  // on the CPU: one order of additions
}

}  // namespace rometrace
