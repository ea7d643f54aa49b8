#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace rometrace {

/// An entry of a zip archive.
struct ZipEntry {
  std::string name;                  ///< any bytes; nothing here uses it as a path
  std::span<const std::byte> bytes;  ///< as they lie in the archive
  bool deflated = false;             ///< else `bytes` are the entry
  std::uint64_t size = 0;            ///< of the entry, as the archive has it
  std::uint32_t crc = 0;             ///< CRC-32 of the entry, likewise
};

/// Entries that an archive may have.
enum class ZipMethods { kStored, kStoredOrDeflated };

/// The entries of a zip archive of which `file` are all the bytes, in the order of its central directory (APPNOTE.TXT
/// 6.3, zip64 included). Only archives that can be read in one way are: the directory ends where the end record begins,
/// local headers agree with it, no two entries share bytes or a name. Checksums are not checked here.
/// Throws Error, which `where` (the file) opens: cut short, in several parts, an entry that is compressed otherwise
/// than `methods` has it, encrypted, outside the file, or described differently in two places.
std::vector<ZipEntry> read_zip(std::span<const std::byte> file, const std::string& where,
                               ZipMethods methods = ZipMethods::kStored);

/// The bytes of an entry, unpacked where it is deflated and checked against its checksum. Throws Error, which `where`
/// (file and entry) opens: damaged, of another size than the archive says.
std::string unpack_entry(const ZipEntry& entry, const std::string& where);

}  // namespace rometrace
