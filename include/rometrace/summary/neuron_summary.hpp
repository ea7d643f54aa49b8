#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "rometrace/summary/estimate.hpp"
#include "rometrace/summary/roles.hpp"

// What the traces of neurons of many facts (NeuronTrace) have in common.

namespace rometrace {

/// A neuron that is among those told of in several facts.
struct SharedNeuron {
  std::int64_t layer = 0;
  std::int64_t neuron = 0;
  std::int64_t facts = 0;  ///< in which it is told of
  double share = 0;        ///< of the facts that have the role
  Estimate effect;         ///< indirect effect in these facts; in others it is not known
  std::string promotes;    ///< the first token; empty where a line has none
};

/// What two facts' neurons have in common, over pairs of facts. Missing without a pair, or where no neuron is told of.
struct NeuronOverlap {
  std::int64_t pairs = 0;
  std::optional<double> shared;  ///< mean number of neurons that both facts tell of
  /// Sum of these over the pairs / sum of the mean number of neurons that the two facts tell of: of facts that tell of
  /// K each the mean of |intersection| / K.
  std::optional<double> share;
  /// The same share where each fact's neurons were drawn from all candidates at random: K / candidates.
  std::optional<double> chance;
};

/// Mean effects of sets of one order, by size; errors are those of `effect`.
struct NeuronCurve : ErrorBars {
  std::vector<double> effect;  ///< [sizes]; empty without a fact
};

/// How many neurons bring back half of what all do, as a share of the candidates.
struct NeuronHalves {
  std::int64_t tokens = 0;       ///< places that have sets
  std::int64_t none = 0;         ///< of them those where all neurons together do nothing
  Estimate share;                ///< over the others; a fact's tokens are pooled
  std::optional<double> median;  ///< of the share
};

/// One role's neurons. Sets of several tokens in a fact are pooled, as for grids.
struct NeuronRoleSummary {
  std::int64_t facts = 0;          ///< that have a traced position with the role
  std::int64_t tokens = 0;         ///< such positions in all of them
  double told = 0;                 ///< neurons that a fact tells of, mean; the same one at two tokens counts once
  std::int64_t distinct = 0;       ///< neurons that some fact tells of
  std::vector<SharedNeuron> best;  ///< those in most facts, at most kMostSharedNeurons
  NeuronOverlap same_relation;     ///< of pairs with different subjects
  NeuronOverlap same_subject;      ///< of pairs with different relations
  NeuronOverlap neither;           ///< of pairs that share neither
  std::vector<std::int64_t> sizes;
  NeuronCurve sets, change, random;  ///< the best by estimate, and the two controls
  NeuronHalves half;
};
inline constexpr std::size_t kMostSharedNeurons = 20;

/// Pairs of facts are those with at least one fact in the group.
struct NeuronSummary {
  std::int64_t candidates = 0;  ///< neurons at a position
  bool given = false;           ///< the same neurons were run in all facts: no overlap, no sets
  std::array<NeuronRoleSummary, kRoles.size()> roles;
};

}  // namespace rometrace
