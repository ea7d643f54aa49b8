#include "rometrace/model/fingerprint.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <fstream>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include "rometrace/error.hpp"
#include "rometrace/text/digest.hpp"
#include "rometrace/text/input_file.hpp"

namespace rometrace {
namespace {

// What tells these files from others, and from what they will be when they are changed; none where that cannot be told.
std::optional<std::string> identity_of(std::span<const std::filesystem::path> files) {
  constexpr std::time_t kSettled = 5;  // seconds
  std::string identity = "rometrace weights 1\n";
  for (const auto& path : files) {
    struct stat status {};
    if (stat(path.c_str(), &status) != 0) return std::nullopt;
    const auto changed = std::max(status.st_mtim.tv_sec, status.st_ctim.tv_sec);
    if (changed + kSettled > std::time(nullptr)) return std::nullopt;
    identity += path.filename().native();
    for (const auto number :
         {static_cast<std::int64_t>(status.st_dev), static_cast<std::int64_t>(status.st_ino),
          static_cast<std::int64_t>(status.st_size), static_cast<std::int64_t>(status.st_mtim.tv_sec),
          static_cast<std::int64_t>(status.st_mtim.tv_nsec), static_cast<std::int64_t>(status.st_ctim.tv_sec),
          static_cast<std::int64_t>(status.st_ctim.tv_nsec)}) {
      identity += " " + std::to_string(number);
    }
    identity += "\n";
  }
  return identity;
}

bool is_digest(const std::string& text) {
  constexpr std::size_t kDigits = 64;
  return text.size() == kDigits && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

}  // namespace

std::string cached_weights_sha256(std::span<const std::filesystem::path> files, const std::filesystem::path& cache_dir,
                                  std::stop_token stop) {
  const auto identity = cache_dir.empty() ? std::nullopt : identity_of(files);
  if (!identity) return weights_sha256(files, std::move(stop));
  Sha256 hash;
  hash.update(std::as_bytes(std::span(*identity)));
  const auto path = cache_dir / "weights" / hash.hex_digest();
  {
    std::ifstream known(path);
    std::string digest;
    if (std::getline(known, digest) && is_digest(digest)) return digest;
  }
  const auto digest = weights_sha256(files, std::move(stop));
  if (identity_of(files) != identity) return digest;  // changed meanwhile
  std::error_code ignored;
  std::filesystem::create_directories(path.parent_path(), ignored);
  const auto partial = path.native() + "." + std::to_string(getpid());
  if (std::ofstream file(partial); file << digest << "\n" << std::flush) {
    file.close();
    std::filesystem::rename(partial, path, ignored);
  }
  std::filesystem::remove(partial, ignored);
  return digest;
}

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
