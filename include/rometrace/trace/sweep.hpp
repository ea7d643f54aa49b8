#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <variant>
#include <vector>

#include "rometrace/error.hpp"
#include "rometrace/model/decoder.hpp"
#include "rometrace/trace/clean_run.hpp"
#include "rometrace/trace/trace.hpp"

namespace rometrace {

/// What a sweep computed, in rows of the residual stream times layers: how many went through each group of products.
struct TokenLayers {
  std::int64_t keys_values = 0;  ///< D -> K: every row, as later rows attend to it
  std::int64_t attention = 0;    ///< query and projection, D -> A -> D: rows whose attention output is used
  std::int64_t mlp = 0;          ///< D -> F -> D, twice D -> F where it is gated: rows whose MLP output is used
  std::int64_t neurons = 0;      ///< F -> D alone: sets of neurons where they begin
  std::int64_t answers = 0;      ///< rows of the head, E -> V; once, not for each layer
  std::int64_t mixture = 0;  ///< in place of `mlp` where a layer is a mixture: router and as many experts as it chooses

  /// So many rows through all of a model's layers.
  static TokenLayers through_layers(std::int64_t rows, const DecoderConfig& config);

  TokenLayers& operator+=(const TokenLayers& more);

  /// Floating-point operations of these products, two for each multiply-add.
  double flops(const DecoderConfig& config) const;
};

struct Sweep {
  Trace trace;
  TokenLayers work;         ///< the corrupted runs and the keys of the clean one; not `clean` itself
  std::int64_t passes = 0;  ///< over the layers; more than one where memory did not hold all patches
};

/// All grids in one pass up the layers; the scores of trace_plain within rounding.
///
/// A patch at layer l changes nothing in the layers up to l, nor at positions before its own. So one matrix of rows is
/// carried up the layers: the base run's rows (the corrupted run's or, when noising, the clean one's) and, for each
/// patched run that has begun, the rows that it changes. All share each layer's products; in attention a patched run's
/// rows see their own keys and, before those, the base run's. After each layer the patches that begin there are
/// admitted, as copies of the base run's rows with one row changed. What a patch changes further up (a window of
/// outputs, outputs held at the base run's, attention that is cut) is written over as the rows pass.
///
/// With b the first corrupted position, the states alone cost, in token-layers of keys and values,
///   L (N (T - b) + b + 1) + N L (L - 1) / 2 (sum of T - t for t in b .. T - 1, less 1):
/// the corrupted run and the clean run's first rows, then the patches, where the state restored at b stays the clean
/// run's and needs no row. Attention and MLP take the same rows, but of the last layer the last position only. A
/// knockout has a row of the last position, without draws: L of them for each group.
///
/// `clean` is the run of the same model, prompt and options. `control.memory` bounds the rows held: what does not fit
/// is left for another pass. Progress counts token-layers. Throws Error if noise takes the output beyond numbers, if a
/// listed position is not in the prompt, or if `control.memory` does not hold the base run and one patch; Interrupted
/// when a stop is requested.
Sweep trace_sweep(const Decoder& model, const TracePrompt& prompt, const TraceOptions& options, const CleanRun& clean,
                  const RunControl& control = {});

/// One fact of a shared sweep: what trace_sweep takes of it. Nothing is null.
struct SweepFact {
  const TracePrompt* prompt = nullptr;
  const CleanRun* clean = nullptr;
};

struct SharedSweep {
  std::vector<std::variant<Trace, Error>> outcomes;  ///< of each fact, in their order
  TokenLayers work;                                  ///< of all facts together
  std::int64_t passes = 0;                           ///< that all of them took part in
};

/// What prompts must have in common to share a sweep: then their patches and rows are the same.
using SweepKey = std::array<std::int64_t, 7>;
SweepKey sweep_key(const TracePrompt& prompt, const TraceOptions& options);

/// Several facts in one sweep, each with the scores that it has alone, within rounding. Their keys are the same
/// (asserted: see to it before), and J facts of N draws go up the layers as one of J N draws would.
///
/// With `options.precision` each has the draws that it would have alone. Noise that takes one fact's output beyond
/// numbers is that fact's Error, and leaves the others as they are. Throws as trace_sweep does for what concerns all:
/// `control.memory` bounds the rows of all facts.
SharedSweep trace_sweeps(const Decoder& model, std::span<const SweepFact> facts, const TraceOptions& options,
                         const RunControl& control = {});

/// How many facts with this one's key should share a sweep, at least 1: more where one alone has
/// fewer rows in a layer than the device takes together (`control.block_rows`), but no more than `control.memory` holds
/// in a single pass; where layers are streamed, as many as that holds. It depends on the model, the key, `options` and
/// `control` alone, so that a batch is grouped in the same way each time.
std::int64_t facts_per_sweep(const Decoder& model, const TracePrompt& prompt, const TraceOptions& options,
                             const RunControl& control = {});

/// Floating-point operations of a sweep of the prompt's layers, roughly.
double sweep_flops(const Decoder& model, const TracePrompt& prompt, const TraceOptions& options);

/// The least `control.memory` with which the prompt can be traced: the base run and the largest patch, in bytes.
std::int64_t least_memory(const Decoder& model, const TracePrompt& prompt, const TraceOptions& options);

}  // namespace rometrace
