#include "model/config_fields.hpp"

#include <array>
#include <cmath>
#include <utility>

#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"

namespace rometrace {
namespace {

using nlohmann::json;

// transformers' names (ACT2FN) of the functions that are computed here. The names of one function differ there in how
// it is computed only: by less than float32 resolves.
constexpr std::array<std::pair<std::string_view, Activation>, 13> kActivations{{
    {"gelu_new", Activation::kGeluTanh},
    {"gelu_pytorch_tanh", Activation::kGeluTanh},
    {"gelu_python_tanh", Activation::kGeluTanh},
    {"gelu_accurate", Activation::kGeluTanh},
    {"gelu_fast", Activation::kGeluTanh},
    {"gelu", Activation::kGeluErf},
    {"gelu_python", Activation::kGeluErf},
    {"quick_gelu", Activation::kGeluQuick},
    {"relu", Activation::kRelu},
    {"silu", Activation::kSilu},
    {"swish", Activation::kSilu},
    {"tanh", Activation::kTanh},
    {"sigmoid", Activation::kSigmoid},
}};

}  // namespace

ConfigFields ConfigFields::object(const char* name) const {
  if (!has(name)) refuse(prefix_ + name + " is absent; expected an object of fields");
  if (!at(name).is_object()) refuse(name, "expected an object of fields");
  return {at(name), where_, prefix_ + name + "."};
}

ConfigFields ConfigFields::with(const ConfigFields& other) const {
  auto both = *this;
  both.values_.update(other.values_);
  return both;
}

void ConfigFields::refuse(const std::string& complaint) const {
  throw Error(where_ + ": " + complaint);
}

void ConfigFields::refuse(const char* name, const std::string& expected) const {
  refuse(prefix_ + name + " is " + one_line(at(name).dump()) + "; " + expected);
}

std::int64_t ConfigFields::whole_number(const char* name, std::int64_t least, std::int64_t most) const {
  const json& value = at(name);
  // A number too large for 64 bits is a float by now.
  if (value.is_number_unsigned() && value.get<std::uint64_t>() >= static_cast<std::uint64_t>(least) &&
      value.get<std::uint64_t>() <= static_cast<std::uint64_t>(most)) {
    return value.get<std::int64_t>();
  }
  refuse(name, "expected a whole number from " + std::to_string(least) + " to " + std::to_string(most));
}

std::int64_t ConfigFields::size(const char* name, std::int64_t fallback, std::int64_t maximum) const {
  return has(name) ? whole_number(name, 1, maximum) : fallback;
}

std::int64_t ConfigFields::count(const char* name, std::int64_t fallback, std::int64_t maximum) const {
  return has(name) ? whole_number(name, 0, maximum) : fallback;
}

std::int64_t ConfigFields::size(const char* name, const char* other_name, std::int64_t fallback,
                                std::int64_t maximum) const {
  const std::int64_t value = size(name, size(other_name, fallback, maximum), maximum);
  if (const std::int64_t other = size(other_name, value, maximum); other != value) {
    refuse(prefix_ + other_name + " is " + std::to_string(other) + ", but " + name + " is " + std::to_string(value) +
           ": two names of one size; remove the wrong one");
  }
  return value;
}

std::int64_t ConfigFields::size_or_null(const char* name, std::int64_t fallback, std::int64_t maximum) const {
  return has_value(name) ? size(name, fallback, maximum) : fallback;
}

bool ConfigFields::flag(const char* name, bool fallback) const {
  if (!has(name)) return fallback;
  if (!at(name).is_boolean()) refuse(name, "expected true or false");
  return at(name).get<bool>();
}

double ConfigFields::positive_number(const char* name, double fallback) const {
  if (!has(name)) return fallback;
  // Not `<= 0`: that would let a NaN pass.
  if (!at(name).is_number() || !(at(name).get<double>() > 0.0) || !std::isfinite(at(name).get<double>())) {
    refuse(name, "expected a number above 0");
  }
  return at(name).get<double>();
}

double ConfigFields::positive_or_null(const char* name, double fallback) const {
  return has_value(name) ? positive_number(name, fallback) : fallback;
}

std::string ConfigFields::text(const char* name, std::string_view fallback) const {
  if (!has(name)) return std::string(fallback);
  if (!at(name).is_string()) refuse(name, "expected a string");
  return at(name).get<std::string>();
}

Activation ConfigFields::activation(const char* name, std::string_view fallback) const {
  const std::string wanted = text(name, fallback);
  std::string known;
  for (const auto& [known_name, activation] : kActivations) {
    if (wanted == known_name) return activation;
    known += (known.empty() ? "" : ", ") + std::string(known_name);
  }
  refuse(name, "expected one of " + known);
}

}  // namespace rometrace
