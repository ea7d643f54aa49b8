#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace rometrace {

/// The named tensors of a model folder: model.safetensors, or else model.safetensors.index.json with its shards (the
/// order in which transformers looks). Immutable once opened; safe to use from several threads.
class Checkpoint {
 public:
  /// Opens and checks the files; reads no weights. Throws Error: no weights in the folder (names what it holds instead,
  /// such as pytorch_model.bin), a shard missing or outside the folder, the index naming a tensor that its shard lacks,
  /// two files holding the same name.
  static Checkpoint open(const std::filesystem::path& folder);

  ~Checkpoint();
  Checkpoint(Checkpoint&&) noexcept;
  Checkpoint& operator=(Checkpoint&&) noexcept;

  bool contains(std::string_view name) const;

  /// The tensor `name` as `dtype` on the CPU. Where the file holds that dtype (and aligned) the result is a view of the
  /// mapped file: no copy, must not be written to, keeps the mapping alive. Otherwise (F16, BF16, F32, F64 -> dtype)
  /// a converted copy is made, in steps of a million elements, each letting go of the file's pages: the peak is the
  /// result and some megabytes. Values are rounded to nearest, as `at::Tensor::to` does.
  /// Throws Error: no such tensor, shape other than `shape` (both are named), dtype not a floating-point one.
  at::Tensor tensor(std::string_view name, const std::vector<std::int64_t>& shape, at::ScalarType dtype) const;

  /// Lets go of the pages of the file that hold the tensor `name` (nothing if there is none); they are read again if
  /// a view of it is used.
  void release(std::string_view name) const;

  std::vector<std::string> names() const;                   ///< sorted
  const std::vector<std::filesystem::path>& files() const;  ///< the weight files, sorted by name

 private:
  struct Impl;
  explicit Checkpoint(std::shared_ptr<const Impl> impl);
  std::shared_ptr<const Impl> impl_;
};

}  // namespace rometrace
