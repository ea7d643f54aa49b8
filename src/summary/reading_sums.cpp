#include "summary/reading_sums.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <list>
#include <optional>
#include <string>
#include <vector>

#include "summary/estimates.hpp"
#include "summary/role_rows.hpp"

namespace rometrace {
namespace {

/// As --measures lists them; what is not among them comes after.
constexpr std::array<std::string_view, 6> kMeasures = {"log_probability", "logit", "logit_difference",
                                                       "normalised",      "rank",  "kl"};

bool all_numbers(const SummaryReading& reading) {
  const auto is_number = [](double value) { return std::isfinite(value); };
  return is_number(reading.high) && is_number(reading.low) &&
         std::all_of(reading.grids.begin(), reading.grids.end(), [&](const SummaryGrid& grid) {
           return std::all_of(grid.scores.begin(), grid.scores.end(), is_number);
         });
}

/// Sums of one kind.
class KindReadings {
 public:
  explicit KindReadings(const SummaryGrid& grid) : kind_(grid.kind), window_(grid.window), heads_(grid.heads) {}

  const std::string& kind() const { return kind_; }

  void add(const TracedFact& fact, const SummaryReading& reading, const SummaryGrid& grid, std::size_t replicates,
           std::span<const std::uint8_t> weights) {
    const auto cells = static_cast<std::size_t>(grid.cells());
    const double sign = fact.sign(), base = fact.noising ? reading.high : reading.low;
    for_each_role(grid, fact, [&](std::size_t role, std::int64_t row, std::int64_t rows) {
      auto& sums = roles_[role];
      if (!sums) sums.emplace(Role{ClusterMeans(cells, 0), ClusterMeans(cells, replicates)});
      std::vector<double> values(cells, 0), effects(cells, 0);
      const auto all = rows_of(grid, row, rows);
      for (std::size_t i = 0; i < all.size(); ++i) {
        values[i % cells] += all[i];
        effects[i % cells] += sign * (all[i] - base);
      }
      sums->values.add(static_cast<double>(rows), values, {});
      sums->effects.add(static_cast<double>(rows), effects, weights);
    });
  }

  ReadingSummary::Kind result() {
    ReadingSummary::Kind summary{kind_, window_, heads_, {}};
    for (std::size_t i = 0; i < roles_.size(); ++i) {
      if (!roles_[i]) continue;
      auto& [values, effects] = *roles_[i];
      summary.roles[i] = {error_bars(effects), effects.facts(), std::llround(effects.count()), values.means(),
                          effects.means()};
    }
    return summary;
  }

 private:
  struct Role {
    ClusterMeans values;   // [cells]
    ClusterMeans effects;  // [cells]
  };

  std::string kind_;
  std::int64_t window_;
  std::int64_t heads_;
  std::array<std::optional<Role>, kRoles.size()> roles_;
};

}  // namespace

/// Sums of one measure, or of one other target.
class ReadingSums::Sums {
 public:
  Sums(const SummaryReading& reading, std::size_t replicates)
      : measure_(reading.measure),
        target_(reading.target),
        of_(reading.of),
        replicates_(replicates),
        values_(3, replicates) {}

  void add(const TracedFact& fact, const SummaryReading& reading, std::span<const std::uint8_t> weights) {
    if (target_ != reading.target) target_.reset();
    if (!all_numbers(reading)) {
      ++not_numbers_;
      return;
    }
    values_.add(1, std::array{reading.high, reading.low, reading.high - reading.low}, weights);
    for (const auto& grid : reading.grids) {
      if (grid.rows == 0) continue;
      auto sums = std::find_if(kinds_.begin(), kinds_.end(), [&](const auto& k) { return k.kind() == grid.kind; });
      if (sums == kinds_.end()) sums = kinds_.emplace(kinds_.end(), grid);
      sums->add(fact, reading, grid, replicates_, weights);
    }
  }

  ReadingSummary result() {
    ReadingSummary summary;
    summary.measure = measure_;
    summary.target = target_;
    summary.of = of_;
    summary.facts = values_.facts();
    summary.not_numbers = not_numbers_;
    summary.high = estimate(values_, 0);
    summary.low = estimate(values_, 1);
    summary.total_effect = estimate(values_, 2);
    for (auto& kind : kinds_) summary.kinds.push_back(kind.result());
    return summary;
  }

 private:
  std::string measure_;
  std::optional<std::string> target_;  // as long as all lines have the same
  std::optional<std::string> of_;
  std::size_t replicates_;
  std::int64_t not_numbers_ = 0;
  ClusterMeans values_;  // high, low, total effect
  std::list<KindReadings> kinds_;
};

ReadingSums::ReadingSums() = default;
ReadingSums::~ReadingSums() = default;

void ReadingSums::add(const TracedFact& fact, std::size_t replicates, std::span<const std::uint8_t> weights) {
  std::size_t target = 0;
  for (const auto& reading : fact.readings) {
    const auto place = std::find(kMeasures.begin(), kMeasures.end(), reading.measure) - kMeasures.begin();
    const auto key = reading.measure.empty() ? std::pair(kMeasures.size() + 1, ++target)
                                             : std::pair(static_cast<std::size_t>(place), std::size_t{0});
    auto& sums = sums_[key];
    if (!sums) sums = std::make_unique<Sums>(reading, replicates);
    sums->add(fact, reading, weights);
  }
}

void ReadingSums::give(GroupSummary& summary) {
  for (auto& [key, sums] : sums_) {
    auto reading = sums->result();
    (reading.measure.empty() ? summary.other_targets : summary.measures).push_back(std::move(reading));
  }
}

}  // namespace rometrace
