#include "trace/answer.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/full.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>

#include <limits>

namespace rometrace {

std::vector<double> answer_probabilities(const Gpt2& model, const at::Tensor& hidden,
                                         std::span<const std::int32_t> answers) {
  TORCH_INTERNAL_ASSERT(static_cast<std::int64_t>(answers.size()) == hidden.size(0), "a row needs an answer");
  constexpr std::int64_t kRows = 512;  // with a slice of the vocabulary, logits that stay in the cache
  const auto& head = model.head();
  const auto ids = at::tensor(std::vector<std::int64_t>(answers.begin(), answers.end())).to(hidden.device());
  std::vector<double> probabilities;
  for (std::int64_t begin = 0; begin < hidden.size(0); begin += kRows) {
    const auto rows = hidden.slice(0, begin, begin + kRows);
    const auto R = rows.size(0);
    const auto options = at::device(hidden.device()).dtype(at::kDouble);
    // Of the slices so far: the largest logit, and the sum of exp(logit - largest).
    auto largest = at::full({R, 1}, -std::numeric_limits<double>::infinity(), options);
    auto sum = at::zeros({R, 1}, options);
    auto answer_logit = at::zeros({R, 1}, options);
    auto in_slice = ids.slice(0, begin, begin + kRows).unsqueeze(1);  // counted from the slice's first token
    for (std::size_t part = 0; part < head.parts(); ++part) {
      auto logits = head.product(rows, part);  // [R, width]
      const auto width = logits.size(1);
      const auto candidate = logits.gather(1, in_slice.clamp(0, width - 1)).to(at::kDouble);  // logits will change
      answer_logit = at::where((in_slice >= 0).logical_and(in_slice < width), candidate, answer_logit);
      in_slice = in_slice - width;
      const auto slice_largest = at::amax(logits, {1}, /*keepdim=*/true);
      const auto slice_sum = logits.sub_(slice_largest).exp_().sum(1, /*keepdim=*/true).to(at::kDouble);
      const auto new_largest = at::maximum(largest, slice_largest.to(at::kDouble));
      sum = sum * at::exp(largest - new_largest) + slice_sum * at::exp(slice_largest.to(at::kDouble) - new_largest);
      largest = new_largest;
    }
    const auto values = (at::exp(answer_logit - largest) / sum).contiguous().cpu();
    probabilities.insert(probabilities.end(), values.const_data_ptr<double>(), values.const_data_ptr<double>() + R);
  }
  return probabilities;
}

}  // namespace rometrace
