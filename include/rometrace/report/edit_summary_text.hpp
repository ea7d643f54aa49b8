#pragma once

#include <string>

#include "rometrace/report/terminal.hpp"
#include "rometrace/summary/edit_summary.hpp"

namespace rometrace {

/// The summary for a terminal: S, ES, PS, NS and their magnitudes before and after with deviations and intervals, what
/// became of the edits, relations where they were asked for; of several layers a table by layer beside the tracing
/// curve. No line is wider than `style.columns`, which counts as 72 at least. Text from the results is escaped. Lines
/// end in "\n".
std::string render_edit_summary(const EditSummaryResult& result, const TerminalStyle& style);

}  // namespace rometrace
