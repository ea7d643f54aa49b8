#include "text/text_stream.hpp"

#include <string>
#include <string_view>

#include "checks.hpp"
#include "files.hpp"
#include "gzip_bytes.hpp"
#include "rometrace/error.hpp"
#include "text_streams.hpp"

namespace rometrace::text_stream_test {
namespace {

using testing::Contains;
using testing::gzip_of;
using testing::message_of;
using testing::stream_of;

std::string all_of(TextStream& stream) {
  std::string text;
  do {
    text += stream.text();
    stream.drop(stream.text().size());
  } while (stream.more());
  return text;
}

std::string sha256_of(std::string_view bytes) {
  Sha256 hash;
  hash.update(std::as_bytes(std::span(bytes)));
  return hash.hex_digest();
}

std::string some_text() {
  std::string text;
  for (int i = 0; i < 3000; ++i) text += std::to_string(i * i) + "\n";
  return text;
}

TEST_CASE("the pieces of a text are the text, packed or not, whatever the size of a piece") {
  const auto text = some_text(), packed = gzip_of(text);
  for (const std::size_t step : {1, 2, 63, 64, 65, 1000, 1 << 20}) {
    CAPTURE(step);
    auto plain = stream_of(text, step), unpacked = stream_of(packed, step);
    CHECK(all_of(plain) == text);
    CHECK(all_of(unpacked) == text);
    CHECK(plain.sha256() == sha256_of(text));
    CHECK(unpacked.sha256() == sha256_of(packed));
  }
}

TEST_CASE("members of gzip one behind the other are one text, at whatever byte they are cut") {
  const auto packed = gzip_of("one, ") + gzip_of("two") + std::string(70, '\0');
  for (std::size_t step = 1; step <= packed.size() + 1; ++step) {
    CAPTURE(step);
    auto stream = stream_of(packed, step);
    CHECK(all_of(stream) == "one, two");
  }
}

TEST_CASE("the checksum is that of the whole file, also where reading stopped and damage follows") {
  const auto text = some_text();
  const auto packed = gzip_of(text), cut = packed.substr(0, packed.size() - 20);
  for (const auto& bytes : {text, packed, cut}) {
    auto stream = stream_of(bytes, 512);
    CHECK(stream.text().starts_with("0\n1\n4\n"));
    CHECK(stream.sha256() == sha256_of(bytes));
  }
  auto stream = stream_of(cut, 512);
  CHECK(message_of<Error>([&] { all_of(stream); }) == Contains("facts: its gzip is cut short"));
}

TEST_CASE("what has been dropped is not held, and what has not been stays") {
  const auto text = some_text();
  auto stream = stream_of(text, 16);
  while (stream.text().size() < 100) REQUIRE(stream.more());
  CHECK(text.starts_with(stream.text()));
  stream.drop(90);
  REQUIRE(stream.more());
  CHECK(stream.text().size() <= 100);
  CHECK(text.substr(90).starts_with(stream.text()));
}

TEST_CASE("a file that is empty or no text is refused when it is opened") {
  CHECK(message_of<Error>([] { stream_of(""); }) == Contains("facts: is empty"));
  for (const std::size_t step : {1, 4, 4096}) {
    CAPTURE(step);
    const std::string zip("PK\x03\x04rest of it"), twice = gzip_of(gzip_of("text"));
    CHECK(message_of<Error>([&] { stream_of(zip, step); }) == Contains("facts: is a zip archive"));
    CHECK(message_of<Error>([&] { stream_of(gzip_of(zip), step); }) == Contains("facts: is a zip archive"));
    CHECK(message_of<Error>([&] { stream_of(twice, step); }) == Contains("facts: is gzip inside gzip"));
    const std::string pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\n";
    CHECK(message_of<Error>([&] { stream_of(pointer, step); }) == Contains("facts: is a Git LFS pointer"));
  }
  CHECK(message_of<Error>([] {
          auto stream = stream_of(gzip_of(std::string(5000, 'a')), 16, 4999);
          all_of(stream);
        }) == Contains("gives more than 4999 bytes"));
}

}  // namespace
}  // namespace rometrace::text_stream_test
