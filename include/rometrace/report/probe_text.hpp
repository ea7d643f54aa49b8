#pragma once

#include <string>

#include "rometrace/report/terminal.hpp"
#include "rometrace/summary/probe_summary.hpp"

namespace rometrace {

/// The summary as plain text for a terminal: what was probed and the rule of knowing; per relation and over all facts
/// the shares that are said, known, known but not said, said but not known, each above its 95 % interval, in the facts'
/// own prompts and over their held-out wordings; then single wordings, held-out ones marked "*". Text from the results
/// is escaped. No line is wider than `style.columns`, which counts as 72 at least. Lines end in "\n".
std::string render_probe_summary(const ProbeSummary& summary, const TerminalStyle& style);

}  // namespace rometrace
