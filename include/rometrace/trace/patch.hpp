#pragma once

#include <cstdint>
#include <vector>

#include "rometrace/model/gpt2.hpp"
#include "rometrace/trace/trace.hpp"

namespace rometrace {

/// What a restored run changes: at `position`, the clean outputs of `site` take the place of its own in `layers`. The
/// one description that all kinds share and both engines read.
struct Patch {
  std::int64_t position = 0;
  Site site = Site::kState;
  LayerRange layers;

  bool operator==(const Patch&) const = default;
};

/// Where a kind restores.
Site site_of(Kind kind);

/// The patch of the cell at (position, layer) of a kind's grid; `layers` is L.
Patch patch_of(Kind kind, std::int64_t position, std::int64_t layer, std::int64_t window, std::int64_t layers);

/// The grid of a kind with nothing but low scores in it.
CausalGrid empty_grid(Kind kind, const TraceOptions& options, const Trace& trace);

}  // namespace rometrace
