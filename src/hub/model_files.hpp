#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace rometrace {

/// What of a repository is a model that can be traced: config, tokeniser and one form of the weights.
struct ModelFiles {
  std::vector<std::string> files;    ///< without the shards; config.json is the last
  std::optional<std::string> index;  ///< the one of `files` that names the shards, where the weights are sharded
};

/// Chooses them from the names of all files, those in folders ignored. Weights are the first of model.safetensors,
/// model.safetensors.index.json, pytorch_model.bin, pytorch_model.bin.index.json. Throws Error, `where` in front: no
/// config.json, no weights or only such as cannot be read here (named), no tokeniser.
ModelFiles choose_model_files(const std::vector<std::string>& names, std::string_view where);

/// The files that an index of shards names, each once, sorted. Throws Error: not an index, a name that leads elsewhere.
std::vector<std::string> shards_of(const std::filesystem::path& index_json);

/// Throws Error, the path in front, where a snapshot does not hold all that choose_model_files() would choose of it,
/// shards included; a link that leads nowhere is chosen, and is nothing that it holds.
void check_complete(const std::filesystem::path& snapshot);

bool is_complete(const std::filesystem::path& snapshot);

/// The GGUF models of a snapshot and the folders in it, sorted: each a file, or the first of its parts.
std::vector<std::filesystem::path> gguf_models_in(const std::filesystem::path& snapshot);

}  // namespace rometrace
