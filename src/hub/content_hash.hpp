#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

struct evp_md_ctx_st;  // OpenSSL's

namespace rometrace {

/// What a blob's name says of its content.
enum class HashKind {
  kNone,     ///< nothing that can be checked
  kSha256,   ///< 64 hex digits: of files in Git LFS
  kGitBlob,  ///< 40 hex digits: git's SHA-1, of files in git itself
};

HashKind hash_kind(std::string_view blob);

/// "sha256", "git's sha1".
std::string_view name_of(HashKind kind);

/// The hash of a content that comes in pieces.
class ContentHash {
 public:
  /// `kind` is not kNone; `size` (bytes) is part of git's hash. Throws Error where libcrypto has no such hash.
  ContentHash(HashKind kind, std::uint64_t size);

  void update(std::span<const std::byte> bytes);

  /// Lower-case hex digits, as in a blob's name. To be called once.
  std::string hex_digest();

 private:
  std::unique_ptr<evp_md_ctx_st, void (*)(evp_md_ctx_st*)> context_;
};

}  // namespace rometrace
