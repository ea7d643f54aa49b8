#include "hub/weight_files.hpp"

#include <nlohmann/json.hpp>

#include "hub/names.hpp"
#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/text/json_file.hpp"

namespace rometrace {

std::map<std::string, std::string> read_weight_map(const std::filesystem::path& index_json) {
  const std::string where = label_of(index_json);
  const auto index = parse_json_file(index_json);
  if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object()) {
    throw Error(where + ": has no weight_map; expected an object that names a file for each tensor");
  }
  std::map<std::string, std::string> shard_of;
  for (const auto& [tensor, shard] : index["weight_map"].items()) {
    // The name comes from a file that may be hostile: it must not lead out of the folder.
    if (!shard.is_string() || !is_plain_name(shard.get<std::string>())) {
      throw Error(where + ": tensor " + in_quotes(tensor) + " is in " + one_line(shard.dump()) +
                  "; expected the name of a file in the same folder");
    }
    shard_of.emplace(tensor, shard.get<std::string>());
  }
  if (shard_of.empty()) throw Error(where + ": weight_map names no tensors");
  return shard_of;
}

}  // namespace rometrace
