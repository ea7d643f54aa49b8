#include "hub/cache_files.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/text/json_file.hpp"

namespace rometrace {
namespace {

namespace fs = std::filesystem;

constexpr mode_t kNewFileMode = 0666;  // the kernel takes the umask off
constexpr std::size_t kStep = std::size_t{1} << 20U;

[[noreturn]] void fail(const fs::path& path, const std::string& what, int error) {
  std::string advice = "check the cache (HF_HUB_CACHE)";
  if (error == ENOSPC || error == EDQUOT || error == EFBIG) {
    advice = "make room and run it again: it goes on where it stopped";
  } else if (error == EACCES || error == EPERM || error == EROFS) {
    advice = "set HF_HUB_CACHE to a folder that can be written to";
  }
  throw Error(label_of(path) + ": cannot be " + what + ": " + std::generic_category().message(error) + "; " + advice);
}

int open_for_writing(const fs::path& path, int flags) {
  for (;;) {
    const int descriptor = ::open(path.c_str(), flags | O_CLOEXEC, kNewFileMode);
    if (descriptor >= 0 || errno != EINTR) return descriptor;
  }
}

void write_all(int descriptor, std::span<const std::byte> bytes, const fs::path& path) {
  while (!bytes.empty()) {
    const ssize_t count = ::write(descriptor, bytes.data(), bytes.size());
    if (count >= 0) {
      bytes = bytes.subspan(static_cast<std::size_t>(count));
    } else if (errno != EINTR) {
      fail(path, "written", errno);
    }
  }
}

void make_permanent(int descriptor, const fs::path& path) {
  if (::fsync(descriptor) != 0 && errno != EINVAL && errno != ENOSYS) fail(path, "written", errno);
}

void rename_over(const fs::path& from, const fs::path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) fail(to, "written", errno);
}

/// Nobody else's name for a file beside `path`.
fs::path name_beside(const fs::path& path) {
  return path.native() + "." + std::to_string(::getpid()) + ".tmp";
}

/// Removes the file unless it got its name.
struct Leftover {
  fs::path path;
  ~Leftover() { ::unlink(path.c_str()); }
};

bool is_still_there(int descriptor, const fs::path& path) {
  struct stat open_file {
  }, named_file{};
  return ::fstat(descriptor, &open_file) == 0 && ::stat(path.c_str(), &named_file) == 0 &&
         open_file.st_dev == named_file.st_dev && open_file.st_ino == named_file.st_ino;
}

void copy_to(const fs::path& from, const fs::path& to) {
  InputFile input = InputFile::open(from);
  const int descriptor = open_for_writing(to, O_WRONLY | O_CREAT | O_TRUNC);
  if (descriptor < 0) fail(to, "written", errno);
  const struct Closed {
    int descriptor;
    ~Closed() { ::close(descriptor); }
  } closed{descriptor};
  std::vector<std::byte> buffer(kStep);
  for (std::size_t count = buffer.size(); count == buffer.size();) {
    count = input.read(buffer);
    write_all(descriptor, std::span(buffer).first(count), to);
  }
  make_permanent(descriptor, to);
}

}  // namespace

void make_folder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error && !fs::is_directory(folder)) fail(folder, "made", error.value());
}

BlobLock::BlobLock(const fs::path& file, const std::string& waiting_for, const Note& note,
                   const std::stop_token& stop) {
  constexpr auto kPause = std::chrono::milliseconds(100);
  bool told = false;
  for (;;) {
    if (descriptor_ < 0) descriptor_ = open_for_writing(file, O_RDWR | O_CREAT);
    if (descriptor_ < 0) fail(file, "written", errno);
    if (::flock(descriptor_, LOCK_EX | LOCK_NB) == 0) {
      if (is_still_there(descriptor_, file)) return;
      ::close(std::exchange(descriptor_, -1));  // the one who had it removed the file
      continue;
    }
    if (errno == EINTR) continue;
    if (errno != EWOULDBLOCK) return;
    if (!told && note) note("waiting for another process, which is fetching " + waiting_for);
    told = true;
    if (stop.stop_requested()) {
      ::close(descriptor_);
      throw Interrupted();
    }
    std::this_thread::sleep_for(kPause);
  }
}

