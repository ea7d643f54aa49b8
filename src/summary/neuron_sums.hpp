#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "rometrace/summary/neuron_summary.hpp"
#include "summary/traced_fact.hpp"

namespace rometrace {

/// Sums of the curves of sets, and of their halves, over the facts of a group.
class NeuronCurves {
 public:
  explicit NeuronCurves(std::size_t replicates) : replicates_(replicates) {}

  void add(const TracedFact& fact, std::span<const std::uint8_t> weights);
  void give(NeuronSummary& summary);

 private:
  struct Role {
    Role(std::size_t values, std::size_t replicates) : curves(values, replicates), half(1, replicates) {}

    std::vector<std::int64_t> sizes;
    ClusterMeans curves;  // [3, sizes]
    ClusterMeans half;    // share of the candidates
    std::vector<double> halves;
    std::int64_t tokens = 0, none = 0;
  };

  std::size_t replicates_;
  std::array<std::optional<Role>, kRoles.size()> roles_;
};

/// Which neurons all facts tell of.
class NeuronSets {
 public:
  explicit NeuronSets(std::size_t replicates) : replicates_(replicates) {}

  /// `relation`, `subject`: nothing where the fact has none. `group`: the name of its relation's group.
  void add(const TracedFact& fact, const std::optional<std::string>& relation, const std::string& group,
           const std::optional<std::string>& subject, std::span<const std::uint8_t> weights);

  /// Nothing where no fact of the group has neurons. `group`: nothing for all facts.
  std::optional<NeuronSummary> result(const std::optional<std::string>& group) const;

 private:
  using Key = std::uint64_t;  // layer, neuron

  struct Told {
    Key key = 0;
    double count = 0;  // tokens at which the fact tells of it
    double sum = 0;    // of their effects
  };
  struct Fact {
    std::int64_t relation = -1, group = 0, subject = -1;  // -1: none
    std::vector<std::uint8_t> weights;
    std::array<std::int64_t, kRoles.size()> tokens{};
    std::array<std::vector<Told>, kRoles.size()> told;  // ascending by key
  };

  /// What pairs of facts are counted from.
  struct Tally {
    double facts = 0, sizes = 0, squared_sizes = 0;
    std::unordered_map<Key, double> counts;

    void add(const std::vector<Told>& told);
  };
  struct Pairs {
    double pairs = 0, shared = 0, sizes = 0, products = 0;

    Pairs& add(const Pairs& other, double sign);
  };
  static Pairs within(const Tally& tally);
  static Pairs with_the_rest(const Tally& part, const Tally& whole);  ///< pairs of a fact in it and one that is not
  static Key key_of(std::int64_t layer, std::int64_t neuron);
  std::int64_t number_of(std::unordered_map<std::string, std::int64_t>& numbers, const std::string& name);

  NeuronRoleSummary role_of_facts(std::size_t role, const std::optional<std::int64_t>& group) const;
  std::vector<SharedNeuron> best_of(std::size_t role, const std::vector<const Fact*>& facts, const Tally& tally) const;
  void add_overlaps(NeuronRoleSummary& summary, std::size_t role, const std::optional<std::int64_t>& group) const;
  NeuronOverlap overlap_of(const Pairs& pairs) const;

  std::size_t replicates_;
  std::int64_t candidates_ = 0;
  bool given_ = false;
  std::vector<Fact> facts_;
  std::unordered_map<std::string, std::int64_t> relations_, groups_, subjects_;
  std::unordered_map<Key, std::string> promotes_;
};

}  // namespace rometrace
