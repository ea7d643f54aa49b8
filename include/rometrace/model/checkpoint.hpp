#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "rometrace/model/weight_file.hpp"

namespace rometrace {

/// The named tensors of a model folder: model.safetensors, else model.safetensors.index.json with its shards, else
/// pytorch_model.bin, else pytorch_model.bin.index.json with its shards (the order in which transformers looks). Or
/// those of a GGUF file, or of several that are parts of one model; there a tensor may be kept in blocks, which are
/// read as float32: that is its file's dtype in what is said below. Immutable once opened; safe to use from several
/// threads.
class Checkpoint {
 public:
  /// Opens and checks the files (see SafetensorsFile and TorchFile); reads no weights. Throws Error: no weights in the
  /// folder (names what it holds instead, such as parts without their index), a shard missing or outside the folder,
  /// the index naming a tensor that another shard holds, two files holding the same name.
  /// Names of PyTorch's wrappers (`module.`, `_orig_mod.`) are taken out of the tensors' names.
  /// `stop` is asked between the steps of long readings, which then throw Interrupted.
  static Checkpoint open(const std::filesystem::path& model, std::stop_token stop = {});

  ~Checkpoint();
  Checkpoint(const Checkpoint&) = default;  // shares what has been opened
  Checkpoint(Checkpoint&&) noexcept;
  Checkpoint& operator=(Checkpoint&&) noexcept;

  bool contains(std::string_view name) const;

  /// The tensor `name` as `dtype` on the CPU, row-major. Where the file holds that dtype (row-major and aligned) the
  /// result is a view of the mapped file: no copy, must not be written to, keeps the mapping alive. Otherwise (F16,
  /// BF16, F32, F64, blocks -> dtype) a converted copy is made, in steps of a million elements, each letting go of the
  /// file's pages: the peak is the result and some megabytes. (A tensor whose elements have another order is copied in
  /// one step; weights in PyTorch's old format are seldom aligned.) Values are rounded to nearest, as `at::Tensor::to`
  /// does.
  /// Throws Error: no such tensor, shape other than `shape` (both are named), dtype not a floating-point one, or in
  /// blocks of a type that is not read, more elements than its bytes hold (as PyTorch's expand makes); InputLost: the
  /// file has become shorter; Interrupted.
  at::Tensor tensor(std::string_view name, const std::vector<std::int64_t>& shape, at::ScalarType dtype) const;

  /// Rows [begin, end) of its first dimension alone, likewise: the rest is not read.
  at::Tensor rows(std::string_view name, const std::vector<std::int64_t>& shape, at::ScalarType dtype,
                  std::int64_t begin, std::int64_t end) const;

  /// Throws what tensor() would. Reads nothing of the tensor.
  void check(std::string_view name, const std::vector<std::int64_t>& shape) const;

  /// The same files with a change of rank n laid over the matrix `name`, after those that are: `rows` [n, R] and
  /// `columns` [n, C], float32, contiguous, on the CPU, for a matrix [R, C]. Wherever it is read it is what was read
  /// before plus rows^T columns: for each element the n products in order, summed in double, and their sum with the
  /// element rounded to the file's dtype, as `at::Tensor::to` does, at once: the asked dtype comes after it, so that a
  /// file that is written of this is the same model. No number depends on threads. The files are left as they are; a
  /// matrix that is changed is no view of them.
  Checkpoint with_change(std::string_view name, at::Tensor rows, at::Tensor columns) const;

  /// SHA-256 of the matrix `name` [R, C], lower-case hex: first of the file's values, then with each change that is
  /// laid over it. It is the digest of a line, the dtype by safetensors' name, a space, the shape and a line feed
  /// ("F32 [1024,4096]\n"), and the elements behind it, row-major, little-endian, in the file's dtype. Throws as
  /// tensor() does.
  std::vector<std::string> sha256(std::string_view name, const std::vector<std::int64_t>& shape) const;

  /// A tensor as it stands in its file, by the file's name for it and without what is laid over it. Throws Error where
  /// it is missing. Lives as long as a checkpoint of these files.
  const TensorView& stored(std::string_view name) const;
  const std::filesystem::path& file_of(std::string_view name) const;  ///< likewise the file that holds it
  at::ScalarType type(std::string_view name) const;  ///< of its elements there; throws Error if they are no floats

  /// Throws InputLost if the file of the tensor `name` has become shorter.
  void check_whole(std::string_view name) const;

  /// Whether two tensors have the same dtype, shape and bytes. Throws Error where one is missing; Interrupted.
  bool equal(std::string_view name, std::string_view other) const;

  /// Begins to read the tensor `name` from the disk, beside other work.
  void prefetch(std::string_view name) const;

  /// Lets go of the pages of the file that hold the tensor `name` (nothing if there is none), or rows of it; they are
  /// read again if a view of it is used.
  void release(std::string_view name) const;
  void release(std::string_view name, std::int64_t begin, std::int64_t end) const;

  std::vector<std::string> names() const;                   ///< sorted
  const std::vector<std::filesystem::path>& files() const;  ///< the weight files, sorted by name
  bool is_safetensors() const;                              ///< or else PyTorch's files, or GGUF

 private:
  struct Impl;
  explicit Checkpoint(std::shared_ptr<const Impl> impl);
  std::shared_ptr<const Impl> impl_;
};

}  // namespace rometrace
