#include "summary/estimates.hpp"

namespace rometrace {

std::optional<Bounds> bootstrap_of(ClusterMeans& means, std::size_t value) {
  return means.facts() < 2 ? std::nullopt : percentile_interval(means.replicates(value));
}

Estimate estimate(ClusterMeans& means, std::size_t value) {
  Estimate result;
  result.facts = means.facts();
  if (result.facts == 0) return result;
  result.mean = means.means()[value];
  if (result.facts < 2) return result;
  result.standard_error = means.standard_errors()[value];
  result.normal = normal_interval(*result.mean, *result.standard_error);
  result.bootstrap = bootstrap_of(means, value);
  return result;
}

ErrorBars error_bars(ClusterMeans& means) {
  ErrorBars bars;
  if (means.facts() < 2) return bars;
  bars.standard_error = means.standard_errors();
  for (std::size_t value = 0; value < bars.standard_error.size(); ++value) {
    const auto normal = normal_interval(means.means()[value], bars.standard_error[value]);
    bars.normal_low.push_back(normal.low);
    bars.normal_high.push_back(normal.high);
    if (const auto bootstrap = bootstrap_of(means, value)) {
      bars.bootstrap_low.push_back(bootstrap->low);
      bars.bootstrap_high.push_back(bootstrap->high);
    }
  }
  return bars;
}

}  // namespace rometrace
