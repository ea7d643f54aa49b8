#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "rometrace/text/input_file.hpp"

namespace rometrace {

/// A read-only mapping of a whole file. Where the file becomes shorter meanwhile, reading what is gone raises SIGBUS;
/// mapped_file_at() is for the handler.
class Mapping {
 public:
  /// Throws Error naming the file: not a regular file, empty, not to be mapped.
  explicit Mapping(InputFile file);
  ~Mapping();
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  std::span<const std::byte> bytes() const { return {begin_, size_}; }
  const std::string& label() const { return file_.label(); }

  /// Throws InputLost if the file is shorter than it was. (In the last page what is gone reads as zeros, without
  /// SIGBUS.)
  void check_whole() const;

 private:
  InputFile file_;
  const std::byte* begin_ = nullptr;
  std::size_t size_;
};

/// The label of the file whose mapping holds `address`, or null. For signal handlers: takes no lock and no memory.
const char* mapped_file_at(const void* address) noexcept;

}  // namespace rometrace
