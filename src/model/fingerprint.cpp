#include "rometrace/model/fingerprint.hpp"

#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <memory>
#include <string_view>
#include <vector>

#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"

namespace rometrace {
namespace {

constexpr std::size_t kBuffer = std::size_t{1} << 20;

class Sha256 {
 public:
  Sha256() : context_(EVP_MD_CTX_new(), &EVP_MD_CTX_free) {
    check(context_ != nullptr && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1);
  }

  void update(std::span<const std::byte> bytes) {
    check(EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()) == 1);
  }

  std::string hex_digest() {
    std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
    unsigned length = 0;
    check(EVP_DigestFinal_ex(context_.get(), digest.data(), &length) == 1);
    constexpr std::string_view kHex = "0123456789abcdef";
    std::string hex;
    for (const unsigned char byte : std::span(digest).first(length)) {
      hex += kHex[byte >> 4U];
      hex += kHex[byte & 15U];
    }
    return hex;
  }

 private:
  static void check(bool success) {
    if (!success) throw Error("SHA-256 is not available from this system's libcrypto");
  }

  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

std::string file_sha256(const std::filesystem::path& path, const std::stop_token& stop) {
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

}  // namespace

std::string weights_sha256(std::span<const std::filesystem::path> files, std::stop_token stop) {
  if (files.size() == 1) return file_sha256(files.front(), stop);
  std::vector<std::filesystem::path> sorted(files.begin(), files.end());
  std::sort(sorted.begin(), sorted.end(),
            [](const auto& a, const auto& b) { return a.filename().native() < b.filename().native(); });
  std::string lines;
  for (const std::filesystem::path& path : sorted) {
    lines += file_sha256(path, stop) + "  " + path.filename().native() + "\n";
  }
  Sha256 hash;
  hash.update(std::as_bytes(std::span(lines)));
  return hash.hex_digest();
}

}  // namespace rometrace
