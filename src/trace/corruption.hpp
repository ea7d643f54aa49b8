#pragma once

#include <ATen/core/Tensor.h>

#include "rometrace/model/gpt2.hpp"
#include "rometrace/trace/trace.hpp"

namespace rometrace {

/// The noise of one trace, drawn once and put on the subject's embeddings of every corrupted run.
class Corruption {
 public:
  Corruption(const Gpt2& model, const TracePrompt& prompt, const TraceOptions& options);

  /// Writes in place into token embeddings [N, T, D]. Added in double and rounded once, as the reference does.
  void apply(const at::Tensor& embeddings) const;

 private:
  TokenRange subject_;
  bool replace_;
  at::Tensor noise_;  // [N, e - b, D], double, scaled
};

}  // namespace rometrace
