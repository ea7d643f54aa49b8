#include "cli/files/output_file.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <climits>
#include <fstream>
#include <random>
#include <thread>
#include <utility>

#include "cli/files/file_system.hpp"
#include "rometrace/error.hpp"
#include "rometrace/results/results_reader.hpp"

namespace rometrace::cli {

namespace fs = std::filesystem;

namespace {

/// True if the file begins as a batch's results do: hours of work that no -o may replace.
bool holds_batch(const fs::path& path) {
  const std::string expected = R"({"schema":")" + std::string(kBatchSchema) + '"';
  std::string found(expected.size(), '\0');
  std::ifstream(path, std::ios::binary).read(found.data(), static_cast<std::streamsize>(found.size()));
  return found == expected;
}

/// True if something is mounted on the file itself, as containers do with a single file.
bool is_mount_point([[maybe_unused]] const fs::path& path) {
#ifdef STATX_ATTR_MOUNT_ROOT
  struct statx status {};
  if (statx(AT_FDCWD, path.c_str(), 0, STATX_TYPE, &status) == 0) {
    return (status.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
  }
#endif
  return false;
}

std::string descriptor_path(int descriptor) {
  return "/proc/self/fd/" + std::to_string(descriptor);
}

/// A file in `folder` that has no name yet, so that nothing can be left behind; -1 where that is not possible.
int open_unnamed([[maybe_unused]] const fs::path& folder) {
#ifdef O_TMPFILE
  const int descriptor = open_retrying(folder, O_TMPFILE | O_WRONLY, kNewFileMode);
  if (descriptor >= 0 && ::access(descriptor_path(descriptor).c_str(), F_OK) != 0) {
    ::close(descriptor);  // without /proc it could never get a name
    return -1;
  }
  return descriptor;
#else
  return -1;
#endif
}

/// True once write() takes bytes or fails at once; false after a short while without either.
bool is_ready(int descriptor) {
  constexpr int kMilliseconds = 50;  // how soon a request to stop is seen
  pollfd waiting{descriptor, POLLOUT, 0};
  return ::poll(&waiting, 1, kMilliseconds) > 0;
}

/// Writes all of `content`. Returns 0 or the error; throws Interrupted.
int write_all(int descriptor, std::string_view content, const std::stop_token& stop) {
  while (!content.empty()) {
    // A pipe that is ready takes PIPE_BUF bytes without blocking; in a blocked write() a request to stop is not seen.
    if (!is_ready(descriptor)) {
      if (stop.stop_requested()) {
        throw Interrupted();
      }
      continue;
    }
    const auto size = std::min<std::size_t>(content.size(), PIPE_BUF);
    const ssize_t written = ::write(descriptor, content.data(), size);
    if (written < 0 && errno != EINTR && errno != EAGAIN) {
      return errno;
    }
    content.remove_prefix(static_cast<std::size_t>(std::max<ssize_t>(0, written)));
  }
  return 0;
}

}  // namespace

OutputFile::OutputFile(const fs::path& path) : shown_path_(path), path_(path) {
  if (path.empty()) {
    throw Error("-o: the file name is empty; give a name, or leave -o out for standard output");
  }
  try {
    open_target();
  } catch (...) {
    release();
    throw;
  }
}

OutputFile::~OutputFile() {
  release();
}

void OutputFile::release() noexcept {
  if (descriptor_ >= 0) {
    ::close(descriptor_);
  }
  if (!temporary_.empty()) {
    ::unlink(temporary_.c_str());
  }
}

void OutputFile::open_target() {
  if (const auto number = own_descriptor(path_)) {
    // Opening it anew would start at the file's beginning and fails for sockets.
    target_ = Target::kStream;
    open_own(*number);
    return;
  }
  struct stat old {};
  const bool exists = ::stat(path_.c_str(), &old) == 0;
  if (!exists && errno != ENOENT) {
    fail(errno);
  }
  if ((exists && S_ISDIR(old.st_mode)) || !path_.has_filename()) {
    throw Error(shown(shown_path_) + ": is a folder; name a file in it, such as " + shown(shown_path_ / "trace.json"));
  }
  if (exists && !S_ISREG(old.st_mode)) {
    if (::access(path_.c_str(), W_OK) != 0) {
      fail(errno);
    }
    target_ = S_ISFIFO(old.st_mode) ? Target::kFifo : Target::kStream;
    if (target_ == Target::kStream) {
      descriptor_ = open_retrying(path_, O_WRONLY | O_NOCTTY);
      if (descriptor_ < 0) {
        fail(errno);
      }
    }
    return;
  }
  open_beside(exists ? &old : nullptr);
}

void OutputFile::open_own(int number) {
  const int flags = ::fcntl(number, F_GETFL);
  if (flags < 0 || (flags & O_ACCMODE) == O_RDONLY) {
    throw Error(shown(shown_path_) + ": file descriptor " + std::to_string(number) +
                (flags < 0 ? " is not open" : " is open for reading only") + "; choose another file with -o");
  }
  descriptor_ = ::fcntl(number, F_DUPFD_CLOEXEC, 0);
  if (descriptor_ < 0) {
    fail(errno);
  }
}

void OutputFile::open_beside(const struct stat* old) {
  path_ = behind_links(path_);
  if (old != nullptr && ::access(path_.c_str(), W_OK) != 0) {
    fail(errno);  // a file that is read-only is so on purpose, even where its folder could be written
  }
  if (old != nullptr && holds_batch(path_)) {
    throw Error(shown(shown_path_) +
                ": holds the results of a batch, which would be lost; name another file, or delete it");
  }
  if (old != nullptr && is_mount_point(path_)) {
    fail(EBUSY);
  }
  // A folder without permission is told from one where unnamed files are not known by the second attempt.
  descriptor_ = open_unnamed(folder_of(path_));
  if (descriptor_ < 0) {
    const fs::path name = unused_name();
    descriptor_ = open_retrying(name, O_WRONLY | O_CREAT | O_EXCL, kNewFileMode);
    if (descriptor_ < 0) {
      fail(errno);
    }
    temporary_ = name;
  }
  if (old != nullptr) {
    // Where the owner cannot be kept the file is ours, as if it were new. Owner first: chown takes mode bits off.
    [[maybe_unused]] const int owner_kept = ::fchown(descriptor_, old->st_uid, old->st_gid);
    [[maybe_unused]] const int mode_kept = ::fchmod(descriptor_, old->st_mode & 07777U);
  }
}

void OutputFile::open_fifo(const std::stop_token& stop) {
  constexpr auto kPause = std::chrono::milliseconds(20);
  // Without O_NONBLOCK, a Ctrl-C that comes just before open() would not be seen.
  while ((descriptor_ = open_retrying(path_, O_WRONLY | O_NONBLOCK)) < 0) {
    if (errno != ENXIO) {
      fail(errno);
    }
    if (stop.stop_requested()) {
      throw Interrupted();
    }
    std::this_thread::sleep_for(kPause);
  }
}

void OutputFile::write(std::string_view content, const std::stop_token& stop) {
  if (target_ == Target::kFifo && descriptor_ < 0) {
    open_fifo(stop);
  }
  if (const int error = write_all(descriptor_, content, stop)) {
    fail(error);
  }
}

/// A name in the target's folder that hides the file from a plain listing.
fs::path OutputFile::unused_name() const {
  static constexpr std::string_view kLetters = "abcdefghijklmnopqrstuvwxyz0123456789";
  constexpr int kLength = 12;
  std::random_device source;
  std::uniform_int_distribution<std::size_t> letter(0, kLetters.size() - 1);
  std::string name = ".rometrace-";
  for (int i = 0; i < kLength; ++i) {
    name += kLetters[letter(source)];
  }
  return folder_of(path_) / name;
}

/// Links the unnamed file into its folder: linkat() cannot replace a file, so rename() needs a name to start from.
void OutputFile::give_name() {
  const fs::path name = unused_name();
  if (::linkat(AT_FDCWD, descriptor_path(descriptor_).c_str(), AT_FDCWD, name.c_str(), AT_SYMLINK_FOLLOW) != 0) {
    fail(errno);
  }
  temporary_ = name;
}

void OutputFile::commit() {
  if (target_ == Target::kReplaced) {
    if (const int error = make_permanent(descriptor_)) {
      fail(error);
    }
    if (temporary_.empty()) {
      give_name();
    }
    if (::rename(temporary_.c_str(), path_.c_str()) != 0) {
      fail(errno);
    }
    temporary_.clear();
    make_folder_permanent(folder_of(path_));
  }
  const int descriptor = std::exchange(descriptor_, -1);
  // EINTR: Linux has closed it all the same.
  if (descriptor >= 0 && ::close(descriptor) != 0 && errno != EINTR) {
    fail(errno);
  }
}

void OutputFile::fail(int error) const {
  throw Error(shown(shown_path_) + ": " + writing_advice(error, path_));
}

void write_stdout(std::string_view content, const std::stop_token& stop) {
  const int error = write_all(STDOUT_FILENO, content, stop);
  if (error == EBADF) {
    throw Error("standard output: is closed; open it or write to a file with -o");
  }
  if (error == EPIPE) {
    throw Error("standard output: broken pipe; the reader has gone before the end");
  }
  if (error == ENOSPC || error == EDQUOT) {
    throw Error("standard output: no space left; free some or write to another place with -o");
  }
  if (error != 0) {
    throw Error("standard output: " + system_message(error) + "; write to a file with -o instead");
  }
}

}  // namespace rometrace::cli
