#include "hub/incomplete_blob.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "hub/cache_files.hpp"
#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"

namespace rometrace {
namespace {

namespace fs = std::filesystem;

/// Where an attempt leaves what it has.
fs::path given_up_path(const fs::path& blob) {
  return blob.native() + ".incomplete";
}

/// 32 hex digits that no other running kernel has: in containers host names and process ids are the same all over.
std::string read_kernel_id() {
  const fs::path path = "/proc/sys/kernel/random/boot_id";
  const Descriptor file(path, O_RDONLY);
  if (!file.is_open()) return "";
  std::vector<std::byte> buffer(64);
  std::string id(reinterpret_cast<const char*>(buffer.data()), file.read(buffer, path));
  std::erase_if(id, [](char c) { return c == '-' || c == '\n'; });
  return id;
}

const std::string& kernel_id() {
  static const std::string id = read_kernel_id();
  return id;
}

fs::path new_own_path(const fs::path& blob) {
  return given_up_path(blob).native() + "." + kernel_id() + "-" + random_digits();
}

struct Left {
  fs::path path;
  std::uint64_t bytes = 0;
};

/// What attempts left of a blob, and what is at work on it now; the most first.
std::vector<Left> left_of(const fs::path& blob) {
  std::vector<Left> left;
  const std::string name = given_up_path(blob).filename().native();
  std::error_code error;
  for (fs::directory_iterator entry(blob.parent_path(), error), end; !error && entry != end; entry.increment(error)) {
    const std::string found = entry->path().filename().native();
    if (found != name && !found.starts_with(name + ".")) continue;
    std::error_code gone;
    const bool is_file = entry->is_regular_file(gone);
    const auto bytes = is_file ? entry->file_size(gone) : 0;
    if (is_file && !gone) left.push_back({entry->path(), bytes});
  }
  std::sort(left.begin(), left.end(), [](const Left& a, const Left& b) { return a.bytes > b.bytes; });
  return left;
}

/// Whether the one who wrote it is no more, so that it is ours alone once this is true.
bool is_of_killed(const Descriptor& file, const fs::path& path, const fs::path& blob) {
  const std::string ours = given_up_path(blob).filename().native() + "." + kernel_id() + "-";
  if (kernel_id().empty() || !path.filename().native().starts_with(ours)) return false;
  if (!file.lock() || !file.is_at(path)) return false;
  const Descriptor again(path, O_RDWR);
  return again.is_open() && !again.lock() && errno == EWOULDBLOCK;  // locks are no mere show here
}

}  // namespace

IncompleteBlob::IncompleteBlob(fs::path blob, const std::stop_token& stop)
    : blob_(std::move(blob)), kind_(hash_kind(blob_.filename().native())) {
  const std::vector<Left> left = left_of(blob_);
  const bool claimed = std::any_of(left.begin(), left.end(), [&](const Left& each) { return claim(each.path); });
  if (!claimed) make_new();
  try {
    read_all(stop);
    if (!claimed && !left.empty()) copy(left.front().path, stop);
  } catch (...) {
    give_up();
    throw;
  }
}

IncompleteBlob::~IncompleteBlob() {
  give_up();
}

bool IncompleteBlob::claim(const fs::path& left) {
  path_ = new_own_path(blob_);
  return left == given_up_path(blob_) ? claim_given_up() : claim_of_killed(left);
}

bool IncompleteBlob::claim_given_up() {
  if (::rename(given_up_path(blob_).c_str(), path_.c_str()) != 0) return false;  // another one was faster
  file_ = Descriptor(path_, O_RDWR | O_NOFOLLOW);
  if (!file_.is_open()) return false;
  const bool is_taken = !file_.lock() && errno == EWOULDBLOCK;  // by one who took it for a killed one's
  return !is_taken && file_.is_at(path_);
}

bool IncompleteBlob::claim_of_killed(const fs::path& left) {
  file_ = Descriptor(left, O_RDWR | O_NOFOLLOW);
  return file_.is_open() && is_of_killed(file_, left, blob_) && ::rename(left.c_str(), path_.c_str()) == 0;
}

void IncompleteBlob::make_new() {
  do {
    path_ = new_own_path(blob_);
    file_ = Descriptor(path_, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW);
    if (!file_.is_open()) refuse_file(path_, "written", errno);
    // Between the two another one may have taken it for a killed one's.
  } while ((!file_.lock() && errno == EWOULDBLOCK) || !file_.is_at(path_));
}

/// Leaves the file at its end.
void IncompleteBlob::read_all(const std::stop_token& stop) {
  hash_.reset();
  if (kind_ == HashKind::kSha256) hash_.emplace(kind_, 0);
  if (::lseek(file_.number(), 0, SEEK_SET) != 0) refuse_file(path_, "read", errno);
  size_ = 0;
  std::vector<std::byte> buffer(kReadBytes);
  for (;;) {
    if (stop.stop_requested()) throw Interrupted();
    const std::size_t count = file_.read(buffer, path_);
    if (count == 0) return;
    size_ += count;
    if (hash_) hash_->update(std::span(buffer).first(count));
  }
}

/// Its owner may be writing to it: should another state of it be read than was ever there, the hash tells.
void IncompleteBlob::copy(const fs::path& left, const std::stop_token& stop) {
  if (kind_ == HashKind::kNone) return;
  const Descriptor source(left, O_RDONLY | O_NOFOLLOW);
  if (!source.is_open()) return;
  std::vector<std::byte> buffer(kReadBytes);
  while (const std::size_t count = source.read(buffer, left)) {
    if (stop.stop_requested()) throw Interrupted();
    append(std::span(buffer).first(count));
  }
}

void IncompleteBlob::append(std::span<const std::byte> bytes) {
  file_.write(bytes, path_);
  size_ += bytes.size();
  if (hash_) hash_->update(bytes);
}

void IncompleteBlob::start_over() {
  if (::ftruncate(file_.number(), 0) != 0) refuse_file(path_, "written", errno);
  read_all({});
}

std::optional<std::string> IncompleteBlob::wrong_hash() {
  if (kind_ == HashKind::kNone) return std::nullopt;
  if (!hash_) {
    ContentHash whole(kind_, size_);
    if (::lseek(file_.number(), 0, SEEK_SET) != 0) refuse_file(path_, "read", errno);
    std::vector<std::byte> buffer(kReadBytes);
    while (const std::size_t count = file_.read(buffer, path_)) whole.update(std::span(buffer).first(count));
    hash_.emplace(std::move(whole));
  }
  const std::string digest = hash_->hex_digest();
  hash_.reset();
  return digest == blob_.filename().native() ? std::nullopt : std::optional(digest);
}

void IncompleteBlob::finish() {
  file_.make_permanent(path_);
  if (::rename(path_.c_str(), blob_.c_str()) != 0) {
    const int error = errno;
    std::error_code ignored;
    // Whoever finishes removes what the others have, which nobody needs then.
    if (error != ENOENT || !fs::is_regular_file(blob_, ignored)) refuse_file(blob_, "written", error);
  }
  file_.close();
  for (const Left& each : left_of(blob_)) ::unlink(each.path.c_str());
}

void IncompleteBlob::give_up() noexcept {
  if (!file_.is_open()) return;
  file_.close();  // first, so that nothing of ours is still on its way to the disk when another one goes on with it
  if (size_ == 0) {
    ::unlink(path_.c_str());
  } else {
    ::rename(path_.c_str(), (blob_.native() + ".incomplete").c_str());
  }
}

std::uint64_t incomplete_bytes(const fs::path& blob) {
  const std::vector<Left> left = left_of(blob);
  return left.empty() ? 0 : left.front().bytes;
}

}  // namespace rometrace
