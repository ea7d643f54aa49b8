#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <string>

#include "rometrace/model/weight_file.hpp"

namespace rometrace {

/// A safetensors file. Its tensors come in the order of their bytes, row-major without gaps.
class SafetensorsFile : public WeightFile {
 public:
  /// Maps the file and checks the whole header before anything is used: length, JSON, names unique, dtypes known,
  /// shapes non-negative, sizes equal to shape times dtype, data filling the rest of the file without overlap or gap.
  /// Throws Error naming file, tensor, found and expected; it names other formats that it knows (a Git LFS pointer, a
  /// PyTorch file).
  static SafetensorsFile open(const std::filesystem::path& path);

  /// The texts that its header has beside the tensors, by name.
  const std::map<std::string, std::string, std::less<>>& metadata() const { return metadata_; }

 private:
  using WeightFile::WeightFile;

  std::map<std::string, std::string, std::less<>> metadata_;
};

}  // namespace rometrace
