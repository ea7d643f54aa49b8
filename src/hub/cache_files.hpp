#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <stop_token>
#include <string>

#include "hub/descriptor.hpp"
#include "hub/retries.hpp"

namespace rometrace {

/// The files of a cache, written so that a reader sees each whole or not at all, and that huggingface_hub, at work in
/// the same cache, is not disturbed. All throw Error if the cache cannot be written to, with what to do.

/// Read at a time where a file is copied or hashed.
inline constexpr std::size_t kReadBytes = std::size_t{1} << 20U;

/// Makes a folder, and those that lead to it.
void make_folder(const std::filesystem::path& folder);

/// The lock that huggingface_hub takes as well while it fetches a blob. Held until destruction.
class BlobLock {
 public:
  /// Waits until nobody has it; `note` is told once if that takes time. File systems that know no locks lock nobody
  /// out. Throws Interrupted.
  BlobLock(const std::filesystem::path& file, const std::string& waiting_for, const Note& note,
           const std::stop_token& stop);

 private:
  Descriptor file_;
};

/// Makes `pointer`, in a snapshot, a relative link to `blob`; a copy of it where there can be no links.
void point_to_blob(const std::filesystem::path& pointer, const std::filesystem::path& blob);

/// The commit that a file in refs/ names, without white space around it: one made by hand ends in a newline. Nothing
/// where there is no such file, or an empty one, of a writer cut off. Throws Error if it cannot be read.
std::optional<std::string> read_reference(const std::filesystem::path& file);

/// Writes refs/REVISION of a repository's folder, unless it says so already.
void write_reference(const std::filesystem::path& repository, const std::string& revision, const std::string& commit);

}  // namespace rometrace
