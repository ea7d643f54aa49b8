#include "model/zip_writer.hpp"

#include <zlib.h>

#include <cassert>
#include <limits>

#include "rometrace/error.hpp"
#include "text/little_endian.hpp"

namespace rometrace {
namespace {

constexpr std::uint16_t kVersion = 20;                // that a reader must know: 2.0
constexpr std::uint16_t kFirstDay = (0U << 9U) + 33;  // 1 January 1980, the first day that there is
constexpr std::uint32_t kOwnerReadsAndWrites = 0600U
                                               << 16U;  // of a system that has such modes (upper byte of "made by")

/// Appends a number, the least significant byte first.
template <typename Number>
void append(std::string& bytes, Number number) {
  append_little_endian(bytes, number, sizeof(Number));
}

/// What the header before an entry and its record in the directory have in common.
std::string common_fields(std::string_view name, std::string_view bytes) {
  const auto size = static_cast<std::uint32_t>(bytes.size());
  const auto crc = crc32_z(crc32_z(0, nullptr, 0), reinterpret_cast<const Bytef*>(bytes.data()), bytes.size());
  std::string fields;
  append(fields, kVersion);
  append(fields, std::uint16_t{0});  // flags
  append(fields, std::uint16_t{0});  // stored
  append(fields, std::uint16_t{0});  // midnight
  append(fields, kFirstDay);
  append(fields, static_cast<std::uint32_t>(crc));
  append(fields, size);
  append(fields, size);
  append(fields, static_cast<std::uint16_t>(name.size()));
  append(fields, std::uint16_t{0});  // no more of it
  return fields;
}

}  // namespace

void ZipWriter::add(std::string_view name, std::string_view bytes) {
  constexpr std::uint64_t kMostBytes = std::numeric_limits<std::uint32_t>::max();
  assert(name.size() <= 0xFF && count_ < 0xFFFF);
  if (entries_.size() + directory_.size() + bytes.size() + 0x400 > kMostBytes) {
    throw Error("a zip archive of more than 4 GB is not written; expected less");
  }
  const auto place = static_cast<std::uint32_t>(entries_.size());
  const auto fields = common_fields(name, bytes);
  entries_ += "PK\x03\x04";
  entries_ += fields;
  entries_ += name;
  entries_ += bytes;
  directory_ += "PK\x01\x02";
  append(directory_, static_cast<std::uint16_t>(3U << 8U | kVersion));  // made on a Unix
  directory_ += fields;
  append(directory_, std::uint16_t{0});  // no comment
  append(directory_, std::uint16_t{0});  // of the first file
  append(directory_, std::uint16_t{0});  // inner attributes
  append(directory_, kOwnerReadsAndWrites);
  append(directory_, place);
  directory_ += name;
  ++count_;
}

std::string ZipWriter::bytes() const {
  std::string end = "PK\x05\x06";
  append(end, std::uint16_t{0});
  append(end, std::uint16_t{0});
  append(end, count_);
  append(end, count_);
  append(end, static_cast<std::uint32_t>(directory_.size()));
  append(end, static_cast<std::uint32_t>(entries_.size()));
  append(end, std::uint16_t{0});  // no comment
  return entries_ + directory_ + end;
}

}  // namespace rometrace
