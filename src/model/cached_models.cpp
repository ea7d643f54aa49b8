#include "rometrace/model/cached_models.hpp"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <system_error>
#include <tuple>

#include "hub/cache_files.hpp"
#include "hub/model_files.hpp"
#include "hub/names.hpp"
#include "hub/settings.hpp"
#include "rometrace/error.hpp"
#include "rometrace/model/config.hpp"
#include "rometrace/model/decoder.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/text/json_file.hpp"
#include "rometrace/text/tokenizer.hpp"
#include "text/gguf_header.hpp"

namespace rometrace {
namespace {

namespace fs = std::filesystem;

/// What a folder holds, sorted; nothing if it is not there.
std::vector<fs::path> entries_of(const fs::path& folder) {
  std::vector<fs::path> entries;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    entries.push_back(entry->path());
  }
  if (error && error != std::errc::no_such_file_or_directory) {
    throw Error(label_of(folder) + ": cannot be read: " + error.message());
  }
  std::sort(entries.begin(), entries.end());
  return entries;
}

/// Of a cache that several people share, some may be for its owner alone.
std::vector<fs::path> snapshots_of(const fs::path& repository, const std::function<void(const std::string&)>& note) {
  try {
    return entries_of(repository / "snapshots");
  } catch (const Error& error) {
    if (note) note(error.what());
    return {};
  }
}

/// Names of references by the commit that they stand for.
std::multimap<std::string, std::string> references_of(const fs::path& repository) {
  std::multimap<std::string, std::string> references;
  const fs::path folder = repository / "refs";
  std::error_code error;
  for (fs::recursive_directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    try {
      const std::optional<std::string> commit = read_reference(entry->path());
      if (commit) references.emplace(*commit, entry->path().lexically_relative(folder).native());
    } catch (const Error&) {  // another user's: the snapshot is found by its commit
    }
  }
  return references;
}

std::uint64_t bytes_of(const fs::path& snapshot) {
  std::uint64_t bytes = 0;
  std::error_code error;
  for (fs::recursive_directory_iterator entry(snapshot, error), end; !error && entry != end; entry.increment(error)) {
    std::error_code missing;
    const auto size = entry->is_regular_file(missing) ? entry->file_size(missing) : 0;
    if (!missing) bytes += size;
  }
  return bytes;
}

/// Also of models that are not known here.
std::string family_of(const fs::path& snapshot) {
  try {
    const auto config = parse_json_file(snapshot / "config.json");
    const bool tells = config.is_object() && config.contains("model_type") && config["model_type"].is_string();
    return tells ? config["model_type"].get<std::string>() : "";
  } catch (const Error&) {
    return "";
  }
}

std::uint64_t bytes_of_parts(const fs::path& file) {
  std::uint64_t bytes = 0;
  for (const auto& part : gguf_parts(file)) {
    std::error_code missing;
    const auto size = fs::file_size(part, missing);
    if (!missing) bytes += size;
  }
  return bytes;
}

/// Tries all that a trace does before it reads the weights.
void examine(CachedModel& model) {
  model.family = family_of(model.folder);
  try {
    const auto config = config_of_model(model.folder);
    if (model.family.empty()) model.family = to_string(config.family);
    model.layers = config.layers;
    model.width = config.width;
    LoadOptions checked_only;
    checked_only.memory = 0;  // layers that would be streamed are not read before they are used
    Decoder::load(model.folder, checked_only);
    Tokenizer::load(model.folder);
  } catch (const Error& error) {
    model.obstacle = error.what();
  }
}

}  // namespace

std::vector<CachedModel> cached_models(const std::stop_token& stop,
                                       const std::function<void(const std::string&)>& note) {
  std::vector<CachedModel> models;
  const fs::path cache = cache_folder().empty() ? "." : cache_folder();
  for (const fs::path& repository : entries_of(cache)) {
    const std::string name = name_of_folder(repository.filename().native());
    if (name.empty()) continue;
    const auto references = references_of(repository);
    std::error_code ignored;
    if (!fs::is_directory(repository / "snapshots", ignored)) continue;  // nothing that is a model
    for (const fs::path& snapshot : snapshots_of(repository, note)) {
      if (stop.stop_requested()) throw Interrupted();
      CachedModel model;
      model.name = name;
      model.commit = snapshot.filename().native();
      model.folder = snapshot;
      model.bytes = bytes_of(snapshot);
      const auto [first, last] = references.equal_range(model.commit);
      for (auto reference = first; reference != last; ++reference) model.revisions.push_back(reference->second);
      std::sort(model.revisions.begin(), model.revisions.end());
      const auto files =
          fs::exists(snapshot / "config.json", ignored) ? std::vector<fs::path>() : gguf_models_in(snapshot);
      for (const auto& file : files) {
        auto of_file = model;
        of_file.name += "/" + file.lexically_relative(snapshot).native();
        of_file.folder = file;
        of_file.bytes = bytes_of_parts(file);
        examine(of_file);
        models.push_back(std::move(of_file));
      }
      if (!files.empty()) continue;
      examine(model);
      models.push_back(std::move(model));
    }
  }
  std::sort(models.begin(), models.end(), [](const CachedModel& a, const CachedModel& b) {
    return std::tie(a.name, a.commit) < std::tie(b.name, b.commit);
  });
  return models;
}

}  // namespace rometrace
