#pragma once

#include <string>
#include <string_view>

namespace rometrace {

enum class LockKind {
  kWriting,  ///< nobody else may read or write
  kReading,  ///< nobody may write
};

/// Locks an open file against other rometraces without waiting: the descriptor holds the lock until it is closed, also
/// by the death of the process. False where the file system knows no locks (NFS without its lock service, some Lustre).
/// Throws Error if another process has it: "LABEL: another rometrace (process 1234) is writing it; " and `advice`. The
/// process is named where Linux tells it.
bool lock_file(int descriptor, LockKind kind, const std::string& label, std::string_view advice);

}  // namespace rometrace
