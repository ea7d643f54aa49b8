#pragma once

#include <functional>

#include "rometrace/trace/trace.hpp"

namespace rometrace {

/// The options of one of the two traces that Direction::kBoth stands for. Knockouts, which have no direction, are the
/// denoising one's.
TraceOptions in_direction(const TraceOptions& options, Direction direction);

/// Throws Error: a precision or neurons, which are of one direction.
void check_both(const TraceOptions& options);

/// Whether the options ask for anything that has a direction.
bool has_direction(const TraceOptions& options);

/// The control of one of the two: denoising is the first half of the work, noising the second.
RunControl in_direction(const RunControl& control, Direction direction);

/// Traces a prompt in both directions by an engine that traces it in one, with the options and the control given.
/// Throws what check_both() and the engine throw.
Trace trace_in_both(const TraceOptions& options, const RunControl& control,
                    const std::function<Trace(const TraceOptions&, const RunControl&)>& engine);

/// Puts the grids of `noised` beside those of `denoised`, and their interactions; what each draw had goes.
void join_directions(Trace& denoised, Trace&& noised);

}  // namespace rometrace
