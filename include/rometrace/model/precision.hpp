#pragma once

namespace rometrace {

/// How a GPU multiplies: kTf32 lets it round float32 products to TF32, ten bits of the mantissa.
enum class GpuPrecision { kFull, kTf32 };

/// Sets it for all that this process computes from now on. Sums of 16-bit products are never rounded below float32.
void set_gpu_precision(GpuPrecision precision);

}  // namespace rometrace
