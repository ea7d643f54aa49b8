#include "cli/files/share_dir.hpp"

#include "checks.hpp"
#include "files.hpp"
#include "rometrace/error.hpp"

namespace rometrace::cli::share_dir_test {

namespace {

namespace fs = std::filesystem;
using testing::message_of;

}  // namespace

TEST_CASE("the shipped data is found beside the folder of the program") {
  const testing::TemporaryFolder folder;
  const fs::path prefix = folder.path();
  fs::create_directories(prefix / "share" / "rometrace");
  CHECK(share_dir(prefix / "bin" / "rometrace", std::nullopt) == prefix / "share" / "rometrace");
  CHECK(share_dir(prefix / "bin" / "rometrace", "") == prefix / "share" / "rometrace");
  CHECK(share_dir("/nowhere/bin/rometrace", (prefix / "share").string()) == prefix / "share");
}

TEST_CASE("missing data is an error that says where it was looked for") {
  CHECK(message_of<Error>([] { share_dir("/nowhere/bin/rometrace", std::nullopt); }) ==
        "the data that rometrace ships: /nowhere/share/rometrace is not a folder; install it with the program, or set "
        "ROMETRACE_SHARE to its place");
  CHECK(message_of<Error>([] { share_dir("/nowhere/bin/rometrace", "/no\nwhere"); }) ==
        "ROMETRACE_SHARE: /no\\nwhere is not a folder; set it to the folder share/rometrace of an installation, or "
        "unset it");
  CHECK(
      message_of<Error>([] { share_dir("", std::nullopt); }).starts_with("the data that rometrace ships: the system"));
}

}  // namespace rometrace::cli::share_dir_test
