#include "hub/content_hash.hpp"

#include <algorithm>
#include <span>
#include <string>

namespace rometrace {

HashKind hash_kind(std::string_view blob) {
  const auto is_hex = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
  if (!std::all_of(blob.begin(), blob.end(), is_hex)) return HashKind::kNone;
  constexpr std::size_t kSha256Digits = 64, kSha1Digits = 40;
  if (blob.size() == kSha256Digits) return HashKind::kSha256;
  return blob.size() == kSha1Digits ? HashKind::kGitBlob : HashKind::kNone;
}

std::string_view name_of(HashKind kind) {
  return kind == HashKind::kSha256 ? "sha256" : kind == HashKind::kGitBlob ? "git's sha1" : "no hash";
}

ContentHash::ContentHash(HashKind kind, std::uint64_t size)
    : Digest(kind == HashKind::kSha256 ? Algorithm::kSha256 : Algorithm::kSha1) {
  if (kind == HashKind::kGitBlob) {
    const std::string header = "blob " + std::to_string(size) + '\0';
    update(std::as_bytes(std::span(header)));
  }
}

}  // namespace rometrace
