#include "report/edits_text.hpp"

#include <cstddef>
#include <cstdint>
#include <vector>

#include "rometrace/text/input_file.hpp"

namespace rometrace {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kHashDigits = 8;  // of a SHA-256, enough to tell two files apart
constexpr std::size_t kLongestPart = 60;

const Json* member(const Json& object, const char* name) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(name);
  return found == object.end() ? nullptr : &*found;
}

/// "layer 5", "layers 3-6, 9"; empty for no list of numbers.
std::string layers_text(const Json& layers) {
  if (!layers.is_array() || layers.empty()) return "";
  std::vector<std::int64_t> numbers;
  for (const auto& layer : layers) {
    if (!layer.is_number_integer()) return "";
    numbers.push_back(layer.get<std::int64_t>());
  }
  std::string text;
  for (std::size_t begin = 0, end = 0; begin < numbers.size(); begin = end) {
    for (end = begin + 1; end < numbers.size() && numbers[end] == numbers[end - 1] + 1;) ++end;
    text += (text.empty() ? "" : ", ") + std::to_string(numbers[begin]);
    if (end - begin > 1) text += "-" + std::to_string(numbers[end - 1]);
  }
  return (numbers.size() > 1 ? "layers " : "layer ") + text;
}

std::string edit_text(const Json& edit) {
  std::string text;
  const auto add = [&](const std::string& part) { text += (text.empty() || part.empty() ? "" : ", ") + part; };
  if (const auto* method = member(edit, "method"); method != nullptr && method->is_string()) {
    add(one_line(method->get<std::string>(), kLongestPart));
  }
  if (const auto* layers = member(edit, "layers")) add(one_line(layers_text(*layers), kLongestPart));
  if (const auto* requests = member(edit, "requests"); requests != nullptr && requests->is_number_integer()) {
    add(requests->dump() + (*requests == 1 ? " fact" : " facts"));
  }
  if (const auto* hash = member(edit, "sha256"); hash != nullptr && hash->is_string()) {
    text += (text.empty() ? "(" : " (") + one_line(hash->get<std::string>().substr(0, kHashDigits)) + ")";
  }
  return text.empty() ? "by an unknown edit" : text;
}

}  // namespace

std::string edits_text(const Json& model) {
  const auto* edits = member(model, "edits");
  if (edits == nullptr || !edits->is_array() || edits->empty()) return "";
  std::string text;
  for (const auto& edit : *edits) text += (text.empty() ? "edited: " : "; ") + edit_text(edit);
  return text;
}

}  // namespace rometrace
