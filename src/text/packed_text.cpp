#include "text/packed_text.hpp"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <new>
#include <utility>

#include "rometrace/error.hpp"
#include "rometrace/text/ascii_case.hpp"

namespace rometrace {
namespace {

using std::string_view_literals::operator""sv;

constexpr std::string_view kGzipMagic = "\x1F\x8B";

/// A format, told by the bytes that its files begin with.
struct Format {
  std::string_view magic;
  const char* name;
  const char* instead;
};

constexpr const char* kUnpack = "unpack it, and name the file that was in it";
constexpr const char* kAsLines =
    "write its records as JSON Lines, as by: python3 -c \"import pandas; pandas.read_parquet('FILE')"
    ".to_json('facts.jsonl', orient='records', lines=True)\"";

constexpr std::array kFormats = {
    Format{"PK\x03\x04"sv, "a zip archive (a spreadsheet may be one)", kUnpack},
    Format{"\xFD"
           "7zXZ\0"sv,
           "packed by xz", "unpack it by: xz -d FILE"},
    Format{"\x28\xB5\x2F\xFD"sv, "packed by Zstandard", "unpack it by: zstd -d FILE"},
    Format{"7z\xBC\xAF\x27\x1C"sv, "a 7z archive", kUnpack},
    Format{"PAR1\x15"sv, "a Parquet file", kAsLines},
    Format{"ARROW1\0\0"sv, "an Arrow file", "write its records as JSON Lines"},
    Format{"\xFF\xFF\xFF\xFF"sv, "an Arrow stream, as the datasets library keeps them",
           "write its records as JSON Lines, by the data set's to_json('facts.jsonl')"},
    Format{"SQLite format 3\0"sv, "an SQLite database", "write its records as CSV or JSON Lines"},
    Format{"\x80"sv, "a Python pickle or other binary data", "write its records as JSON Lines"},
    Format{"\xFF\xFE\0\0"sv, "UTF-32", "convert it by: iconv -f UTF-32 -t UTF-8 FILE > NEW"},
    Format{"\0\0\xFE\xFF"sv, "UTF-32", "convert it by: iconv -f UTF-32 -t UTF-8 FILE > NEW"},
    Format{"\xFF\xFE"sv, "UTF-16", "convert it by: iconv -f UTF-16 -t UTF-8 FILE > NEW"},
    Format{"\xFE\xFF"sv, "UTF-16", "convert it by: iconv -f UTF-16 -t UTF-8 FILE > NEW"},
};

/// The encoding of a text that begins with two ASCII characters, each among zero bytes; empty if it does not.
std::string_view wide_encoding(std::string_view text) {
  if (text.size() < 4) return "";
  const auto zeros = [&](std::size_t a, std::size_t b, std::size_t c) { return !text[a] && !text[b] && !text[c]; };
  if (zeros(1, 2, 3) && text[0]) return "UTF-32LE";
  if (zeros(0, 1, 2) && text[3]) return "UTF-32BE";
  if (!text[1] && !text[3] && text[0] && text[2]) return "UTF-16LE";
  if (!text[0] && !text[2] && text[1] && text[3]) return "UTF-16BE";
  return "";
}

void refuse_other_formats(std::string_view text, const std::string& where) {
  for (const Format& format : kFormats) {
    if (!text.starts_with(format.magic)) continue;
    throw Error(where + ": is " + format.name + "; expected UTF-8 text; " + format.instead);
  }
  if (text.starts_with("BZh") && text.substr(std::min<std::size_t>(4, text.size())).starts_with("1AY&SY")) {
    throw Error(where + ": is packed by bzip2; expected UTF-8 text; unpack it by: bunzip2 FILE");
  }
  if (const auto encoding = wide_encoding(text); !encoding.empty()) {
    throw Error(where + ": is " + std::string(encoding) + "; expected UTF-8 text; convert it by: iconv -f " +
                std::string(encoding) + " -t UTF-8 FILE > NEW");
  }
  const auto begin = std::min(text.find_first_not_of(" \t\r\n"), text.size());
  const auto head = ascii_lower(text.substr(begin, 14));
  if (head == "<!doctype html" || head.starts_with("<html")) {
    throw Error(where + ": is a web page; expected the file itself; download it from the page's link to the raw file");
  }
}

/// zlib's state while gzip is unpacked.
class Gunzip {
 public:
  Gunzip(std::string_view packed, const std::string& where, std::size_t most)
      : rest_(packed), where_(where), most_(most) {
    constexpr int kGzipAlone = 15 + 16;  // the largest window, and gzip's head and checksum
    if (inflateInit2(&stream_, kGzipAlone) != Z_OK) throw std::bad_alloc();
  }
  ~Gunzip() { inflateEnd(&stream_); }
  Gunzip(const Gunzip&) = delete;
  Gunzip& operator=(const Gunzip&) = delete;

  std::string run() {
    for (;;) {
      const int status = step();
      if (status == Z_BUF_ERROR) refuse("is cut short; get the file again");
      if (status != Z_STREAM_END) continue;
      // Another member may follow, or zeros that fill a block.
      rest_.remove_prefix(std::min(rest_.find_first_not_of('\0'), rest_.size()));
      if (rest_.empty()) return std::move(text_);
      if (inflateReset(&stream_) != Z_OK) throw std::bad_alloc();
    }
  }

 private:
  [[noreturn]] void refuse(const std::string& complaint) const { throw Error(where_ + ": its gzip " + complaint); }

  /// Unpacks some more; zlib's status, Z_BUF_ERROR where nothing is left to be unpacked.
  int step() {
    std::array<char, std::size_t{1} << 16U> block;
    const auto given = std::min<std::size_t>(rest_.size(), std::size_t{1} << 20U);
    stream_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(rest_.data()));
    stream_.avail_in = static_cast<uInt>(given);
    stream_.next_out = reinterpret_cast<Bytef*>(block.data());
    stream_.avail_out = static_cast<uInt>(block.size());
    const int status = inflate(&stream_, Z_NO_FLUSH);
    if (status == Z_MEM_ERROR) throw std::bad_alloc();
    if (status != Z_OK && status != Z_STREAM_END && status != Z_BUF_ERROR) refuse("is damaged; get the file again");
    rest_.remove_prefix(given - stream_.avail_in);
    text_.append(block.data(), block.size() - stream_.avail_out);
    if (text_.size() > most_) {
      refuse("gives more than " + std::to_string(most_) + " bytes; unpack it, and name what was in it");
    }
    return status;
  }

  z_stream stream_{};
  std::string_view rest_;
  const std::string& where_;
  std::size_t most_;  // bytes of text
  std::string text_;
};

}  // namespace

void refuse_lfs_pointer(std::string_view text, const std::string& where) {
  if (text.starts_with("version https://git-lfs")) {
    throw Error(where + ": is a Git LFS pointer, not the file itself; run `git lfs pull` in that folder");
  }
}

std::string unpacked(std::string bytes, const std::string& where, std::size_t most) {
  if (bytes.starts_with(kGzipMagic)) bytes = Gunzip(bytes, where, most).run();
  if (bytes.starts_with(kGzipMagic)) throw Error(where + ": is gzip inside gzip; " + kUnpack);
  refuse_other_formats(bytes, where);
  return bytes;
}

}  // namespace rometrace
