#include "rometrace/text/sha256.hpp"

#include <openssl/evp.h>

#include <array>
#include <string_view>

#include "rometrace/error.hpp"
#include "rometrace/text/hex.hpp"

namespace rometrace {
namespace {

void check(bool success) {
  if (!success) throw Error("SHA-256 is not available from this system's libcrypto");
}

}  // namespace

Sha256::Sha256() : context_(EVP_MD_CTX_new(), &EVP_MD_CTX_free) {
  check(context_ != nullptr && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1);
}

void Sha256::update(std::span<const std::byte> bytes) {
  check(EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()) == 1);
}

std::string Sha256::hex_digest() {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned length = 0;
  check(EVP_DigestFinal_ex(context_.get(), digest.data(), &length) == 1);
  return hex(std::string_view(reinterpret_cast<const char*>(digest.data()), length));
}

}  // namespace rometrace
