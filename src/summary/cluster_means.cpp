#include "rometrace/summary/cluster_means.hpp"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>

namespace rometrace {
namespace {

constexpr std::size_t kMostDraws = 20;  // of one fact; the chance of more is below that of any double

/// Chances of at most k draws.
std::array<double, kMostDraws> cumulated_chances() {
  std::array<double, kMostDraws> chances{};
  double chance = std::exp(-1.0), sum = 0;
  for (std::size_t k = 0; k < kMostDraws; ++k) {
    sum += chance;
    chances[k] = sum;
    chance /= static_cast<double>(k + 1);
  }
  return chances;
}

}  // namespace

std::span<const std::uint8_t> PoissonWeights::draw() {
  static const auto kChances = cumulated_chances();
  for (auto& weight : weights_) {
    const double u = random_.random_sample();
    std::uint8_t draws = 0;
    while (draws < kMostDraws && u >= kChances[draws]) ++draws;
    weight = draws;
  }
  return weights_;
}

ClusterMeans::ClusterMeans(std::size_t values, std::size_t replicates)
    : values_(values),
      replicates_(replicates),
      means_(values),
      squared_means_(values),
      deviations_(values),
      replicate_sums_(replicates * values),
      replicate_counts_(replicates),
      pending_sums_(replicates == 0 ? 0 : kBatch * values),
      pending_weights_(kBatch * replicates) {}

void ClusterMeans::add(double count, std::span<const double> sums, std::span<const std::uint8_t> weights) {
  assert(count >= 1 && sums.size() == values_ && weights.size() == replicates_);
  ++facts_;
  count_ += count;
  squared_count_ += count * count;
  for (std::size_t v = 0; v < values_; ++v) {
    const double mean = sums[v] / count;
    means_[v] += count / count_ * (mean - means_[v]);
    // West's update of a weighted sum of squared deviations (Communications of the ACM 22, 1979).
    const double difference = mean - squared_means_[v];
    squared_means_[v] += count * count / squared_count_ * difference;
    deviations_[v] += count * count * difference * (mean - squared_means_[v]);
  }
  if (replicates_ == 0) return;
  std::copy(sums.begin(), sums.end(), pending_sums_.begin() + static_cast<std::ptrdiff_t>(pending_ * values_));
  std::copy(weights.begin(), weights.end(),
            pending_weights_.begin() + static_cast<std::ptrdiff_t>(pending_ * replicates_));
  pending_counts_[pending_] = count;
  if (++pending_ == kBatch) flush();
}

void ClusterMeans::flush() {
  for (std::size_t b = 0; b < replicates_; ++b) {
    double* const totals = replicate_sums_.data() + b * values_;
    for (std::size_t i = 0; i < pending_; ++i) {
      const auto weight = static_cast<double>(pending_weights_[i * replicates_ + b]);
      if (weight == 0) continue;
      replicate_counts_[b] += weight * pending_counts_[i];
      const double* const sums = pending_sums_.data() + i * values_;
      for (std::size_t v = 0; v < values_; ++v) totals[v] += weight * sums[v];
    }
  }
  pending_ = 0;
}

std::vector<double> ClusterMeans::standard_errors() const {
  if (facts_ < 2) return std::vector<double>(values_, std::numeric_limits<double>::quiet_NaN());
  const auto n = static_cast<double>(facts_);
  std::vector<double> errors(values_);
  for (std::size_t v = 0; v < values_; ++v) {
    // sum c^2 (s/c - m)^2, the deviations moved from their own mean to m
    const double shift = means_[v] - squared_means_[v];
    errors[v] = std::sqrt(n / (n - 1) * (deviations_[v] + shift * shift * squared_count_)) / count_;
  }
  return errors;
}

std::vector<double> ClusterMeans::replicates(std::size_t value) {
  flush();
  std::vector<double> means;
  for (std::size_t b = 0; b < replicates_; ++b) {
    if (replicate_counts_[b] > 0) means.push_back(replicate_sums_[b * values_ + value] / replicate_counts_[b]);
  }
  return means;
}

std::vector<double> ClusterMeans::replicate_peaks() {
  flush();
  std::vector<double> peaks;
  for (std::size_t b = 0; b < replicates_; ++b) {
    const auto sums = std::span(replicate_sums_).subspan(b * values_, values_);
    const auto peak = std::max_element(sums.begin(), sums.end()) - sums.begin();
    if (replicate_counts_[b] > 0) peaks.push_back(static_cast<double>(peak));
  }
  return peaks;
}

Bounds normal_interval(double mean, double standard_error) {
  constexpr double kQuantile = 1.959963984540054;  // of the standard normal, at (1 + kLevel) / 2
  return {mean - kQuantile * standard_error, mean + kQuantile * standard_error};
}

double percentile(std::span<const double> sorted, double fraction) {
  assert(!sorted.empty() && fraction >= 0 && fraction <= 1);
  const double place = fraction * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(place);
  const double low = sorted[below], high = sorted[std::min(below + 1, sorted.size() - 1)];
  const double part = place - std::floor(place);
  return part < 0.5 ? low + (high - low) * part : high - (high - low) * (1 - part);
}

std::optional<Bounds> percentile_interval(std::vector<double> values) {
  if (values.size() < 2) return std::nullopt;
  std::sort(values.begin(), values.end());
  return Bounds{percentile(values, kLowTail), percentile(values, kHighTail)};
}

}  // namespace rometrace
