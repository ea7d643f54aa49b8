#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "rometrace/model/config.hpp"

namespace rometrace {

/// y = x W + b, with the weight made ready for the processor once: on the CPU in float32 and bfloat16 it is copied into
/// oneDNN's own layout ("packed"), which serves products of any number of rows; otherwise it is used as it is.
///
/// The columns of W may be divided into parts that are multiplied apart (queries | keys and values; slices of the
/// vocabulary).
class Linear {
 public:
  /// `weight` [in, out] with any strides; `bias` [out] or undefined; `widths`: columns of each part, none: one part.
  /// A packed Linear does not keep `weight`.
  Linear(at::Tensor weight, at::Tensor bias, std::span<const std::int64_t> widths = {});

  /// Whether weights of this dtype on this device are packed.
  static bool packs(at::ScalarType dtype, at::Device device);

  std::size_t parts() const { return parts_.size(); }

  /// [..., in] -> [..., width of the part], in the weight's dtype, whatever x's.
  at::Tensor product(const at::Tensor& x, std::size_t part = 0) const;

  /// The same with the activation applied.
  at::Tensor activated_product(const at::Tensor& x, Activation activation, std::size_t part = 0) const;

 private:
  struct Part {
    at::Tensor weight;  // packed [out, in], or a view of [in, out]
    at::Tensor bias;    // [out] or undefined
  };

  at::Tensor convert(const at::Tensor& x) const;  // to the weight's dtype

  at::ScalarType dtype_;
  bool packed_;
  std::vector<Part> parts_;
};

}  // namespace rometrace
