#include "hub/descriptor.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <random>
#include <system_error>

#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"

namespace rometrace {
namespace {

namespace fs = std::filesystem;

constexpr mode_t kNewFileMode = 0666;  // the kernel takes the umask off

}  // namespace

void refuse_file(const fs::path& path, const std::string& what, int error) {
  std::string advice = "check the cache (HF_HUB_CACHE)";
  if (error == ENOSPC || error == EDQUOT || error == EFBIG) {
    advice = "make room and run it again: it goes on where it stopped";
  } else if (error == EACCES || error == EPERM || error == EROFS) {
    advice = "set HF_HUB_CACHE to a folder that can be written to";
  }
  throw Error(label_of(path) + ": cannot be " + what + ": " + std::generic_category().message(error) + "; " + advice);
}

Descriptor::Descriptor(const fs::path& path, int flags) {
  do {
    number_ = ::open(path.c_str(), flags | O_CLOEXEC, kNewFileMode);
  } while (number_ < 0 && errno == EINTR);
}

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  std::swap(number_, other.number_);
  return *this;
}

void Descriptor::close() {
  if (is_open()) ::close(std::exchange(number_, -1));
}

bool Descriptor::is_at(const fs::path& path) const {
  struct stat open_file {
  }, named_file{};
  return ::fstat(number_, &open_file) == 0 && ::stat(path.c_str(), &named_file) == 0 &&
         open_file.st_dev == named_file.st_dev && open_file.st_ino == named_file.st_ino;
}

bool Descriptor::lock() const {
  for (;;) {
    if (::flock(number_, LOCK_EX | LOCK_NB) == 0) return true;
    if (errno != EINTR) return false;
  }
}

std::size_t Descriptor::read(std::span<std::byte> buffer, const fs::path& path) const {
  for (;;) {
    const ssize_t count = ::read(number_, buffer.data(), buffer.size());
    if (count >= 0) return static_cast<std::size_t>(count);
    if (errno != EINTR) refuse_file(path, "read", errno);
  }
}

void Descriptor::write(std::span<const std::byte> bytes, const fs::path& path) const {
  while (!bytes.empty()) {
    const ssize_t count = ::write(number_, bytes.data(), bytes.size());
    if (count >= 0) {
      bytes = bytes.subspan(static_cast<std::size_t>(count));
    } else if (errno != EINTR) {
      refuse_file(path, "written", errno);
    }
  }
}

void Descriptor::make_permanent(const fs::path& path) const {
  if (::fsync(number_) != 0 && errno != EINVAL && errno != ENOSYS) refuse_file(path, "written", errno);
}

void rename_over(const fs::path& from, const fs::path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) refuse_file(to, "written", errno);
}

std::string random_digits() {
  std::random_device random;
  std::array<char, 17> digits{};
  std::snprintf(digits.data(), digits.size(), "%08x%08x", random() & 0xFFFFFFFFU, random() & 0xFFFFFFFFU);
  return digits.data();
}

}  // namespace rometrace
