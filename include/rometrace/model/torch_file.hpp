#pragma once

#include <filesystem>

#include "rometrace/model/weight_file.hpp"

namespace rometrace {

/// A state dict that torch.save wrote (pytorch_model.bin): a zip archive, or the format before PyTorch 1.6. The pickle
/// in it is read by a machine of our own that knows dictionaries, numbers, texts and how PyTorch describes a tensor,
/// and nothing else; it runs nothing. Tensors may share bytes, and need not be row-major.
class TorchFile : public WeightFile {
 public:
  /// Maps the file and checks all of it but the numbers: the archive's directory, the pickle, that each tensor lies
  /// inside its storage and each storage inside the file. Values of the state dict that are plain numbers, texts, None,
  /// dtypes or sizes are left out. Checksums are not checked: that would read all weights.
  /// Throws Error naming file, place, found and expected: cut short, compressed or encrypted entries, big-endian, a
  /// name that is no part of a tensor (such a file could run any program when PyTorch loads it), tensors inside a
  /// nested dictionary, a TorchScript program, PyTorch's oldest (tar) format, another format that it knows.
  static TorchFile open(const std::filesystem::path& path);

 private:
  using WeightFile::WeightFile;
};

}  // namespace rometrace
