#include "model/microscaled.hpp"

#include <array>
#include <cmath>

#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"

namespace rometrace {

TensorView microscaled_view(const std::string& name, const TensorView& blocks, const TensorView& scales,
                            const std::string& where) {
  constexpr std::int64_t kBytes = kMicroscaledNumbers / 2;
  for (const auto* part : {&blocks, &scales}) {
    if (part->dtype == "U8" && part->strides.empty()) continue;
    throw Error(where + ": tensor " + in_quotes(part->name) + " is of dtype " + part->dtype +
                "; expected U8, as a half of a matrix in MXFP4");
  }
  auto of_both = scales.shape;
  of_both.push_back(kBytes);
  if (scales.shape.empty() || blocks.shape != of_both) {
    throw Error(where + ": tensor " + in_quotes(blocks.name) + " has shape " + shape_text(blocks.shape) +
                "; expected that of " + in_quotes(scales.name) + ", " + shape_text(scales.shape) + ", and " +
                std::to_string(kBytes));
  }
  auto shape = scales.shape;
  shape.back() *= kMicroscaledNumbers;
  return {name, "MXFP4", std::move(shape), blocks.bytes};
}

void read_microscaled(std::span<const std::byte> blocks, std::span<const std::byte> scales, float* numbers) {
  constexpr std::array<float, 16> kValues = {0.0F,  0.5F,  1.0F,  1.5F,  2.0F,  3.0F,  4.0F,  6.0F,
                                             -0.0F, -0.5F, -1.0F, -1.5F, -2.0F, -3.0F, -4.0F, -6.0F};
  constexpr int kBias = 127;
  constexpr std::size_t kBytes = kMicroscaledNumbers / 2;
  for (std::size_t block = 0; block < scales.size(); ++block) {
    const auto scale = std::ldexp(1.0F, std::to_integer<int>(scales[block]) - kBias);
    for (const auto both : blocks.subspan(block * kBytes, kBytes)) {
      *numbers++ = scale * kValues[std::to_integer<std::size_t>(both) & 15U];
      *numbers++ = scale * kValues[std::to_integer<std::size_t>(both) >> 4U];
    }
  }
}

}  // namespace rometrace
