#include "rometrace/model/fingerprint.hpp"

#include <algorithm>
#include <cstddef>
#include <vector>

#include "rometrace/error.hpp"
#include "rometrace/text/digest.hpp"
#include "rometrace/text/input_file.hpp"

namespace rometrace {
namespace {

constexpr std::size_t kBuffer = std::size_t{1} << 20;

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
