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

namespace rometrace::cache_files_test {
namespace {

namespace fs = std::filesystem;
using testing::Contains;
using testing::message_of;
using testing::TemporaryFolder;

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

TEST_CASE("two processes with the same number, on two machines, make the same link without harm") {
  const TemporaryFolder folder;
  const fs::path blob = folder.write("m/blobs/abc", "content");
  const fs::path pointer = folder.path() / "m/snapshots/c0ffee/config.json";
  make_folder(pointer.parent_path());
  const auto point = [&] {
    for (int i = 0; i < 3000; ++i) point_to_blob(pointer, blob);
  };
  { const std::jthread one(point), other(point); }
  CHECK(read_text_file(blob) == "content");
  CHECK(fs::read_symlink(pointer) == "../../blobs/abc");
  CHECK(std::distance(fs::directory_iterator(pointer.parent_path()), fs::directory_iterator()) == 1);
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
}  // namespace rometrace::cache_files_test
