#include <string>

#include "checks.hpp"
#include "files.hpp"
#include "hub/hub_client.hpp"
#include "rometrace/error.hpp"

namespace rometrace::blob_name_test {
namespace {

using testing::Contains;
using testing::message_of;

TEST_CASE("an etag names a blob without its quotes and its mark of weakness") {
  CHECK(blob_name("\"abc\"", "x") == "abc");
  CHECK(blob_name("W/\"abc\"", "x") == "abc");
  CHECK(blob_name("abc", "x") == "abc");
  CHECK(blob_name("\"d41d8cd98f00b204e9800998ecf8427e-12\"", "x") == "d41d8cd98f00b204e9800998ecf8427e-12");
}

TEST_CASE("an etag that would lead out of the folder of blobs is refused") {
  for (const std::string& etag :
       {std::string("\"../../x\""), std::string("\"..\""), std::string("\"\""), std::string(), std::string("\"a/b\""),
        std::string("\".hidden\""), std::string("\"a b\""), std::string("\"a\x01\""), std::string(300, 'a')}) {
    CAPTURE(etag);
    const std::string message = message_of<Error>([&] { blob_name(etag, "file"); });
    CHECK(message == Contains("file: its etag is "));
    CHECK(testing::is_one_line(message));
  }
}

}  // namespace
}  // namespace rometrace::blob_name_test
