#include "rometrace/report/models_json.hpp"

#include <nlohmann/json.hpp>

#include "rometrace/text/input_file.hpp"
#include "rometrace/version.hpp"

namespace rometrace {
namespace {

using Json = nlohmann::ordered_json;

}  // namespace

nlohmann::ordered_json to_json(const std::vector<CachedModel>& models) {
  const auto size = [](std::int64_t value) { return value > 0 ? Json(value) : Json(); };
  Json json = {{"schema", "rometrace/models/1"}, {"rometrace", kVersion}, {"models", Json::array()}};
  for (const auto& model : models) {
    Json revisions = Json::array();
    for (const auto& revision : model.revisions) revisions.push_back(one_line(revision));  // a file's name: any bytes
    json["models"].push_back({{"name", model.name},
                              {"revisions", revisions},
                              {"commit", one_line(model.commit)},
                              {"folder", label_of(model.folder)},
                              {"bytes", model.bytes},
                              {"family", model.family.empty() ? Json() : Json(model.family)},
                              {"layers", size(model.layers)},
                              {"width", size(model.width)},
                              {"can_be_traced", !model.obstacle},
                              {"obstacle", model.obstacle ? Json(*model.obstacle) : Json()}});
  }
  return json;
}

}  // namespace rometrace
