#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <stop_token>
#include <string>

#include "hub/content_hash.hpp"
#include "hub/retries.hpp"

namespace rometrace {

/// The files of a cache, written so that a reader sees each whole or not at all, and that huggingface_hub, at work in
/// the same cache, is not disturbed. All throw Error if the cache cannot be written to, with what to do.

/// Makes a folder, and those that lead to it.
void make_folder(const std::filesystem::path& folder);

/// The lock that huggingface_hub takes as well while it fetches a blob. Held until destruction.
class BlobLock {
 public:
  /// Waits until nobody has it; `note` is told once if that takes time. File systems that know no locks lock nobody
  /// out. Throws Interrupted.
  BlobLock(const std::filesystem::path& file, const std::string& waiting_for, const Note& note,
           const std::stop_token& stop);
  ~BlobLock();
  BlobLock(const BlobLock&) = delete;
  BlobLock& operator=(const BlobLock&) = delete;

 private:
  int descriptor_ = -1;
};

/// A blob on its way: BLOB.incomplete, kept when the work is broken off.
class IncompleteBlob {
 public:
  /// Opens it and reads what it holds already. Throws Interrupted.
  IncompleteBlob(std::filesystem::path blob, const std::stop_token& stop);
  ~IncompleteBlob();
  IncompleteBlob(const IncompleteBlob&) = delete;
  IncompleteBlob& operator=(const IncompleteBlob&) = delete;

  std::uint64_t size() const { return size_; }  ///< bytes
  void append(std::span<const std::byte> bytes);
  void start_over();  ///< drops all that it holds

  /// The content's hash, if it is not the one that the blob's name is. To be called once it is complete.
  std::optional<std::string> wrong_hash();

  /// Gives it its name, on the disk for good.
  void finish();

 private:
  void read_all(const std::stop_token& stop);

  std::filesystem::path blob_, path_;
  HashKind kind_;
  int descriptor_ = -1;
  std::uint64_t size_ = 0;
  std::optional<ContentHash> hash_;  ///< of what is there; none for kinds that need the size first
};

/// Makes `pointer`, in a snapshot, a relative link to `blob`; a copy of it where there can be no links.
void point_to_blob(const std::filesystem::path& pointer, const std::filesystem::path& blob);

/// Writes refs/REVISION of a repository's folder, unless it says so already.
void write_reference(const std::filesystem::path& repository, const std::string& revision, const std::string& commit);

}  // namespace rometrace
