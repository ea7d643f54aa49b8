#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <utility>

namespace rometrace {

/// Throws Error: the file of a cache cannot be `what` ("written") for the reason of errno, and what to do about it.
[[noreturn]] void refuse_file(const std::filesystem::path& path, const std::string& what, int error);

/// A file of a cache, open; closed on destruction.
class Descriptor {
 public:
  Descriptor() = default;

  /// Opens it with open(2)'s flags; new files get the permissions that the umask leaves. What came of it is to be asked
  /// of is_open(), with the reason in errno.
  Descriptor(const std::filesystem::path& path, int flags);
  ~Descriptor() { close(); }
  Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept;

  bool is_open() const { return number_ >= 0; }
  int number() const { return number_; }
  void close();

  /// Whether `path` names this very file.
  bool is_at(const std::filesystem::path& path) const;

  /// Takes flock(2)'s lock, or leaves why not in errno: EWOULDBLOCK if it is taken.
  bool lock() const;

  /// All of these throw Error, with `path` in front.
  std::size_t read(std::span<std::byte> buffer, const std::filesystem::path& path) const;  ///< bytes; 0 at the end
  void write(std::span<const std::byte> bytes, const std::filesystem::path& path) const;
  void make_permanent(const std::filesystem::path& path) const;  ///< on the disk

 private:
  int number_ = -1;
};

/// Throws Error.
void rename_over(const std::filesystem::path& from, const std::filesystem::path& to);

/// 16 hex digits that no other process, on this machine or another, comes upon as well.
std::string random_digits();

}  // namespace rometrace