BlobLock::~BlobLock() {
  ::close(descriptor_);
}

IncompleteBlob::IncompleteBlob(fs::path blob, const std::stop_token& stop)
    : blob_(std::move(blob)), path_(blob_.native() + ".incomplete"), kind_(hash_kind(blob_.filename().native())) {
  descriptor_ = open_for_writing(path_, O_RDWR | O_CREAT);
  if (descriptor_ < 0) fail(path_, "written", errno);
  try {
    read_all(stop);
  } catch (...) {
    ::close(descriptor_);
    throw;
  }
}

IncompleteBlob::~IncompleteBlob() {
  ::close(descriptor_);
}

/// Leaves the file at its end.
void IncompleteBlob::read_all(const std::stop_token& stop) {
  hash_.reset();
  if (kind_ == HashKind::kSha256) hash_.emplace(kind_, 0);
  if (::lseek(descriptor_, 0, SEEK_SET) != 0) fail(path_, "read", errno);
  size_ = 0;
  std::vector<std::byte> buffer(kStep);
  for (;;) {
    if (stop.stop_requested()) throw Interrupted();
    const ssize_t count = ::read(descriptor_, buffer.data(), buffer.size());
    if (count == 0) return;
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail(path_, "read", errno);
    size_ += static_cast<std::uint64_t>(count);
    if (hash_) hash_->update(std::span(buffer).first(static_cast<std::size_t>(count)));
  }
}

void IncompleteBlob::append(std::span<const std::byte> bytes) {
  write_all(descriptor_, bytes, path_);
  size_ += bytes.size();
  if (hash_) hash_->update(bytes);
}

void IncompleteBlob::start_over() {
  if (::ftruncate(descriptor_, 0) != 0) fail(path_, "written", errno);
  read_all({});
}

std::optional<std::string> IncompleteBlob::wrong_hash() {
  if (kind_ == HashKind::kNone) return std::nullopt;
  if (!hash_) {
    ContentHash whole(kind_, size_);
    InputFile file = InputFile::open(path_);
    std::vector<std::byte> buffer(kStep);
    for (std::size_t count = buffer.size(); count == buffer.size();) {
      count = file.read(buffer);
      whole.update(std::span(buffer).first(count));
    }
    hash_.emplace(std::move(whole));
  }
  const std::string digest = hash_->hex_digest();
  hash_.reset();
  return digest == blob_.filename().native() ? std::nullopt : std::optional(digest);
}

void IncompleteBlob::finish() {
  make_permanent(descriptor_, path_);
  rename_over(path_, blob_);
}

void point_to_blob(const fs::path& pointer, const fs::path& blob) {
  const Leftover temporary{name_beside(pointer)};
  ::unlink(temporary.path.c_str());
  const fs::path target = blob.lexically_relative(pointer.parent_path());
  if (::symlink(target.c_str(), temporary.path.c_str()) != 0) {
    if (errno == ENOSPC || errno == EDQUOT || errno == EACCES || errno == EROFS) fail(pointer, "written", errno);
    copy_to(blob, temporary.path);
  }
  rename_over(temporary.path, pointer);
}

void write_reference(const fs::path& repository, const std::string& revision, const std::string& commit) {
  const fs::path file = repository / "refs" / revision;
  std::error_code ignored;
  if (fs::is_regular_file(file, ignored) && fs::file_size(file, ignored) > 0 && read_text_file(file) == commit) return;
  make_folder(file.parent_path());
  const Leftover temporary{name_beside(file)};
  const int descriptor = open_for_writing(temporary.path, O_WRONLY | O_CREAT | O_TRUNC);
  if (descriptor < 0) fail(file, "written", errno);
  try {
    write_all(descriptor, std::as_bytes(std::span(commit)), file);
  } catch (...) {
    ::close(descriptor);
    throw;
  }
  ::close(descriptor);
  rename_over(temporary.path, file);
}

}  // namespace rometrace
