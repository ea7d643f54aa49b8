#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <utility>

#include "rometrace/summary/summary.hpp"
#include "summary/traced_fact.hpp"

namespace rometrace {

/// Sums over facts of what lines read beside the probability of their answers: measures, by name, and other targets, by
/// their place in the line.
class ReadingSums {
 public:
  ReadingSums();
  ~ReadingSums();

  void add(const TracedFact& fact, std::size_t replicates, std::span<const std::uint8_t> weights);

  /// Puts the averages into `summary`.
  void give(GroupSummary& summary);

 private:
  class Sums;
  /// Measures in their order, then other targets in theirs.
  std::map<std::pair<std::size_t, std::size_t>, std::unique_ptr<Sums>> sums_;
};

}  // namespace rometrace
