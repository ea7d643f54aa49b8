#include "hub/cache_files.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <string>
#include <thread>

#include "checks.hpp"
#include "files.hpp"
#include "rometrace/error.hpp"
#include "rometrace/text/json_file.hpp"

namespace rometrace {
namespace {

namespace fs = std::filesystem;
using testing::Contains;
using testing::message_of;
using testing::TemporaryFolder;

constexpr const char* kHelloSha256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
constexpr const char* kHelloGit = "ce013625030ba8dba906f756967f9e9ca394464a";

std::span<const std::byte> bytes(std::string_view text) {
  return std::as_bytes(std::span(text));
}

TEST_CASE("a blob that another attempt left is gone on with, and its hash is that of the whole") {
  for (const char* name : {kHelloSha256, kHelloGit}) {
    CAPTURE(name);
    const TemporaryFolder folder;
    const fs::path blob = folder.path() / name;
    {
      IncompleteBlob first(blob, {});
      first.append(bytes("hel"));
    }
    CHECK_FALSE(fs::exists(blob));
    IncompleteBlob second(blob, {});
    CHECK(second.size() == 3);
    second.append(bytes("lo\n"));
    CHECK_FALSE(second.wrong_hash().has_value());
    second.finish();
    CHECK(read_text_file(blob) == "hello\n");
    CHECK_FALSE(fs::exists(blob.native() + ".incomplete"));
  }
}

TEST_CASE("a wrong content is noticed, and starting over leaves nothing of it") {
  const TemporaryFolder folder;
  folder.write(std::string(kHelloSha256) + ".incomplete", "jello");
  IncompleteBlob blob(folder.path() / kHelloSha256, {});
  blob.append(bytes("\n"));
  CHECK(blob.wrong_hash() == "8b128914480c08c1d7a9c8a8ef78487f4f21cbc802a8134aa3850c9501571a15");
  blob.start_over();
  CHECK(blob.size() == 0);
  blob.append(bytes("hello\n"));
  CHECK_FALSE(blob.wrong_hash().has_value());
}

TEST_CASE("a snapshot's link is relative, and replaces one that leads nowhere") {
  const TemporaryFolder folder;
  const fs::path blob = folder.write("m/blobs/abc", "x");
  const fs::path pointer = folder.path() / "m/snapshots/c0ffee/config.json";
  make_folder(pointer.parent_path());
  fs::create_symlink("../../blobs/gone", pointer);
  point_to_blob(pointer, blob);
  CHECK(fs::read_symlink(pointer) == "../../blobs/abc");
  CHECK(read_text_file(pointer) == "x");
}

TEST_CASE("a reference says the commit and no more") {
  const TemporaryFolder folder;
  write_reference(folder.path(), "refs/pr/1", "c0ffee");
  write_reference(folder.path(), "refs/pr/1", "decaf");
  CHECK(read_text_file(folder.path() / "refs/refs/pr/1") == "decaf");
  CHECK(std::distance(fs::directory_iterator(folder.path() / "refs/refs/pr"), fs::directory_iterator()) == 1);
}

TEST_CASE("a blob's lock is waited for, also when the one who had it removes the file") {
  const TemporaryFolder folder;
  const fs::path file = folder.write("abc.lock", "");
  const int holder = ::open(file.c_str(), O_RDWR | O_CLOEXEC);
  REQUIRE(::flock(holder, LOCK_EX) == 0);
  std::string told;
  std::jthread releaser;
  const Note note = [&](const std::string& text) {
    told = text;
    releaser = std::jthread([&] {
      fs::remove(file);
      ::close(holder);
    });
  };
  const BlobLock lock(file, "config.json", note, {});
  CHECK(told == "waiting for another process, which is fetching config.json");
  const int other = ::open(file.c_str(), O_RDWR | O_CLOEXEC);
  REQUIRE(other >= 0);
  CHECK(::flock(other, LOCK_EX | LOCK_NB) != 0);
  ::close(other);
}

TEST_CASE("waiting for a lock can be interrupted") {
  const TemporaryFolder folder;
  const fs::path file = folder.write("abc.lock", "");
  const BlobLock held(file, "x", {}, {});
  std::stop_source stop;
  stop.request_stop();
  CHECK_THROWS_AS(BlobLock(file, "x", {}, stop.get_token()), Interrupted);
}

TEST_CASE("a cache that cannot be written to is an error that says what to do") {
  const TemporaryFolder folder;
  const fs::path file = folder.write("file", "");
  const std::string message = message_of<Error>([&] { make_folder(file / "blobs"); });
  CHECK(message == Contains("file/blobs: cannot be made: Not a directory; check the cache (HF_HUB_CACHE)"));
  CHECK(testing::is_one_line(message));
}

}  // namespace
}  // namespace rometrace
