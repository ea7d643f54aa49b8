#include "hub/content_hash.hpp"

#include <cstddef>
#include <span>
#include <string>

#include "checks.hpp"

namespace rometrace::content_hash_test {
namespace {

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

}  // namespace
}  // namespace rometrace::content_hash_test
