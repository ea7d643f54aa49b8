#pragma once

#include <string>
#include <string_view>

#include "rometrace/report/terminal.hpp"

namespace rometrace {

/// What the trace found, in sentences, each wrapped to `columns`: total effect; for each grid its strongest cell.
/// For states the last token is left out: its state decides the answer in the late layers by construction.
std::string render_findings(const Trace& trace, const TracePrompt& prompt, const TokenTexts& texts,
                            const TerminalStyle& style);

/// A token between quotes, escaped, cut to fit a line; its spaces are kNoBreak, for wrap().
std::string quoted_token(std::string_view bytes, const TerminalStyle& style);

/// A probability with three significant digits ("0.976", "0.0262", "2.1e-05"), the same in every locale.
std::string probability(double value);

/// A probability in percent, as above ("97.6 %"), for wrap().
std::string percentage(double value);

}  // namespace rometrace
