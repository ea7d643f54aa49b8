#pragma once

#include "rometrace/model/decoder.hpp"
#include "rometrace/trace/clean_run.hpp"
#include "rometrace/trace/trace.hpp"

namespace rometrace {

/// Causal tracing as the paper describes it (section 2.1): one patched run of the whole model for each cell of each
/// grid. Slow and easy to check; the judge of the sweep.
///
/// Cells before the first corrupted position are not run: attention is causal, so no noise reaches them and what would
/// be patched is what is there; their score is the unpatched run's exactly.
///
/// `clean` is the run of the same model, prompt and options. Progress counts cells. Throws Error if noise takes the
/// output beyond numbers, or a listed position is not in the prompt; Interrupted when a stop is requested (looked at
/// several times a layer).
Trace trace_plain(const Decoder& model, const TracePrompt& prompt, const TraceOptions& options, const CleanRun& clean,
                  const RunControl& control = {});

}  // namespace rometrace
