#include "model/zip.hpp"

#include <zlib.h>

#include <algorithm>
#include <cstdint>
#include <new>
#include <optional>
#include <set>
#include <string_view>
#include <utility>

#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"
#include "text/as_text.hpp"
#include "text/little_endian.hpp"

// The layout, from the back: the end record (22 bytes and a comment) says where the central directory is; where the
// file is written as zip64, a locator (20 bytes) before it leads to a larger end record. The directory has a record of
// 46 bytes, the name and more for each entry; an entry's bytes follow a local header of 30 bytes, the name and more.

namespace rometrace {
namespace {

using Bytes = std::span<const std::byte>;

constexpr std::uint32_t kEndSignature = 0x06054b50;
constexpr std::uint32_t kLocatorSignature = 0x07064b50;
constexpr std::uint32_t kEnd64Signature = 0x06064b50;
constexpr std::uint32_t kEntrySignature = 0x02014b50;
constexpr std::uint32_t kLocalSignature = 0x04034b50;
constexpr std::size_t kEndSize = 22;
constexpr std::size_t kLocatorSize = 20;
constexpr std::size_t kEnd64Size = 56;
constexpr std::size_t kEntrySize = 46;
constexpr std::size_t kLocalSize = 30;
constexpr std::size_t kMaxComment = 0xFFFF;
constexpr std::uint64_t kFull16 = 0xFFFF;      // in a field of 16 bits: see the zip64 record
constexpr std::uint64_t kFull32 = 0xFFFFFFFF;  // in a field of 32 bits: likewise
constexpr std::uint64_t kZip64Extra = 1;
constexpr std::uint64_t kEncrypted = 1U | 1U << 6U | 1U << 13U;
constexpr std::uint64_t kSizesFollow = 1U << 3U;
constexpr std::uint64_t kDeflated = 8;
constexpr std::uint64_t kMostGained = 1032;  // bytes that deflate makes of one, at most

/// Fields of a record by their place in it; the caller has seen to it that they are inside.
std::uint64_t u16(Bytes record, std::size_t at) {
  return little_endian(record.subspan(at, 2));
}
std::uint64_t u32(Bytes record, std::size_t at) {
  return little_endian(record.subspan(at, 4));
}
std::uint64_t u64(Bytes record, std::size_t at) {
  return little_endian(record.subspan(at, 8));
}

/// Where the central directory is, and how many entries it has.
struct Directory {
  std::uint64_t begin = 0;
  std::uint64_t size = 0;
  std::uint64_t entries = 0;
};

/// What the central directory says of an entry.
struct Entry {
  std::string_view name;
  std::uint64_t flags = 0;
  std::uint64_t method = 0;
  std::uint64_t crc = 0;
  std::uint64_t size = 0;
  std::uint64_t stored_size = 0;
  std::uint64_t local_header = 0;
};

class Archive {
 public:
  Archive(Bytes file, const std::string& where, ZipMethods methods) : file_(file), where_(where), methods_(methods) {}

  std::vector<ZipEntry> read() const {
    const Directory directory = find_directory();
    std::vector<ZipEntry> entries;
    std::vector<std::pair<std::uint64_t, std::uint64_t>> taken;  // [begin, end) in the file
    std::set<std::string_view> names;
    Bytes rest = file_.subspan(directory.begin, directory.size);
    for (std::uint64_t i = 0; i < directory.entries; ++i) {
      const Entry entry = take_entry(rest);
      if (!names.insert(entry.name).second) refuse(entry, "is there twice; expected each name once");
      const Bytes bytes = bytes_of(entry, directory.begin);
      taken.emplace_back(entry.local_header, static_cast<std::uint64_t>(bytes.data() - file_.data()) + bytes.size());
      entries.push_back({std::string(entry.name), bytes, entry.method == kDeflated, entry.size,
                         static_cast<std::uint32_t>(entry.crc)});
    }
    if (!rest.empty()) refuse("its directory is longer than its " + std::to_string(directory.entries) + " entries");
    refuse_overlap(std::move(taken));
    return entries;
  }

 private:
  [[noreturn]] void refuse(const std::string& complaint) const { throw Error(where_ + ": zip archive: " + complaint); }
  [[noreturn]] void refuse(const Entry& entry, const std::string& complaint) const {
    refuse("entry " + in_quotes(entry.name) + " " + complaint);
  }

  std::size_t find_end() const {
    const std::size_t last = file_.size() < kEndSize ? 0 : file_.size() - kEndSize;
    for (std::size_t back = 0; file_.size() >= kEndSize && back <= std::min(last, kMaxComment); ++back) {
      const Bytes end = file_.subspan(last - back);
      if (u32(end, 0) == kEndSignature && u16(end, 20) == back) return last - back;
    }
    refuse("its end, which leads to everything else, is missing; get the file again");
  }

