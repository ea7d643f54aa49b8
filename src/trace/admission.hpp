#pragma once

#include <cstdint>

#include "rometrace/model/decoder.hpp"
#include "trace/pass_parts.hpp"

namespace rometrace {

/// Gives rows to the patches that change this layer's attention, before it is run: those of the clean run.
void admit_before(std::int64_t layer, bool noising, const PassParts& pass);

/// Gives rows to the patches that begin with this layer, once the base run has gone through it: copies of the base
/// run's, or of those of the patch that has been the same so far, and at the patch's position what the base run's row
/// becomes. `base` has what the layer left for it.
void admit_after(std::int64_t layer, const Block& block, const BaseLayer& base, const PassParts& pass);

}  // namespace rometrace
