#include "model/zip.hpp"

#include <string>
#include <utility>
#include <vector>

#include "checks.hpp"
#include "files.hpp"
#include "rometrace/error.hpp"
#include "torch_bytes.hpp"

namespace rometrace::zip_test {
namespace {

using testing::Contains;
using testing::message_of;
using testing::number_bytes;
using testing::zip_bytes;

std::vector<std::pair<std::string, std::string>> entries_of(const std::string& file) {
  std::vector<std::pair<std::string, std::string>> entries;
  for (const ZipEntry& entry : read_zip(std::as_bytes(std::span(file)), "z")) {
    entries.emplace_back(entry.name,
                         std::string(reinterpret_cast<const char*>(entry.bytes.data()), entry.bytes.size()));
  }
  return entries;
}

std::string refusal(const std::string& file) {
  std::string message = message_of<Error>([&] { entries_of(file); });
  CHECK(testing::is_one_line(message));
  return message;
}

/// `file` with the bytes from `at` on replaced.
std::string patched(std::string file, std::size_t at, const std::string& bytes) {
  return file.replace(at, bytes.size(), bytes);
}

const std::string kEnd = "PK\x05\x06";
const std::string kEntry = "PK\x01\x02";
const std::string kTwo = zip_bytes({{"a", "one"}, {"b/c", "second"}});

/// `file`, a plain archive, with the two records of zip64 before its end record, which says that nothing fits.
std::string as_zip64(const std::string& file) {
  const std::size_t end = file.rfind(kEnd);
  const std::string entries = file.substr(end + 10, 2) + std::string(6, '\0');
  const std::string size = file.substr(end + 12, 4) + std::string(4, '\0');
  const std::string begin = file.substr(end + 16, 4) + std::string(4, '\0');
  return file.substr(0, end) + "PK\x06\x06" + number_bytes(44, 8) + std::string(12, '\0') + entries + entries + size +
         begin + "PK\x06\x07" + number_bytes(0, 4) + number_bytes(end, 8) + number_bytes(1, 4) + kEnd +
         std::string(4, '\0') + std::string(12, '\xff') + number_bytes(0, 2);
}

TEST_CASE("entries of a zip archive come back in order, in both sizes of its end record") {
  const std::vector<std::pair<std::string, std::string>> expected = {{"a", "one"}, {"b/c", "second"}};
  CHECK(entries_of(kTwo) == expected);
  CHECK(entries_of(as_zip64(kTwo)) == expected);
  CHECK(entries_of(zip_bytes({})).empty());
  // A comment, which is the only thing that may follow the end record.
  CHECK(entries_of(patched(kTwo, kTwo.size() - 2, number_bytes(3, 2)) + "end") == expected);
}

TEST_CASE("an entry whose sizes need zip64 is read") {
  // One entry with both sizes and the place in an extra record.
  const std::string local = "PK\x03\x04" + number_bytes(45, 2) + std::string(12, '\0') + std::string(8, '\xff') +
                            number_bytes(1, 2) + number_bytes(20, 2) + "a" + number_bytes(1, 2) + number_bytes(16, 2) +
                            number_bytes(3, 8) + number_bytes(3, 8) + "xyz";
  const auto directory = [&](const std::string& extra) {
    return kEntry + number_bytes(45, 2) + number_bytes(45, 2) + std::string(12, '\0') + std::string(8, '\xff') +
           number_bytes(1, 2) + number_bytes(extra.size(), 2) + std::string(10, '\0') + std::string(4, '\xff') + "a" +
           extra;
  };
  const auto whole = [&](const std::string& extra) {
    return local + directory(extra) + kEnd + std::string(4, '\0') + number_bytes(1, 2) + number_bytes(1, 2) +
           number_bytes(directory(extra).size(), 4) + number_bytes(local.size(), 4) + number_bytes(0, 2);
  };
  const std::string sizes = number_bytes(3, 8) + number_bytes(3, 8);
  const std::string padding = number_bytes(0x4246, 2) + number_bytes(2, 2) + "zz";
  const std::string extra = padding + number_bytes(1, 2) + number_bytes(24, 2) + sizes + number_bytes(0, 8);
  CHECK(entries_of(whole(extra)) == std::vector<std::pair<std::string, std::string>>{{"a", "xyz"}});
  CHECK(refusal(whole(padding)) == "z: zip archive: entry \"a\" has no zip64 sizes, where they are expected");
  CHECK(refusal(whole(number_bytes(1, 2) + number_bytes(16, 2) + sizes)) == Contains("has no zip64 sizes"));
  const std::string far = number_bytes(1, 2) + number_bytes(24, 2) + sizes + number_bytes(~std::uint64_t{0}, 8);
  CHECK(refusal(whole(far)) == Contains("would begin at 18446744073709551615, outside the archive"));
  const std::string huge = number_bytes(1, 2) + number_bytes(24, 2) + number_bytes(~std::uint64_t{0} - 40, 8) +
                           number_bytes(~std::uint64_t{0} - 40, 8) + number_bytes(0, 8);
  CHECK(refusal(whole(huge)) == Contains("would be 18446744073709551575 bytes long"));
}

TEST_CASE("entries that are not stored as they are, are refused by name") {
  CHECK(
      refusal(zip_bytes({{"a", "one", 8}})) ==
      "z: zip archive: entry \"a\" is compressed (method 8); expected entries stored as they are, as torch.save writes "
      "them");
  CHECK(refusal(zip_bytes({{"a", "one", 0, 1}})) == Contains("entry \"a\" is encrypted"));
  CHECK(refusal(zip_bytes({{"a", "one", 0, 1U << 13U}})) == Contains("entry \"a\" is encrypted"));
}

TEST_CASE("an archive that can be read in two ways is refused") {
  const std::size_t end = kTwo.rfind(kEnd);
  const std::size_t entry = kTwo.find(kEntry);
  const std::vector<std::pair<std::string, const char*>> cases = {
      {zip_bytes({{"a", "x"}, {"a", "y"}}), "entry \"a\" is there twice"},
      {patched(kTwo, 30, "Z"), "entry \"a\" is described differently at its place"},  // its name there
      {patched(kTwo, 18, "\x02"), "entry \"a\" is described differently at its place"},
      {patched(kTwo, 8, "\x08"), "entry \"a\" is described differently at its place"},
      {patched(kTwo, 6, "\x01"), "entry \"a\" is described differently at its place"},
      {patched(kTwo, 26, "\xff\xff"), "entry \"a\" is described differently at its place"},
      {patched(kTwo, 0, "XX"), "entry \"a\" is described differently at its place"},
      {patched(kTwo, entry + 42, "\x01"), "entry \"a\" is described differently at its place"},
      {patched(kTwo, entry + 42, number_bytes(0xFFFFFFF0, 4)), "entry \"a\" would begin at 4294967280"},
      {patched(kTwo, entry, "XX"), "its directory has no entry where one is expected"},
      {patched(kTwo, entry + 28, "\xff\xff"), "its directory is cut short"},
      {patched(kTwo, end + 16, "\x01"), "its directory would be the"},
      {patched(kTwo, end + 12, number_bytes(0xFFFFFFF0, 4)), "its directory would be the 4294967280 bytes"},
      {patched(kTwo, end + 10, "\x01"), "its directory is longer than its 1 entries"},
      {patched(kTwo, end + 4, "\x01"), "is one part of several"},
      {zip_bytes({{"a", "one"}}, 1), "cannot hold 2 entries"},
      {zip_bytes({{std::string(60, 'n'), ""}}, 1), "its directory has no entry"},
      {kTwo + "x", "its end, which leads to everything else, is missing"},
      {"", "its end, which leads to everything else, is missing"},
  };
  for (const auto& [file, expected] : cases) {
    CAPTURE(expected);
    CHECK(refusal(file) == Contains(expected));
  }
}

TEST_CASE("entries that share bytes are refused") {
  // The second entry's data are a whole entry of the same name as the third's, which the directory has point there.
  const std::string inner = zip_bytes({{"b", "x"}}).substr(0, 32);
  std::string file = zip_bytes({{"a", inner}, {"b", "x"}});
  const std::size_t second = file.find(kEntry, file.find(kEntry) + 1);
  file.replace(second + 42, 4, number_bytes(31, 4));
  CHECK(refusal(file) == "z: zip archive: two entries share the bytes from 31; expected each its own");
}

TEST_CASE("a zip64 end record that lies is refused") {
  const std::string file = as_zip64(kTwo);
  const std::size_t end = file.rfind(kEnd);
  const std::size_t end64 = end - 76;
  CHECK(refusal(patched(file, end + 10, number_bytes(3, 2))) == Contains("its two end records disagree: 3 and 2"));
  CHECK(refusal(patched(file, end - 12, number_bytes(7, 8))) ==
        Contains("zip64 end record would be at 7, where there is"));
  CHECK(refusal(patched(file, end - 12, std::string(8, '\xff'))) == Contains("would be at 18446744073709551615"));
  CHECK(refusal(patched(file, end64 + 40, std::string(8, '\xff'))) == Contains("its directory would be the"));
  CHECK(refusal(patched(file, end64 + 48, std::string(8, '\xff'))) == Contains("its directory would be the"));
  CHECK(refusal(patched(file, end64 + 32, std::string(8, '\xff'))) ==
        Contains("cannot hold 18446744073709551615 entries"));
  // Without the locator nothing says what did not fit.
  CHECK(refusal(patched(file, end - 20, "XX")) == Contains("its directory would be the 4294967295 bytes"));
}

TEST_CASE("every beginning of a zip archive is refused") {
  for (const std::string& file : {kTwo, as_zip64(kTwo)}) {
    for (std::size_t length = 0; length < file.size(); ++length) {
      CAPTURE(length);
      CHECK(refusal(file.substr(0, length)) == Contains("z: zip archive: "));
    }
  }
}

}  // namespace
}  // namespace rometrace::zip_test
