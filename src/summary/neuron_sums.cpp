#include "summary/neuron_sums.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "summary/estimates.hpp"

namespace rometrace {
namespace {

std::optional<std::size_t> role_at(std::int64_t position, const TracedFact& fact) {
  const auto role = role_of(position, fact.subject, fact.tokens);
  return role ? std::optional(static_cast<std::size_t>(*role)) : std::nullopt;
}

/// `part` of the bars, one of three of the same length.
NeuronCurve part_of(const std::vector<double>& effects, const ErrorBars& bars, std::size_t part, std::size_t sizes) {
  const auto cut = [&](const std::vector<double>& values) {
    if (values.empty()) return std::vector<double>();
    const auto begin = values.begin() + static_cast<std::ptrdiff_t>(part * sizes);
    return std::vector<double>(begin, begin + static_cast<std::ptrdiff_t>(sizes));
  };
  return {{cut(bars.standard_error), cut(bars.normal_low), cut(bars.normal_high), cut(bars.bootstrap_low),
           cut(bars.bootstrap_high)},
          cut(effects)};
}

}  // namespace

void NeuronCurves::add(const TracedFact& fact, std::span<const std::uint8_t> weights) {
  if (!fact.neurons || fact.neurons->places.empty()) return;
  const auto& neurons = *fact.neurons;
  const auto sizes = neurons.sizes.size();
  struct Sums {
    std::int64_t tokens = 0, halves = 0;
    std::vector<double> curves;
    double shares = 0;
  };
  std::map<std::size_t, Sums> all;
  for (const auto& place : neurons.places) {
    const auto role = role_at(place.position, fact);
    if (!role) continue;
    auto& sums = all[*role];
    ++sums.tokens;
    sums.curves.resize(place.curves.size() * sizes);
    for (std::size_t i = 0; i < sums.curves.size(); ++i) sums.curves[i] += place.curves[i / sizes][i % sizes];
    auto& stored = roles_[*role];
    if (!stored) stored.emplace(sums.curves.size(), replicates_);
    stored->sizes = neurons.sizes;
    ++stored->tokens;
    if (!place.half) {
      ++stored->none;
      continue;
    }
    const auto share = static_cast<double>(*place.half) / static_cast<double>(neurons.candidates);
    ++sums.halves;
    sums.shares += share;
    stored->halves.push_back(share);
  }
  for (const auto& [role, sums] : all) {
    roles_[role]->curves.add(static_cast<double>(sums.tokens), sums.curves, weights);
    if (sums.halves > 0) roles_[role]->half.add(static_cast<double>(sums.halves), std::array{sums.shares}, weights);
  }
}

void NeuronCurves::give(NeuronSummary& summary) {
  for (std::size_t i = 0; i < roles_.size(); ++i) {
    if (!roles_[i]) continue;
    auto& sums = *roles_[i];
    auto& role = summary.roles[i];
    const auto bars = error_bars(sums.curves);
    const auto& means = sums.curves.means();
    role.sizes = sums.sizes;
    role.sets = part_of(means, bars, 0, sums.sizes.size());
    role.change = part_of(means, bars, 1, sums.sizes.size());
    role.random = part_of(means, bars, 2, sums.sizes.size());
    role.half = {sums.tokens, sums.none, estimate(sums.half, 0), {}};
    auto halves = sums.halves;
    std::sort(halves.begin(), halves.end());
    constexpr double kMiddle = 0.5;
    if (!halves.empty()) role.half.median = percentile(halves, kMiddle);
  }
}

// --- Which neurons ---------------------------------------------------------------------------------------------------

NeuronSets::Key NeuronSets::key_of(std::int64_t layer, std::int64_t neuron) {
  constexpr unsigned kLayerBits = 32;
  return (static_cast<Key>(layer) << kLayerBits) | static_cast<Key>(neuron);
}

std::int64_t NeuronSets::number_of(std::unordered_map<std::string, std::int64_t>& numbers, const std::string& name) {
  return numbers.emplace(name, static_cast<std::int64_t>(numbers.size())).first->second;
}

void NeuronSets::add(const TracedFact& fact, const std::optional<std::string>& relation, const std::string& group,
                     const std::optional<std::string>& subject, std::span<const std::uint8_t> weights) {
  if (!fact.neurons) return;
  const auto& neurons = *fact.neurons;
  candidates_ = std::max(candidates_, neurons.candidates);
  given_ = given_ || neurons.given;
  auto& stored = facts_.emplace_back();
  if (relation) stored.relation = number_of(relations_, *relation);
  if (subject) stored.subject = number_of(subjects_, *subject);
  stored.group = number_of(groups_, group);
  stored.weights.assign(weights.begin(), weights.end());
  for (const auto position : neurons.positions) {
    if (const auto role = role_at(position, fact)) ++stored.tokens[*role];
  }
  for (const auto& effect : neurons.effects) {
    const auto key = key_of(effect.layer, effect.neuron);
    promotes_.emplace(key, effect.promotes);
    const auto role = role_at(effect.position, fact);
    if (!role) continue;
    auto& told = stored.told[*role];
    const auto place =
        std::lower_bound(told.begin(), told.end(), key, [](const Told& each, Key wanted) { return each.key < wanted; });
    const auto found = place != told.end() && place->key == key ? place : told.insert(place, Told{key, 0, 0});
    found->count += 1;
    found->sum += effect.effect;
  }
}

std::optional<NeuronSummary> NeuronSets::result(const std::optional<std::string>& group) const {
  std::optional<std::int64_t> number;
  if (group) {
    const auto found = groups_.find(*group);
    if (found == groups_.end()) return std::nullopt;
    number = found->second;
  }
  if (facts_.empty()) return std::nullopt;
  NeuronSummary summary;
  summary.candidates = candidates_;
  summary.given = given_;
  for (std::size_t role = 0; role < kRoles.size(); ++role) summary.roles[role] = role_of_facts(role, number);
  return summary;
}

NeuronRoleSummary NeuronSets::role_of_facts(std::size_t role, const std::optional<std::int64_t>& group) const {
  NeuronRoleSummary summary;
  std::vector<const Fact*> chosen;
  Tally tally;
  for (const auto& fact : facts_) {
    if (fact.tokens[role] == 0 || (group && fact.group != *group)) continue;
    chosen.push_back(&fact);
    summary.tokens += fact.tokens[role];
    tally.add(fact.told[role]);
  }
  summary.facts = static_cast<std::int64_t>(chosen.size());
  if (chosen.empty()) return summary;
  summary.told = tally.sizes / tally.facts;
  summary.distinct = static_cast<std::int64_t>(tally.counts.size());
  summary.best = best_of(role, chosen, tally);
  if (!given_) add_overlaps(summary, role, group);
  return summary;
}

std::vector<SharedNeuron> NeuronSets::best_of(std::size_t role, const std::vector<const Fact*>& facts,
                                              const Tally& tally) const {
  std::unordered_map<Key, Told> sums;
  for (const auto* fact : facts) {
    for (const auto& told : fact->told[role]) {
      auto& sum = sums[told.key];
      sum.count += told.count;
      sum.sum += told.sum;
    }
  }
  std::vector<Key> keys;
  for (const auto& [key, count] : tally.counts) keys.push_back(key);
  const auto is_better = [&](Key a, Key b) {
    const double facts_of_a = tally.counts.at(a), facts_of_b = tally.counts.at(b);
    if (facts_of_a != facts_of_b) return facts_of_a > facts_of_b;
    const double mean_a = std::abs(sums[a].sum / sums[a].count), mean_b = std::abs(sums[b].sum / sums[b].count);
    return mean_a != mean_b ? mean_a > mean_b : a < b;
  };
  const auto most = std::min(kMostSharedNeurons, keys.size());
  std::partial_sort(keys.begin(), keys.begin() + static_cast<std::ptrdiff_t>(most), keys.end(), is_better);
  keys.resize(most);
  std::vector<SharedNeuron> best;
  for (const auto key : keys) {
    ClusterMeans means(1, replicates_);
    for (const auto* fact : facts) {
      const auto& told = fact->told[role];
      const auto found = std::lower_bound(told.begin(), told.end(), key,
                                          [](const Told& each, Key wanted) { return each.key < wanted; });
      if (found != told.end() && found->key == key) means.add(found->count, std::array{found->sum}, fact->weights);
    }
    constexpr unsigned kLayerBits = 32;
    SharedNeuron shared{static_cast<std::int64_t>(key >> kLayerBits),
                        static_cast<std::int64_t>(key & 0xffffffffU),
                        means.facts(),
                        static_cast<double>(means.facts()) / static_cast<double>(facts.size()),
                        estimate(means, 0),
                        promotes_.at(key)};
    best.push_back(std::move(shared));
  }
  return best;
}

// --- Pairs of facts --------------------------------------------------------------------------------------------------
//
// A neuron that c facts tell of is in c (c - 1) / 2 pairs of them, so that no pair is looked at. Sums over pairs that
// share nothing are what is left of the others.

void NeuronSets::Tally::add(const std::vector<Told>& told) {
  const auto size = static_cast<double>(told.size());
  facts += 1;
  sizes += size;
  squared_sizes += size * size;
  for (const auto& each : told) counts[each.key] += 1;
}

NeuronSets::Pairs& NeuronSets::Pairs::add(const Pairs& other, double sign) {
  pairs += sign * other.pairs;
  shared += sign * other.shared;
  sizes += sign * other.sizes;
  products += sign * other.products;
  return *this;
}

NeuronSets::Pairs NeuronSets::within(const Tally& tally) {
  Pairs pairs{tally.facts * (tally.facts - 1) / 2, 0, (tally.facts - 1) * tally.sizes / 2,
              (tally.sizes * tally.sizes - tally.squared_sizes) / 2};
  for (const auto& [key, count] : tally.counts) pairs.shared += count * (count - 1) / 2;
  return pairs;
}

NeuronSets::Pairs NeuronSets::with_the_rest(const Tally& part, const Tally& whole) {
  const double others = whole.facts - part.facts, sizes = whole.sizes - part.sizes;
  Pairs pairs{part.facts * others, 0, (part.sizes * others + part.facts * sizes) / 2, part.sizes * sizes};
  for (const auto& [key, count] : part.counts) pairs.shared += count * (whole.counts.at(key) - count);
  return pairs;
}

NeuronOverlap NeuronSets::overlap_of(const Pairs& pairs) const {
  NeuronOverlap overlap;
  overlap.pairs = std::llround(pairs.pairs);
  if (overlap.pairs == 0) return overlap;
  overlap.shared = pairs.shared / pairs.pairs;
  if (pairs.sizes == 0) return overlap;
  overlap.share = pairs.shared / pairs.sizes;
  overlap.chance = pairs.products / static_cast<double>(candidates_) / pairs.sizes;
  return overlap;
}

void NeuronSets::add_overlaps(NeuronRoleSummary& summary, std::size_t role,
                              const std::optional<std::int64_t>& group) const {
  Tally all, mine;
  std::map<std::int64_t, Tally> relations, subjects, my_relations, my_subjects;
  std::map<std::pair<std::int64_t, std::int64_t>, Tally> both, my_both;
  for (const auto& fact : facts_) {
    if (fact.tokens[role] == 0) continue;
    const auto& told = fact.told[role];
    const auto count = [&](Tally& total, auto& of_relations, auto& of_subjects, auto& of_both) {
      total.add(told);
      if (fact.relation >= 0) of_relations[fact.relation].add(told);
      if (fact.subject >= 0) of_subjects[fact.subject].add(told);
      if (fact.relation >= 0 && fact.subject >= 0) of_both[{fact.relation, fact.subject}].add(told);
    };
    count(all, relations, subjects, both);
    if (group && fact.group == *group) count(mine, my_relations, my_subjects, my_both);
  }
  // Pairs with a fact of the group: those within it, and those of one of its facts and another.
  const auto pairs_of = [&](const Tally& part, const Tally& whole) {
    return within(part).add(with_the_rest(part, whole), 1);
  };
  const auto sum = [&](const auto& parts, const auto& wholes) {
    Pairs pairs;
    for (const auto& [name, part] : parts) pairs.add(pairs_of(part, wholes.at(name)), 1);
    return pairs;
  };
  const auto of = [&](const Tally& total, const auto& of_relations, const auto& of_subjects, const auto& of_both) {
    const auto twice = sum(of_both, both);
    auto relation = sum(of_relations, relations).add(twice, -1), subject = sum(of_subjects, subjects).add(twice, -1);
    auto neither = pairs_of(total, all).add(relation, -1).add(subject, -1).add(twice, -1);
    summary.same_relation = overlap_of(relation);
    summary.same_subject = overlap_of(subject);
    summary.neither = overlap_of(neither);
  };
  group ? of(mine, my_relations, my_subjects, my_both) : of(all, relations, subjects, both);
}

}  // namespace rometrace
