#include "hub/model_files.hpp"

#include <algorithm>
#include <array>
#include <set>
#include <system_error>

#include "hub/weight_files.hpp"
#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"
#include "text/gguf_header.hpp"

namespace rometrace {
namespace {

namespace fs = std::filesystem;

constexpr std::array kTokeniserFiles = {"tokenizer.json",
                                        "tokenizer_config.json",
                                        "special_tokens_map.json",
                                        "added_tokens.json",
                                        "vocab.json",
                                        "merges.txt",
                                        "tokenizer.model",
                                        "spiece.model",
                                        "sentencepiece.bpe.model"};
constexpr std::array kTokenisers = {"tokenizer.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model"};
constexpr std::string_view kIndexEnding = ".index.json";

/// The first file that holds weights in a form that is not read here.
std::optional<std::string> other_weights(const std::vector<std::string>& names) {
  const auto is_other = [](const std::string& name) {
    for (const char* ending : {".safetensors", ".gguf", ".h5", ".msgpack", ".ot", ".onnx", ".pth"}) {
      if (name.ends_with(ending)) return true;
    }
    return name == "adapter_model.bin";
  };
  const auto found = std::find_if(names.begin(), names.end(), is_other);
  return found == names.end() ? std::nullopt : std::optional(*found);
}

}  // namespace

ModelFiles choose_model_files(const std::vector<std::string>& names, std::string_view where) {
  const std::set<std::string, std::less<>> present(names.begin(), names.end());
  const auto is_there = [&](const char* name) { return present.contains(name); };
  const std::string start = std::string(where) + ": ";
  if (!is_there("config.json")) {
    throw Error(start + "has no config.json; expected a language model in Hugging Face layout");
  }
  const auto weights = std::find_if(kWeightNames.begin(), kWeightNames.end(), is_there);
  if (weights == kWeightNames.end()) {
    const auto other = other_weights(names);
    throw Error(start + (other ? "has weights such as " + in_quotes(*other) + " only" : "has no weights") +
                "; expected model.safetensors or pytorch_model.bin, whole or in shards");
  }
  const bool is_vocabulary_alone = is_there("vocab.json") && is_there("merges.txt");
  if (std::none_of(kTokenisers.begin(), kTokenisers.end(), is_there) && !is_vocabulary_alone) {
    throw Error(start + "has no tokeniser; expected tokenizer.json, vocab.json with merges.txt, or tokenizer.model");
  }
  ModelFiles chosen;
  for (const char* name : kTokeniserFiles) {
    if (is_there(name)) chosen.files.emplace_back(name);
  }
  chosen.files.emplace_back(*weights);
  if (chosen.files.back().ends_with(kIndexEnding)) chosen.index = *weights;
  chosen.files.emplace_back("config.json");
  return chosen;
}

std::vector<std::string> shards_of(const fs::path& index_json) {
  std::set<std::string> shards;
  for (const auto& [tensor, shard] : read_weight_map(index_json)) shards.insert(shard);
  return {shards.begin(), shards.end()};
}

void check_complete(const fs::path& snapshot) {
  std::vector<std::string> names;  // with links that lead nowhere: what would be opened is what must be there
  std::error_code error;
  for (fs::directory_iterator entry(snapshot, error), end; !error && entry != end; entry.increment(error)) {
    names.push_back(entry->path().filename().native());
  }
  const auto check_is_there = [&](const std::string& name) {
    std::error_code ignored;
    if (!fs::is_regular_file(snapshot / name, ignored)) throw Error(label_of(snapshot / name) + " is missing");
  };
  const ModelFiles chosen = choose_model_files(names, label_of(snapshot));
  std::for_each(chosen.files.begin(), chosen.files.end(), check_is_there);
  if (!chosen.index) return;
  const auto shards = shards_of(snapshot / *chosen.index);
  std::for_each(shards.begin(), shards.end(), check_is_there);
}

bool is_complete(const fs::path& snapshot) {
  try {
    check_complete(snapshot);
    return true;
  } catch (const Error&) {
    return false;
  }
}

std::vector<fs::path> gguf_models_in(const fs::path& snapshot) {
  std::vector<fs::path> models;
  std::error_code error;
  for (fs::recursive_directory_iterator entry(snapshot, error), end; !error && entry != end; entry.increment(error)) {
    const auto& path = entry->path();
    if (path.extension() != ".gguf" || !is_model_file(path)) continue;
    try {
      if (gguf_parts(path).front() == path) models.push_back(path);
    } catch (const Error&) {  // part 3 of 2, say
    }
  }
  std::sort(models.begin(), models.end());
  return models;
}

}  // namespace rometrace
