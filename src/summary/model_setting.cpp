#include "rometrace/summary/model_setting.hpp"

#include "rometrace/error.hpp"
#include "summary/json_path.hpp"
#include "text/json_shown.hpp"

namespace rometrace {

using nlohmann::json;

namespace {

constexpr const char* kName = "name";

std::string shown_or_nothing(const json* value) {
  return value == nullptr ? "nothing" : shown(*value, kShownBytes);
}

}  // namespace

void ModelSetting::check(const json& line, const std::string& where) {
  const auto* model = value_at(line, "model");
  if (model == nullptr || !model->is_object()) return;
  if (model_.is_null()) {
    model_ = *model;
    where_ = where;
    // In the order of the schema, which the parser does not keep.
    for (const auto* name :
         {kName, "architecture", "layers", "width", "heads", "parameters", "weights_sha256", "edits"}) {
      if (const auto* value = value_at(*model, name)) shown_[name] = *value;
    }
    shown_.update(nlohmann::ordered_json(*model));
    return;
  }
  const auto compare = [&](const std::string& name) {
    const auto find = [&](const json& object) {
      const auto found = object.find(name);
      return found == object.end() ? nullptr : &*found;
    };
    const auto *value = find(*model), *expected = find(model_);
    if (name == kName || (value != nullptr && expected != nullptr && *value == *expected)) return;
    throw Error(where + ": model." + one_line(name) + " is " + shown_or_nothing(value) + "; expected " +
                shown_or_nothing(expected) + " as in " + where_ + "; summarise results of different models apart");
  };
  for (const auto& [name, value] : model_.items()) compare(name);
  for (const auto& [name, value] : model->items()) compare(name);
}

}  // namespace rometrace
