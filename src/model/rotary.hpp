#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "rometrace/model/config.hpp"

namespace rometrace {

/// The angles by which pairs turn from one position to the next, [width / 2] float32: computed in float32 with
/// transformers' operations, so that they are equal to the last bit (ROPE_INIT_FUNCTIONS of its modeling_rope_utils).
at::Tensor rotary_frequencies(const Rotary& rotary);

/// Cosines and sines of the angles at `positions` [rows], times the magnitude: [2, rows, pairs], in the dtype of
/// `frequencies` [pairs].
at::Tensor cosines_and_sines(const at::Tensor& frequencies, const at::Tensor& positions, double magnitude);

/// Turns heads [rows, heads, d] of rows whose cosines and sines are `table` [2, rows, width / 2]. The result is new.
at::Tensor turned(const at::Tensor& heads, const at::Tensor& table, bool interleaved);

}  // namespace rometrace
