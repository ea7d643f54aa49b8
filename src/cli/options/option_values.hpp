#pragma once

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"

namespace rometrace::cli {

/// Of what there can be several of: draws, layers, facts.
inline constexpr std::int64_t kMaxCount = std::int64_t{1} << 20;

/// A whole number in decimal digits, within [least, most]. CLI11's own reading takes "010" for eight.
template <typename Number>
std::function<void(const std::string&)> whole_number(const std::string& name, Number& number, std::int64_t least,
                                                     std::int64_t most) {
  return [=, &number](const std::string& text) {
    std::int64_t value = 0;
    const auto* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, value);
    if (error != std::errc() || stop != end || value < least || value > most) {
      throw CLI::ValidationError(name, in_quotes(text) + "; expected a whole number from " + std::to_string(least) +
                                           " to " + std::to_string(most));
    }
    number = static_cast<Number>(value);
  };
}

/// "state, mlp or attn"
template <typename Value>
std::string listed(std::initializer_list<Value> values) {
  std::string text;
  for (auto value = values.begin(); value != values.end(); ++value) {
    if (value != values.begin()) text += value + 1 == values.end() ? " or " : ", ";
    text += to_string(*value);
  }
  return text;
}

/// The value of this name. Throws CLI::ValidationError that lists what is known.
template <typename Value>
Value chosen(const std::string& option, const std::string& name, std::initializer_list<Value> values) {
  for (const auto value : values) {
    if (to_string(value) == name) return value;
  }
  throw CLI::ValidationError(option, in_quotes(name) + "; expected " + listed(values));
}

/// Appends what is not there yet.
template <typename Value>
void add_once(std::vector<Value>& values, Value value) {
  if (std::find(values.begin(), values.end(), value) == values.end()) values.push_back(value);
}

/// A whole text as a finite number above 0.
inline std::optional<double> read_positive(const std::string& text) {
  double value = 0;
  const auto* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stop != end || !(value > 0) || !std::isfinite(value)) return std::nullopt;
  return value;
}

/// The value that `read` gives; its errors begin with the option's name. What ends the work passes as it is.
template <typename Read>
auto named(const std::string& name, Read read) {
  try {
    return read();
  } catch (const EndOfWork&) {
    throw;
  } catch (const Error& error) {
    throw Error(name + ": " + error.what());
  }
}

}  // namespace rometrace::cli
