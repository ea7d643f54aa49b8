#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "rometrace/error.hpp"
#include "rometrace/text/hex.hpp"
#include "rometrace/text/input_file.hpp"

namespace rometrace {

/// What a JSON that is read back is, for messages.
struct JsonOrigin {
  std::string where;                     ///< "results.jsonl, line 3"
  std::string_view what = "the record";  ///< the whole of it
  std::string_view expected = "a trace's record";
};

/// An object of a record, with the way to it for messages: "run.noise".
class JsonFields {
 public:
  using Json = nlohmann::ordered_json;

  /// All but the path have to stay. Throws Error for no object.
  JsonFields(const Json& json, const JsonOrigin& origin, std::string path = "")
      : json_(json), origin_(origin), path_(std::move(path)) {
    if (!json.is_object()) fail("is no object");
  }

  bool has(const char* name) const { return json_.contains(name); }

  const Json& at(const char* name) const {
    const auto found = json_.find(name);
    if (found == json_.end()) of(name).fail("is missing");
    return *found;
  }

  const Json* find(const char* name) const {
    const auto found = json_.find(name);
    return found == json_.end() || found->is_null() ? nullptr : &*found;
  }

  JsonFields object(const char* name) const { return {at(name), origin_, path_of(name)}; }

  std::string text(const char* name) const { return text(at(name), name); }
  std::string text(const Json& value, const char* name) const {
    if (!value.is_string()) of(name).fail("is no text");
    return value.get<std::string>();
  }
  std::string text_or(const char* name, std::string otherwise) const {
    const auto* value = find(name);
    return value == nullptr ? std::move(otherwise) : text(*value, name);
  }

  bool flag(const char* name, bool otherwise) const {
    const auto* value = find(name);
    if (value == nullptr) return otherwise;
    if (!value->is_boolean()) of(name).fail("is neither true nor false");
    return value->get<bool>();
  }

  std::int64_t whole(const char* name) const { return whole(at(name), name); }
  std::int64_t whole(const Json& value, const char* name) const {
    if (!value.is_number_integer() || value < 0 || value > kMostWholeNumber) of(name).fail("is no whole number from 0");
    return value.get<std::int64_t>();
  }
  std::int64_t whole_up_to(std::int64_t most, const char* name) const {
    const auto value = whole(name);
    if (value > most) of(name).fail("is " + std::to_string(value) + ", more than " + std::to_string(most));
    return value;
  }
  std::int64_t whole_or(const char* name, std::int64_t otherwise) const {
    const auto* value = find(name);
    return value == nullptr ? otherwise : whole(*value, name);
  }

  /// NaN for null and for what is not there.
  double number(const char* name) const {
    const auto* value = find(name);
    return value == nullptr ? kNoNumber : number(*value, name);
  }
  double number(const Json& value, const char* name) const {
    if (value.is_null()) return kNoNumber;
    if (!value.is_number()) of(name).fail("is no number");
    return value.get<double>();
  }

  std::vector<std::int64_t> wholes(const char* name) const {
    std::vector<std::int64_t> values;
    for (const auto& value : list(name)) values.push_back(whole(value, name));
    return values;
  }

  std::vector<std::int32_t> ids(const char* name) const {
    std::vector<std::int32_t> ids;
    for (const auto value : wholes(name)) {
      if (value > std::numeric_limits<std::int32_t>::max()) of(name).fail("has a token id that is too large");
      ids.push_back(static_cast<std::int32_t>(value));
    }
    return ids;
  }

  std::int32_t id(const char* name) const {
    const auto value = whole(name);
    if (value > std::numeric_limits<std::int32_t>::max()) of(name).fail("is too large for a token id");
    return static_cast<std::int32_t>(value);
  }

  /// "[begin, end]".
  std::pair<std::int64_t, std::int64_t> range(const char* name) const {
    const auto values = wholes(name);
    if (values.size() != 2 || values[0] > values[1]) of(name).fail("is no pair of first and end");
    return {values[0], values[1]};
  }

  const Json& list(const char* name) const {
    const auto& value = at(name);
    if (!value.is_array()) of(name).fail("is no list");
    return value;
  }

  /// An object of a list.
  JsonFields item(const char* name, std::size_t index) const {
    const auto& items = list(name);
    if (index >= items.size()) of(name).fail("has too few entries");
    return {items[index], origin_, path_of(name)};
  }

  /// Bytes in hexadecimal.
  std::string bytes(const char* name) const { return bytes(at(name), name); }
  std::string bytes(const Json& value, const char* name) const {
    const auto found = unhex(text(value, name));
    if (!found) of(name).fail("is no list of bytes in hexadecimal");
    return *found;
  }

  /// All numbers of a table, row-major, whatever its depth; it must have `count`.
  std::vector<double> numbers(const char* name, std::size_t count) const {
    std::vector<double> values;
    values.reserve(count);
    collect(at(name), name, values);
    if (values.size() != count) {
      of(name).fail("has " + std::to_string(values.size()) + " numbers, and prompt and model ask for " +
                    std::to_string(count));
    }
    return values;
  }

  template <typename Value, std::size_t count>
  Value choice(const char* name, const std::string& word, const std::array<Value, count>& values) const {
    const auto found =
        std::find_if(values.begin(), values.end(), [&](const Value& value) { return to_string(value) == word; });
    if (found == values.end()) of(name).fail("is " + in_quotes(word, 40) + ", which this version does not know");
    return *found;
  }

  [[noreturn]] void fail(const std::string& what) const {
    throw Error(origin_.where + ": " + (path_.empty() ? std::string(origin_.what) : path_) + " " + what +
                "; expected " + std::string(origin_.expected) + " as rometrace writes it (docs/formats.md)");
  }

  JsonFields of(const char* name) const { return {kEmpty, origin_, path_of(name)}; }
  const Json& json() const { return json_; }
  const JsonOrigin& origin() const { return origin_; }
  std::string path_of(const std::string& name) const { return path_.empty() ? name : path_ + "." + name; }

 private:
  inline static const Json kEmpty = Json::object();
  static constexpr std::int64_t kMostWholeNumber = std::int64_t{1} << 53U;
  static constexpr double kNoNumber = std::numeric_limits<double>::quiet_NaN();

  void collect(const Json& value, const char* name, std::vector<double>& values) const {
    if (!value.is_array()) return values.push_back(number(value, name));
    for (const auto& each : value) collect(each, name, values);
  }

  const Json& json_;
  const JsonOrigin& origin_;
  std::string path_;
};

}  // namespace rometrace
