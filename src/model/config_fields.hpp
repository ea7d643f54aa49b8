#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "rometrace/model/config.hpp"

namespace rometrace {

/// The fields of one config.json, or of an object within it. Every complaint names the file, the field, the value found
/// and the one expected. Whoever asks for a field has it noted, in whatever part and copy it is asked for: what is left
/// at the end was not used.
class ConfigFields {
 public:
  /// `values` is an object.
  ConfigFields(nlohmann::json values, std::string where);

  bool has(const char* name) const { return find(name).first != nullptr; }
  bool has_value(const char* name) const { return has(name) && !at(name).is_null(); }  ///< and not null
  const nlohmann::json& at(const char* name) const;                                    ///< has(name) holds

  /// The object of that name. Throws Error if there is none.
  ConfigFields object(const char* name) const;
  ConfigFields object_or_none(const char* name) const;  ///< null, or absent: one without fields

  /// These fields, and those of another object of the same file, which come before them.
  ConfigFields with(const ConfigFields& other) const;

  /// Names of all fields that nobody asked for, "text_config.x" of one within an object whose fields were asked for.
  std::vector<std::string> unused() const;

  /// Throws Error.
  [[noreturn]] void refuse(const std::string& complaint) const;
  [[noreturn]] void refuse(const char* name, const std::string& expected) const;  ///< the field's value

  /// A whole number from 1 to `maximum`.
  std::int64_t size(const char* name, std::int64_t fallback, std::int64_t maximum) const;
  /// A size that goes by two names.
  std::int64_t size(const char* name, const char* other_name, std::int64_t fallback, std::int64_t maximum) const;
  /// Nothing said: a field that is null counts as absent.
  std::int64_t size_or_null(const char* name, std::int64_t fallback, std::int64_t maximum) const;
  /// A whole number from 0 to `maximum`.
  std::int64_t count(const char* name, std::int64_t fallback, std::int64_t maximum) const;

  bool flag(const char* name, bool fallback) const;
  double positive_number(const char* name, double fallback) const;
  double positive_or_null(const char* name, double fallback) const;  ///< null counts as absent
  std::string text(const char* name, std::string_view fallback) const;

  /// One of transformers' names of an activation function.
  Activation activation(const char* name, std::string_view fallback) const;

 private:
  /// Fields of one object; its own name goes before theirs in messages ("text_config.").
  struct Part {
    nlohmann::json values;
    std::string prefix;
  };

  ConfigFields(std::vector<Part> parts, const ConfigFields& of)
      : parts_(std::move(parts)), where_(of.where_), used_(of.used_) {}
  std::pair<const nlohmann::json*, std::string> find(const char* name) const;  ///< value, or null; full name
  std::string full_name(const char* name) const { return find(name).second; }
  std::int64_t whole_number(const char* name, std::int64_t least, std::int64_t most) const;

  std::vector<Part> parts_;  // the first that has a field counts
  std::string where_;
  std::shared_ptr<std::set<std::string>> used_;  // full names; shared by all parts of a file
};

// So large that no model meets them, so small that the bytes of a [3 D, V] tensor of doubles fit in 64 bits.
inline constexpr std::int64_t kMaxSize = std::int64_t{1} << 28;
inline constexpr std::int64_t kMaxLayers = 10'000;

}  // namespace rometrace
