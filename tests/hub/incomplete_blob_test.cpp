#include "hub/incomplete_blob.hpp"

#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <iterator>
#include <string>
#include <string_view>

#include "checks.hpp"
#include "files.hpp"
#include "rometrace/text/json_file.hpp"

namespace rometrace::incomplete_blob_test {
namespace {

namespace fs = std::filesystem;
using testing::TemporaryFolder;

constexpr const char* kHelloSha256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
constexpr const char* kHelloGit = "ce013625030ba8dba906f756967f9e9ca394464a";

std::span<const std::byte> bytes(std::string_view text) {
  return std::as_bytes(std::span(text));
}

auto files_in(const fs::path& folder) {
  return std::distance(fs::directory_iterator(folder), fs::directory_iterator());
}

/// Ends it with "lo\n", and expects "hello\n" to be all there is afterwards.
void check_is_finished_with_lo(IncompleteBlob& incomplete, const fs::path& blob) {
  CHECK(incomplete.size() == 3);
  incomplete.append(bytes("lo\n"));
  CHECK_FALSE(incomplete.wrong_hash().has_value());
  incomplete.finish();
  CHECK(read_text_file(blob) == "hello\n");
  CHECK(files_in(blob.parent_path()) == 1);
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
    CHECK(incomplete_bytes(blob) == 3);
    IncompleteBlob second(blob, {});
    check_is_finished_with_lo(second, blob);
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

TEST_CASE("an attempt that got nothing leaves nothing") {
  const TemporaryFolder folder;
  { const IncompleteBlob blob(folder.path() / kHelloSha256, {}); }
  CHECK(files_in(folder.path()) == 0);
}

TEST_CASE("two that fetch the same blob, as where locks lock nobody out, do not disturb each other") {
  for (const char* name : {kHelloSha256, kHelloGit}) {
    CAPTURE(name);
    const TemporaryFolder folder;
    const fs::path blob = folder.path() / name;
    IncompleteBlob first(blob, {});
    first.append(bytes("hel"));
    IncompleteBlob second(blob, {});
    first.start_over();
    check_is_finished_with_lo(second, blob);
    first.append(bytes("hello\n"));
    first.finish();
    CHECK(read_text_file(blob) == "hello\n");
    CHECK(files_in(folder.path()) == 1);
  }
}

TEST_CASE("a finished blob is not changed by another one that is still at it") {
  const TemporaryFolder folder;
  const fs::path blob = folder.path() / kHelloSha256;
  IncompleteBlob first(blob, {});
  first.append(bytes("hel"));
  {
    IncompleteBlob second(blob, {});
    check_is_finished_with_lo(second, blob);
  }
  first.append(bytes("p!!"));
  first.start_over();
  CHECK(read_text_file(blob) == "hello\n");
}

TEST_CASE("what a killed process left is gone on with where it lies") {
  const TemporaryFolder folder;
  const fs::path blob = folder.path() / kHelloSha256;
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    IncompleteBlob killed(blob, {});
    killed.append(bytes("hel"));
    std::_Exit(0);
  }
  REQUIRE(::waitpid(child, nullptr, 0) == child);
  REQUIRE(files_in(folder.path()) == 1);
  const fs::path same = folder.path() / "same";
  fs::create_hard_link(fs::directory_iterator(folder.path())->path(), same);
  IncompleteBlob second(blob, {});
  CHECK(fs::hard_link_count(same) == 2);
  fs::remove(same);
  check_is_finished_with_lo(second, blob);
}

TEST_CASE("what a process left whose death is not certain, on another machine say, is copied") {
  const TemporaryFolder folder;
  const fs::path blob = folder.path() / kHelloSha256;
  const fs::path left = folder.write(std::string(kHelloSha256) + ".incomplete.elsewhere-1", "hel");
  IncompleteBlob second(blob, {});
  CHECK(read_text_file(left) == "hel");
  check_is_finished_with_lo(second, blob);
}

}  // namespace
}  // namespace rometrace::incomplete_blob_test
