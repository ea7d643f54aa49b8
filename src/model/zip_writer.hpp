#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace rometrace {

/// Makes a zip archive of entries that are stored as they are (APPNOTE.TXT 6.3, no zip64), each with its checksum and
/// no time of its own, so that the same entries are the same bytes. For small archives: all of it is in memory.
class ZipWriter {
 public:
  /// `name`: what no other entry has, in ASCII. Throws Error if the archive would be larger than 4 GB.
  void add(std::string_view name, std::string_view bytes);

  /// The archive of what was added.
  std::string bytes() const;

 private:
  std::string entries_;
  std::string directory_;
  std::uint16_t count_ = 0;
};

}  // namespace rometrace
