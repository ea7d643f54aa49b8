#pragma once

#include <array>
#include <filesystem>
#include <map>
#include <string>

namespace rometrace {

/// The files that hold a model's weights, by their names.

/// One of the ways in which a folder can hold weights: in one file, or in several with an index.
struct WeightNames {
  const char* single_file;
  const char* index_file;  ///< names the shards
};

inline constexpr WeightNames kSafetensorsNames{"model.safetensors", "model.safetensors.index.json"};
inline constexpr WeightNames kTorchNames{"pytorch_model.bin", "pytorch_model.bin.index.json"};

/// All of them in the order in which transformers looks for them; the first that is there counts.
inline constexpr std::array kWeightNames = {kSafetensorsNames.single_file, kSafetensorsNames.index_file,
                                            kTorchNames.single_file, kTorchNames.index_file};

/// What an index of shards says: the file that holds each tensor. Throws Error: no index, no tensors, a file that is
/// not in the same folder.
std::map<std::string, std::string> read_weight_map(const std::filesystem::path& index_json);

}  // namespace rometrace
