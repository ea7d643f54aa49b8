#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <stop_token>
#include <string>

struct evp_md_ctx_st;  // OpenSSL's

namespace rometrace {

/// A cryptographic hash over bytes that come in pieces.
class Digest {
 public:
  enum class Algorithm { kSha256, kSha1 };

  /// Throws Error where libcrypto does not have it.
  explicit Digest(Algorithm algorithm);

  void update(std::span<const std::byte> bytes);

  /// Lower-case hex digits: 64 of SHA-256, 40 of SHA-1. To be called once, after the last update().
  std::string hex_digest();

 private:
  void check(bool success) const;

  Algorithm algorithm_;
  std::unique_ptr<evp_md_ctx_st, void (*)(evp_md_ctx_st*)> context_;
};

/// The SHA-256 of files and texts that results record.
class Sha256 : public Digest {
 public:
  Sha256() : Digest(Algorithm::kSha256) {}
};

/// Of a file's bytes, 64 hex digits. Throws Error naming a file that cannot be read, Interrupted.
std::string file_sha256(const std::filesystem::path& path, const std::stop_token& stop = {});

}  // namespace rometrace
