#include "rometrace/study/hardly_lowered.hpp"

#include <cmath>

namespace rometrace {

bool hardly_lowered(double high_score, double low_score, double low_standard_error) {
  constexpr double kSmallPart = 0.05;
  const double effect = high_score - low_score;
  const double noise = std::isfinite(low_standard_error) ? 2 * low_standard_error : 0;
  return !(effect >= kSmallPart * high_score && effect >= noise && effect > 0);
}

}  // namespace rometrace
