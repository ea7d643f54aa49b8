#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "rometrace/trace/places.hpp"

// A neuron is one coordinate of what an MLP's last matrix reads: after the activation, and after the gate where there
// is one (Site::kMlpHidden). A layer has F of them at each position.

namespace rometrace {

/// By what neurons are ranked before the best of them are run.
struct NeuronRule {
  enum class Which {
    kGradient,    ///< the change of the value times the derivative in the base run
    kIntegrated,  ///< times the mean derivative on the way from the base run's values to the other run's
    kNone,        ///< nothing: every neuron is run
  };

  Which which = Which::kGradient;
  std::int64_t steps = 1;  ///< of kIntegrated, at least 1

  /// Reads "gradient", "integrated:8", "none". Throws Error.
  static NeuronRule parse(std::string_view text);
  bool operator==(const NeuronRule&) const = default;
};
std::string to_string(const NeuronRule& rule);  ///< reads back

/// One neuron, whatever the position.
struct NeuronName {
  std::int64_t layer = 0;
  std::int64_t neuron = 0;  ///< of F

  auto operator<=>(const NeuronName&) const = default;

  /// Reads "3:117,5:9", layer and neuron counted from 0. Throws Error.
  static std::vector<NeuronName> parse_list(std::string_view text);
};
std::string to_string(const std::vector<NeuronName>& neurons);  ///< reads back

/// Which neurons to trace.
struct NeuronOptions {
  PositionRule positions{PositionRule::Which::kSubjectLast, {}};
  std::optional<LayerRange> layers;  ///< all
  std::int64_t top = 20;             ///< that are told of, at least 1, of all positions together
  NeuronRule ranking;
  std::vector<NeuronName> given;  ///< these are run, and nothing is ranked; none: the best of all
  bool sets_by_layer = false;     ///< sets of each layer's neurons as well
};

/// What was read of one patched run: the answer's probability and, of each of Trace::measured, its value; means over
/// draws with their standard errors (n - 1; NaN for a single draw).
struct RunScore {
  struct Value {
    double value = 0;
    double standard_error = 0;
  };

  double score = 0;
  double standard_error = 0;
  std::vector<Value> measured;
};

/// A token and what a neuron adds to its logit.
struct TokenLogit {
  std::int32_t id = 0;
  double logit = 0;
};

/// One neuron at one position, patched alone.
struct NeuronEffect {
  std::int64_t layer = 0;
  std::int64_t position = 0;
  std::int64_t neuron = 0;
  /// Of the indirect effect, by NeuronRule; NaN where there was no ranking.
  double estimate = 0;
  RunScore run;
  /// The neuron's value, mean over the first TraceOptions::samples draws where it has any.
  double clean = 0, corrupted = 0;
  double row_norm = 0;  ///< Euclidean, of its row of the MLP's last matrix
  /// What its row, times the weight of the norm of MLP outputs where there is one (Gemma 2, 3), times the unembedding
  /// adds most to and takes most from, for a value of 1; best first.
  std::vector<TokenLogit> promotes, suppresses;
};

/// Several neurons of one position patched together.
struct NeuronSet {
  std::int64_t position = 0;
  std::optional<std::int64_t> layer;  ///< of this layer only
  std::int64_t neurons = 0;           ///< how many: the best k
  RunScore run;
};

/// Sets filled in another order, for comparison.
struct NeuronControl {
  enum class Order {
    kChange,  ///< those whose values differ most between the runs
    kRandom,  ///< mean of kRandomOrders
  };
  static constexpr int kRandomOrders = 10;

  Order order = Order::kChange;
  NeuronSet set;
};
std::string_view to_string(NeuronControl::Order order);  ///< "change", "random"

/// The least k whose set has half the effect of all.
struct NeuronHalf {
  std::int64_t position = 0;
  std::optional<std::int64_t> layer;    ///< of this layer only
  std::int64_t candidates = 0;          ///< of which k are taken
  std::optional<std::int64_t> neurons;  ///< k; none where all together have no effect above a millionth of the score
};

/// What was found of neurons in one trace.
struct NeuronTrace {
  std::vector<std::int64_t> positions;  ///< of the prompt
  LayerRange layers;
  NeuronRule ranked_by;                  ///< not read where neurons were given
  bool given = false;                    ///< NeuronOptions::given was traced: no sets
  std::int64_t candidates = 0;           ///< neurons that were ranked or run, of all positions
  std::vector<NeuronEffect> effects;     ///< largest |indirect effect| first
  std::vector<NeuronSet> sets;           ///< of all layers together: k = 1, 2, 4 .. all, by position
  std::vector<NeuronSet> sets_by_layer;  ///< likewise of each layer, where asked for
  std::vector<NeuronControl> controls;   ///< of the same sizes as the sets and those by layer
  std::vector<NeuronHalf> half;          ///< of each position, then of each position and layer where asked for
};

}  // namespace rometrace