  Directory find_directory() const {
    const std::size_t end_at = find_end();
    const Bytes end = file_.subspan(end_at, kEndSize);
    if (u16(end, 4) != 0 && u16(end, 4) != kFull16) refuse("is one part of several; expected all in one file");
    Directory directory{u32(end, 16), u32(end, 12), u16(end, 10)};
    std::uint64_t limit = end_at;
    if (const std::optional<std::uint64_t> end64_at = find_end64(end_at)) {
      limit = *end64_at;
      const Bytes end64 = file_.subspan(limit, kEnd64Size);
      const Directory large{u64(end64, 48), u64(end64, 40), u64(end64, 32)};
      check_agreement(directory.begin, large.begin, kFull32);
      check_agreement(directory.size, large.size, kFull32);
      check_agreement(directory.entries, large.entries, kFull16);
      directory = large;
    }
    if (directory.begin > limit || directory.size != limit - directory.begin) {
      refuse("its directory would be the " + std::to_string(directory.size) + " bytes from " +
             std::to_string(directory.begin) + ", but it ends at " + std::to_string(limit) + "; get the file again");
    }
    if (directory.entries > directory.size / kEntrySize) {
      refuse("its directory of " + std::to_string(directory.size) + " bytes cannot hold " +
             std::to_string(directory.entries) + " entries");
    }
    return directory;
  }

  /// Where the larger end record is; nothing if there is no locator before the end record.
  std::optional<std::uint64_t> find_end64(std::size_t end_at) const {
    if (end_at < kLocatorSize) return std::nullopt;
    const std::size_t limit = end_at - kLocatorSize;
    const Bytes locator = file_.subspan(limit, kLocatorSize);
    if (u32(locator, 0) != kLocatorSignature) return std::nullopt;
    const std::uint64_t at = u64(locator, 8);
    if (limit < kEnd64Size || at > limit - kEnd64Size || u32(file_.subspan(at), 0) != kEnd64Signature) {
      refuse("its zip64 end record would be at " + std::to_string(at) + ", where there is none");
    }
    return at;
  }

  /// A field of the end record is that of the zip64 record, or says that it does not fit.
  void check_agreement(std::uint64_t small, std::uint64_t large, std::uint64_t full) const {
    if (small == full || small == large) return;
    refuse("its two end records disagree: " + std::to_string(small) + " and " + std::to_string(large));
  }

  /// Takes the first record of the directory off `rest`.
  Entry take_entry(Bytes& rest) const {
    if (rest.size() < kEntrySize || u32(rest, 0) != kEntrySignature) {
      refuse("its directory has no entry where one is expected; get the file again");
    }
    const std::uint64_t name = u16(rest, 28);
    const std::uint64_t extra = u16(rest, 30);
    const std::uint64_t whole = kEntrySize + name + extra + u16(rest, 32);
    if (whole > rest.size()) refuse("its directory is cut short; get the file again");
    Entry entry{.name = as_text(rest.subspan(kEntrySize, name)),
                .flags = u16(rest, 8),
                .method = u16(rest, 10),
                .crc = u32(rest, 16),
                .size = u32(rest, 24),
                .stored_size = u32(rest, 20),
                .local_header = u32(rest, 42)};
    read_zip64_sizes(entry, rest.subspan(kEntrySize + name, extra));
    rest = rest.subspan(whole);
    return entry;
  }

  /// Fields that do not fit into 32 bits stand in an extra record, in this order.
  void read_zip64_sizes(Entry& entry, Bytes extra) const {
    const Bytes large = find_zip64_extra(extra);
    std::size_t at = 0;
    for (std::uint64_t* field : {&entry.size, &entry.stored_size, &entry.local_header}) {
      if (*field != kFull32) continue;
      if (large.size() < at + 8) refuse(entry, "has no zip64 sizes, where they are expected");
      *field = u64(large, at);
      at += 8;
    }
  }

  static Bytes find_zip64_extra(Bytes extra) {
    while (extra.size() >= 4) {
      const std::size_t length = std::min<std::size_t>(u16(extra, 2), extra.size() - 4);
      if (u16(extra, 0) == kZip64Extra) return extra.subspan(4, length);
      extra = extra.subspan(4 + length);
    }
    return {};
  }

