#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

namespace rometrace {

/// A snapshot in the local cache, or a GGUF file of one that has no config.json.
struct CachedModel {
  std::string name;                     ///< "ORG/NAME" or "NAME", or "ORG/NAME/FILE.gguf": what is asked for
  std::string commit;                   ///< the snapshot's
  std::vector<std::string> revisions;   ///< branches and tags that stand for it, sorted
  std::filesystem::path folder;         ///< or the file
  std::uint64_t bytes = 0;              ///< of its files; two snapshots of a model may share files
  std::string family;                   ///< model_type of its config; empty if that cannot be read
  std::int64_t layers = 0, width = 0;   ///< 0 if its config is not of a model that is known here
  std::optional<std::string> obstacle;  ///< why it cannot be traced, in one line; none: it can
};

/// All models in the cache that resolve_model() looks into, sorted by name, then commit; empty if there is no such
/// folder. Reads configs, tokenisers and the heads of weights, not the weights. `note`, which may be empty, is told of
/// a model that cannot be looked into, which is left out. Throws Error if the cache cannot be read; Interrupted.
std::vector<CachedModel> cached_models(const std::stop_token& stop,
                                       const std::function<void(const std::string&)>& note = {});

}  // namespace rometrace
