#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "rometrace/model/config.hpp"
#include "rometrace/model/linear.hpp"

// Letters for shapes as in decoder.hpp.

namespace rometrace {

class Mlp {
 public:
  /// `inputs`: D -> F, or to two parts where the MLP is gated: gate (F), up (F); `output`: F -> D.
  Mlp(const DecoderConfig& config, std::shared_ptr<const Linear> inputs, std::shared_ptr<const Linear> output);
  at::Tensor hidden(const at::Tensor& x) const;       ///< what the last matrix reads: [..., D] -> [..., F]
  at::Tensor output(const at::Tensor& hidden) const;  ///< that matrix's product, with its bias: [..., F] -> [..., D]
  void prepare() const;

 private:
  Activation activation_;
  bool gated_;
  double gate_limit_, up_offset_;
  std::shared_ptr<const Linear> inputs_;
  std::shared_ptr<const Linear> output_;
};

/// What a layer may have in place of an MLP: see Experts. Autograd differentiates the weights of the chosen experts,
/// too, while who is chosen stays as it is.
class Mixture {
 public:
  struct Parts {
    std::shared_ptr<const Linear> router;  ///< D -> experts, in the stream's dtype
    std::vector<std::shared_ptr<const Mlp>> experts;
    std::shared_ptr<const Mlp> shared;          ///< or none
    std::shared_ptr<const Linear> shared_gate;  ///< D -> 1, of its sigmoid, in the stream's dtype
  };
  Mixture(const Experts& experts, Parts parts) : experts_(experts), parts_(std::move(parts)) {}

  /// [..., D] -> [..., D], in the dtype of x, which is the stream's. The rows are put together by their experts, and
  /// those of one expert go through its products at once; experts without rows are not touched.
  at::Tensor output(const at::Tensor& x) const;

  struct Choice {
    at::Tensor experts;  ///< [rows, chosen], int64
    at::Tensor weights;  ///< likewise, in the stream's dtype
  };
  Choice choose(const at::Tensor& scores) const;  ///< of the router's product [rows, experts]

  void prepare() const;          ///< what all rows need: experts are read, and packed, when rows first come to them
  void prepare_experts() const;  ///< these, too

 private:
  Experts experts_;
  Parts parts_;
};

}  // namespace rometrace
