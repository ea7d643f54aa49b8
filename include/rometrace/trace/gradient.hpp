#pragma once

#include "rometrace/model/decoder.hpp"
#include "rometrace/trace/clean_run.hpp"
#include "rometrace/trace/trace.hpp"

namespace rometrace {

/// Attribution patching (arXiv 2310.10348): the grids' scores to first order. An approximation, and no other engine's
/// numbers, from two forwards and one backward for all cells together; high_score and low_score are exact.
///
/// A draw's score at a cell is p + sum over the window's layers of <other - base, dp / d output>: p the answer's
/// probability in the base run (the corrupted or, when noising, the clean one), base that run's outputs at the cell's
/// position, other those of the other run, and the derivative that of the base run, through all that follows. Nothing
/// keeps it within [0, 1]. Cells before the first corrupted position are the base run's score exactly.
///
/// For kState, kMlp, kAttn and kHead; no measures, other targets or precision.
/// The backward goes a layer at a time downwards, so that layers may be streamed, and the weights are not copied. Where
/// layers are held and control.memory holds the graphs of all draws in all layers, these are kept; else only what
/// enters each layer is, and each is run a second time on the way down. Draws are taken together as far as that memory
/// goes, at least one. A caller's NoGradGuard does not matter. `clean` is the run of the same model, prompt and
/// options. Progress counts draws. Throws Error for what is not supported, and if noise takes the output beyond
/// numbers; Interrupted when a stop is requested (looked at several times a layer, downwards too).
Trace trace_gradient(const Decoder& model, const TracePrompt& prompt, const TraceOptions& options,
                     const CleanRun& clean, const RunControl& control = {});

}  // namespace rometrace
