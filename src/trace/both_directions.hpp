#pragma once

#include "rometrace/trace/trace.hpp"

namespace rometrace {

/// The options of one of the two traces that Direction::kBoth stands for. Knockouts, which have no direction, are the
/// denoising one's.
TraceOptions in_direction(const TraceOptions& options, Direction direction);

/// Whether the options ask for anything that has a direction.
bool has_direction(const TraceOptions& options);

/// The progress of the first, or the second, of two pieces of work of the same size.
Progress half_of(const Progress& progress, bool second);

/// Puts the grids of `noised` beside those of `denoised`, and their interactions; what each draw had goes.
void join_directions(Trace& denoised, Trace&& noised);

}  // namespace rometrace
