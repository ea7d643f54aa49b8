#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "rometrace/trace/noise.hpp"

namespace rometrace {

/// Share of the intervals: 95 of 100 of them hold the true value.
inline constexpr double kLevel = 0.95;
inline constexpr double kLowTail = 0.025;
inline constexpr double kHighTail = 0.975;

/// An interval.
struct Bounds {
  double low = 0;
  double high = 0;
};

/// Replicate weights of the Poisson bootstrap: for each fact, and each replicate, how often the fact is drawn. The
/// bootstrap of n draws with replacement, but n need not be known beforehand. Poisson(1) by inverse CDF of NumPy's
/// `RandomState(seed).random_sample()`: the number of k >= 0 with u >= e^-1 (1/0! + ... + 1/k!).
class PoissonWeights {
 public:
  PoissonWeights(std::uint32_t seed, std::size_t replicates) : random_(seed), weights_(replicates) {}

  /// The next fact's; valid until the next call.
  std::span<const std::uint8_t> draw();

 private:
  RandomState random_;
  std::vector<std::uint8_t> weights_;  ///< [B]
};

/// Means of several quantities over all tokens, with errors over facts (a fact's tokens are no independent draws, so
/// facts are clusters), in one pass and in memory that does not grow. Where each fact counts once, these are the plain
/// mean and standard error.
class ClusterMeans {
 public:
  /// `values` quantities (V), `replicates` of the bootstrap (B, 0 for none).
  ClusterMeans(std::size_t values, std::size_t replicates);

  /// Adds a fact: its number of tokens (at least 1), sums over them [V], and weights [B].
  void add(double count, std::span<const double> sums, std::span<const std::uint8_t> weights);

  std::int64_t facts() const { return facts_; }
  double count() const { return count_; }                      ///< tokens of all facts
  const std::vector<double>& means() const { return means_; }  ///< [V]

  /// [V] Of the ratio estimator m = sum s / sum c over facts with sum s and count c (Cochran, Sampling Techniques,
  /// section 6.4, infinite population): sqrt(n / (n - 1) * sum (s - m c)^2) / sum c. NaN for less than two facts.
  std::vector<double> standard_errors() const;

  /// A quantity's means in the replicates, those left out in which no fact is drawn.
  std::vector<double> replicates(std::size_t value);

  /// The place of each replicate's largest mean among the V, the first of equals.
  std::vector<double> replicate_peaks();

 private:
  static constexpr std::size_t kBatch = 8;

  void flush();

  std::size_t values_;
  std::size_t replicates_;
  std::int64_t facts_ = 0;
  double count_ = 0;
  double squared_count_ = 0;
  std::vector<double> means_;             // weighted by count
  std::vector<double> squared_means_;     // weighted by count squared, for the deviations
  std::vector<double> deviations_;        // sum of count squared times (mean - squared_means_) squared
  std::vector<double> replicate_sums_;    // [B, V]
  std::vector<double> replicate_counts_;  // [B]

  // Facts that the replicates have not seen: several at a time, each replicate's sums pass through the cache once.
  std::size_t pending_ = 0;
  std::array<double, kBatch> pending_counts_{};
  std::vector<double> pending_sums_;           // [kBatch, V]
  std::vector<std::uint8_t> pending_weights_;  // [kBatch, B]
};

/// mean -+ 1.96 standard errors.
Bounds normal_interval(double mean, double standard_error);

/// `fraction` of the values are below (in [0, 1]; linear between neighbours, as numpy.percentile). `sorted` ascending,
/// not empty.
double percentile(std::span<const double> sorted, double fraction);

/// The middle 95 % of `values`; nothing for fewer than two.
std::optional<Bounds> percentile_interval(std::vector<double> values);

}  // namespace rometrace
