#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

struct evp_md_ctx_st;  // OpenSSL's

namespace rometrace {

/// A SHA-256 over bytes that come in pieces. Throws Error where libcrypto has none.
class Sha256 {
 public:
  Sha256();

  void update(std::span<const std::byte> bytes);

  /// 64 lower-case hex digits. To be called once, after the last update().
  std::string hex_digest();

 private:
  std::unique_ptr<evp_md_ctx_st, void (*)(evp_md_ctx_st*)> context_;
};

}  // namespace rometrace
