#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "rometrace/model/config.hpp"

namespace rometrace {

/// The fields of one config.json, or of an object within it. Every complaint names the file, the field, the value found
/// and the one expected.
class ConfigFields {
 public:
  /// `values` is an object; `prefix` goes before its fields' names in messages ("text_config.").
  ConfigFields(nlohmann::json values, std::string where, std::string prefix = "")
      : values_(std::move(values)), where_(std::move(where)), prefix_(std::move(prefix)) {}

  bool has(const char* name) const { return values_.contains(name); }
  bool has_value(const char* name) const { return has(name) && !values_.at(name).is_null(); }  ///< and not null
  const nlohmann::json& at(const char* name) const { return values_.at(name); }

  /// The object of that name. Throws Error if there is none.
  ConfigFields object(const char* name) const;

  /// These fields, and those of another object, which come before them.
  ConfigFields with(const ConfigFields& other) const;

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
  std::int64_t whole_number(const char* name, std::int64_t least, std::int64_t most) const;

  nlohmann::json values_;
  std::string where_;
  std::string prefix_;
};

// So large that no model meets them, so small that the bytes of a [3 D, V] tensor of doubles fit in 64 bits.
inline constexpr std::int64_t kMaxSize = std::int64_t{1} << 28;
inline constexpr std::int64_t kMaxLayers = 10'000;

}  // namespace rometrace
