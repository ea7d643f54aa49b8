#include "results/file_lock.hpp"

#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <cerrno>
#include <fstream>
#include <optional>
#include <sstream>

#include "rometrace/error.hpp"

namespace rometrace {
namespace {

struct Holder {
  long process = 0;
  bool writes = true;
};

/// Who holds a lock on the file, as /proc/locks has it: "1: FLOCK  ADVISORY  WRITE 1234 fe:01:5678 0 EOF", with the
/// device's numbers in hexadecimal.
std::optional<Holder> holder_of(int descriptor) {
  struct stat status {};
  if (::fstat(descriptor, &status) != 0) return std::nullopt;
  std::ifstream locks("/proc/locks");
  std::optional<Holder> elsewhere;  // same number on another device: layered file systems show devices of their own
  for (std::string line; std::getline(locks, line);) {
    std::istringstream words(line);
    std::string number, type, strength, mode, file;
    Holder holder;
    if (!(words >> number >> type >> strength >> mode >> holder.process >> file) || type != "FLOCK") continue;
    std::istringstream parts(file);
    unsigned major = 0, minor = 0;
    ino_t inode = 0;
    char colon = ':';
    if (!(parts >> std::hex >> major >> colon >> minor >> colon >> std::dec >> inode)) continue;
    if (inode != status.st_ino || holder.process <= 0) continue;
    holder.writes = mode == "WRITE";
    if (major == gnu_dev_major(status.st_dev) && minor == gnu_dev_minor(status.st_dev)) return holder;
    elsewhere = holder;
  }
  return elsewhere;
}

}  // namespace

bool lock_file(int descriptor, LockKind kind, const std::string& label, std::string_view advice) {
  const int operation = kind == LockKind::kWriting ? LOCK_EX : LOCK_SH;
  while (::flock(descriptor, operation | LOCK_NB) != 0) {
    if (errno == EINTR) continue;
    if (errno != EWOULDBLOCK) return false;
    const auto holder = holder_of(descriptor);
    std::string message = label + ": another rometrace";
    if (holder) message += " (process " + std::to_string(holder->process) + ")";
    message += holder && !holder->writes ? " is reading it; " : " is writing it; ";
    throw Error(message.append(advice));
  }
  return true;
}

}  // namespace rometrace
