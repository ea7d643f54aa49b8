#pragma once

#include <string>
#include <vector>

#include "rometrace/report/json.hpp"
#include "rometrace/report/terminal.hpp"

namespace rometrace {

/// The neurons of a trace that has some: a table of those that were run alone, largest effect first, and one of the
/// layers where each has sets of its own. No line is wider than `style.columns`, at least 20: columns that do not fit
/// are left out. Lines end in "\n".
std::string render_neurons(const TraceRecord& record, const TerminalStyle& style);

/// What was found of neurons, in sentences for wrap(): the strongest, and how few of each position carry half of what
/// all of them do, beside other sets of that size. None where no neurons were traced.
std::vector<std::string> neuron_sentences(const TraceRecord& record, const TerminalStyle& style);

}  // namespace rometrace
