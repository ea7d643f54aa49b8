#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "rometrace/text/subject.hpp"
#include "rometrace/trace/corruption.hpp"
#include "rometrace/trace/neurons.hpp"
#include "rometrace/trace/places.hpp"

namespace rometrace {

class Workers;

/// Which way values are put from one run into another (arXiv 2404.15255).
enum class Direction {
  kDenoising,  ///< clean values into the corrupted run: what suffices to bring the answer back
  kNoising,    ///< corrupted values into the clean run: what the answer needs
  kBoth,       ///< the one and the other, with the same draws
};
std::string_view to_string(Direction direction);  ///< "denoising", "noising", "both"

/// What is changed at a cell of a grid. "Patched" is restored or, when noising, corrupted.
enum class Kind {
  kState,             ///< the block's output (residual stream) at one layer
  kMlp,               ///< the MLP's output in a window of layers
  kAttn,              ///< the attention's output (after its projection) in a window of layers
  kHead,              ///< one head's slice of the attention's mixed values (before its projection), likewise
  kStateMlpSevered,   ///< kState, with the position's MLP outputs held at those of the unpatched run in all layers
  kStateAttnSevered,  ///< likewise, with its attention outputs
  kKnockout,          ///< the clean run without attention from where the answer is said to a group of positions
};
std::string_view to_string(Kind kind);  ///< "state", "mlp", "attn", "head", "state_mlp_severed", ..., "knockout"

/// What is read of a run, besides the answer's probability. All but kLogProbability are read after the prompt's last
/// token, where an answer of several tokens begins.
enum class Measure {
  kProbability,      ///< of the answer: the product over its tokens
  kLogProbability,   ///< natural logarithm of that
  kLogit,            ///< the answer's first token's
  kLogitDifference,  ///< the same, less the foil's
  kNormalised,       ///< 0: corrupted, 1: clean; of the logit difference or, without a foil, of the probability
  kRank,             ///< of the answer's first token, from 1
  kKl,               ///< KL divergence of the next-token distribution from the clean run's, in nats
};
std::string_view to_string(Measure measure);  ///< "probability", "log_probability", "logit", ...

/// How to trace; the defaults are the paper's.
struct TraceOptions {
  std::vector<Kind> kinds = {Kind::kState, Kind::kMlp, Kind::kAttn};
  std::int64_t window = 10;          ///< layers, for mlp and attn; state always patches one
  std::int64_t head_window = 1;      ///< layers, for head
  std::int64_t knockout_window = 9;  ///< layers, for knockout
  PositionRule positions;
  std::int64_t samples = 10;  ///< N, noise draws, at least 1; 1 for a corruption without chance
  CorruptionOptions corruption;
  std::optional<NeuronOptions> neurons;  ///< trace neurons as well, or alone where `kinds` is empty
  Direction direction = Direction::kDenoising;
  std::vector<Measure> measures;  ///< besides the probability
  /// Further `samples` draws until no standard error of a probability is above this, or `most_samples` are drawn.
  std::optional<double> precision;
  std::int64_t most_samples = 1000;
  bool keep_draws = false;  ///< in CausalGrid::draws and Trace::low_draws

  std::int64_t window_of_kind(Kind kind) const;
};

/// One prompt with its subject, tokenised, and what is asked about it.
struct TracePrompt {
  std::string prompt;
  std::string subject;
  std::vector<std::int32_t> token_ids;           ///< [T]
  TokenRange subject_range;                      ///< [b, e), 0 <= b < e <= T
  ByteRange subject_span = {};                   ///< where `prompt` has `subject`
  std::vector<std::int32_t> target = {};         ///< the answer to follow, [K]; none: the model's own, of one token
  std::vector<std::int32_t> other_targets = {};  ///< further tokens whose probabilities are read; with K = 1 only
  std::optional<std::int32_t> foil = {};         ///< of the logit difference
  std::vector<std::int32_t> counter_ids = {};    ///< [T], for CorruptionMethod::kTokens

  /// K, the tokens of the answer.
  std::int64_t answer_tokens() const { return target.empty() ? 1 : static_cast<std::int64_t>(target.size()); }
  /// The first position whose embedding the corruption changes.
  std::int64_t first_corrupted() const;
};

/// One number that is read of each run: of which token, how.
struct Reading {
  Measure measure = Measure::kProbability;
  std::size_t target = 0;  ///< 0: the answer; i: other_targets[i - 1]

