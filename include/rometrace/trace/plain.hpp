#pragma once

#include <stop_token>

#include "rometrace/model/gpt2.hpp"
#include "rometrace/trace/trace.hpp"

namespace rometrace {

/// The clean run alone: prediction and answer with their probabilities; no grids, low_score NaN.
/// Throws Error: prompt longer than the model takes, an id or the target outside its vocabulary, output not a number.
Trace run_clean(const Gpt2& model, const TracePrompt& prompt, const TraceOptions& options);

/// Causal tracing as the paper describes it (section 2.1): one corrupted run of the whole model for each cell of each
/// grid. Slow and easy to check; the judge of faster engines.
///
/// Cells before the subject are not run: attention is causal, so no noise reaches them and what would be restored is
/// what is there; their score is low_score exactly.
///
/// Throws Error as run_clean does, and if noise takes the output beyond numbers; Interrupted when `stop` is requested
/// (looked at several times a layer).
Trace trace_plain(const Gpt2& model, const TracePrompt& prompt, const TraceOptions& options,
                  const Progress& progress = {}, std::stop_token stop = {});

}  // namespace rometrace
