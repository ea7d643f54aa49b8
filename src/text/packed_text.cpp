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

}  // namespace

void refuse_lfs_pointer(std::string_view text, const std::string& where) {
  if (text.starts_with("version https://git-lfs")) {
    throw Error(where + ": is a Git LFS pointer, not the file itself; run `git lfs pull` in that folder");
  }
}

bool is_gzip(std::string_view bytes) {
  return bytes.starts_with(kGzipMagic);
}

void refuse_if_no_text(std::string_view text, const std::string& where) {
  if (is_gzip(text)) throw Error(where + ": is gzip inside gzip; " + kUnpack);
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

struct Gunzip::Stream : z_stream {
  Stream() : z_stream{} {
    constexpr int kGzipAlone = 15 + 16;  // the largest window, and gzip's head and checksum
    if (inflateInit2(this, kGzipAlone) != Z_OK) throw std::bad_alloc();
  }
  ~Stream() { inflateEnd(this); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
};

Gunzip::Gunzip(std::string where, std::size_t most)
    : stream_(std::make_unique<Stream>()), where_(std::move(where)), most_(most) {}
Gunzip::~Gunzip() = default;
Gunzip::Gunzip(Gunzip&&) noexcept = default;

void Gunzip::refuse(const std::string& complaint) const {
  throw Error(where_ + ": its gzip " + complaint);
}

void Gunzip::add(std::string_view packed, std::string& text) {
  while (!packed.empty()) {
    if (between_members_) {  // another may follow, or zeros that fill a block
      packed.remove_prefix(std::min(packed.find_first_not_of('\0'), packed.size()));
      if (packed.empty()) return;
      if (inflateReset(stream_.get()) != Z_OK) throw std::bad_alloc();
      between_members_ = false;
    }
    std::array<char, std::size_t{1} << 16U> block;
    const auto given = std::min<std::size_t>(packed.size(), std::size_t{1} << 20U);
    stream_->next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data()));
    stream_->avail_in = static_cast<uInt>(given);
    int status = Z_OK;
    do {
      stream_->next_out = reinterpret_cast<Bytef*>(block.data());
      stream_->avail_out = static_cast<uInt>(block.size());
      status = inflate(stream_.get(), Z_NO_FLUSH);
      if (status == Z_MEM_ERROR) throw std::bad_alloc();
      if (status != Z_OK && status != Z_STREAM_END && status != Z_BUF_ERROR) refuse("is damaged; get the file again");
      const auto size = block.size() - stream_->avail_out;
      text.append(block.data(), size);
      if (size > most_ - given_) {
        refuse("gives more than " + std::to_string(most_) + " bytes; unpack it, and name what was in it");
      }
      given_ += size;
    } while (status == Z_OK && stream_->avail_out == 0);  // more of what it has taken may be to come
    packed.remove_prefix(given - stream_->avail_in);
    between_members_ = status == Z_STREAM_END;
  }
}

void Gunzip::end() const {
  if (!between_members_) refuse("is cut short; get the file again");
}

std::string unpacked(std::string bytes, const std::string& where, std::size_t most) {
  if (is_gzip(bytes)) {
    std::string text;
    Gunzip gunzip(where, most);
    gunzip.add(bytes, text);
    gunzip.end();
    bytes = std::move(text);
  }
  refuse_if_no_text(bytes, where);
  return bytes;
}

}  // namespace rometrace