  bool operator==(const Reading&) const = default;
};

/// The readings of a trace besides the answer's probability: the measures of the answer, then the probabilities of the
/// other targets. kNormalised is none: it follows from others, which are among these where it is asked for.
std::vector<Reading> readings_of(const TracePrompt& prompt, const TraceOptions& options);

/// One reading's values of a grid's cells.
struct MeasuredGrid {
  std::vector<double> values;          ///< mean over draws, laid out as CausalGrid::scores
  std::vector<double> standard_error;  ///< of that mean, over draws (n - 1); NaN for a single draw
};

/// Positions from which attention is cut.
struct KnockoutGroup {
  std::string_view name;  ///< "subject", "before", "after", "last"
  TokenRange keys;
};

/// The scores of one kind, row-major [P, L, H]; a knockout's [groups, L].
struct CausalGrid {
  Kind kind = Kind::kState;
  std::int64_t window = 1;              ///< layers
  std::vector<std::int64_t> positions;  ///< [P] of the prompt; none for a knockout
  std::vector<KnockoutGroup> groups;    ///< of a knockout only
  std::int64_t heads = 1;               ///< H for kHead, else 1
  std::vector<double> scores;           ///< probability of the answer, mean over draws
  std::vector<double> standard_error;   ///< of that mean, over draws (n - 1); NaN for a single draw
  std::vector<MeasuredGrid> measured;   ///< one for each of Trace::measured
  std::vector<double> draws;            ///< [cells, N] what `scores` are means of, where it is kept

  std::size_t rows() const { return kind == Kind::kKnockout ? groups.size() : positions.size(); }
};

/// How much more a cell counts in company: its effect when noising less its effect when denoising (arXiv 2606.27510).
/// With x what is patched and y all the rest, it is p(x, y) - p(corrupted x, y) - p(x, corrupted y) + p(corrupted x,
/// corrupted y): above 0 where x is of no use without y, below 0 where either does alone.
struct InteractionGrid {
  std::vector<double> values;          ///< mean over draws, laid out as CausalGrid::scores
  std::vector<double> standard_error;  ///< of that mean, draw by draw; NaN for a single draw
};

/// One reading of the clean and of the corrupted run.
struct MeasuredScore {
  Reading reading;
  double high = 0;                ///< clean run
  double low = 0;                 ///< corrupted run, mean over draws
  double low_standard_error = 0;  ///< of low, over draws; NaN for a single draw
};

/// The result of tracing one prompt.
struct Trace {
  std::vector<std::int32_t> answer_ids;  ///< [K], what is followed
  std::int32_t prediction_id = 0;        ///< the clean run's most probable token after the prompt
  double prediction_score = 0;           ///< its probability
  double high_score = 0;                 ///< probability of the answer, clean run
  double low_score = 0;                  ///< probability of the answer, corrupted run, mean over draws
  double low_standard_error = 0;         ///< of low_score, over draws; NaN for a single draw
  std::vector<MeasuredScore> measured;   ///< readings_of() the trace
  std::int64_t tokens = 0;               ///< T
  std::int64_t layers = 0;               ///< L
  std::int64_t samples = 0;              ///< draws that the means are over
  double largest_error = 0;              ///< the largest standard error of a score; NaN for a single draw
  std::vector<CausalGrid> grids;         ///< one for each kind asked for, in that order
  /// With Direction::kBoth: `grids` are those of denoising, these of noising, but for knockouts, with the interactions.
  std::vector<CausalGrid> noising;
  std::vector<InteractionGrid> interaction;
  std::vector<double> low_draws;         ///< [N] what `low_score` is the mean of, where it is kept
  std::optional<NeuronTrace> neurons;    ///< where they were asked for

  std::int32_t answer_id() const { return answer_ids.front(); }  ///< its first token
  double total_effect() const { return high_score - low_score; }
};

/// How the cells are computed; the scores are the same within rounding.
enum class Engine {
  kSweep,     ///< all in one pass up the layers, trace_sweep()
  kPlain,     ///< one run of the model a cell, trace_plain()
  kGradient,  ///< an approximation from one gradient, trace_gradient(): the exception to the above
};
std::string_view to_string(Engine engine);  ///< "sweep", "plain", "gradient"

/// Told of work done, of all work; each engine says in what units.
using Progress = std::function<void(std::int64_t done, std::int64_t total)>;

/// What does not change the result of a trace.
struct RunControl {
  Progress progress;
  std::stop_token stop;
  /// Bytes of the residual stream that the sweep may hold at once; of what gradients keep for their backward.
  std::int64_t memory = std::int64_t{512} << 20;
  /// Rows that it takes through a layer together; 0: what suits the device and the workers.
  std::int64_t block_rows = 0;
  /// Who shares the work, on a CPU; none: the calling thread alone, with as many of libtorch's threads as it has.
  Workers* workers = nullptr;
};

}  // namespace rometrace
