#pragma once

#include <string>

#include "rometrace/report/terminal.hpp"
#include "rometrace/summary/summary.hpp"

namespace rometrace {

/// The summary for people: how many facts, the total effect, for each kind a table of the roles' peaks and a sentence
/// of finding, the gaps that severed paths make at the last subject token, the knockouts' strongest changes, and a
/// table of relations. Probabilities are in percent. At most `style.columns` wide where that is 79 or more; text from
/// files is escaped. Lines end in "\n".
std::string render_summary(const SummaryResult& summary, const TerminalStyle& style);

}  // namespace rometrace
