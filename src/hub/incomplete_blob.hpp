#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <stop_token>
#include <string>

#include "hub/content_hash.hpp"
#include "hub/descriptor.hpp"

namespace rometrace {

/// A blob on its way.
///
/// Two processes must never write to one file, and a lock cannot be relied on for that: on some network file systems
/// all get it at once. So each writes to a file of its own, BLOB.incomplete.KERNEL-RANDOM, and renames it to
/// BLOB.incomplete when it breaks off: whoever can rename that in turn has it alone and goes on with it. What a killed
/// process left is taken over where its death is certain: it ran under this kernel, and nobody holds the lock on that
/// file, in a place where locks are seen to work. Elsewhere its content is copied.
/// All throw Error if the cache cannot be written to, with what to do.
class IncompleteBlob {
 public:
  /// Goes on with the most that attempts before left, which is read for its hash. Throws Interrupted.
  IncompleteBlob(std::filesystem::path blob, const std::stop_token& stop);

  /// Leaves what there is for another attempt, unless it is finished.
  ~IncompleteBlob();
  IncompleteBlob(const IncompleteBlob&) = delete;
  IncompleteBlob& operator=(const IncompleteBlob&) = delete;

  std::uint64_t size() const { return size_; }  ///< bytes
  void append(std::span<const std::byte> bytes);
  void start_over();  ///< drops all that it holds

  /// The content's hash, if it is not the one that the blob's name is. To be called once it is complete.
  std::optional<std::string> wrong_hash();

  /// Gives it its name, on the disk for good, and removes what other attempts left. Another process may have been
  /// faster; then that one's blob stays.
  void finish();

 private:
  bool claim(const std::filesystem::path& left);
  bool claim_given_up();
  bool claim_of_killed(const std::filesystem::path& left);
  void make_new();
  void read_all(const std::stop_token& stop);
  void copy(const std::filesystem::path& left, const std::stop_token& stop);
  void give_up() noexcept;

  std::filesystem::path blob_, path_;
  HashKind kind_;
  Descriptor file_;
  std::uint64_t size_ = 0;
  std::optional<ContentHash> hash_;  ///< of what is there; none for kinds that need the size first
};

/// Bytes of a blob that the attempt that came furthest left.
std::uint64_t incomplete_bytes(const std::filesystem::path& blob);

}  // namespace rometrace
