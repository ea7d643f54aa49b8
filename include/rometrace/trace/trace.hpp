#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "rometrace/text/subject.hpp"
#include "rometrace/trace/noise.hpp"

namespace rometrace {

/// What is restored at a (position, layer) of the grid.
enum class Kind {
  kState,  ///< the block's output (residual stream) at one layer
  kMlp,    ///< the MLP's output in a window of layers
  kAttn,   ///< the attention's output (after its projection) in a window of layers
};

std::string_view to_string(Kind kind);  ///< "state", "mlp", "attn"

/// Layers [begin, end) that are restored for the cell at `layer`: max(0, l - w/2) up to min(L, l + ceil(w/2)).
struct LayerRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;
};
LayerRange window_of(std::int64_t layer, std::int64_t window, std::int64_t layers);

/// How to trace; the defaults are the paper's.
struct TraceOptions {
  std::vector<Kind> kinds = {Kind::kState, Kind::kMlp, Kind::kAttn};
  std::int64_t window = 10;   ///< layers, for mlp and attn; state always restores one
  std::int64_t samples = 10;  ///< N, noise draws, at least 1
  std::uint32_t seed = 1;
  NoiseRule::Distribution distribution = NoiseRule::Distribution::kGaussian;
  double sigma = 0;      ///< scale of the noise, see draw_noise
  bool replace = false;  ///< noise in place of the token embedding instead of added to it
  /// Follow this token's probability instead of the most probable one's.
  std::optional<std::int32_t> target;
};

/// One prompt with its subject, tokenised.
struct TracePrompt {
  std::string prompt;
  std::string subject;
  std::vector<std::int32_t> token_ids;  ///< [T]
  TokenRange subject_range;             ///< [b, e), 0 <= b < e <= T
};

/// The effects of one kind of restoration, row-major [T, L].
struct CausalGrid {
  Kind kind = Kind::kState;
  std::int64_t window = 1;             ///< layers
  std::vector<double> scores;          ///< probability of the answer, mean over draws
  std::vector<double> standard_error;  ///< of that mean, over draws (n - 1); NaN for a single draw
};

/// The result of tracing one prompt.
struct Trace {
  std::int32_t answer_id = 0;      ///< the token that is followed
  std::int32_t prediction_id = 0;  ///< the most probable token of the clean run; equals answer_id without a target
  double prediction_score = 0;     ///< its probability
  double high_score = 0;           ///< probability of the answer, clean run
  double low_score = 0;            ///< probability of the answer, corrupted run, mean over draws
  double low_standard_error = 0;   ///< of low_score, over draws; NaN for a single draw
  std::int64_t tokens = 0;         ///< T
  std::int64_t layers = 0;         ///< L
  std::vector<CausalGrid> grids;   ///< one for each kind asked for, in that order

  double total_effect() const { return high_score - low_score; }
};

/// How the cells are computed; the scores are the same within rounding.
enum class Engine {
  kSweep,  ///< all in one pass up the layers, trace_sweep()
  kPlain,  ///< one run of the model a cell, trace_plain()
};
std::string_view to_string(Engine engine);  ///< "sweep", "plain"

/// Told of work done, of all work; each engine says in what units.
using Progress = std::function<void(std::int64_t done, std::int64_t total)>;

/// What does not change the result of a trace.
struct RunControl {
  Progress progress;
  std::stop_token stop;
  /// Bytes of the residual stream that the sweep may hold at once.
  std::int64_t memory = std::int64_t{512} << 20;
  /// Rows that it takes through a layer together; 0: what suits the device.
  std::int64_t block_rows = 0;
};

}  // namespace rometrace