  Bytes bytes_of(const Entry& entry, std::uint64_t directory) const {
    if ((entry.flags & kEncrypted) != 0) refuse(entry, "is encrypted; expected entries stored as they are");
    const bool deflated = methods_ == ZipMethods::kStoredOrDeflated && entry.method == kDeflated;
    if (!deflated && (entry.method != 0 || entry.size != entry.stored_size)) {
      refuse(entry, "is compressed (method " + std::to_string(entry.method) +
                        "); expected entries stored as they are, as torch.save writes them");
    }
    if (directory < kLocalSize || entry.local_header > directory - kLocalSize) {
      refuse(entry, "would begin at " + std::to_string(entry.local_header) + ", outside the archive");
    }
    const Bytes local = file_.subspan(entry.local_header, directory - entry.local_header);
    const std::uint64_t name = u16(local, 26);
    const std::uint64_t begin = kLocalSize + name + u16(local, 28);
    if (u32(local, 0) != kLocalSignature || begin > local.size() ||
        as_text(local.subspan(kLocalSize, name)) != entry.name || u16(local, 8) != entry.method ||
        !sizes_agree(local, entry)) {
      refuse(entry, "is described differently at its place; expected the directory and the entry to agree");
    }
    if (entry.stored_size > local.size() - begin) {
      refuse(entry,
             "would be " + std::to_string(entry.stored_size) + " bytes long, which the archive is not; get it again");
    }
    return local.subspan(begin, entry.stored_size);
  }

  static bool sizes_agree(Bytes local, const Entry& entry) {
    if ((u16(local, 6) & kEncrypted) != 0) return false;
    if ((u16(local, 6) & kSizesFollow) != 0) return true;  // behind the bytes, and copied to the directory
    const auto agrees = [&](std::size_t at, std::uint64_t size) {
      return u32(local, at) == kFull32 || u32(local, at) == size;
    };
    return agrees(18, entry.stored_size) && agrees(22, entry.size);
  }

  void refuse_overlap(std::vector<std::pair<std::uint64_t, std::uint64_t>> taken) const {
    std::sort(taken.begin(), taken.end());
    for (std::size_t i = 1; i < taken.size(); ++i) {
      if (taken[i].first < taken[i - 1].second) {
        refuse("two entries share the bytes from " + std::to_string(taken[i].first) + "; expected each its own");
      }
    }
  }

  Bytes file_;
  const std::string& where_;
  ZipMethods methods_;
};

/// zlib's state while an entry is unpacked.
class Inflation {
 public:
  Inflation() {
    constexpr int kDeflateAlone = -15;  // the largest window, and neither head nor checksum
    if (inflateInit2(&stream_, kDeflateAlone) != Z_OK) throw std::bad_alloc();
  }
  ~Inflation() { inflateEnd(&stream_); }
  Inflation(const Inflation&) = delete;
  Inflation& operator=(const Inflation&) = delete;

  /// Whether `packed` gives exactly the bytes that `text` has room for.
  bool run(Bytes packed, std::string& text) {
    constexpr std::size_t kStep = std::size_t{1} << 30U;
    std::size_t read = 0, written = 0;
    for (;;) {
      stream_.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(packed.data() + read));
      stream_.avail_in = static_cast<uInt>(std::min(kStep, packed.size() - read));
      stream_.next_out = reinterpret_cast<Bytef*>(text.data() + written);
      stream_.avail_out = static_cast<uInt>(std::min(kStep, text.size() - written));
      const auto in = stream_.avail_in, out = stream_.avail_out;
      const int status = inflate(&stream_, Z_NO_FLUSH);
      if (status == Z_MEM_ERROR) throw std::bad_alloc();
      read += in - stream_.avail_in;
      written += out - stream_.avail_out;
      if (status == Z_STREAM_END) return read == packed.size() && written == text.size();
      if (status != Z_OK) return false;  // damaged, or nothing is left of one of both
    }
  }

 private:
  z_stream stream_{};
};

std::uint32_t crc_of(std::string_view text) {
  return static_cast<std::uint32_t>(
      crc32_z(crc32_z(0, nullptr, 0), reinterpret_cast<const Bytef*>(text.data()), text.size()));
}

}  // namespace

std::vector<ZipEntry> read_zip(std::span<const std::byte> file, const std::string& where, ZipMethods methods) {
  return Archive(file, where, methods).read();
}

std::string unpack_entry(const ZipEntry& entry, const std::string& where) {
  std::string text;
  if (!entry.deflated) {
    text = as_text(entry.bytes);
  } else {
    if (entry.size / kMostGained > entry.bytes.size()) {
      throw Error(where + ": would be " + std::to_string(entry.size) + " bytes of " +
                  std::to_string(entry.bytes.size()) + ", more than deflate can pack; get the file again");
    }
    text.resize(entry.size);
    if (!Inflation().run(entry.bytes, text)) throw Error(where + ": is damaged; get the file again");
  }
  if (crc_of(text) != entry.crc) throw Error(where + ": is damaged: its checksum differs; get the file again");
  return text;
}

}  // namespace rometrace
