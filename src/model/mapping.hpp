#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string_view>

#include "rometrace/text/input_file.hpp"

namespace rometrace {

/// A read-only mapping of a whole file.
class Mapping {
 public:
  /// Throws Error naming the file: not a regular file, empty, not to be mapped.
  explicit Mapping(const InputFile& file);
  ~Mapping();
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  std::span<const std::byte> bytes() const { return {begin_, size_}; }

 private:
  const std::byte* begin_ = nullptr;
  std::size_t size_;
};

}  // namespace rometrace
