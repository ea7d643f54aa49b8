#include "rometrace/edit/defaults.hpp"

#include <algorithm>
#include <cmath>

namespace rometrace {
namespace {

// Of `published` in a model of `of` layers, at the same depth of another.
std::int64_t at_depth(std::int64_t published, std::int64_t of, std::int64_t layers) {
  const auto share = static_cast<double>(published) / static_cast<double>(of);
  return std::clamp<std::int64_t>(std::lround(share * static_cast<double>(layers)), 0, layers - 1);
}

std::vector<std::int64_t> range_at_depth(std::int64_t first, std::int64_t last, std::int64_t of, std::int64_t layers) {
  std::vector<std::int64_t> range;
  for (auto layer = at_depth(first, of, layers); layer <= at_depth(last, of, layers); ++layer) range.push_back(layer);
  return range;
}

}  // namespace

EditDefaults edit_defaults(const DecoderConfig& config, EditMethod method) {
  const auto L = config.layers;
  const bool memit = method == EditMethod::kMemit;
  EditDefaults defaults;
  auto& value = defaults.value;
  switch (config.family) {
    case Family::kGpt2:
      if (memit) {
        defaults.layers = range_at_depth(13, 17, 48, L);
        value.clamp = 0.75;
      } else {
        // 8 of 24, 12 of 36, 17 of 48.
        defaults.layers = {L == 48 ? 17 : at_depth(1, 3, L)};
        value.clamp = L == 24 ? 3 : 4;
      }
      break;
    case Family::kGptJ:
    case Family::kGptNeo:
    case Family::kGptNeoX:
      if (memit) {
        defaults.layers = range_at_depth(3, 8, 28, L);
        defaults.lambda = 15000;
        value.steps = 25;
        value.clamp = 0.75;
      } else {
        defaults.layers = {config.family == Family::kGptNeoX ? at_depth(15, 44, L) : at_depth(5, 28, L)};
      }
      break;
    default:
      value.steps = 25;
      value.decay = 0.001;
      defaults.lambda = 15000;
      defaults.layers = memit ? range_at_depth(4, 8, 32, L) : std::vector{at_depth(5, 32, L)};
  }
  constexpr std::int64_t kNarrow = 512;
  if (config.width < kNarrow) {
    value.steps = 50;
    value.decay = std::min(value.decay, 0.001);
    value.clamp = 16;
    defaults.lambda = 100;
    if (!memit) defaults.layers = {at_depth(1, 4, L)};
  }
  return defaults;
}

}  // namespace rometrace
