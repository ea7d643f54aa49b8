#pragma once

namespace rometrace::cli {

/// Cores that this process may use: those of its affinity mask, or as many as the processor time that its control
/// groups allow is worth, rounded up, where that is less. At least 1.
int usable_cores();

}  // namespace rometrace::cli
