#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <vector>

#include "rometrace/model/decoder.hpp"
#include "rometrace/trace/clean_run.hpp"
#include "rometrace/trace/patch.hpp"
#include "rometrace/trace/trace.hpp"
#include "trace/neuron_values.hpp"

namespace rometrace {

/// The runs that a trace of one prompt's neurons is made of, in rounds: which ones come next depends on what those
/// before have given. The engines make them.
class NeuronSearch {
 public:
  /// Ranks the neurons. Everything is of the same prompt and must outlive the search. Throws Error; Interrupted.
  NeuronSearch(const Decoder& model, const TracePrompt& prompt, const TraceOptions& options, const CleanRun& clean,
               const RunControl& control);
  NeuronSearch(const NeuronSearch&) = delete;  // its patches refer to its orders
  NeuronSearch& operator=(const NeuronSearch&) = delete;

  /// The patches of the next round; none: all is known. `base` is the base run's mean probability of the answer, not
  /// read in the first round. To be called when all draws of the round before have been added.
  std::vector<Patch> next(double base);

  /// Whether a run of the round is told of for itself, and its error with it.
  bool is_told(std::size_t run) const;

  /// Readings [draws, 1 + readings] of further draws of a run of the round.
  void add(std::size_t run, std::span<const double> values);

  NeuronTrace result(double base) const;

  /// How many runs of a position the first rounds make, at most.
  static std::int64_t first_runs(const NeuronOptions& options, const DecoderConfig& config);

 private:
  /// The neurons that sets are taken of, and how far their runs have come.
  struct Family {
    std::int64_t position = 0;
    std::optional<std::int64_t> layer;  // of this layer only
    std::int64_t candidates = 0;
    std::vector<std::int64_t> sizes;  // 1, 2, 4 .. candidates
    // By the ranking, by change, and at random. They stay where they are: patches refer to them.
    std::deque<NeuronOrder> orders;
    // Of the search for half the effect of all: the least size that is known to have it is `high`, the greatest that is
    // known not to is `low`.
    bool begun = false;
    std::int64_t low = 0, high = 0;
    std::optional<std::int64_t> half;
  };

  struct Run {
    Patch patch;
    std::size_t family = kNone;  // of a set
    std::size_t order = 0;       // in that family
    std::int64_t count = 0;
    std::vector<double> values;  // [draws, columns]
  };
  static constexpr auto kNone = static_cast<std::size_t>(-1);

  void ask_for_given();
  void ask_for_best();
  void ask_for_all();
  void ask_for_one(std::int64_t position, NeuronName neuron);
  void make_families(const at::Tensor& effects);
  void ask_for_sets();
  void ask_for_set(std::size_t family, std::size_t order, std::int64_t count);
  void ask_for_halves(double base);
  bool follow(std::size_t family, double base);  // as far as runs are known; false: to the end
  at::Tensor exact_effects(double base) const;
  const Run* find(std::size_t family, std::size_t order, std::int64_t count) const;
  double effect_of(const std::vector<double>& values, double base) const;
  RunScore score_of(const std::vector<double>& values) const;
  std::vector<double> random_values(std::size_t family, std::int64_t count) const;
  std::vector<NeuronEffect> effects(double base) const;
  void describe(std::vector<NeuronEffect>& effects) const;

  const Decoder& model_;
  const TraceOptions& options_;
  const NeuronOptions& asked_;
  std::vector<std::int64_t> positions_;
  LayerRange layers_;
  std::size_t columns_;
  NeuronValues values_;
  std::vector<Run> runs_;
  std::size_t round_begin_ = 0;
  std::deque<Family> families_;
  enum class Stage { kBegin, kNeurons, kSets, kDone } stage_ = Stage::kBegin;
};

}  // namespace rometrace
