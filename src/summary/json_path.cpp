#include "summary/json_path.hpp"

#include <nlohmann/json.hpp>
#include <string>

namespace rometrace {

const nlohmann::json* value_at(const nlohmann::json& object, std::string_view path) {
  const auto* value = &object;
  while (true) {
    if (!value->is_object()) return nullptr;
    const auto dot = path.find('.');
    const auto member = value->find(std::string(path.substr(0, dot)));
    if (member == value->end()) return nullptr;
    value = &*member;
    if (dot == std::string_view::npos) return value;
    path.remove_prefix(dot + 1);
  }
}

}  // namespace rometrace
