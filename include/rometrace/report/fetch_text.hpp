#pragma once

#include <string>

#include "rometrace/hub/fetch.hpp"
#include "rometrace/report/terminal.hpp"

namespace rometrace {

/// "model.safetensors, 45 %: 123.4 MB of 548.1 MB, 12.3 MB a second, 0:35 left", in ASCII. `seconds` since the first
/// byte was fetched; the percentage is of all files.
std::string fetch_progress_text(const FetchProgress& progress, double seconds);

/// The same behind a bar, for a terminal: narrower than `style.columns`, without a line end.
std::string render_fetch_progress(const FetchProgress& progress, double seconds, const TerminalStyle& style);

}  // namespace rometrace
