#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "rometrace/model/gpt2.hpp"

namespace rometrace {

/// The probability of token `answer` after each row of `hidden` [R, D] (after ln_f): its logit and the log-sum-exp of
/// all logits, taken slice by slice of the vocabulary, so that no [R, V] is stored.
std::vector<double> answer_probabilities(const Gpt2& model, const at::Tensor& hidden, std::int64_t answer);

}  // namespace rometrace
