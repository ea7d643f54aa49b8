#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace rometrace {

/// The folder of a model given as a folder, or as a name in the local Hugging Face cache, or its GGUF file.
/// A path that exists as a folder or a file is used as it is. Otherwise `model` is a repository name ("ORG/NAME" or
/// "NAME"), looked up as transformers does offline: the cache folder is HF_HUB_CACHE, else HUGGINGFACE_HUB_CACHE, else
/// HF_HOME/hub, else XDG_CACHE_HOME/huggingface/hub, else ~/.cache/huggingface/hub ("~" and $NAME are expanded; a
/// variable that is set to nothing counts as set); there models--ORG--NAME/refs/REVISION names the commit, or
/// `revision` is the commit itself, and snapshots/COMMIT is the folder; "ORG/NAME/FILE.gguf" is a file there. Beyond transformers: the first models are found
/// under both of their names ("gpt2-xl" and "openai-community/gpt2-xl"; gpt2, gpt2-medium, gpt2-large, distilgpt2
/// likewise), the one asked for first, but a complete one before one that lacks something; and a reference may end in a
/// newline. Throws Error: neither a path nor in the cache (says where it looked and the command that gets it), a GGUF
/// file that is missing, revision not in the cache, a snapshot that lacks config.json, tokeniser or weights (says
/// what), not a name or a revision at all.
std::filesystem::path resolve_model(std::string_view model, std::string_view revision = "main");

/// The same, but nothing where the cache has it not or not all of it: config.json, a tokeniser, and weights with every
/// shard that their index names. A folder is returned unseen. Throws Error for what is neither a folder nor a name, or
/// not a revision.
std::optional<std::filesystem::path> find_complete_model(std::string_view model, std::string_view revision = "main");

}  // namespace rometrace
