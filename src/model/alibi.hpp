#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "rometrace/model/config.hpp"

namespace rometrace {

/// What Alibi adds to scores of keys at positions 0 .. length - 1, [heads, length] float32: computed with transformers'
/// operations, so that they are equal to the last bit.
at::Tensor alibi_biases(const Alibi& alibi, std::int64_t heads, std::int64_t length);

}  // namespace rometrace
