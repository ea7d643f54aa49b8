#pragma once

#include <cstddef>
#include <optional>
#include <string>

#include "rometrace/report/json.hpp"
#include "rometrace/report/terminal.hpp"

namespace rometrace {

/// Whether both directions were traced, and anything that has one.
bool has_both_directions(const TraceRecord& record);

/// What a trace of one direction alone would have of it.
TraceRecord in_direction(const TraceRecord& record, Direction direction);

/// A cell of an interaction's grid.
struct InteractionCell {
  std::size_t index = 0;  ///< in the grid
  std::size_t row = 0;
  std::int64_t layer = 0;
  std::int64_t head = 0;
  double value = 0;
};

/// The cell whose interaction is furthest from 0; nothing if none is a number. `which`: in Trace::interaction.
std::optional<InteractionCell> strongest_interaction(const Trace& trace, std::size_t which);

/// For each kind a sentence on its strongest interaction.
std::string render_interactions(const TraceRecord& record, const TerminalStyle& style);

}  // namespace rometrace
