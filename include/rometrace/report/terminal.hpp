#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "rometrace/report/json.hpp"
#include "rometrace/trace/trace.hpp"

namespace rometrace {

/// How much a terminal shows.
struct TerminalStyle {
  int columns = 80;         ///< width of the terminal, in character cells; fewer than 20 count as 20
  bool color = true;        ///< false: numbers alone (NO_COLOR, or no terminal)
  bool true_color = false;  ///< 24-bit colours (COLORTERM); else the 256-colour palette
  bool unicode = true;      ///< false: ASCII only, other characters are escaped (a locale that is not UTF-8)
};

/// The grids of a traced record as heat maps, tokens down and layers across, the corrupted tokens marked with "*", with
/// a legend of what the shades mean, and sentences of finding (total effect; for each kind the strongest cell;
/// measures). Where cells are wide enough they hold the probability in percent; else, without colour, tenths of the
/// range from low_score to the largest or, when noising, from high_score to the lowest. Of heads there is one map,
/// heads down, at the position with the strongest; a knockout has its groups down, and the change of the probability in
/// percent of the clean one. Neurons are a table of the best, with the tokens that they promote; where it is too narrow
/// it has fewer columns. Layers that do not fit are merged, the strongest of a group is shown. No line is wider
/// than `style.columns`. Text from model and prompt is escaped: no control character of theirs reaches the terminal.
/// Lines end in "\n".
std::string render_heat_maps(const TraceRecord& record, const TerminalStyle& style);

/// Why the grids, or neurons alone, say little, as a clause without full stop: the corruption hardly lowers the answer's probability (by
/// less than 5 %, or two standard errors), or a probability is not a number. Nothing if neither, or if all that was
/// traced is knockouts, which have no corruption.
std::optional<std::string> warning_of(const Trace& trace);

/// One line of progress for a terminal, narrower than `style.columns`, without a line end: bar, percentage, time left.
/// `seconds` since the start.
std::string render_progress(std::int64_t done, std::int64_t total, double seconds, const TerminalStyle& style);

/// Facts of a batch by what became of them.
struct BatchCounts {
  std::int64_t traced = 0;  ///< or probed
  std::int64_t skipped = 0;
  std::int64_t failed = 0;
  std::string_view verb = "traced";  ///< or "probed"
  std::string part = {};             ///< of a longer work that this is: "factor 2 of 7"

  std::int64_t done() const { return traced + skipped + failed; }
};

/// "123 of 1029 facts, 12.3 a second, 1:14 left; 100 traced, 20 skipped, 3 failed", behind "factor 2 of 7: " where it
/// is part of a longer work. `before`: facts that were done when the `seconds` began; of those at hand, `part` facts'
/// worth of work is done.
std::string batch_progress_text(const BatchCounts& before, const BatchCounts& counts, std::int64_t total, double part,
                                double seconds);

/// The same behind a bar, for a terminal: narrower than `style.columns`, without a line end.
std::string render_batch_progress(const BatchCounts& before, const BatchCounts& counts, std::int64_t total, double part,
                                  double seconds, const TerminalStyle& style);

}  // namespace rometrace
