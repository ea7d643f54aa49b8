#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

namespace rometrace {

/// An entry of a zip archive, stored as it is.
struct ZipEntry {
  std::string name;  ///< any bytes; nothing here uses it as a path
  std::span<const std::byte> bytes;
};

/// The entries of a zip archive of which `file` are all the bytes, in the order of its central directory (APPNOTE.TXT
/// 6.3, zip64 included). Only archives that can be read in one way are: the directory ends where the end record begins,
/// local headers agree with it, no two entries share bytes or a name. Checksums are not checked.
/// Throws Error, which `where` (the file) opens: cut short, in several parts, an entry that is compressed, encrypted,
/// outside the file, or described differently in two places.
std::vector<ZipEntry> read_zip(std::span<const std::byte> file, const std::string& where);

}  // namespace rometrace
