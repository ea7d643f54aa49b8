#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace rometrace {

/// What a path may lead to.
enum class FileKind {
  kRegular,   ///< a file on a disk alone: a pipe could make its reader wait, a device never ends
  kReadable,  ///< a pipe or a device too, as a shell's <(...) is one
};

/// A file opened for reading, closed with the object. Symbolic links are followed.
class InputFile {
 public:
  /// Never waits for a pipe's writer where it asks for a regular file. Throws Error naming the file: missing, a folder,
  /// not readable, not of the kind.
  static InputFile open(const std::filesystem::path& path, FileKind kind = FileKind::kRegular);

  ~InputFile();
  InputFile(InputFile&& other) noexcept;
  InputFile& operator=(InputFile&& other) noexcept;

  /// Fills `buffer` from the file's next bytes; returns their number, less than the buffer's only at the file's end.
  /// Throws Error if the file cannot be read.
  std::size_t read(std::span<std::byte> buffer);

  bool is_regular() const { return regular_; }         ///< false for a pipe or a device, whose size is not known
  std::uint64_t size() const { return size_; }         ///< in bytes, as it was when the file was opened
  int descriptor() const { return descriptor_; }       ///< for mmap; the object keeps owning it
  const std::string& label() const { return label_; }  ///< the path, as messages show it

 private:
  InputFile(int descriptor, std::string label) : descriptor_(descriptor), label_(std::move(label)) {}
  void close() noexcept;

  int descriptor_ = -1;
  bool regular_ = false;
  std::uint64_t size_ = 0;
  std::string label_;
};

/// `text` fit for a one-line message: control characters and bytes that are not UTF-8 are escaped (`\n`, `\x9b`), and
/// what goes beyond `max_bytes` bytes is replaced by "…".
std::string one_line(std::string_view text, std::size_t max_bytes = 120);

/// `one_line(text)` between double quotes; a double quote inside is escaped.
std::string in_quotes(std::string_view text, std::size_t max_bytes = 120);

/// A path as messages show it: on one line, never shortened.
std::string label_of(const std::filesystem::path& path);

}  // namespace rometrace
