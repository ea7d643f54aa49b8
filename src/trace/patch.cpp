#include "rometrace/trace/patch.hpp"

#include <c10/util/Exception.h>

namespace rometrace {

Site site_of(Kind kind) {
  switch (kind) {
    case Kind::kState:
      return Site::kState;
    case Kind::kMlp:
      return Site::kMlp;
    case Kind::kAttn:
      return Site::kAttn;
  }
  TORCH_INTERNAL_ASSERT(false, "kind not handled");
}

Patch patch_of(Kind kind, std::int64_t position, std::int64_t layer, std::int64_t window, std::int64_t layers) {
  return {position, site_of(kind), window_of(layer, kind == Kind::kState ? 1 : window, layers)};
}

CausalGrid empty_grid(Kind kind, const TraceOptions& options, const Trace& trace) {
  CausalGrid grid;
  grid.kind = kind;
  grid.window = kind == Kind::kState ? 1 : options.window;
  grid.scores.assign(static_cast<std::size_t>(trace.tokens * trace.layers), trace.low_score);
  grid.standard_error.assign(grid.scores.size(), trace.low_standard_error);
  return grid;
}

}  // namespace rometrace
