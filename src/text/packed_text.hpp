#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace rometrace {

/// Bytes that gzip may give: a file of a few KB can be made to give any number.
inline constexpr std::size_t kMostUnpacked = std::size_t{1} << 30U;

/// Throws Error if the file that begins with `text` is a Git LFS pointer, which stands for a file that was not fetched.
/// `where` opens the message.
void refuse_lfs_pointer(std::string_view text, const std::string& where);

/// The text that the bytes of a file are: themselves, or what gzip packed into them. Throws Error, `where` (the file)
/// first: a format that is known and no text (zip, xz, Zstandard, bzip2, Parquet, Arrow, SQLite, UTF-16, UTF-32, a web
/// page), with what to do; gzip that is damaged, cut short, or gives more than `most` bytes.
std::string unpacked(std::string bytes, const std::string& where, std::size_t most = kMostUnpacked);

}  // namespace rometrace
