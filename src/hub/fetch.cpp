#include "rometrace/hub/fetch.hpp"

#include <algorithm>
#include <iterator>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include "hub/blob_fetch.hpp"
#include "hub/cache_files.hpp"
#include "hub/hub_client.hpp"
#include "hub/incomplete_blob.hpp"
#include "hub/model_files.hpp"
#include "hub/names.hpp"
#include "hub/settings.hpp"
#include "rometrace/error.hpp"
#include "rometrace/hub/cache.hpp"
#include "rometrace/text/bytes_text.hpp"
#include "rometrace/text/input_file.hpp"

namespace rometrace {
namespace {

namespace fs = std::filesystem;

std::uint64_t bytes_in(const fs::path& folder) {
  std::uint64_t bytes = 0;
  std::error_code error;
  for (fs::recursive_directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    std::error_code gone;
    const auto size = entry->is_regular_file(gone) && !entry->is_symlink(gone) ? entry->file_size(gone) : 0;
    if (!gone) bytes += size;
  }
  return bytes;
}

/// The one of a model's names under which the cache has the most of it already; where it has nothing, the name itself.
std::string name_to_keep(const std::string& model) {
  const std::vector<std::string> names = names_in_cache(model);
  std::vector<std::uint64_t> bytes;
  for (const std::string& name : names) bytes.push_back(bytes_in(cache_folder() / folder_in_cache(name)));
  return names[static_cast<std::size_t>(std::max_element(bytes.begin(), bytes.end()) - bytes.begin())];
}

/// A model of a hub on its way into the cache.
class ModelFetch {
 public:
  ModelFetch(const std::string& model, const FetchOptions& options, const std::stop_token& stop)
      : options_(options),
        stop_(stop),
        kept_as_(name_to_keep(model)),
        repository_(cache_folder() / folder_in_cache(kept_as_)),
        locks_(cache_folder() / ".locks" / folder_in_cache(kept_as_)),
        hub_(read_hub_settings(), model, options.note, stop) {}

  fs::path run() {
    if (kept_as_ != hub_.model() && options_.note) {
      options_.note(hub_.model() + ": in the cache as " + kept_as_ + ", and kept under that name");
    }
    const RevisionInfo info = hub_.look_up(options_.revision);
    snapshot_ = repository_ / "snapshots" / info.commit;
    ModelFiles chosen = choose_model_files(info.files, hub_.model());
    for (const fs::path& folder : {repository_ / "blobs", locks_}) make_folder(folder);
    if (chosen.index) add_shards(chosen, info);
    const auto missing = look_up_missing(chosen.files, info.commit);
    check_room(missing);
    fetch(missing);
    publish(missing, info.commit);
    return snapshot_;
  }

 private:
  fs::path blob_of(const RemoteFile& file) const { return repository_ / "blobs" / file.blob; }

  bool is_in_snapshot(const std::string& file) const {
    std::error_code ignored;
    return fs::is_regular_file(snapshot_ / file, ignored);
  }

  std::vector<RemoteFile> look_up_missing(const std::vector<std::string>& files, const std::string& commit) {
    std::vector<RemoteFile> missing;
    for (const std::string& file : files) {
      if (!is_in_snapshot(file)) missing.push_back(hub_.look_up_file(commit, file));
    }
    return missing;
  }

  /// The index has to be read before it is known what else to fetch.
  void add_shards(ModelFiles& chosen, const RevisionInfo& info) {
    fs::path index = snapshot_ / *chosen.index;
    if (!is_in_snapshot(*chosen.index)) {
      const std::vector<RemoteFile> file = {hub_.look_up_file(info.commit, *chosen.index)};
      check_room(file);
      fetch(file);
      index = blob_of(file.front());
    }
    const auto config = std::prev(chosen.files.end());
    const auto shards = shards_of(index);
    for (const std::string& shard : shards) {
      if (std::find(info.files.begin(), info.files.end(), shard) == info.files.end()) {
        throw Error(hub_.model() + ": " + *chosen.index + " names " + in_quotes(shard) +
                    ", which the model does not have; expected all shards");
      }
    }
    chosen.files.insert(config, shards.begin(), shards.end());
  }

  void check_room(const std::vector<RemoteFile>& files) const {
    std::uint64_t needed = 0;
    for (const RemoteFile& file : files) {
      const std::uint64_t size = file.size.value_or(0), there = incomplete_bytes(blob_of(file));
      if (!has_blob(file, blob_of(file)) && size > there) needed += size - there;
    }
    std::error_code error;
    const auto space = fs::space(repository_, error);
    if (error || needed <= space.available) return;
    throw Error(hub_.model() + ": " + bytes_text(needed) + " are to be fetched, and " + label_of(repository_) +
                " has room for " + bytes_text(space.available) + "; make room, or set HF_HUB_CACHE to another folder");
  }

  void fetch(const std::vector<RemoteFile>& files) {
    FetchProgress progress;
    for (const RemoteFile& file : files) {
      if (!has_blob(file, blob_of(file))) progress.total += file.size.value_or(0);
    }
    for (const RemoteFile& file : files) {
      if (has_blob(file, blob_of(file))) continue;
      const FetchProgress before = progress;
      progress.file = file.name;
      const auto report = [&](std::uint64_t bytes, std::uint64_t kept) {
        progress.done = before.done + bytes;
        progress.kept = before.kept + kept;
        if (options_.progress) options_.progress(progress);
      };
      fetch_blob(hub_, file, {blob_of(file), locks_ / (file.blob + ".lock")}, report, options_.note, stop_);
      progress.done = before.done + file.size.value_or(progress.done - before.done);
    }
  }

  /// config.json comes last: a snapshot that has it has the rest.
  void publish(const std::vector<RemoteFile>& files, const std::string& commit) {
    make_folder(snapshot_);
    for (const RemoteFile& file : files) point_to_blob(snapshot_ / file.name, blob_of(file));
    if (options_.revision != commit) write_reference(repository_, options_.revision, commit);
  }

  const FetchOptions& options_;
  const std::stop_token& stop_;
  std::string kept_as_;
  fs::path repository_, locks_, snapshot_;
  HubClient hub_;
};

}  // namespace

fs::path fetch_model(std::string_view model, const FetchOptions& options, const std::stop_token& stop) {
  if (!is_repository_name(model)) {
    throw Error(in_quotes(model) + ": not a model's name; expected one such as openai-community/gpt2-xl");
  }
  check_revision(options.revision);
  if (const auto offline = offline_setting()) {
    if (const auto cached = find_complete_model(model, options.revision)) return *cached;
    throw Error(std::string(model) + ": not in the cache, and " + *offline +
                " forbids to fetch it; unset that, or copy the model's folder here and give that");
  }
  try {
    return ModelFetch(std::string(model), options, stop).run();
  } catch (const GaveUp&) {
    const auto cached = find_complete_model(model, options.revision);
    if (!cached) throw;
    if (options.note) {
      options.note(
          std::string(model) +
          ": the hub does not answer; what the cache has is complete and is used, though there may be a newer one");
    }
    return *cached;
  }
}

}  // namespace rometrace
