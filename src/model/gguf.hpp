#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "rometrace/model/weight_file.hpp"

namespace rometrace {

class GgufHeader;

/// A GGUF file: llama.cpp's, of which each may hold a part of a model. A tensor's `dtype` is ggml's name of its type
/// ("F32", "Q4_K"); one in blocks is row-major, its `bytes` the blocks.
class GgufFile : public WeightFile {
 public:
  /// Maps the file and checks all that stands before the data, and that each tensor's bytes are inside the file and its
  /// own. Throws Error naming file, tensor, found and expected.
  static GgufFile open(const std::filesystem::path& path);

  /// All parts of the model that `path` is a part of (see gguf_parts), which agree on their numbers. Throws Error.
  static std::vector<std::shared_ptr<const GgufFile>> open_all(const std::filesystem::path& path);

  const GgufHeader& header() const { return *header_; }

 private:
  using WeightFile::WeightFile;

  std::shared_ptr<const GgufHeader> header_;
};

/// The tensors of a file of which `file` are all the bytes and `header` is the head, in the file's order. Throws Error:
/// a type that is not known, rows that are not whole blocks, bytes outside the file or shared.
std::vector<TensorView> gguf_tensors(std::span<const std::byte> file, const GgufHeader& header);

}  // namespace rometrace
