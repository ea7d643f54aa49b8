#pragma once

#include <cstddef>
#include <optional>

#include "rometrace/summary/cluster_means.hpp"
#include "rometrace/summary/summary.hpp"

namespace rometrace {

/// Nothing with less than two facts.
std::optional<Bounds> bootstrap_of(ClusterMeans& means, std::size_t value);

/// The mean of one of the values.
Estimate estimate(ClusterMeans& means, std::size_t value);

/// Of all values.
ErrorBars error_bars(ClusterMeans& means);

}  // namespace rometrace
