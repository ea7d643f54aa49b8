#include "hub/hub_client.hpp"

#include <cstddef>
#include <span>
#include <string>

#include "checks.hpp"
#include "files.hpp"
#include "hub/content_hash.hpp"
#include "hub/names.hpp"
#include "rometrace/error.hpp"

namespace rometrace {
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

/// As the programs sha256sum and `git hash-object` have them, of "hello\n".
TEST_CASE("contents are hashed as Git LFS and git hash them") {
  const std::string content = "hello\n";
  const auto digest = [&](HashKind kind) {
    ContentHash hash(kind, content.size());
    const auto bytes = std::as_bytes(std::span(content));
    hash.update(bytes.first(2));
    hash.update(bytes.subspan(2));
    return hash.hex_digest();
  };
  const std::string sha256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
  const std::string git = "ce013625030ba8dba906f756967f9e9ca394464a";
  CHECK(digest(HashKind::kSha256) == sha256);
  CHECK(digest(HashKind::kGitBlob) == git);
  CHECK(hash_kind(sha256) == HashKind::kSha256);
  CHECK(hash_kind(git) == HashKind::kGitBlob);
  CHECK(hash_kind(git.substr(1)) == HashKind::kNone);
  CHECK(hash_kind("d41d8cd98f00b204e9800998ecf8427e-12") == HashKind::kNone);
}

TEST_CASE("a folder of the cache gives back the name that it is of") {
  for (const char* name : {"gpt2", "openai-community/gpt2-xl", "a/b.c_d"}) {
    CAPTURE(name);
    CHECK(name_of_folder(folder_in_cache(name)) == name);
  }
  for (const char* folder : {"datasets--a--b", ".locks", "models--", "models--a--b--c", "version.txt"}) {
    CAPTURE(folder);
    CHECK(name_of_folder(folder) == "");
  }
}

}  // namespace
}  // namespace rometrace
