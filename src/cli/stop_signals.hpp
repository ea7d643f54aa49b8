#pragma once

#include <stop_token>

namespace rometrace::cli {

/// Turns SIGINT and SIGTERM into a request on the returned token: the first signal asks the work to stop and clean up,
/// a second one ends the process at once with status 130. SIGPIPE is ignored, so that a closed pipe is an error of
/// write(). Call once, before any thread is started (the signals are blocked in all threads but one of its own).
std::stop_token watch_stop_signals();

}  // namespace rometrace::cli
