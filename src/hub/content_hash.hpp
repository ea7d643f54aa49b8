#pragma once

#include <cstdint>
#include <string_view>

#include "rometrace/text/digest.hpp"

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

/// The hash of a blob's content, as in the blob's name.
class ContentHash : public Digest {
 public:
  /// `kind` is not kNone; `size` (bytes) is part of git's hash. Throws Error where libcrypto has no such hash.
  ContentHash(HashKind kind, std::uint64_t size);
};

}  // namespace rometrace
