#include "rometrace/text/digest.hpp"

#include <openssl/evp.h>

#include <array>
#include <string_view>
#include <vector>

#include "rometrace/error.hpp"
#include "rometrace/text/hex.hpp"
#include "rometrace/text/input_file.hpp"

namespace rometrace {

Digest::Digest(Algorithm algorithm) : algorithm_(algorithm), context_(EVP_MD_CTX_new(), &EVP_MD_CTX_free) {
  const EVP_MD* const method = algorithm == Algorithm::kSha256 ? EVP_sha256() : EVP_sha1();
  check(context_ != nullptr && EVP_DigestInit_ex(context_.get(), method, nullptr) == 1);
}

void Digest::update(std::span<const std::byte> bytes) {
  check(EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()) == 1);
}

std::string Digest::hex_digest() {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned length = 0;
  check(EVP_DigestFinal_ex(context_.get(), digest.data(), &length) == 1);
  return hex(std::string_view(reinterpret_cast<const char*>(digest.data()), length));
}

void Digest::check(bool success) const {
  if (success) return;
  throw Error(std::string(algorithm_ == Algorithm::kSha256 ? "SHA-256" : "SHA-1") +
              " is not available from this system's libcrypto");
}

std::string file_sha256(const std::filesystem::path& path, const std::stop_token& stop) {
  constexpr std::size_t kBuffer = std::size_t{1} << 20U;
  InputFile file = InputFile::open(path);
  Sha256 hash;
  std::vector<std::byte> buffer(kBuffer);
  for (std::size_t count = kBuffer; count == kBuffer;) {
    if (stop.stop_requested()) throw Interrupted();
    count = file.read(buffer);
    hash.update(std::span(buffer).first(count));
  }
  return hash.hex_digest();
}

}  // namespace rometrace
