#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "rometrace/summary/summary.hpp"
#include "rometrace/summary/summary_reader.hpp"

namespace rometrace {

/// Where restoring one kind at the last subject token has the largest average effect.
struct KindPeak {
  std::string kind;
  std::int64_t window = 0;   ///< layers
  std::optional<Peak> peak;  ///< none: no fact has the role, or no layer's average effect is above 0
  Estimate aie;  ///< there: average indirect effect; `facts` that have the role, whether there is a peak or not
  std::optional<bool> stable;  ///< within one layer of the neighbouring factor's; none where there is no neighbour
};

/// What noise of one factor does to the facts. Probabilities are fractions.
struct FactorResult {
  double factor = 0;  ///< standard deviation of the noise, in those of the subjects' embeddings
  std::int64_t facts = 0;
  Estimate high_score, low_score, total_effect;
  std::optional<double> lost;       ///< mean total effect / mean high_score; none where that is 0, or without a fact
  std::int64_t hardly_lowered = 0;  ///< facts of which hardly_lowered() is true
  std::vector<KindPeak> kinds;      ///< in the order of the summary
  bool strong_enough = false;       ///< takes away kEnoughEffect of what the largest factor does, or more
};

inline constexpr double kEnoughEffect = 0.9;
inline constexpr std::int64_t kStableLayers = 1;

struct Recommendation {
  std::optional<double> factor;
  std::string reason;  ///< one sentence without its full stop
};

/// Applies recommendation_rule() to factors in ascending order: sets `strong_enough` and `stable` and recommends.
Recommendation recommend(std::vector<FactorResult>& factors);

/// The rule of recommend() in words, for results that must explain themselves.
std::string_view recommendation_rule();

/// "2.5": the shortest decimal number that reads back.
std::string factor_text(double factor);

struct CalibrationResult {
  SummaryConfig config;
  std::vector<FactorResult> factors;  ///< ascending
  std::int64_t records = 0;           ///< facts: traced + skipped + failed
  std::int64_t traced = 0, skipped = 0, failed = 0;
  std::map<std::string, std::int64_t> causes;  ///< of the skipped and failed
  std::vector<std::string> warnings;
  Recommendation recommendation;
};

/// Averages the traces of the same facts under noise of several factors, by a Summary of each.
class Calibration {
 public:
  /// Throws Error unless the factors are above 0, finite and ascending, at least one.
  explicit Calibration(const std::vector<double>& factors, const SummaryConfig& config = {});

  /// Adds a fact's line under noise of `factors[factor]`. Which facts are traced does not depend on the noise, so those
  /// that are not need lines under the first factor only. Throws as Summary::add().
  void add(std::size_t factor, const SummaryLine& line);

  CalibrationResult result();

 private:
  struct Sums {
    double factor = 0;
    std::unique_ptr<Summary> summary;
    std::int64_t lines = 0, hardly_lowered = 0;
  };

  SummaryConfig config_;
  std::vector<Sums> factors_;
};

}  // namespace rometrace
