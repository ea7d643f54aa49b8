#include "rometrace/model/precision.hpp"

#include <ATen/Context.h>

namespace rometrace {

void set_gpu_precision(GpuPrecision precision) {
  auto& context = at::globalContext();
  context.setAllowTF32CuBLAS(precision == GpuPrecision::kTf32);
  context.setAllowFP16ReductionCuBLAS(false);
  context.setAllowBF16ReductionCuBLAS(false);
}

}  // namespace rometrace
