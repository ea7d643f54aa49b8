#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace rometrace {

class Mapping;

/// A tensor inside a mapped file. `bytes` point into the mapping (little-endian, not necessarily aligned), from the
/// tensor's first element to the end of its last, and live as long as the file object.
struct TensorView {
  std::string name;
  std::string dtype;  ///< by safetensors' names: "F32", "F16", "BF16", "U8", ...
  std::vector<std::int64_t> shape;
  std::span<const std::byte> bytes;
  /// For each dimension, the elements from one index to the next, 0 or more; every element that they lead to is inside
  /// `bytes`. Empty: row-major without gaps, so that `bytes` are the elements.
  std::vector<std::int64_t> strides = {};
};

/// "[2,3]", for messages.
std::string shape_text(std::span<const std::int64_t> shape);

/// A file of named tensors, memory-mapped read-only: opening costs no memory for the weights. Nobody may change the
/// file while it is open (reading what is no longer there raises SIGBUS); replacing it by another is harmless.
/// Immutable; safe to use from several threads.
class WeightFile {
 public:
  ~WeightFile();
  WeightFile(WeightFile&&) noexcept;
  WeightFile& operator=(WeightFile&&) noexcept;

  const std::vector<TensorView>& tensors() const { return tensors_; }  ///< in the file's order
  const std::filesystem::path& path() const { return path_; }

  /// Throws InputLost if the file is shorter than it was when it was opened.
  void check_whole() const;

  /// Tells the kernel that some of the mapped bytes (a tensor's, or part of them) need not stay in memory: their whole
  /// pages are let go, and read from the file again if they are used again.
  void release(std::span<const std::byte> bytes) const;

  /// Tells the kernel that some of the mapped bytes will be used soon: it begins to read them, beside other work.
  void prefetch(std::span<const std::byte> bytes) const;

 protected:
  WeightFile(std::filesystem::path path, std::unique_ptr<const Mapping> mapping, std::vector<TensorView> tensors);

 private:
  std::filesystem::path path_;
  std::unique_ptr<const Mapping> mapping_;
  std::vector<TensorView> tensors_;
};

}  // namespace rometrace
