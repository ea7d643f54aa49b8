#pragma once

#include <ATen/core/Tensor.h>

#include "rometrace/model/decoder.hpp"
#include "rometrace/trace/clean_run.hpp"
#include "rometrace/trace/trace.hpp"

namespace rometrace {

/// What is known of the neurons of some layers at some positions before any is run; on the CPU, in double, [P, layers,
/// F].
struct NeuronValues {
  /// Of the indirect effect, by NeuronRule, of each neuron patched alone: the mean over draws of (clean - corrupted)
  /// times the derivative of the answer's probability in the base run. Undefined where nothing is ranked: with kNone,
  /// or where neurons are given.
  at::Tensor estimates;
  at::Tensor clean, corrupted;  ///< the value in each run, mean over draws
  at::Tensor change;            ///< mean over draws of |clean - corrupted|
};

/// Of the first options.samples draws; options.neurons is set, positions and layers are those of positions_of() and
/// layers_of(). `clean` is the run of the same model, prompt and options. Before the first corrupted position nothing
/// differs, and estimates are 0.
///
/// kGradient takes the corrupted run of all draws and one backward (of the corrupted run or, when noising, of the clean
/// one, which is run again for it). kIntegrated takes the corrupted run, and for each position and each of M points a
/// run of all draws with a backward, in which the neurons of all chosen layers at that position are leaves.
///
/// Backwards go a layer at a time downwards, to the lowest chosen layer. What they keep takes control.memory at most,
/// and a sixteenth of the weights (but 16 MiB in any case): the graphs of all layers where they are that small, else
/// one layer's, which is run a second time for it. Rows that do not fit beside each other are taken in groups. The
/// weights are not copied.
///
/// Throws Error if a corrupted run ends in NaN or infinity, as engines do, or a derivative does; Interrupted when a
/// stop is requested (looked at several times a layer). A caller's NoGradGuard does not matter.
NeuronValues neuron_values(const Decoder& model, const TracePrompt& prompt, const TraceOptions& options,
                           const CleanRun& clean, const RunControl& control);

}  // namespace rometrace
