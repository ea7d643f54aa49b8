#pragma once

namespace rometrace::cli {

/// From now on freed memory goes back to the kernel within a second, where jemalloc is the allocator; as a rule it
/// stays (allocator.cpp). For work whose blocks do not fit into the gaps that others have left: an edit's evaluations
/// would take some 60 MB more a second, and are no slower without.
void give_back_freed_memory();

}  // namespace rometrace::cli
