#include "hub/content_hash.hpp"

#include <openssl/evp.h>

#include <algorithm>
#include <array>

#include "rometrace/error.hpp"
#include "rometrace/text/hex.hpp"

namespace rometrace {
namespace {

void check(bool success) {
  if (!success) throw Error("this system's libcrypto lacks SHA-256 or SHA-1, by which what is fetched is checked");
}

}  // namespace

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

ContentHash::ContentHash(HashKind kind, std::uint64_t size) : context_(EVP_MD_CTX_new(), &EVP_MD_CTX_free) {
  const EVP_MD* const algorithm = kind == HashKind::kSha256 ? EVP_sha256() : EVP_sha1();
  check(context_ != nullptr && EVP_DigestInit_ex(context_.get(), algorithm, nullptr) == 1);
  if (kind == HashKind::kGitBlob) {
    const std::string header = "blob " + std::to_string(size) + '\0';
    update(std::as_bytes(std::span(header)));
  }
}

void ContentHash::update(std::span<const std::byte> bytes) {
  check(EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()) == 1);
}

std::string ContentHash::hex_digest() {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned length = 0;
  check(EVP_DigestFinal_ex(context_.get(), digest.data(), &length) == 1);
  return hex(std::string_view(reinterpret_cast<const char*>(digest.data()), length));
}

}  // namespace rometrace
