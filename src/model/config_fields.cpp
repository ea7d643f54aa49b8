#include "model/config_fields.hpp"

#include <array>
#include <cmath>
#include <functional>
#include <utility>

#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"

namespace rometrace {
namespace {

using nlohmann::json;

// transformers' names (ACT2FN) of the functions that are computed here. The names of one function differ there in how
// it is computed only: by less than float32 resolves.
constexpr std::array<std::pair<std::string_view, Activation>, 14> kActivations{{
    {"gelu_new", Activation::kGeluTanh},
    {"gelu_pytorch_tanh", Activation::kGeluTanh},
    {"gelu_python_tanh", Activation::kGeluTanh},
    {"gelu_accurate", Activation::kGeluTanh},
    {"gelu_fast", Activation::kGeluTanh},
    {"gelu", Activation::kGeluErf},
    {"gelu_python", Activation::kGeluErf},
    {"quick_gelu", Activation::kGeluQuick},
    {"relu", Activation::kRelu},
    {"relu2", Activation::kReluSquared},
    {"silu", Activation::kSilu},
    {"swish", Activation::kSilu},
    {"tanh", Activation::kTanh},
    {"sigmoid", Activation::kSigmoid},
}};

}  // namespace

ConfigFields::ConfigFields(json values, std::string where)
    : parts_{{std::move(values), ""}}, where_(std::move(where)), used_(std::make_shared<std::set<std::string>>()) {}

std::pair<const json*, std::string> ConfigFields::find(const char* name) const {
  std::pair<const json*, std::string> found{nullptr, parts_.front().prefix + name};
  for (const auto& part : parts_) {
    used_->insert(part.prefix + name);
    if (found.first == nullptr && part.values.contains(name)) found = {&part.values.at(name), part.prefix + name};
  }
  return found;
}

const json& ConfigFields::at(const char* name) const {
  return *find(name).first;
}

ConfigFields ConfigFields::object(const char* name) const {
  const auto [value, full] = find(name);
  if (value == nullptr) refuse(full + " is absent; expected an object of fields");
  if (!value->is_object()) refuse(name, "expected an object of fields");
  return {{{*value, full + "."}}, *this};
}

ConfigFields ConfigFields::object_or_none(const char* name) const {
  if (has_value(name)) return object(name);
  return {{{json::object(), full_name(name) + "."}}, *this};
}

ConfigFields ConfigFields::with(const ConfigFields& other) const {
  auto parts = other.parts_;
  parts.insert(parts.end(), parts_.begin(), parts_.end());
  return {std::move(parts), *this};
}

std::vector<std::string> ConfigFields::unused() const {
  std::vector<std::string> names;
  const std::function<void(const json&, const std::string&)> look = [&](const json& values, const std::string& prefix) {
    for (const auto& [name, value] : values.items()) {
      const auto full = prefix + name;
      if (!used_->contains(full)) {
        names.push_back(full);
      } else if (const auto inner = used_->lower_bound(full + ".");
                 value.is_object() && inner != used_->end() && inner->starts_with(full + ".")) {
        look(value, full + ".");
      }
    }
  };
  for (const auto& part : parts_) look(part.values, part.prefix);
  return names;
}

void ConfigFields::refuse(const std::string& complaint) const {
  throw Error(where_ + ": " + complaint);
}

void ConfigFields::refuse(const char* name, const std::string& expected) const {
  refuse(full_name(name) + " is " + one_line(at(name).dump()) + "; " + expected);
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
    refuse(full_name(other_name) + " is " + std::to_string(other) + ", but " + name + " is " + std::to_string(value) +
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
