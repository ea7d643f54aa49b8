#pragma once

#include <ATen/core/Tensor.h>

#include "rometrace/model/decoder.hpp"
#include "rometrace/trace/clean_run.hpp"
#include "rometrace/trace/trace.hpp"

namespace rometrace {

/// What is known of the neurons of some layers at some positions before any is run; on the CPU, in double, [P, layers,
/// F].
struct NeuronValues {
  at::Tensor estimates;         ///< of the indirect effect by NeuronRule; undefined where nothing is ranked
  at::Tensor clean, corrupted;  ///< mean over draws
  at::Tensor change;            ///< mean over draws of |clean - corrupted|
};

NeuronValues neuron_values(const Decoder& model, const TracePrompt& prompt, const TraceOptions& options,
                           const CleanRun& clean, const RunControl& control);

}  // namespace rometrace
