#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "model/zip.hpp"
#include "text/mapping.hpp"

namespace rometrace {

/// A file of numpy.savez or numpy.savez_compressed. Only arrays that are asked for are looked at.
class NpzFile {
 public:
  /// Throws Error, the file's name first: missing, no archive, cut short.
  static NpzFile open(const std::filesystem::path& path);

  bool contains(std::string_view name) const { return find(name) != nullptr; }

  /// The array `name`, which is there, as float64 and row-major. Throws Error: damaged, of another type than float32,
  /// float64 or a whole number of 8 to 64 bits.
  at::Tensor read(std::string_view name) const;

 private:
  NpzFile(std::string label, std::unique_ptr<const Mapping> mapping, std::vector<ZipEntry> entries);
  const ZipEntry* find(std::string_view name) const;

  std::string label_;
  std::unique_ptr<const Mapping> mapping_;
  std::vector<ZipEntry> entries_;
};

}  // namespace rometrace
