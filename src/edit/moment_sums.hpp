#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace rometrace {

/// Sums of k k^T of several layers: their upper triangles, by panels of rows, in float64.
class MomentSums {
 public:
  MomentSums(std::size_t layers, std::int64_t width, at::Device device);

  /// Bytes that they take for one layer.
  static std::int64_t bytes(std::int64_t width);

  /// Adds those of `keys` [R, F], multiplied in float32, in float64 where they are float64.
  void add(std::size_t layer, const at::Tensor& keys);

  /// The sum over `tokens`, [F, F] float64 on the CPU, the lower triangle being the upper one's image. The layer's sums
  /// are let go. Throws Error where a number is not finite; `number` is the layer's, for the message.
  at::Tensor take_mean(std::size_t layer, std::int64_t tokens, std::int64_t number);

  /// Writes them to a file, whole or not at all. `key` says what they are of, `done` how far they are. Throws Error.
  void save(const std::filesystem::path& path, const std::string& key, std::int64_t done) const;

  /// Takes them from such a file; gives `done`. Nothing, and no change, where there is no such file, it is damaged, or
  /// of another key.
  std::optional<std::int64_t> restore(const std::filesystem::path& path, const std::string& key);

 private:
  std::int64_t width_;
  std::vector<std::vector<at::Tensor>> panels_;  // of each layer: rows begin .. of columns begin ..
};

}  // namespace rometrace
