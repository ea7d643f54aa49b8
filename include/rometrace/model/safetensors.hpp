#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace rometrace {

/// A tensor inside a mapped safetensors file. `bytes` point into the mapping (row-major, little-endian, not
/// necessarily aligned) and live as long as the file object.
struct TensorView {
  std::string name;
  std::string dtype;  ///< as the file names it: "F32", "F16", "BF16", "U8", ...
  std::vector<std::int64_t> shape;
  std::span<const std::byte> bytes;
};

/// A safetensors file, memory-mapped read-only: opening costs no memory for the weights. Nobody may shorten the file
/// while it is open; replacing it by another is harmless.
class SafetensorsFile {
 public:
  /// Maps the file and checks the whole header before anything is used: length, JSON, names unique, dtypes known,
  /// shapes non-negative, sizes equal to shape times dtype, data filling the rest of the file without overlap or gap.
  /// Throws Error naming file, tensor, found and expected; it names other formats that it knows (a Git LFS pointer, a
  /// PyTorch file).
  static SafetensorsFile open(const std::filesystem::path& path);

  ~SafetensorsFile();
  SafetensorsFile(SafetensorsFile&&) noexcept;
  SafetensorsFile& operator=(SafetensorsFile&&) noexcept;

  const std::vector<TensorView>& tensors() const;  ///< in the order of their bytes in the file
  const std::filesystem::path& path() const;

  /// Tells the kernel that a tensor's bytes, or part of them, need not stay in memory: those whole pages are let go,
  /// and read from the file again if they are used again.
  void release(std::span<const std::byte> bytes) const;

 private:
  struct Impl;
  explicit SafetensorsFile(std::unique_ptr<const Impl> impl);
  std::unique_ptr<const Impl> impl_;
};

}  // namespace rometrace
