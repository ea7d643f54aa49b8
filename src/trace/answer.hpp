#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "rometrace/model/gpt2.hpp"

namespace rometrace {

/// The probability after each row of `hidden` [R, D] (after ln_f) of that row's token in `answers` [R], each within the
/// vocabulary: its logit and the log-sum-exp of all logits, taken slice by slice of the vocabulary, so that no [R, V]
/// is stored.
std::vector<double> answer_probabilities(const Gpt2& model, const at::Tensor& hidden,
                                         std::span<const std::int32_t> answers);

}  // namespace rometrace
