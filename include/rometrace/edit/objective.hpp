#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <stop_token>
#include <string_view>

#include "rometrace/edit/request.hpp"
#include "rometrace/model/decoder.hpp"

namespace rometrace {

/// How the loss and its gradient are computed; the numbers are the same within rounding.
enum class EditEngine {
  kFast,   ///< only the layers above and the positions from the fact on, see fast_objective()
  kPlain,  ///< the whole model for each text, plain_objective(): the definition
};
std::string_view to_string(EditEngine engine);  ///< "fast", "plain"

/// Where a layer takes the change of the fact's value.
enum class ValueSite {
  kMlpProduct,  ///< what the MLP's last matrix gives, with its bias: ROME
  kState,       ///< the block's output: MEMIT
};

/// The loss of one request as a function of delta [D], which is added at one layer and at the fact's token in every
/// text (arXiv 2202.05262, section 3.1, equation 4):
///  - nll: over the texts, the mean of -(1/K) sum_t log p(target_t | text, target_<t);
///  - kl: sum_x p(x) (log p(x) - log p_start(x)) of the token after the subject alone, p with delta and p_start
///  without.
class EditObjective {
 public:
  virtual ~EditObjective() = default;

  struct Loss {
    double nll = 0;       ///< nats a token
    double kl = 0;        ///< nats, not weighted
    at::Tensor gradient;  ///< of nll + kl_factor kl by delta, [D], float64 on the CPU; undefined if it is not wanted
  };
  enum class Gradient { kWanted, kNotWanted };

  /// `delta` [D], of any floating type. A caller's NoGradGuard does not matter. Throws Interrupted.
  virtual Loss evaluate(const at::Tensor& delta, double kl_factor, Gradient gradient = Gradient::kWanted) = 0;

  /// Of the model without delta, float64 on the CPU, one row a text:
  virtual const at::Tensor& keys() const = 0;    ///< what the MLP's last matrix reads at the fact's token, [R, F]
  virtual const at::Tensor& values() const = 0;  ///< what `site` has there, [R, D]
};

/// Runs each text through the whole model and differentiates all of it.
std::unique_ptr<EditObjective> plain_objective(const Decoder& model, const EditRequest& request, std::int64_t layer,
                                               ValueSite site, std::stop_token stop = {});

/// The same of only what delta reaches: the layers above it and the positions from the fact's token on. What lies
/// before is run once: states at the layer, and keys and values of earlier positions in the layers above. Rows of all
/// texts go through products together; the head reads where the object is said. The backward goes a layer at a time
/// downwards; where layers are streamed each is run again for it, else its graph is kept.
std::unique_ptr<EditObjective> fast_objective(const Decoder& model, const EditRequest& request, std::int64_t layer,
                                              ValueSite site, std::stop_token stop = {});

std::unique_ptr<EditObjective> make_objective(EditEngine engine, const Decoder& model, const EditRequest& request,
                                              std::int64_t layer, ValueSite site, std::stop_token stop = {});

}  // namespace rometrace
