#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace rometrace {

/// Bytes that gzip may give: a file of a few KB can be made to give any number.
inline constexpr std::size_t kMostUnpacked = std::size_t{1} << 30U;

/// Throws Error if the file that begins with `text` is a Git LFS pointer, which stands for a file that was not fetched.
/// `where` opens the message.
void refuse_lfs_pointer(std::string_view text, const std::string& where);

/// Whether the file that begins with `bytes` is packed by gzip.
bool is_gzip(std::string_view bytes);

/// Throws Error, `where` (the file) first, if the file that begins with `text` is of a format that is known and no text
/// (gzip, zip, xz, Zstandard, bzip2, Parquet, Arrow, SQLite, UTF-16, UTF-32, a web page), with what to do.
void refuse_if_no_text(std::string_view text, const std::string& where);

/// Unpacks gzip piece by piece.
class Gunzip {
 public:
  /// `where` (the file) opens messages; `most` bytes may come out of it.
  explicit Gunzip(std::string where, std::size_t most = kMostUnpacked);
  ~Gunzip();
  Gunzip(Gunzip&&) noexcept;

  /// Appends to `text` what the next bytes of the file give. Throws Error: damaged, more than `most` bytes.
  void add(std::string_view packed, std::string& text);

  /// To be called behind the last byte. Throws Error: cut short.
  void end() const;

 private:
  struct Stream;
  [[noreturn]] void refuse(const std::string& complaint) const;

  std::unique_ptr<Stream> stream_;
  std::string where_;
  std::size_t most_;
  std::size_t given_ = 0;
  bool between_members_ = false;  // or behind the last
};

/// The text that the bytes of a file are: themselves, or what gzip packed into them. Throws Error as Gunzip and
/// refuse_if_no_text do.
std::string unpacked(std::string bytes, const std::string& where, std::size_t most = kMostUnpacked);

}  // namespace rometrace
