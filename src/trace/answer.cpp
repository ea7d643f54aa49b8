#include "trace/answer.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/full.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/zeros.h>

#include <limits>

namespace rometrace {

std::vector<double> answer_probabilities(const Gpt2& model, const at::Tensor& hidden, std::int64_t answer) {
  constexpr std::int64_t kRows = 512;  // with a slice of the vocabulary, logits that stay in the cache
  const auto& head = model.head();
  std::vector<double> probabilities;
  for (std::int64_t begin = 0; begin < hidden.size(0); begin += kRows) {
    const auto rows = hidden.slice(0, begin, begin + kRows);
    const auto R = rows.size(0);
    const auto options = at::device(hidden.device()).dtype(at::kDouble);
    // Of the slices so far: the largest logit, and the sum of exp(logit - largest).
    auto largest = at::full({R, 1}, -std::numeric_limits<double>::infinity(), options);
    auto sum = at::zeros({R, 1}, options);
    at::Tensor answer_logit;
    std::int64_t first_token = 0;
    for (std::size_t part = 0; part < head.parts(); ++part) {
      auto logits = head.product(rows, part);  // [R, width]
      if (first_token <= answer && answer < first_token + logits.size(1)) {
        const auto column = logits.slice(1, answer - first_token, answer - first_token + 1);
        answer_logit = column.to(at::kDouble, /*non_blocking=*/false, /*copy=*/true);  // the logits are about to change
      }
      first_token += logits.size(1);
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
