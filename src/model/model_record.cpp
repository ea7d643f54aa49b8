#include "rometrace/model/model_record.hpp"

#include <nlohmann/json.hpp>
#include <utility>

#include "rometrace/text/utf8.hpp"

namespace rometrace {

nlohmann::ordered_json to_json(const ModelRecord& model) {
  nlohmann::ordered_json json = {{"name", to_valid_utf8(model.name)},
                                 {"architecture", to_valid_utf8(model.architecture)},
                                 {"layers", model.layers},
                                 {"width", model.width},
                                 {"heads", model.heads},
                                 {"parameters", model.parameters},
                                 {"weights_sha256", model.weights_sha256}};
  for (const auto& edit : model.edits) {
    json["edits"].push_back({{"sha256", edit.sha256},
                             {"method", to_valid_utf8(edit.method)},
                             {"layers", edit.layers},
                             {"requests", edit.requests}});
  }
  return json;
}

}  // namespace rometrace
