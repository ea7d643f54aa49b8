#pragma once

#include <stop_token>

namespace rometrace::cli {

/// Fills what the caller closed of the descriptors 0 to 2, so that no file opened later gets their numbers, and our
/// messages with them. Writing there still fails, as it would on a closed one. Call first of all.
void reserve_standard_descriptors();

/// Turns SIGINT, SIGTERM and SIGHUP (each unless it was ignored when the program started) into a request on the
/// returned token: the first signal asks the work to stop and clean up, a second one ends the process at once with
/// status 130. SIGPIPE and SIGXFSZ are ignored, so that a closed pipe or a file-size limit is an error of write(). Call
/// once, before any thread is started (the signals are blocked in all threads but one of its own).
std::stop_token watch_stop_signals();

/// Bounds the products that oneDNN keeps made ready, one for each shape and some hundred kilobytes each, at an eighth
/// of its own 1024, up to which a batch over facts of many shapes would grow. What the user has set counts
/// (ONEDNN_PRIMITIVE_CACHE_CAPACITY). Call before the first product and before any thread is started.
void bound_ready_products();

/// Has the process end with one line and status 2 when a file that is mapped into memory can no longer be read: it was
/// cut short, or its disk fails. Any other SIGBUS is what it would have been.
void watch_mapped_files();

}  // namespace rometrace::cli
