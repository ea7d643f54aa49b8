#include "text/packed_text.hpp"

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "checks.hpp"
#include "facts/facts_checks.hpp"
#include "files.hpp"
#include "rometrace/error.hpp"
#include "rometrace/facts/facts.hpp"
#include "rometrace/text/json_file.hpp"

namespace rometrace::packed_text_test {
namespace {

using std::string_literals::operator""s;
using testing::Contains;
using testing::is_one_line;
using testing::message_of;

// What Python's gzip.compress(TEXT, 9, mtime=0) makes of a record of "a", of one of "b", and of 200,000 letters.
const std::string kRecordOfA =
    "\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\xab\x56\x2a\x2e\x4d\xca\x4a\x4d\x2e\x51\xb2\x52\x50\x4a\x54\xd2\x51\x50"
    "\x2a\x28\xca\xcf\x2d\x80\x70\x15\x32\x8b\x95\x6a\xb9\x00\xf6\xff\xc0\x0b\x23\x00\x00\x00"
    ""s;
const std::string kRecordOfB =
    "\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\xab\x56\x2a\x2e\x4d\xca\x4a\x4d\x2e\x51\xb2\x52\x50\x4a\x52\xd2\x51\x50"
    "\x2a\x28\xca\xcf\x2d\x80\x70\x15\x32\x8b\x95\x6a\xb9\x00\x2b\x48\x50\x03\x23\x00\x00\x00"
    ""s;
const std::string kManyLetters =
    "\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\xed\xc1\x31\x01\x00\x00\x00\xc2\xa0\xac\xeb\x5f\xc2\x0c\xfe\x40\x01\x00"
    "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
    "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
    "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
    "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
    "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
    "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
    "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xaf\x01\x9b\x53"
    "\x69\xe0\x40\x0d\x03\x00"
    ""s;

TEST_CASE("gzip is unpacked, in one member or several, and all else stays as it is") {
  const auto a = R"({"subject": "a", "prompt": "a is"})"
                 "\n"s,
             b = R"({"subject": "b", "prompt": "b is"})"
                 "\n"s;
  CHECK(unpacked(kRecordOfA, "f") == a);
  CHECK(unpacked(kRecordOfA + kRecordOfB, "f") == a + b);
  CHECK(unpacked(kRecordOfA + std::string(512, '\0'), "f") == a);
  CHECK(unpacked(kManyLetters, "f") == std::string(200'000, 'a'));
  for (const auto* text :
       {"{}", "subject,prompt", "\xEF\xBB\xBF{}", "\xFF", "PK", "PAR1,subject", "BZh,subject", "é"}) {
    CHECK(unpacked(text, "f") == text);
  }
}

TEST_CASE("gzip that is damaged, cut short or too large is refused") {
  const auto refusal = [](std::string bytes, std::size_t most = kMostUnpacked) {
    return message_of<Error>([&] { unpacked(std::move(bytes), "f", most); });
  };
  for (std::size_t size = 2; size < kRecordOfA.size(); ++size) {
    CAPTURE(size);
    CHECK(refusal(kRecordOfA.substr(0, size)) == "f: its gzip is cut short; get the file again");
  }
  auto damaged = kRecordOfA;
  damaged[damaged.size() - 5] ^= 1;  // of the checksum
  CHECK(refusal(damaged) == "f: its gzip is damaged; get the file again");
  CHECK(refusal(kRecordOfA + "more") == "f: its gzip is damaged; get the file again");
  CHECK(refusal(kManyLetters, 199'999) ==
        "f: its gzip gives more than 199999 bytes; unpack it, and name what was in it");
  CHECK(unpacked(kManyLetters, "f", 200'000).size() == 200'000);
}

TEST_CASE("a format that is no text is named, with what to do") {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"PK\x03\x04 and so on", "a zip archive (a spreadsheet may be one); expected UTF-8 text; unpack it"},
      {"\xFD"
       "7zXZ\0\0\4"s,
       "packed by xz; expected UTF-8 text; unpack it by: xz -d FILE"},
      {"\x28\xB5\x2F\xFD\x04", "packed by Zstandard"},
      {"BZh91AY&SY\x9c", "packed by bzip2"},
      {"PAR1\x15\x04", "a Parquet file; expected UTF-8 text; write its records as JSON Lines, as by: python3"},
      {"ARROW1\0\0\xff"s, "an Arrow file"},
      {"\xFF\xFF\xFF\xFF\x78", "an Arrow stream"},
      {"SQLite format 3\0\x10"s, "an SQLite database"},
      {"\x80\x05\x95", "a Python pickle"},
      {"\xFF\xFE[\0"s, "UTF-16; expected UTF-8 text; convert it by: iconv -f UTF-16 -t UTF-8 FILE > NEW"},
      {"\xFE\xFF\0["s, "UTF-16;"},
      {"\xFF\xFE\0\0[\0\0\0"s, "UTF-32; expected UTF-8 text; convert it by: iconv -f UTF-32 -t UTF-8 FILE > NEW"},
      {"\0\0\xFE\xFF\0\0\0["s, "UTF-32;"},
      {"[\0{\0"s, "UTF-16LE; expected UTF-8 text; convert it by: iconv -f UTF-16LE -t UTF-8 FILE > NEW"},
      {"\0[\0{"s, "UTF-16BE;"},
      {"[\0\0\0{\0\0\0"s, "UTF-32LE;"},
      {"\0\0\0[\0\0\0{"s, "UTF-32BE;"},
      {"\n<!DOCTYPE html>\n<html>", "a web page; expected the file itself"},
      {"<html lang=\"en\">", "a web page"},
  };
  for (const auto& [bytes, expected] : cases) {
    CAPTURE(expected);
    const auto message = message_of<Error>([&] { testing::read_text_as_facts(bytes); });
    CHECK(message == Contains("facts: is " + expected));
    CHECK(is_one_line(message));
  }
}

TEST_CASE("facts are read from gzip") {
  const auto facts = testing::read_text_as_facts(kRecordOfA + kRecordOfB);
  REQUIRE(facts.records.size() == 2);
  CHECK(testing::fact_at(facts, 1).subject == "b");
  CHECK(facts.sources.front().layout == "tuples, JSON Lines");
}

TEST_CASE("every file that is read whole is told from a Git LFS pointer to it") {
  const testing::TemporaryFolder folder;
  const auto file = folder.write("f", "version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 3\n");
  CHECK(message_of<Error>([&] { read_text_file(file); }) ==
        Contains("f: is a Git LFS pointer, not the file itself; run `git lfs pull` in that folder"));
  CHECK(message_of<Error>([&] { parse_json_file(file); }) == Contains("is a Git LFS pointer"));
}

}  // namespace
}  // namespace rometrace::packed_text_test
