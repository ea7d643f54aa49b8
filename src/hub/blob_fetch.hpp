#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <stop_token>

#include "hub/hub_client.hpp"

namespace rometrace {

/// Where a blob goes, and who is told.
struct BlobPlace {
  std::filesystem::path blob;
  std::filesystem::path lock;
};

/// Bytes of the blob that are there, and how many of them were before.
using BlobProgress = std::function<void(std::uint64_t bytes, std::uint64_t kept)>;

/// Whether the blob is in the cache with the size that the hub tells.
bool has_blob(const RemoteFile& file, const std::filesystem::path& blob);

/// Brings a file's content into the cache, whole and checked, unless it is there: goes on where another attempt
/// stopped, tries again when the connection breaks, and starts over once if size or hash are wrong at the end.
/// Throws Error: refused, enough tries, wrong again, the cache cannot be written to; Interrupted.
void fetch_blob(HubClient& hub, const RemoteFile& file, const BlobPlace& place, const BlobProgress& progress,
                const Note& note, const std::stop_token& stop);

}  // namespace rometrace
